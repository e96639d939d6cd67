"""The chat route's own part: comments, ends, and what a stop of the gateway does to a stream."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.catalog.pricing import plain_dollars
from inferxgate.server.chat import dropped_params
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import HANG, FakeProvider, Reply, head, sse_body

DELTA = {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]}
STREAM = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


def test_a_stream_that_outlives_the_stop_is_told_so(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        config = "[server]\nshutdown_seconds = 0.5\n" + provider_section("openai", provider.base_url)
        with GatewayProcess(tmp_path, config=config) as gateway:
            key = gateway.create_key()
            first = head(200, {"content-type": "text/event-stream", "connection": "close"}) + b"".join(
                sse_body([DELTA])
            )
            provider.reply(Reply((first, HANG)))
            got: list[str] = []

            def read() -> None:
                headers = {"authorization": f"Bearer {key}"}
                with httpx.stream(
                    "POST", gateway.base_url + "/chat/completions", headers=headers, json=STREAM
                ) as answer:
                    got.extend(answer.iter_text())

            reader = threading.Thread(target=read)
            reader.start()
            deadline = time.monotonic() + 20
            while not got:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert gateway.stop() == 0
            reader.join(20)
            events = "".join(got).strip().split("\n\n")
            assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "draining"
            provider.wait_closed_early()
            [record] = json.loads(gateway.run("stats", "--json").stdout)["recent"]
            assert (record["status"], record["http_status"], record["error_code"]) == ("gateway_error", 200, "draining")


def test_dollars_are_plain_decimals() -> None:
    assert [plain_dollars(n) for n in (0, 1, 27_500, 1_000_000_000, 12_345_678_901)] == [
        "0",
        "0.000000001",
        "0.0000275",
        "1",
        "12.345678901",
    ]


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("seed",), b"seed"),
        (("seed", "messages.0.content.0.image_url.detail"), b"seed, messages.0.content.0.image_url.detail"),
        (("a\r\nset-cookie: x",), b"a\\x0d\\x0aset-cookie:\\x20x"),
        (("a,b", "é\u8bfb\0"), b"a\\x2cb, \\xe9\\u8bfb\\x00"),
        (("x" * 200,), b"x" * 200),
        (("x" * 201,), b"x" * 197 + b"..."),
    ],
)
def test_names_of_what_was_dropped_fit_a_header(names: tuple[str, ...], value: bytes) -> None:
    assert dropped_params(names) == value


@given(st.lists(st.text(max_size=300), min_size=1, max_size=40))
def test_the_header_of_what_was_dropped_is_safe_and_bounded(names: list[str]) -> None:
    value = dropped_params(names)
    assert re.fullmatch(rb"[!-~ ]*", value)
    assert len(value) < 2_100
    shown = value.split(b", ")
    assert len(shown) == len(names) or shown[-1] == b"..."
