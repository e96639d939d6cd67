"""HTTP/1.1 to the letter: what is taken for a response, what is not, and which connections are used again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError
from inferxgate.upstream.http import HttpUpstream
from inferxgate.upstream.protocol import HttpRequest
from inferxgate.upstream.wire import NEVER, Connection, Exchange
from tests.support.provider import HANG, FakeProvider, Reply

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LIMIT = 10**8


async def asked(upstream: HttpUpstream, provider: FakeProvider) -> tuple[int, bytes]:
    response = await upstream.send(HttpRequest("POST", f"{provider.url}/v1", {}, b"{}"))
    try:
        return response.status, await response.read(limit=LIMIT)
    finally:
        await response.close()


# ---------------------------------------------------------------------------------------------------- to the letter

TAKEN = {
    "lines that end in LF alone": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", True),
    "no words for the status": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", True),
    "an empty line before it": (b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
    "an upgrade that was offered": (OK + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nok", True),
    "a header in Latin-1": (OK + b"x: \xe4\r\ncontent-length: 2\r\n\r\nok", True),
    "an empty header": (OK + b"x:\r\ncontent-length: 2\r\n\r\nok", True),
    "a space after a chunk's size": (CHUNKED + b"2 \r\nok\r\n0\r\n\r\n", True),
    "zeros before a chunk's size": (CHUNKED + b"00002\r\nok\r\n000\r\n\r\n", True),
    "extensions of chunks": (CHUNKED + b'2;a=b;c="d e"\r\nok\r\n0;f\r\n\r\n', True),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\nx-checksum: 1\r\n\r\n", True),
    "the encoding in another case": (OK + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
    "several that are no answer yet": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\na: b\r\n\r\n" + CHUNKED
        + b"2\r\nok\r\n0\r\n\r\n", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", False),
    "HTTP/1.0 that goes on": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", True),
    "the last of its connection": (OK + b"connection: x, close\r\ncontent-length: 2\r\n\r\nok", False),
    "more than was asked for": (OK + b"content-length: 2\r\n\r\nok" + OK + b"content-length: 4\r\n\r\nevil", False),
    "the beginning of more": (OK + b"content-length: 2\r\n\r\nokH", False),
    "nonsense after the end": (OK + b"content-length: 2\r\n\r\nok\0", False),
    "nonsense after the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n0\r\n\r\n", False),
    "more after the last of its connection": (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok" + OK, False),
}  # fmt: skip
"""What is a response with the body ``ok``, and whether its connection can be used again."""


@pytest.mark.parametrize(("raw", "goes_on"), TAKEN.values(), ids=list(TAKEN))
async def test_what_is_taken_for_a_response(
    upstream: HttpUpstream, provider: FakeProvider, raw: bytes, goes_on: bool
) -> None:
    provider.reply(Reply((raw,)))
    assert await asked(upstream, provider) == (200, b"ok")
    provider.reply(Reply((OK + b"content-length: 6\r\n\r\nsecond",)))
    assert await asked(upstream, provider) == (200, b"second")
    assert provider.connections == (1 if goes_on else 2)


REFUSED = {
    "a length and chunks": OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "a length in the trailers": CHUNKED + b"0\r\ncontent-length: 5\r\n\r\n",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 5\r\n\r\nok",
    "one length twice": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\nok",
    "a length with a sign": OK + b"content-length: +2\r\n\r\nok",
    "a negative length": OK + b"content-length: -2\r\n\r\nok",
    "an empty length": OK + b"content-length:\r\n\r\nok",
    "a length beyond 64 bits": OK + b"content-length: 99999999999999999999\r\n\r\nok",
    "a transfer encoding that nobody asked for": OK + b"transfer-encoding: gzip\r\n\r\nok",
    "two of them": OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two of them, chunked first": OK + b"transfer-encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two of them in two lines": OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "nearly chunked": OK + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": OK + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\n",
    "a chunk of negative size": CHUNKED + b"-2\r\nok\r\n",
    "a chunk's size with a prefix": CHUNKED + b"0x2\r\nok\r\n",
    "a chunk without a size": CHUNKED + b"\r\nok\r\n",
    "a chunk that is longer than it says": CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP in lower case": b"http/1.1 200 OK\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four": b"HTTP/1.1 2000 OK\r\n\r\n",
    "the status 0": b"HTTP/1.1 000 OK\r\n\r\n",
    "the status 99": b"HTTP/1.1 099 OK\r\n\r\n",
    "another protocol without a word": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "a header over two lines": OK + b"a: b\r\n c\r\n\r\n",
    "a NUL in a header": OK + b"a: b\0c\r\n\r\n",
    "a CR in a header": OK + b"a: b\rc\r\n\r\n",
    "a header without a name": OK + b": b\r\n\r\n",
    "a line without end": OK + b"a" * 300_000,
    "a header without end": OK + b"a: " + b"b" * 300_000,
    "words without end": b"HTTP/1.1 200 " + b"O" * 300_000,
    "no answer without end": b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" * 10_000,
    "trailers without end": CHUNKED + b"0\r\n" + b"a: b\r\n" * 50_000,
    "a trailer without end": CHUNKED + b"0\r\na: " + b"b" * 300_000,
    "an extension without end": CHUNKED + b"2;" + b"a" * 300_000,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=list(REFUSED))
async def test_what_is_not_a_response_is_refused_and_its_connection_cut(
    upstream: HttpUpstream, provider: FakeProvider, raw: bytes
) -> None:
    provider.reply_raw(raw, end=HANG)
    with pytest.raises(GatewayError) as caught:
        await asked(upstream, provider)
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE
    assert caught.value.message.startswith(f"The provider at 127.0.0.1:{provider.port} answered in something")
    await provider.until_closed_early()


# ---------------------------------------------------------------------------------------------------- any cut


@dataclass
class Home:
    """What connections say to where they belong."""

    opened_ones: list[Connection] = field(default_factory=list)
    freed_ones: list[Connection] = field(default_factory=list)
    _lost: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, connection: Connection) -> None:
        self.opened_ones.append(connection)

    def freed(self, connection: Connection) -> None:
        self.freed_ones.append(connection)

    def lost(self, connection: Connection) -> None:
        self._lost.set()

    async def until_lost(self) -> None:
        async with asyncio.timeout(5):
            await self._lost.wait()


@contextlib.asynccontextmanager
async def connected(home: Home) -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A connection, and its other side."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.setblocking(False)
    with far:
        connection = Connection(loop, home, "there")
        await loop.create_connection(lambda: connection, sock=near)
        yield connection, far
    await home.until_lost()


def ask(connection: Connection) -> Exchange:
    return connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"", bodyless=False, last=False, idle_seconds=9.0, total_at=NEVER)


@dataclass(frozen=True)
class Sent:
    raw: bytes
    body: bytes
    closes: bool


@st.composite
def responses(draw: st.DrawFn) -> Sent:
    pieces = draw(st.lists(st.binary(min_size=1, max_size=60), max_size=6))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    start = draw(st.sampled_from([b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"])) + OK + b"x-one: 1\r\n"
    body = b"".join(pieces)
    if framing == "length":
        return Sent(start + b"content-length: %d\r\n\r\n%b" % (len(body), body), body, closes=False)
    if framing == "close":
        return Sent(start + b"\r\n" + body, body, closes=True)
    extension = draw(st.sampled_from([b"", b";a=b", b';a="b c"']))
    trailer = draw(st.sampled_from([b"", b"x-two: 2\r\n", b"x:\r\nx: y\r\n"]))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    raw = start + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0" + extension + b"\r\n" + trailer + b"\r\n"
    return Sent(raw, body, closes=False)


def cut_at(raw: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({place % len(raw) for place in places}), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(edges) if start < end]


async def whole(exchange: Exchange) -> bytes | None:
    return await exchange.all(LIMIT)


async def piecewise(exchange: Exchange) -> bytes | None:
    pieces = []
    while data := await exchange.some():
        pieces.append(data)
    return b"".join(pieces) if exchange.ended else None


@settings(max_examples=150, deadline=None)
@given(sent=responses(), places=st.lists(st.integers(0, 2000), max_size=12), in_pieces=st.booleans())
def test_a_response_is_the_same_however_it_is_cut(sent: Sent, places: list[int], in_pieces: bool) -> None:
    async def read() -> None:
        home = Home()
        async with connected(home) as (connection, far):
            exchange = ask(connection)
            reading = asyncio.create_task((piecewise if in_pieces else whole)(exchange))
            for piece in cut_at(sent.raw, places):
                far.sendall(piece)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if sent.closes:
                far.shutdown(socket.SHUT_WR)
            assert await reading == sent.body
            assert exchange.status == 200
            assert exchange.raw_headers[0] == (b"x-one", b"1")
            assert home.freed_ones == ([] if sent.closes else [connection])
            assert connection.is_fit() is not sent.closes

    asyncio.run(read())


@settings(max_examples=100, deadline=None)
@given(sent=responses(), end=st.integers(0, 2000), in_pieces=st.booleans())
def test_a_response_that_ends_anywhere_before_its_end_is_no_response(sent: Sent, end: int, in_pieces: bool) -> None:
    """Only one that lasts until the connection closes may end anywhere in its body."""
    raw = sent.raw[: end % len(sent.raw)]
    head_ends = sent.raw.index(b"\r\n\r\n", sent.raw.index(OK)) + 4
    expected = raw[head_ends:] if sent.closes and len(raw) >= head_ends else None

    async def read() -> None:
        home = Home()
        async with connected(home) as (connection, far):
            exchange = ask(connection)
            far.sendall(raw)
            far.shutdown(socket.SHUT_WR)
            assert await (piecewise if in_pieces else whole)(exchange) == expected
            assert exchange.ended is (expected is not None)
            assert home.freed_ones == []
            assert not connection.is_fit()

    asyncio.run(read())


# ---------------------------------------------------------------------------------------------------- time


class Hurried(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def test_a_connection_that_nobody_uses_is_closed_in_time() -> None:
    async def wait(loop: Hurried) -> None:
        home = Home()
        async with connected(home) as (connection, far):
            for _ in range(3):
                exchange = ask(connection)
                far.sendall(OK + b"content-length: 2\r\n\r\nok")
                assert await exchange.all(LIMIT) == b"ok"
                loop.ahead += 40
                for _ in range(5):
                    await asyncio.sleep(0)
                assert connection.is_fit()
            loop.ahead += 6
            await home.until_lost()
            far.setblocking(True)
            assert far.recv(100).startswith(b"GET")

    with asyncio.Runner(loop_factory=Hurried) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Hurried)
        runner.run(wait(loop))
