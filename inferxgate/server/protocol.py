"""uvicorn's HTTP protocol, with bounds on a request's head and the contract's JSON for what is not HTTP.

uvicorn itself takes heads of any length at any pace, and answers in plain text what it cannot parse. Its parser also
drops the body of a request that offers to switch to another protocol, as Java's HTTP client does with each of its first
requests (``Upgrade: h2c``). A server may ignore the offer, and this one makes its parser overlook it.

What becomes of a request and its answer is in ``cycle``.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from inferxgate.errors import INVALID_VALUE, GatewayError
from inferxgate.ids import new_id
from inferxgate.server.cycle import Cycle
from inferxgate.server.logs import RequestLine, log_request
from inferxgate.server.responses import error_response

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

HEAD_BYTES = 65_536
_MOST_WAITING = 8
"""Requests that a connection may send before the answer to an earlier one."""
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
    _running: RequestResponseCycle | None = None
    """The request that is being answered, or was last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._head_deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)
        if isinstance(self._running, Cycle):
            self._running.left()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = self._head_is_next = False
        version, scope = self.parser.get_http_version(), self.scope
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["state"]["connection"] = self.cycle
        if self._running is None or self._running.response_complete:
            self._start_asgi_task(self.cycle, self.app)
            return
        self.pipeline.appendleft(
            (self.cycle, self.app)
        )  # sent before the answer to the last one: it waits for its turn
        if len(self.pipeline) >= _MOST_WAITING:  # with a few, a client that leaves is seen to leave
            self.flow.pause_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

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
