"""The provider: every answer is made in advance, and the path says which one and at what pace; the body is not read."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from tests.bench.overhead import wire

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def _answers() -> Mapping[bytes, tuple[Sequence[bytes], bool]]:
    """By path: what to write, and whether at a pace."""
    whole = {"chat/completions": wire.openai_answer, "messages": wire.anthropic_answer}
    events: Mapping[str, Callable[[int], Sequence[bytes]]] = {
        "chat/completions": wire.openai_events,
        "messages": wire.anthropic_events,
    }
    found: dict[bytes, tuple[Sequence[bytes], bool]] = {}
    for path, answer in whole.items():
        found[f"/whole/v1/{path}".encode()] = [wire.whole_response(answer())], False
    for path, make in events.items():
        pieces = wire.stream_pieces(make(wire.CHUNKS))
        found[f"/burst/v1/{path}".encode()] = [b"".join(pieces)], False
        found[f"/paced/v1/{path}".encode()] = pieces, True
        found[f"/first/v1/{path}".encode()] = wire.stream_pieces(make(wire.FEW_CHUNKS)), True
    return found


class Provider(asyncio.Protocol):
    """One connection, a request at a time."""

    def __init__(self, answers: Mapping[bytes, tuple[Sequence[bytes], bool]]) -> None:
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._path = b""
        self._missing = 0
        """Bytes of the request's body that have not come."""
        self._transport: asyncio.Transport | None = None
        self._pieces: Sequence[bytes] = ()
        self._next = 0
        self._begin = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            length = _LENGTH.search(self._head, 0, end)
            if end < 0 or length is None:
                return
            self._path = self._head[self._head.index(b" ") + 1 : self._head.index(b" HTTP/1.1\r\n")]
            self._missing = int(length[1]) - (len(self._head) - end - 4)
            self._head = b""
        if self._missing == 0:
            self._answer()

    def _answer(self) -> None:
        assert self._transport is not None
        self._pieces, paced = self._answers[self._path]
        if not paced:
            self._transport.write(self._pieces[0])
            return
        self._next, self._begin = 0, self._loop.time()
        self._say_next()

    def _say_next(self) -> None:
        assert self._transport is not None
        self._transport.write(self._pieces[self._next])
        self._next += 1
        if self._next < len(self._pieces):
            at = self._begin + self._next * wire.PACE_SECONDS
            self._timer = self._loop.call_at(at, self._say_next)


def provide(tell: Connection) -> None:
    """The provider's process: it ends with its parent."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(partial(Provider, _answers()), "127.0.0.1", 0, backlog=1_024)
        tell.send(server.sockets[0].getsockname()[1])
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(tell.recv)

    uvloop.run(serve())
