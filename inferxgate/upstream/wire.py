"""HTTP/1.1 on one connection: what goes out, what comes back, and when to give up.

``Connection`` is what the loop calls; httptools (llhttp) reads the responses. ``Exchange`` is what a reader of one
response waits on. An exchange ends with the last byte of its response: from then on it holds the rest of the body by
itself, and the connection is free for another.

What llhttp leaves to its caller is decided here: which transfer encodings there are, where a body without a length
ends, how long a head may be, and that a connection on which more came than was asked for is not used again.

No exception leaves this module: how an exchange failed stands in ``Exchange.failure``, and whoever waits puts it into
words.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Hashable
from typing import Literal, Protocol, cast

import httptools

from inferxgate.values import dataclass

NEVER = float("inf")

_IDLE_SECONDS = 45.0
"""Under the idle limits in common use: 60 s of AWS load balancers, 75 s of nginx. Servers with less (5 s of uvicorn and
Node.js) close first, which is seen."""
_PIECE_BYTES = 256 * 1024
"""Larger bodies go out in pieces, so that copying and encrypting them keeps nobody waiting."""
_WAITING_BYTES = 256 * 1024
"""Of a body that nobody takes; what comes after it stays with the provider."""
_HEADERS = 128
_HEADER_BYTES = 32 * 1024
"""For one header."""
_BARREN_BYTES = 128 * 1024
"""The most that may come without a byte of a body: heads, trailers, what stands beside the sizes of chunks."""
_SWITCHING_PROTOCOLS = 101  # never asked for, and nothing after it is HTTP
_HEAD, _BODY, _OVER = range(3)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an exchange ended before its response did."""

    kind: Literal["ended", "not http", "overdue"]
    cause: Exception | None = None
    """What the system said of a connection that ended."""
    by: float = NEVER
    """By the loop's time, when what is overdue should have come."""


ENDED = Failure("ended")
NOT_HTTP = Failure("not http")


class Home(Protocol):
    """Where connections are while nobody uses them."""

    def opened(self, connection: Connection) -> None:
        """There is one more."""

    def freed(self, connection: Connection) -> None:
        """It can be used for another exchange."""

    def lost(self, connection: Connection) -> None:
        """It has ended."""


class Exchange:
    """One response, as far as it has come."""

    __slots__ = (
        "_connection",
        "_open",
        "_pieces",
        "_size",
        "_waiter",
        "_wanted",
        "bodyless",
        "ended",
        "failure",
        "idle_seconds",
        "raw_headers",
        "status",
        "total_at",
    )

    def __init__(self, connection: Connection, *, bodyless: bool, idle_seconds: float, total_at: float) -> None:
        """``bodyless``: the request was one whose answer is a head alone. ``total_at``: when all is to be over."""
        self._connection = connection
        self._open = True
        """Whether the connection is this one's: until the response ends, in whatever way."""
        self.bodyless = bodyless
        self.idle_seconds = idle_seconds
        self.total_at = total_at
        self.status = 0
        """0 until the head has come."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        """Names in lower case."""
        self.ended = False
        """Whether all has come, of which some may wait here."""
        self.failure: Failure | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    # ------------------------------------------------------------------ for the reader

    def header(self, name: bytes) -> str:
        """The value of one header; of a repeated one, the values joined with a comma; nothing where it did not come."""
        values = [value for each, value in self.raw_headers if each == name]
        return b", ".join(values).decode("utf-8", "surrogateescape")

    async def head(self, by: float) -> None:
        """Return once ``status`` is known, or ``failure`` is."""
        if not (self.status or self.failure is not None):
            await self._wait(0, by)

    async def some(self) -> bytes:
        """What has come of the body, once something has. Nothing: it is over, and ``failure`` says how."""
        if not (self._size or self.ended or self.failure is not None):
            await self._wait(1, self._silent_at())
        return self._take()

    async def all(self, limit: int) -> bytes | None:
        """The whole body. None where it is longer than ``limit``, or failed."""
        if not (self._size > limit or self.ended or self.failure is not None):
            self._resume()
            await self._wait(limit + 1, self._silent_at())
        return self._take() if self.ended and self._size <= limit else None

    def cut(self) -> None:
        """End the connection now, whatever waits to be written to it. After the end of the response: nothing."""
        if self._open:
            self._connection.cut(ENDED)

    async def _wait(self, wanted: int, by: float) -> None:
        connection = self._connection
        self._wanted = wanted
        self._waiter = connection.waiter()
        connection.due(by)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if self._open:  # a reader that takes its time is not the provider's silence
                connection.due(self.total_at)

    def _take(self) -> bytes:
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        self._size = 0
        self._resume()
        return data

    def _resume(self) -> None:
        if self._open:
            self._connection.resume_reading()

    def _silent_at(self) -> float:
        """When the silence will have been too long, if nothing comes from now on; or when the total is used up."""
        return min(self._connection.now() + self.idle_seconds, self.total_at)

    # ------------------------------------------------------------------ for the connection

    def add(self, pieces: list[bytes]) -> None:
        """Of the body, all that one read brought."""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces.append(data)
        self._size += len(data)

    def was_read(self, *, of_body: bool) -> None:
        """Something was read, and it was not the last. Wakes whoever has waited for it."""
        if self._waiter is not None:
            if not self.status or self._size < self._wanted:
                if of_body:
                    self._connection.due(self._silent_at())
                return
            self._wake()
        if self._size >= _WAITING_BYTES:
            self._connection.pause_reading()

    def over(self, failure: Failure | None) -> None:
        """Nothing comes any more."""
        self._open = False
        self.ended = failure is None
        self.failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Unfit(Exception):
    """A head that llhttp takes and we do not; it ends as an error of the parser's."""


