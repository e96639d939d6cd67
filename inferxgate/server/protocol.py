"""uvicorn's HTTP protocol, with bounds on a request's head and the contract's JSON for what is not HTTP.

uvicorn itself takes heads of any length at any pace, and answers in plain text what it cannot parse. Its parser also
drops the body of a request that offers to switch to another protocol, as Java's HTTP client does with each of its first
requests (``Upgrade: h2c``). A server may ignore the offer, and this one makes its parser overlook it.

What a connection usually does costs little: a client that asks for the same path again has it parsed once, and one
timer a connection watches for its idleness, where one a request would have to be made and cancelled.

What becomes of a request and its answer is in ``cycle``.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inferxgate.errors import INVALID_VALUE, GatewayError
from inferxgate.ids import new_id
from inferxgate.server.cycle import Cycle
from inferxgate.server.logs import RequestLine, log_request
from inferxgate.server.responses import error_response

HEAD_BYTES = 65_536
_MOST_WAITING = 8
"""With so many requests sent ahead of their turn, no more is read until fewer wait."""
_MOST_FOLLOWING = 64
"""More than this end the connection: one read can bring thousands, and who sends them waits for no answers."""
_VERSIONS = frozenset({"1.0", "1.1"})
_UPGRADE = re.compile(rb"(?<=\r\n)u(?=pgrade[ \t]*:)", re.IGNORECASE)


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    head_seconds = 30.0
    """How long a client may take from its first byte, or from connecting, to the end of the head."""

    _in_head = True
    _head_is_next = True
    """Whether what comes next from the client belongs to a head."""
    _heads = 0
    """How many have begun."""
    _head_bytes = 0
    _deaf = False
    """Whether nothing more is heard: what follows would be taken for something that it is not."""
    _head_deadline: asyncio.TimerHandle | None = None
    _taken: Cycle | None = None
    """The request that came last."""
    _running: Cycle | None = None
    """The request that is being answered, or was last."""
    _idle_since: float | None = None
    """Since when the client owes the next request; None while it does not."""
    _idle_timer: asyncio.TimerHandle | None = None
    _asked: tuple[bytes, str, bytes, bytes] = (b"", "", b"", b"")
    """The target of the last request, and what it means: path, path as it came, query."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._following: deque[Cycle] = deque()
        self._asgi = {"version": self.asgi_version, "spec_version": "2.3"}
        self._head_deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._end_deadline()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._running is not None:
            self._running.left()
        self._taken = self._running = None
        self._following.clear()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]  # the two hold each other

    def on_message_begin(self) -> None:
        self._idle_since = None
        self._in_head = True
        self._heads += 1
        self._head_bytes = 0
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        self._in_head = self._head_is_next = False
        parser = self.parser
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError(f"HTTP/{version} is not spoken here")
        if self.transport.is_closing():
            return
        if self.url != self._asked[0]:
            self._asked = _parsed(self.url)
        _, path, raw_path, query = self._asked
        state = self.app_state.copy()
        scope = {
            "type": "http",
            "asgi": self._asgi,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": state,
        }
        cycle = self._taken = state["connection"] = Cycle(
            scope,
            self.transport,
            self.flow,
            self.server_state,
            self.on_response_complete,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects_continue=self.expect_100_continue,
        )
        if self._running is None or self._running.complete:
            self._start(cycle)
            return
        self._following.append(cycle)  # sent before the answer to the last one: it waits for its turn
        if len(self._following) > _MOST_FOLLOWING:
            self.transport.close()
        elif len(self._following) >= _MOST_WAITING:  # with a few, a client that leaves is seen to leave
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._taken is not None and not self._taken.complete:
            self._taken.body_came(body)

    def on_message_complete(self) -> None:
        self._head_is_next = True
        if self._taken is not None and not self._taken.complete:
            self._taken.body_ended()
        elif not self._following:
            self._await_request()  # it was answered before it had come

    def on_response_complete(self) -> None:
        """The last bytes of an answer were written."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        following = self._following.popleft() if self._following else None
        if self.flow.read_paused and len(self._following) < _MOST_WAITING:
            self.flow.resume_reading()
        if following is not None:
            self._start(following)
            return
        self._await_request()

    def shutdown(self) -> None:
        """Close when what is under way is answered."""
        if self._taken is None or self._taken.complete:
            self.transport.close()
        else:
            self._taken.keep_alive = False

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        heads, head_was_next = self._heads, self._head_is_next
        if self._head_is_next:
            end = data.find(b"\r\n\r\n")  # a body may be long, and is not looked through
            end = len(data) if end < 0 else end
            if data.find(b"pgrade", 0, end) >= 0 or data.find(b"PGRADE", 0, end) >= 0:
                data = _UPGRADE.sub(b"x", data[:end]) + data[end:]
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # CONNECT, which no route takes, or an offer that was overlooked in vain. The parser has let go of the
            # request's body, and would take it for the next request.
            self._deaf = True
            self._end_deadline()
            if self._taken is not None and not self._taken.complete:
                self._taken.keep_alive = False
                self._taken.body_ended()
            return
        except httptools.HttpParserError:
            self._refuse(400, "This is not a valid HTTP/1.1 request.")
        if not self._in_head:
            if self._head_deadline is not None:
                self._end_deadline()
            return
        if self._heads - heads <= head_was_next:  # else it began somewhere within
            self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431, f"The request's head is larger than {HEAD_BYTES // 1024} kB.")
        elif self._head_deadline is None and not self.transport.is_closing():
            self._head_deadline = self.loop.call_later(self.head_seconds, self._too_slow)

    def _start(self, cycle: Cycle) -> None:
        self._running = cycle
        cycle.task = self.loop.create_task(cycle.run(self.app))
        self.tasks.add(cycle.task)

    def _await_request(self) -> None:
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        """Close a connection that has been idle for long enough; else come back when it may have been."""
        self._idle_timer = None
        if self._idle_since is None or self.transport.is_closing():
            return  # the next answer's end arms the timer
        remaining = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if remaining <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(remaining, self._look_whether_idle)

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
        return self._taken is not None and not self._taken.complete

    def _too_slow(self) -> None:
        self._head_deadline = None
        if self._answering():  # the head is that of a request which has to wait for the answer's end anyway
            self._head_deadline = self.loop.call_later(self.head_seconds, self._too_slow)
            return
        if not self.transport.is_closing():
            self.transport.close()

    def _end_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None


def _parsed(target: bytes) -> tuple[bytes, str, bytes, bytes]:
    """What a request asks for; raises what makes the parser say that it is not HTTP."""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    return target, unquote(path) if "%" in path else path, url.path, url.query or b""
