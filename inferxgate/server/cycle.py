"""One request and its answer on a connection.

The ASGI way is here for everything that wants it (``receive``, ``send``). Beside it is a plainer one, without events
and without coroutines, for those who answer every call of every client: ``take_body``, ``begin``, ``write``,
``answer``. Whichever was taken, the head of an answer waits for the first bytes of its body, which come at once from
everything in here, so that both go out in one write.

Nobody has to wrap ``send``, which would cost something for each piece of each stream: the layers leave what they want
in the head (``added_lines``, ``further_lines``) and read afterwards what was sent (``status``, ``body_bytes``). And
whoever serves a request can have it cancelled when its client leaves (``cancels_with``), which costs nothing, where a
task that waits for it costs as much as parsing the request.

Header lines are whole: a name in lower case, a value, a line break. They are made by ``responses.header_line``, which
takes no value that could end the line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from inferxgate.server.responses import header_line

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Scope
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.server import ServerState

_NO_BODY = frozenset({204, 304})
_COPIED_BYTES = 64 * 1024
"""A larger body is written by itself: to put it behind its head would copy it."""

log = logging.getLogger("inferxgate.server")


class Flow(Protocol):
    """How much the client takes."""

    write_paused: bool
    """Whether more is waiting for the client than should."""

    async def drain(self) -> None:
        """Wait until less is."""


class Connection(Protocol):
    """What a request may know of the connection that it came on, and do with it."""

    flow: Flow
    more_body: bool
    """Whether a part of the request's body is still to come."""
    disconnected: bool
    """Whether it has ended already."""
    cancels_with: str | None
    """Not None: the request's task is cancelled with this message if the connection ends before the answer has."""
    client_left: bool
    """Whether that has happened."""
    added_lines: bytes
    """Header lines for the head of the answer, whatever it will be."""
    further_lines: Callable[[Scope], bytes] | None
    """Asked, when the answer begins, for the header lines that every answer has."""
    keep_alive: bool
    """Whether the connection outlives the answer."""
    status: int
    """Of the answer; 0 before it has begun."""
    body_bytes: int
    """How much of the answer's body was sent."""

    def take_body(self) -> bytes:
        """What has come of the request's body and was not taken yet."""

    def begin(self, status: int, lines: bytes, length: int | None = None) -> None:
        """Begin the answer. Without the body's length it is sent in chunks; a client that has left gets nothing."""

    def write(self, body: bytes, *, last: bool = False) -> None:
        """A piece of the answer's body, whether or not the client takes what is waiting (``flow`` knows)."""

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """The whole answer."""


def connection_of(scope: Scope) -> Connection:
    """The connection of a request that ``GatewayProtocol`` has taken."""
    return cast(Connection, scope["state"]["connection"])


