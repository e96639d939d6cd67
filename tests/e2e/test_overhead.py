"""The benchmark beside a bare floor: it measures all that it names, and takes no wrong answer for a right one.

``python -m tests.bench.overhead`` does it long enough for the figures to mean something.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.bench.overhead import run, wire
from tests.bench.overhead.load import Burst, Heard, Turns, generate
from tests.bench.overhead.processes import helper, used_by

REQUESTS = 7


def test_everything_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    short = ["--rounds", "1", "--seconds", "0.05", "--rest", "0", "--starts", "1", "--requests", "40,80"]
    code = run.main([*short, "--memory", "--json", str(file)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    figures = json.loads(file.read_text())
    named = [row["title"] for row in figures["rows"]]
    assert all(any(name.startswith(each.title) for name in named) for each in run.COMPARISONS)
    others = ("first chunk", "from exec to", "resident")
    assert all(any(name.startswith(other) for name in named) for other in others)
    assert len(named) == len(set(named)) == len(run.COMPARISONS) + len(others)
    assert all(name in printed.out for name in named)
    assert all(row["ratios"] and row["side"] > 0 for row in figures["rows"] if "first chunk" not in row["title"])
    assert all(sample["heard"]["whole"] > 0 and sample["heard"]["bad"] == 0 for sample in figures["samples"])
    assert list(figures["memory"]) == ["0", "40", "80"]


def test_wrong_names_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--only", "whole,hole"])
    assert "there is no hole" in capsys.readouterr().err


def chunked(events: Sequence[bytes]) -> bytes:
    return b"".join(wire.stream_pieces(events))


EVENTS = wire.openai_events(wire.CHUNKS)
WHOLE = wire.whole_response(wire.openai_answer())
STREAM = chunked(EVENTS)
REFUSED = WHOLE.replace(b"200 OK", b"429 Too Many Requests")
UNCOUNTED = WHOLE.replace(b'"completion_tokens":50', b'"completion_tokens":49')


@contextlib.contextmanager
def answering(answer: bytes, *, piece_bytes: int) -> Iterator[int]:
    """A server that gives one answer to every request, in pieces, and then goes away where it is empty; its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                for begin in range(0, len(answer), piece_bytes):
                    self.connection.sendall(answer[begin : begin + piece_bytes])
                if not answer:
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Load:
    """The load's process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def heard_of(self, answer: bytes, *, texts: int, piece_bytes: int = 1 << 20) -> Heard:
        with answering(answer, piece_bytes=piece_bytes) as port:
            burst = Burst(port, b"GET / HTTP/1.1\r\n\r\n", texts, connections=1, requests=REQUESTS)
            self._connection.send(Turns([burst], times=1))
            self._connection.recv()
            self._connection.send(None)
            [heard] = self._connection.recv()
        assert isinstance(heard, Heard)
        return heard


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    with helper(generate, os.sched_getaffinity(0)) as connection:
        yield Load(connection)


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize(("answer", "texts"), [(WHOLE, 0), (STREAM, wire.CHUNKS)], ids=["whole", "stream"])
def test_right_answers_in_pieces_are_whole(load: Load, answer: bytes, texts: int, piece_bytes: int) -> None:
    heard = load.heard_of(answer, texts=texts, piece_bytes=piece_bytes)
    assert (heard.whole, heard.bad) == (REQUESTS, 0), heard.complaint
    assert (heard.first_ms > 0) == bool(texts)


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        (REFUSED, 0),
        (REFUSED, wire.CHUNKS),
        (UNCOUNTED, 0),
        (chunked([*EVENTS[:5], *EVENTS[6:]]), wire.CHUNKS),
        (chunked([*EVENTS[:-2], EVENTS[-1].replace(b"data: [DONE]\n\n", b"")]), wire.CHUNKS),
        (chunked(EVENTS[:-1]), wire.CHUNKS),
    ],
    ids=["refused", "refused-stream", "uncounted", "a-text-less", "no-done", "no-usage"],
)
def test_wrong_answers_are_told(load: Load, answer: bytes, texts: int) -> None:
    heard = load.heard_of(answer, texts=texts)
    assert (heard.whole, heard.bad) == (0, 1 + REQUESTS)  # one when the connection was opened
    assert heard.complaint.startswith("HTTP/1.1 ")


def test_a_lost_connection_is_told(load: Load) -> None:
    heard = load.heard_of(b"", texts=0)
    assert heard.whole == 0
    assert heard.bad > 0


def test_what_children_use_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(1, flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = used_by(process.pid)
        process.communicate("\n")
    assert used.exact > 0.25
    assert used.ticks > 0.25
