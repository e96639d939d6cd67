"""The log: nobody can forge a line or read a secret there, and a slow reader holds up nobody."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.accounts.keys import new_secret
from inferxgate.server.logs import DirectLog, Format, LogWriter, RequestLine, mask, visible


@contextmanager
def written(style: Format, stream: TextIO) -> Iterator[logging.Logger]:
    logger = logging.getLogger(f"inferxgate.test.{threading.get_ident()}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    writer = LogWriter(style, stream)
    logger.addHandler(writer)
    try:
        yield logger
    finally:
        logger.removeHandler(writer)
        writer.close()


def request_line(style: Format, path: str) -> str:
    stream = io.StringIO()
    writer = LogWriter(style, stream)
    writer.request(RequestLine("req_1", "127.0.0.1", "GET", path, 200, 1.5, 10, None, "user_1"))
    writer.close()
    return stream.getvalue()


@given(st.text(max_size=80))
def test_a_path_never_makes_a_second_line(path: str) -> None:
    line = request_line("text", path)
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    assert line.endswith("\n")


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_json_lines_are_json(path: str) -> None:
    line = request_line("json", path)
    assert line.count("\n") == 1
    assert json.loads(line)["path"] == path


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/x/" + "y" * 300, '/"\n', "/ix-api-key-secret"])
@pytest.mark.parametrize("worker", [None, 3])
def test_a_json_line_says_what_the_request_was(path: str, worker: int | None) -> None:
    stream = io.StringIO()
    writer = LogWriter("json", stream, worker)
    for said in (
        RequestLine("req_1", "::1", "POST", path, 200, 1.5, 10, "key_1", "user_1", "openai/" + "m" * 300),
        RequestLine("req_2", "::1", "POST", path, 429, 0.1, 7, "key_1", None, None, "rate_limit"),
    ):
        writer.request(said)
    writer.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    head: dict[str, object] = {
        "level": "info",
        "logger": "inferxgate.access",
        "message": "request",
        "client": "::1",
        "method": "POST",
    }
    head |= {"path": path.replace("ix-api-key-secret", "***")} | ({} if worker is None else {"worker": worker})
    assert first == head | {
        "request_id": "req_1",
        "status": 200,
        "duration_ms": 1.5,
        "bytes": 10,
        "key_id": "key_1",
        "user_id": "user_1",
        "target": "openai/" + "m" * 300,
        "error": None,
    }
    assert (second["request_id"], second["user_id"], second["target"], second["error"]) == (
        "req_2",
        None,
        None,
        "rate_limit",
    )


def test_a_path_cannot_pass_for_another_field() -> None:
    assert 'path="/x status=200 "' in request_line("text", "/x status=200 ")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_logged_without_the_secrets_in_it(style: Format) -> None:
    stream = io.StringIO()
    secret = new_secret()
    with written(style, stream) as logger:
        try:
            raise ValueError(f"Authorization: Bearer {secret}\nforged line")
        except ValueError:
            logger.exception("request %s failed", "req_1")
    text = stream.getvalue()
    assert "ValueError" in text
    assert "req_1" in text
    assert secret not in text
    assert secret[11:] not in text
    if style == "text":
        assert all(line.startswith((" ", "20")) for line in text.splitlines())


def test_what_looks_like_a_secret_is_masked() -> None:
    secret = new_secret()
    for text in (secret, f"x{secret}y", "sk-proj-1234567890abcdef", "Bearer abc.def", "eyJhbGciOiJIUzI1NiJ9.e30.sig"):
        assert "***" in mask(f"before {text} after")
    assert mask("/v1/models/gpt-4o risk-averse") == "/v1/models/gpt-4o risk-averse"


def test_lone_surrogates_are_written_out() -> None:
    assert visible("a\ud800\x1b[31m\u202eb") == "a\\ud800\\x1b[31m\\u202eb"


def test_a_reader_that_does_not_read_holds_up_nobody() -> None:
    """The pipe is full after 64 kB; a thousand times that is logged all the same, and what is lost is counted."""
    read_end, write_end = os.pipe()
    reader = os.fdopen(read_end, encoding="utf-8")
    with os.fdopen(write_end, "w", encoding="utf-8") as stream:
        logger = logging.getLogger("inferxgate.test.slow")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        writer = LogWriter("text", stream)
        logger.addHandler(writer)
        for number in range(60_000):
            logger.info("line %d %s", number, "x" * 100)
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(reader))
        reading.start()
        logger.removeHandler(writer)
        writer.close()
    reading.join()
    reader.close()
    assert "line 0 " in lines[0]
    assert any("log lines were dropped" in line for line in lines)


def test_a_closed_stream_is_survived() -> None:
    stream = io.StringIO()
    stream.close()
    with written("text", stream) as logger:
        logger.error("nobody hears this")


# --- several workers


def message_of(text: str) -> logging.LogRecord:
    return logging.LogRecord("inferxgate.server", logging.INFO, __file__, 1, text, None, None)


def test_lines_carry_the_workers_number_where_there_are_several() -> None:
    said = RequestLine("req_1", "127.0.0.1", "GET", "/x", 200, 1.5, 10, None, None)
    message = logging.makeLogRecord(
        {"name": "inferxgate.server", "msg": "stopped", "levelname": "INFO", "levelno": logging.INFO}
    )
    for number, access, server in ((None, " access: ", " server: "), (3, " access[3]: ", " server[3]: ")):
        stream = io.StringIO()
        writer = LogWriter("text", stream, number)
        writer.request(said)
        writer.handle(message)
        writer.close()
        first, second = stream.getvalue().splitlines()
        assert access in first
        assert server in second
        stream = io.StringIO()
        writer = LogWriter("json", stream, number)
        writer.request(said)
        writer.handle(message)
        writer.close()
        assert [json.loads(line).get("worker") for line in stream.getvalue().splitlines()] == [number, number]


class Writes(io.StringIO):
    """A stream that knows what was written in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=30), st.sampled_from("xé水"))
def test_lines_are_written_whole_and_in_pieces_that_a_pipe_takes_at_once(lengths: list[int], letter: str) -> None:
    stream = Writes()
    writer = LogWriter("text", stream)
    for length in lengths:
        writer.handle(message_of(letter * length))
    writer.close()
    pieces = [piece for piece in stream.pieces if piece]
    assert all(piece.endswith("\n") for piece in pieces)
    assert all(len(piece.encode()) <= 4096 or piece.count("\n") == 1 for piece in pieces)
    assert [line.count(letter) for line in "".join(pieces).splitlines()] == lengths


def test_the_supervisors_log_writes_at_once_and_waits_for_no_reader() -> None:
    read_end, write_end = os.pipe()
    threads = threading.active_count()
    told: list[str] = []
    # What it could not write waits in the stream, which would complain at its end.
    with suppress(BrokenPipeError), os.fdopen(write_end, "w", encoding="utf-8") as stream:
        log = DirectLog("text", stream)
        record = logging.makeLogRecord(
            {"name": "inferxgate.server", "msg": "x" * 4_000, "levelname": "INFO", "levelno": logging.INFO}
        )
        log.handle(record)
        assert os.read(read_end, 10_000).endswith(b"server: " + b"x" * 4_000 + b"\n")
        for _ in range(20):  # more than the pipe takes
            log.handle(record)
        assert threading.active_count() == threads
        os.close(read_end)
        log.handle(record)  # nor does it mind that nobody is there
        told.append("all of it")
    assert told == ["all of it"]
