"""Many slow streams at once through one worker: ``python -m tests.bench.streams --streams 2000 --seconds 25``.

Starts a provider in a process of its own that answers in a measured pace, and one gateway with one worker before it,
asked by a key with every limit. All streams are opened at once, first straight at the provider and then through the
gateway. Every piece of an answer carries its number and the moment at which it was sent, so what arrives is checked
piece by piece, and its delay is known; what the gateway adds is the difference of the two. Memory is read before, while
all streams are open, and afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

from inferxgate.server.open_files import raise_open_files
from tests.bench.soak import memory_of
from tests.support.process import GatewayProcess, provider_section

MODEL = "gpt-4o-mini"
BACKLOG = 4_096
LIMITS = ("--rpm", "1000000", "--tpm", "1000000000", "--parallel", "100000", "--budget", "1000000")
WARM_UP = 50
"""Streams before the first measurement: what is loaded, or kept for reuse, is there then."""
_MIB = 1024 * 1024


# --- the provider


class Provider(asyncio.Protocol):
    """One connection: a stream in answer to each request, a piece every so often."""

    def __init__(self, pieces: int, every_seconds: float) -> None:
        self._pieces = pieces
        self._every_seconds = every_seconds
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._name = ""
        self._number = 0
        self._begin = 0.0
        self._phase = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not end or length is None or len(body) < int(length[1]):
            return
        self._received = b""
        self._name = json.loads(body)["messages"][-1]["content"]
        self._number, self._begin = 0, self._loop.time()
        self._phase = random.random()  # models keep no step with each other
        self._write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._say_next()

    def _say_next(self) -> None:
        said = f"{self._name}:{self._number}@{time.monotonic_ns()} "
        self._event({"index": 0, "delta": {"content": said}, "finish_reason": None})
        self._number += 1
        if self._number < self._pieces:
            at = self._begin + (self._number - self._phase) * self._every_seconds
            self._timer = self._loop.call_at(at, self._say_next)
            return
        self._event({"index": 0, "delta": {}, "finish_reason": "stop"})
        usage = {"prompt_tokens": 5, "completion_tokens": self._pieces, "total_tokens": 5 + self._pieces}
        self._event(None, usage=usage)
        self._chunk(b"data: [DONE]\n\n")
        self._write(b"0\r\n\r\n")

    def _event(self, choice: object, **more: object) -> None:
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL}
        chunk |= {"choices": [choice] if choice else [], **more}
        self._chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


def provide(tell: Connection, pieces: int, every_seconds: float) -> None:
    """The provider's process: it ends with its parent."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Provider(pieces, every_seconds), "127.0.0.1", 0, backlog=BACKLOG)
        tell.send(server.sockets[0].getsockname()[1])
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(tell.recv)

    raise_open_files()
    uvloop.run(serve())


# --- the clients


class Client(asyncio.Protocol):
    """One stream: asks when connected, and checks what comes."""

    _SAID = re.compile(rb'"content": ?"(\w+):(\d+)@(\d+) "')

    def __init__(self, name: str, head: str) -> None:
        self._name = name
        self._head = head
        self._rest = b""
        self._next = 0
        self._right = True
        self.asked_ns = 0
        self._transport: asyncio.Transport | None = None
        self.pieces: list[tuple[int, int]] = []
        """When each was sent and when it came, of the machine's monotonic clock."""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's
        body = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": self._name}]})
        self.asked_ns = time.monotonic_ns()
        self._transport.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._rest += data
        end = 0
        for match in self._SAID.finditer(self._rest):
            end = match.end()
            name, number, sent_ns = match[1].decode(), int(match[2]), int(match[3])
            self._right = self._right and (name, number) == (self._name, self._next)
            self._next += 1
            self.pieces.append((sent_ns, now_ns))
        if self.pieces and not self.begun.done():
            self.begun.set_result(None)
        self._rest = self._rest[end:]
        if self._rest.endswith(b"0\r\n\r\n") and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(None)

    def is_whole(self, pieces: int) -> bool:
        """Whether exactly the answer has arrived."""
        ending = re.search(rb'"finish_reason": ?"stop".*data: \[DONE\]\n\n\r\n0\r\n\r\n$', self._rest, re.DOTALL)
        return self._right and self._next == pieces and ending is not None


@dataclass
class Figures:
    """What was measured of one round."""

    whole: int = 0
    first_ms: list[float] = field(default_factory=list)
    """Of each stream, from the request to the first piece."""
    delays_ms: list[float] = field(default_factory=list)
    """Of each piece that was sent when all streams had begun, from the provider's writing it to its arrival."""
    seconds: float = 0.0
    piece_us: float = 0.0
    opening_us: float = 0.0
    """The worker's processor time for each piece and, beside those, for each stream's beginning; in microseconds."""
    most_open: int = 0
    """Streams that had begun and not ended."""
    memory: list[dict[str, float]] = field(default_factory=list)
    """Before, with the most streams open, and afterwards."""

    def kb_of_each(self, kind: str) -> float:
        """What the memory grew by for each open stream."""
        before, during, _ = self.memory
        return (during[kind] - before[kind]) * _MIB / 1000 / self.most_open