class Connection(asyncio.Protocol):
    """One connection, and the exchange that is under way on it."""

    __slots__ = (
        "_barren",
        "_deadline",
        "_early",
        "_exchange",
        "_fresh",
        "_has_something",
        "_home",
        "_keep",
        "_loop",
        "_parser",
        "_paused",
        "_raw_headers",
        "_room",
        "_stage",
        "_timer",
        "_timer_at",
        "_transport",
        "_unsent",
        "_until_close",
        "place",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, home: Home, place: Hashable) -> None:
        """``place``: where it leads, for ``home``."""
        self.place = place
        self._loop = loop
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._exchange: Exchange | None = None
        self._stage = _HEAD
        self._raw_headers: list[tuple[bytes, bytes]] = []
        self._fresh: list[bytes] = []
        self._until_close = False
        self._keep = True
        self._barren = 0
        self._early: bytes | None = b""
        """What was said on a new connection before anything was asked; None once something was."""
        self._unsent: memoryview | None = None
        self._room = True
        self._paused = False
        self._deadline = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._has_something: Callable[[], bool] | None = None

    # ------------------------------------------------------------------ for the exchange and the pool

    def ask(
        self, head: bytes, body: bytes, *, bodyless: bool, last: bool, idle_seconds: float, total_at: float
    ) -> Exchange:
        """Send a request. ``last``: it says that the connection ends with it."""
        self._stage, self._keep, self._barren, self._raw_headers = _HEAD, not last, 0, []
        exchange = Exchange(self, bodyless=bodyless, idle_seconds=idle_seconds, total_at=total_at)
        transport = self._transport
        if transport is None or transport.is_closing():
            exchange.over(ENDED)
            return exchange
        self._exchange = exchange
        if len(body) <= _PIECE_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            self._unsent = memoryview(body)
            self._send_on()
        early, self._early = self._early, None
        if early:
            self.data_received(early)
        return exchange

    def is_fit(self) -> bool:
        """Whether a connection that nobody used is open, and has nothing to say.

        An idle connection has nothing to say, so if something has arrived, it is the farewell (or nonsense). The loop
        may not have seen it yet, so the system is asked.
        """
        transport = self._transport
        return transport is not None and not transport.is_closing() and not self._is_readable(transport)

    def cut(self, failure: Failure) -> None:
        """End it now. Nothing is flushed, no TLS farewell is waited for, and the other side sees it at once."""
        exchange, self._exchange = self._exchange, None
        self._unsent = None
        if exchange is not None:
            exchange.over(failure)
        if self._transport is not None:
            self._transport.abort()

    def now(self) -> float:
        return self._loop.time()

    def waiter(self) -> asyncio.Future[None]:
        return self._loop.create_future()

    def due(self, at: float) -> None:
        """Give up at ``at``, unless told otherwise by then. One timer serves all of these: it looks, and sets itself
        again, so that moving the time on costs an assignment."""
        self._deadline = at
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._look_at_the_clock)

    def pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # ------------------------------------------------------------------ the loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are so without being its children
        self._parser = httptools.HttpResponseParser(self)
        self._home.opened(self)
        # Lines that end without CR and spaces after a chunk's size are wrong, and some servers send them.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or self._parser is None:
            self._hear_unasked(data)
            return
        broken = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            broken = True
        fresh = self._fresh
        if fresh:
            self._fresh, self._barren = [], 0
            exchange.add(fresh)
        else:
            self._barren += len(data)
        if self._stage == _OVER:
            self._finish(exchange, keep=self._keep and not broken)
        elif broken or self._barren > _BARREN_BYTES:
            self.cut(NOT_HTTP)
        else:
            exchange.was_read(of_body=bool(fresh))

    def _hear_unasked(self, data: bytes) -> None:
        """Some answer before they are asked, with their name or a refusal: the first exchange is told."""
        if self._early is None or len(self._early) > _BARREN_BYTES:
            self.cut(ENDED)
        else:
            self._early += data

    def eof_received(self) -> None:
        self._end(None)
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._transport = self._parser = self._has_something = self._unsent = None
        self._home.lost(self)

    def pause_writing(self) -> None:
        self._room = False

    def resume_writing(self) -> None:
        self._room = True
        self._send_on()

    # ------------------------------------------------------------------ the parser's calls

    def on_message_begin(self) -> None:
        if self._stage == _OVER:  # more than was asked for
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage == _HEAD:
            if len(self._raw_headers) >= _HEADERS or len(name) + len(value) > _HEADER_BYTES:
                raise _Unfit
            self._raw_headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, exchange = self._parser, self._exchange
        if self._stage != _HEAD or parser is None or exchange is None:
            return
        status, headers = parser.get_status_code(), self._raw_headers
        if status < 200:
            if status < 100 or status == _SWITCHING_PROTOCOLS:
                raise _Unfit
            self._raw_headers = []
            return
        self._until_close = _is_until_close(headers, parser.get_http_version())
        exchange.status, exchange.raw_headers = status, headers
        self._stage = _BODY
        if exchange.bodyless:
            self._stage, self._keep = _OVER, False

    def on_body(self, data: bytes) -> None:
        if self._stage == _BODY:
            self._fresh.append(data)

    def on_message_complete(self) -> None:
        if self._stage == _BODY and self._parser is not None:
            self._stage = _OVER
            self._keep = self._keep and self._parser.should_keep_alive()

    # ------------------------------------------------------------------ ends

    def _finish(self, exchange: Exchange, *, keep: bool) -> None:
        """The response is complete. ``keep``: both sides want to go on, and nothing else came."""
        self._exchange = None
        exchange.over(None)
        if keep and self._room and self._unsent is None and self._transport is not None:
            self.resume_reading()
            self.due(self._loop.time() + _IDLE_SECONDS)
            self._home.freed(self)
        else:
            self.cut(ENDED)

    def _end(self, cause: Exception | None) -> None:
        """The other side has ended the connection, or it broke."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            whole = cause is None and self._stage == _BODY and self._until_close
            exchange.over(None if whole else Failure("ended", cause))

    def _look_at_the_clock(self) -> None:
        self._timer, self._timer_at = None, NEVER
        if self._deadline <= self._loop.time():
            self.cut(Failure("overdue", by=self._deadline))
        elif self._deadline < NEVER:
            self.due(self._deadline)

    def _send_on(self) -> None:
        """The next piece of a large body, whenever there is room for it."""
        unsent, transport = self._unsent, self._transport
        if unsent is None or not self._room or transport is None or transport.is_closing():
            return
        piece, rest = unsent[:_PIECE_BYTES], unsent[_PIECE_BYTES:]
        self._unsent = rest or None
        transport.write(piece)
        if rest and self._room:
            self._loop.call_soon(self._send_on)

    def _is_readable(self, transport: asyncio.Transport) -> bool:
        if self._has_something is None:
            held = transport.get_extra_info("socket")
            if held is None:
                return True
            self._has_something = _readable(held.fileno())
        return self._has_something()


if hasattr(select, "poll"):

    def _readable(handle: int) -> Callable[[], bool]:
        """Whether there is something to be read from a socket, now."""
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return lambda: bool(poll.poll(0))

else:  # Windows

    def _readable(handle: int) -> Callable[[], bool]:
        return lambda: bool(select.select([handle], [], [], 0)[0])


def _is_until_close(headers: list[tuple[bytes, bytes]], version: str) -> bool:
    """Whether a body lasts until the connection is closed. Raises ``_Unfit`` for what is not HTTP/1.x as we ask it."""
    if version not in ("1.1", "1.0"):
        raise _Unfit
    encodings = [value.strip(b" \t") for name, value in headers if name == b"transfer-encoding"]
    if encodings:
        if len(encodings) > 1 or encodings[0].lower() != b"chunked" or version == "1.0":
            raise _Unfit
        return False
    return not any(name == b"content-length" for name, _ in headers)
