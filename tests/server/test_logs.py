"""The log: nobody can forge a line or read a secret there, and a slow reader holds up nobody."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.accounts.keys import new_secret
from inferxgate.server.logs import Format, LogWriter, RequestLine, mask, visible


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
