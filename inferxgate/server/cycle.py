"""One request and its answer on a connection: uvicorn's cycle, with the head and the body in one write.

Some things are ours. The head of an answer waits for the first bytes of its body, which come at once from everything
in here, so that both go out together. Header names are taken to be in lower case and are not searched one by one for
what cannot stand in them: the head as a whole is. Whoever serves a request can have itself called when the client
leaves (``on_leaving``), which costs nothing, where a task that waits for it costs as much as parsing the request. And
the outermost layer adds its headers, and reads what was sent, here (``further_headers``, ``status``, ``body_bytes``): a
function around ``send`` would be called for every piece of every stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from inferxgate.server.responses import Headers

if TYPE_CHECKING:
    from starlette.types import Scope
    from uvicorn._types import ASGISendEvent

_NO_BODY = frozenset({204, 304})


class Connection(Protocol):
    """What a request may know of the connection that it came on."""

    more_body: bool
    """Whether a part of the request's body is still to come."""
    disconnected: bool
    """Whether it has ended already."""
    on_leaving: Callable[[], None] | None
    """Called once if the connection ends before the answer has."""
    further_headers: Callable[[], Headers] | None
    """Asked, when the answer begins, for the headers that every answer has."""
    status: int
    """Of the answer; 0 before it has begun."""
    body_bytes: int
    """How much of the answer's body was sent."""


def connection_of(scope: Scope) -> Connection:
    """The connection of a request that ``GatewayProtocol`` has taken."""
    return cast(Connection, scope["state"]["connection"])


class Cycle(RequestResponseCycle):
    """The cycle of one request."""

    on_leaving: Callable[[], None] | None = None
    further_headers: Callable[[], Headers] | None = None
    status = 0
    body_bytes = 0
    _head: bytes = b""
    """What of the answer's head has not gone out yet."""
    _plain = False
    """Whether the body's length is told beforehand."""

    async def send(self, message: ASGISendEvent) -> None:
        """One ASGI event. Raises ``RuntimeError`` for a header that no head can hold, and for a wrong length."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            if self.response_started:
                raise RuntimeError("the answer has begun already")
            self.response_started = True
            self.waiting_for_100_continue = False
            headers = list(message.get("headers", ()))
            if self.further_headers is not None:
                headers += self.further_headers()
            self.status = message["status"]
            self._head = self._build_head(self.status, headers)
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._write(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} has no place in the answer now")

    def left(self) -> None:
        """The connection has ended."""
        if self.response_complete:
            return
        self.disconnected = True
        self.message_event.set()
        on_leaving, self.on_leaving = self.on_leaving, None
        if on_leaving is not None:
            on_leaving()

    def _build_head(self, status: int, headers: Headers) -> bytes:
        lines = [STATUS_LINE[status]]
        length: int | None = None
        closes = False
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and b"close" in value.lower():
                closes = True
            lines.append(b"%b: %b\r\n" % (name, value))
        bodiless = self.scope["method"] == "HEAD" or status in _NO_BODY
        self._plain = bodiless or length is not None
        self.expected_content_length = 0 if bodiless else length or 0
        if not self._plain:
            if self.scope["http_version"] == "1.0":  # which knows no chunks: the body lasts until the connection ends
                self.keep_alive = False
            else:
                lines.append(b"transfer-encoding: chunked\r\n")
        self.chunked_encoding = not self._plain and self.scope["http_version"] != "1.0"
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a header of the answer has a line break in it")
        return head + b"\r\n"

    def _write(self, body: bytes, *, last: bool) -> None:
        head, self._head = self._head, b""
        self.body_bytes += len(body)
        if self.chunked_encoding:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(head + framed + b"0\r\n\r\n" if last else head + framed)
        else:
            if self._plain:
                body = self._counted(body, last=last)
            if len(body) > _COPIED_BYTES:
                self.transport.write(head)
                self.transport.write(body)
            elif head or body:
                self.transport.write(head + body)
        if last:
            self._complete()

    def _counted(self, body: bytes, *, last: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            return b""
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (last and self.expected_content_length):
            raise RuntimeError("the answer has another length than its head says")
        return body

    def _complete(self) -> None:
        self.response_complete = True
        self.on_leaving = None
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


_COPIED_BYTES = 64 * 1024
"""A larger body is written by itself: to put it behind its head would copy it."""
