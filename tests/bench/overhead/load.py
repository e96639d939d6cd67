"""The load, in a process of its own: a closed loop, in which a connection asks again once it has a whole answer.

It reads no more of an answer than it must to know that it is one: the status, the length or the end of the last chunk,
and a mark that only a right answer has.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import uvloop

_STATUS = b"HTTP/1.1 200 "
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_LAST_CHUNK = b"0\r\n\r\n"
_COUNTED = re.compile(rb'"completion_tokens": ?50\b')
_TEXT = re.compile(rb'"content": ?"[^"]')
_COMPLAINT_BYTES = 400


@dataclass(frozen=True)
class Burst:
    """What to ask, of whom, and for how long."""

    port: int
    request: bytes
    texts: int
    """Pieces of text in each answer; 0: it is not streamed."""
    connections: int
    seconds: float = 0.0
    requests: int = 0
    """How many in all, in place of the time, where it is not 0."""
    stagger_seconds: float = 0.0
    """Over which the connections begin, so that they keep no step with each other."""
    pause_seconds: float = 0.0
    """After each answer."""


@dataclass(frozen=True)
class Turns:
    """Bursts that take turns: all of them once, then all of them again the other way round, and so on."""

    bursts: Sequence[Burst]
    times: int


@dataclass
class Heard:
    """What came of all turns of one burst."""

    whole: int = 0
    bad: int = 0
    complaint: str = ""
    """The beginning of the first answer that was not right."""
    seconds: float = 0.0
    median_ms: float = 0.0
    """From a request to the end of its answer."""
    first_ms: float = 0.0
    """From a request to the first event of its answer, the median; 0 where none is streamed."""


class Side:
    """The connections of one burst, and what they share."""

    def __init__(self, burst: Burst) -> None:
        self.burst = burst
        self.heard = Heard()
        self._until = 0.0
        self._left = 0
        self._lasted: list[float] = []
        self._first: list[float] = []
        self._clients: Sequence[Client] = ()

    async def connect(self) -> None:
        """Open all connections, and have an answer on each, so that nothing has to be opened later on."""
        loop = asyncio.get_running_loop()
        opening = [
            await loop.create_connection(lambda: Client(self), "127.0.0.1", self.burst.port)
            for _ in range(self.burst.connections)
        ]
        self._clients = [client for _, client in opening]
        await self._ask(once=True)
        self.heard.whole = 0
        self._lasted, self._first = [], []

    async def take_turn(self) -> None:
        self._left = self.burst.requests
        begin = time.perf_counter()
        self._until = begin + self.burst.seconds
        await self._ask(once=False)
        self.heard.seconds += time.perf_counter() - begin

    def close(self) -> None:
        self.heard.median_ms = 1_000 * statistics.median(self._lasted or [0.0])
        self.heard.first_ms = 1_000 * statistics.median(self._first or [0.0])
        for client in self._clients:
            client.close()

    async def _ask(self, *, once: bool) -> None:
        for number, client in enumerate(self._clients):
            client.start(self.burst.stagger_seconds * number / len(self._clients), once=once)
        await asyncio.gather(*(client.idle for client in self._clients))

    def has_more(self) -> bool:
        if self.burst.requests:
            self._left -= 1
            return self._left >= 0
        return time.perf_counter() < self._until

    def count(self, answer: bytes, *, asked: float, first: float) -> None:
        """An answer with status 200 has come, asked for and begun at these times."""
        if not self._is_right(answer):
            self.complain(answer)
            return
        self.heard.whole += 1
        self._lasted.append(time.perf_counter() - asked)
        if first:
            self._first.append(first - asked)

    def complain(self, answer: bytes) -> None:
        self.heard.bad += 1
        self.heard.complaint = self.heard.complaint or answer[:_COMPLAINT_BYTES].decode("latin-1")

    def _is_right(self, answer: bytes) -> bool:
        if _COUNTED.search(answer) is None:
            return False
        texts = self.burst.texts
        return not texts or (len(_TEXT.findall(answer)) == texts and b"data: [DONE]\n\n" in answer)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._asked = 0.0
        self._first = 0.0
        self._is_ok = False
        self._once = False
        self.idle: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.idle.done():
            self._give_up()

    def _give_up(self) -> None:
        self._side.complain(b"the connection was closed after: " + b"".join(self._parts))
        self.idle.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def start(self, delay_seconds: float = 0.0, *, once: bool) -> None:
        """Ask, and ask again until the burst is over, unless ``once``."""
        self.idle = self._loop.create_future()
        self._once = once
        self._loop.call_later(delay_seconds, self._ask)

    def _ask(self) -> None:
        if self._transport is None:
            if not self.idle.done():
                self._give_up()
            return
        if not self._once and not self._side.has_more():
            self.idle.set_result(None)
            return
        self._parts.clear()
        self._first = 0.0
        self._asked = time.perf_counter()
        self._transport.write(self._side.burst.request)

    def data_received(self, data: bytes) -> None:
        if self._parts and len(self._parts[0]) < len(_STATUS):
            data = self._parts.pop() + data
        if not self._parts:
            self._is_ok = data.startswith(_STATUS)
        self._parts.append(data)
        if self._side.burst.texts and self._is_ok:
            if not self._first and b"data: " in b"".join(self._parts):
                self._first = time.perf_counter()
            ended = data.endswith(_LAST_CHUNK) or (len(data) < len(_LAST_CHUNK) and self._ends())
        else:
            ended = self._is_whole(data)
        if ended:
            self._end()

    def _ends(self) -> bool:
        return b"".join(self._parts[-len(_LAST_CHUNK) :]).endswith(_LAST_CHUNK)

    def _is_whole(self, data: bytes) -> bool:
        if len(self._parts) > 1 and self._missing > 0:
            self._missing -= len(data)
            return self._missing <= 0
        data = b"".join(self._parts)
        end = data.find(_HEAD_END)
        length = _LENGTH.search(data, 0, end + 2)
        if end < 0:
            return False
        if length is None:
            return data.endswith(_LAST_CHUNK)
        self._missing = int(length[1]) - (len(data) - end - len(_HEAD_END))
        return self._missing <= 0

    def _end(self) -> None:
        answer = b"".join(self._parts)
        if self._is_ok:
            self._side.count(answer, asked=self._asked, first=self._first)
        else:
            self._side.complain(answer)
        if self._once:
            self.idle.set_result(None)
        elif self._side.burst.pause_seconds:
            self._loop.call_later(self._side.burst.pause_seconds, self._ask)
        else:
            self._ask()


async def _connect(turns: Turns) -> Sequence[Side]:
    sides = [Side(burst) for burst in turns.bursts]
    for side in sides:
        await side.connect()
    return sides


async def _take(turns: Turns, sides: Sequence[Side]) -> Sequence[Heard]:
    for number in range(turns.times):
        for side in sides[::-1] if number % 2 else sides:
            await side.take_turn()
    for side in sides:
        side.close()
    return [side.heard for side in sides]


def generate(tell: Connection) -> None:
    """The load's process: it is sent ``Turns``, until its parent is gone.

    They go in two steps, so that what it costs to be asked can be read in between: it says when all connections stand,
    and is then told to begin.
    Of the first answer on each connection it tells at the end where it was wrong, and nothing else.
    """
    loop = uvloop.new_event_loop()
    with contextlib.suppress(EOFError):
        while True:
            turns: Turns = tell.recv()
            sides = loop.run_until_complete(_connect(turns))
            tell.send(None)
            tell.recv()
            tell.send(loop.run_until_complete(_take(turns, sides)))