class Cycle:
    """The cycle of one request."""

    more_body = True
    disconnected = False
    cancels_with: str | None = None
    client_left = False
    added_lines: bytes = b""
    further_lines: Callable[[Scope], bytes] | None = None
    status = 0
    body_bytes = 0
    complete = False
    """Whether the answer is."""
    task: asyncio.Task[None] | None = None
    """The one that runs the request."""
    _body: bytes = b""
    _more: list[bytes] | None = None
    """What came after ``_body``, until somebody takes it."""
    _waiting_bytes = 0
    _news = False
    """Whether there is something to receive."""
    _receiver: asyncio.Future[None] | None = None
    _head: bytes = b""
    """What of the answer's head has not gone out yet."""
    _chunked = False
    _flowing = False
    """Whether pieces of the body can go out as they come: in chunks, behind a head that is out."""
    _left_to_write: int | None = None
    """How much of the body the head has promised and is not written yet; None where it has promised no length."""

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        transport: asyncio.Transport,
        flow: FlowControl,
        server_state: ServerState,
        on_complete: Callable[[], None],
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        """``expects_continue``: the client sends the body when it is told to."""
        self.scope = scope
        self.flow = flow
        self.keep_alive = keep_alive
        self._transport = transport
        self._server_state = server_state
        self._on_complete = on_complete
        self._expects_continue = expects_continue

    async def run(self, app: ASGIApp) -> None:
        """Have the request answered. Whatever the application does, the connection is in order afterwards."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass  # the end of a shutdown, of which the application has told the client if it could
        except Exception:  # its own last resort has failed: nobody is left to handle it
            log.exception("a request failed, and so did the handling of that")
        if not self.complete and not self.disconnected:
            self.keep_alive = False
            if self.status:
                self._transport.close()
            else:
                self.further_lines = None  # it may be what has failed
                self.answer(500, b"content-type: text/plain; charset=utf-8\r\n", b"Internal Server Error")
        self.scope["state"].pop("connection", None)  # else the two would hold each other until the collector comes
        self._server_state.tasks.discard(self.task)

    def left(self) -> None:
        """The connection has ended."""
        if self.complete:
            return
        self.disconnected = True
        self._flowing = False
        self._wake()
        if self.cancels_with is not None and self.task is not None:
            self.client_left = True
            self.task.cancel(self.cancels_with)
            self.cancels_with = None

    def body_came(self, piece: bytes) -> None:
        """A part of the request's body."""
        if self._more is not None:
            self._more.append(piece)
        elif self._body:
            self._more = [self._body, piece]
        else:
            self._body = piece
        self._waiting_bytes += len(piece)
        if self._waiting_bytes > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self._news = True
        if self._receiver is not None:
            self._wake()

    def body_ended(self) -> None:
        self.more_body = False
        self._news = True
        if self._receiver is not None:
            self._wake()

    def take_body(self) -> bytes:
        if self._waiting_bytes > HIGH_WATER_LIMIT:  # else nobody would read that the client leaves
            self.flow.resume_reading()
        body = self._body if self._more is None else b"".join(self._more)
        self._body, self._more, self._waiting_bytes, self._news = b"", None, 0, False
        return body

    async def receive(self) -> Message:
        """One ASGI event: a part of the body, or that the client has left."""
        if self._expects_continue:
            self._expects_continue = False
            if not self._transport.is_closing():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self._news or self.disconnected or self.complete):
            if self.more_body:
                self.flow.resume_reading()
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.take_body(), "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """One ASGI event. Raises ``RuntimeError`` for one out of place and for a wrong length, and ``ValueError`` for a
        header that no head can hold.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self.begin(message["status"], *self._lines(message.get("headers", ())))
        elif message["type"] == "http.response.body":
            self.write(message.get("body", b""), last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} has no place in an answer")

    def begin(self, status: int, lines: bytes, length: int | None = None) -> None:
        if self.status:
            raise RuntimeError("the answer has begun already")
        further = b"" if self.further_lines is None else self.further_lines(self.scope)
        self.status = status
        self._expects_continue = False
        bodiless = status in _NO_BODY or self.scope["method"] == "HEAD"
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        elif bodiless:
            framing = b""
        elif self.scope["http_version"] == "1.0":  # which knows no chunks: the body lasts until the connection ends
            framing, self.keep_alive = b"", False
        else:
            framing, self._chunked = b"transfer-encoding: chunked\r\n", True
        self._left_to_write = 0 if bodiless else length
        self._head = b"".join(
            (
                STATUS_LINE[status],
                _standing_lines(self._server_state.default_headers),
                lines,
                self.added_lines,
                further,
                framing,
                b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n",
            )
        )

    def write(self, body: bytes, *, last: bool = False) -> None:
        if self._flowing and body and not last:
            size = len(body)
            self.body_bytes += size
            self._transport.write(b"%x\r\n%b\r\n" % (size, body))
            return
        if self.disconnected:
            return
        if not self.status or self.complete:
            raise RuntimeError("a body comes between the head of an answer and its end")
        if self.scope["method"] != "HEAD":
            self.body_bytes += len(body)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                data += b"0\r\n\r\n"
        elif self._left_to_write is None:
            data = body
        elif self.scope["method"] == "HEAD":
            data = b""
        else:
            data = body
            self._left_to_write -= len(body)
            if self._left_to_write < 0 or (last and self._left_to_write):
                raise RuntimeError("the answer has another length than its head says")
        if self._head:
            if len(data) > _COPIED_BYTES:
                self._transport.write(self._head)
            else:
                data = self._head + data
            self._head = b""
            self._flowing = self._chunked
        if data:
            self._transport.write(data)
        if last:
            self.complete = True
            self._flowing = False
            if self._receiver is not None:
                self._wake()
            if not self.keep_alive:
                self._transport.close()
            self._on_complete()

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        if not self.disconnected:
            self.begin(status, lines, len(body))
            self.write(body, last=True)

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _lines(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int | None]:
        """Headers as lines, and the length that one of them tells."""
        lines = []
        length: int | None = None
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
            else:
                lines.append(header_line(name, value))
        return b"".join(lines), length


_standing: tuple[object, bytes] = (None, b"")
"""The server's own headers, which it makes anew once a second, and their lines."""


def _standing_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    global _standing  # noqa: PLW0603 - a cache of one
    made_of, lines = _standing
    if made_of is not headers:
        lines = b"".join(header_line(name, value) for name, value in headers)
        _standing = headers, lines
    return lines
