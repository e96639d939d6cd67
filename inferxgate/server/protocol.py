"""uvicorn's HTTP protocol, with bounds on a request's head and the contract's JSON for what is not HTTP.

uvicorn itself takes heads of any length at any pace, and answers in plain text what it cannot parse. Its parser also
drops the body of a request that offers to switch to another protocol, as Java's HTTP client does with each of its first
requests (``Upgrade: h2c``). A server may ignore the offer, and this one makes its parser overlook it.
"""

from __future__ import annotations

import asyncio
import re

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from inferxgate.errors import INVALID_VALUE, GatewayError
from inferxgate.ids import new_id
from inferxgate.server.logs import RequestLine, log_request
from inferxgate.server.responses import error_response

HEAD_BYTES = 65_536
_UPGRADE = re.compile(rb"(?<=\r\n)u(?=pgrade[ \t]*:)", re.IGNORECASE)


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = 30.0
    """How long a client may take from its first byte, or from connecting, to the end of the head."""

    _in_head = True
    _head_is_next = True
    """Whether what comes next from the client belongs to a head."""
    _head_bytes = 0
    _head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head_deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = self._head_is_next = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._head_is_next = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._head_is_next and (b"pgrade" in data or b"PGRADE" in data):
            head, end, body = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"x", head) + end + body
        super().data_received(data)
        if not self._in_head:
            if self._head_deadline is not None:
                self._end_deadline()
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The request's head is larger than {HEAD_BYTES // 1024} kB.")
        elif self._head_deadline is None and not self.transport.is_closing():
            self._head_deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "This is not a valid HTTP/1.1 request.")

    def _refuse(self, status: int, message: str) -> None:
        """Answer what never becomes a request, and close."""
        if self.transport.is_closing():
            return
        if not self._answering():  # else this would land in the midst of another answer
            request_id = new_id("req_")
            error = GatewayError(INVALID_VALUE, message, status=status)
            _, headers, body = error_response(error, request_id)
            lines = [
                *headers,
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
                (b"x-request-id", request_id.encode()),
            ]
            head = b"".join(b"%b: %b\r\n" % line for line in [*self.server_state.default_headers, *lines])
            self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
            client = self.client[0] if self.client else "unknown"
            log_request(RequestLine(request_id, client, "-", "-", status, 0.0, len(body), None, None))
        self.transport.close()

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn's types say
        return cycle is not None and not cycle.response_complete

    def _too_slow(self) -> None:
        self._head_deadline = None
        if not self.transport.is_closing():
            self.transport.close()

    def _end_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