async def ask(port: int, key: str, streams: int, pieces: int, *, pid: int | None) -> Figures:
    """Open all streams at once, and see them through."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\n"
    )
    loop = asyncio.get_running_loop()
    figures = Figures(memory=[memory_of(pid)] if pid else [])
    begin, processor_begin = time.monotonic(), processor_seconds(pid)
    clients = [Client(f"s{number}", head) for number in range(streams)]
    opening = [loop.create_connection(partial(_given, client), "127.0.0.1", port) for client in clients]
    await asyncio.gather(*opening)
    opened = processor_begin, 0
    if pid:
        opened = await when_all_are_open(clients, pid)
        figures.most_open, most = await at_the_most(clients, pid)
        figures.memory.append(most)
    await asyncio.gather(*(client.ended for client in clients))
    figures.seconds = time.monotonic() - begin
    processor_end = processor_seconds(pid)
    figures.whole = sum(client.is_whole(pieces) for client in clients)
    begun = [client for client in clients if client.pieces]
    figures.first_ms = [(client.pieces[0][1] - client.asked_ns) / 1e6 for client in begun]
    all_open_ns = max(client.pieces[0][1] for client in begun)
    came = [piece for client in begun for piece in client.pieces]
    figures.delays_ms = [(at - sent) / 1e6 for sent, at in came if sent > all_open_ns]
    if len(came) > opened[1]:
        figures.piece_us = 1e6 * (processor_end - opened[0]) / (len(came) - opened[1])
        figures.opening_us = 1e6 * (opened[0] - processor_begin) / streams - figures.piece_us * opened[1] / streams
    if pid:
        await asyncio.sleep(1)
        figures.memory.append(memory_of(pid))
    return figures


def _given(client: Client) -> Client:
    return client


async def when_all_are_open(clients: Sequence[Client], pid: int) -> tuple[float, int]:
    """The worker's processor time when the last stream has begun, and the pieces that had come by then."""
    await asyncio.gather(*(client.begun for client in clients))
    return processor_seconds(pid), sum(len(client.pieces) for client in clients)


async def at_the_most(clients: Sequence[Client], pid: int) -> tuple[int, dict[str, float]]:
    """How many streams were open at once at the most, and what the worker held then."""
    most_open, most = 0, memory_of(pid)
    while not all(client.ended.done() for client in clients):
        await asyncio.sleep(1)
        opened = sum(bool(client.pieces) and not client.ended.done() for client in clients)
        if opened >= most_open:
            most_open, most = opened, memory_of(pid)
    return most_open, most


def processor_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


# --- what is printed


def row(name: str, figures: Figures, streams: int) -> str:
    cells = [f"{figures.whole} of {streams}"]
    for values in (figures.first_ms, figures.delays_ms):
        cells += [f"{quantile(values, share):,.2f}" for share in (0.5, 0.99, 1.0)]
    return f"| {name} | " + " | ".join(cells) + " |"


def tell_memory(figures: Figures) -> None:
    before, during, after = figures.memory
    opened = figures.most_open
    print(f"\n| the worker's memory, MiB | before | {opened} streams open | afterwards | kB a stream |")
    print("|---|---|---|---|---|")
    for kind in ("rss", "pss", "private_dirty"):
        each_kb = figures.kb_of_each(kind)
        print(f"| {kind} | {before[kind]:.1f} | {during[kind]:.1f} | {after[kind]:.1f} | {each_kb:.1f} |")
    print(
        f"\nopen files: {before['fds']:.0f}, {during['fds']:.0f}, {after['fds']:.0f}; the worker's processor time,"
        f" microseconds: {figures.opening_us:.0f} to begin a stream, {figures.piece_us:.0f} for a piece"
    )


def config(port: int) -> str:
    return provider_section("openai", f"http://127.0.0.1:{port}/v1") + '[pricing."openai/*"]\ninput = 1\noutput = 5\n'


def measure(asked: argparse.Namespace, port: int, folder: Path) -> None:
    with GatewayProcess(folder, config=config(port)) as gateway:
        assert gateway.process is not None
        key, pid = gateway.create_key(*LIMITS), gateway.process.pid

        def ask_through(streams: int) -> Figures:
            return uvloop.run(ask(gateway.port, key, streams, asked.pieces, pid=pid))

        straight = uvloop.run(ask(port, key, asked.streams, asked.pieces, pid=None))
        ask_through(WARM_UP)
        through = ask_through(asked.streams)
        (folder / "log.txt").write_text(gateway.log)
        strange = [line for line in gateway.lines if re.search(r"ERROR|error|Traceback|warning", line)]
        print(*strange[:10], sep="")
        print("| | whole answers | first piece, ms: p50 | p99 | most | delay of a piece, ms: p50 | p99 | most |")
        print("|---|---|---|---|---|---|---|---|")
        print(row("straight at the provider", straight, asked.streams))
        print(row("through the gateway", through, asked.streams))
        tell_memory(through)
        print("exit code", gateway.stop())


@contextlib.contextmanager
def providing(pieces: int, seconds: float) -> Iterator[int]:
    """A provider's process; its port."""
    ours, theirs = multiprocessing.Pipe()
    arguments = (theirs, pieces, seconds / (pieces - 1))
    provider = multiprocessing.get_context("spawn").Process(target=provide, args=arguments, daemon=True)
    provider.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        provider.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2_000)
    parser.add_argument("--pieces", type=int, default=50, help="of each answer")
    parser.add_argument("--seconds", type=float, default=25, help="that an answer takes")
    asked = parser.parse_args()
    raise_open_files()
    print(
        f"{asked.streams} streams at once, {asked.pieces} pieces each over {asked.seconds:g} s, {os.cpu_count()} CPUs"
    )
    with tempfile.TemporaryDirectory(prefix="streams-") as folder, providing(asked.pieces, asked.seconds) as port:
        measure(asked, port, Path(folder))


if __name__ == "__main__":
    main()
