"""Recorded streams, translated, and joined by OpenAI's own SDK as ``client.chat.completions.stream(...)`` joins them.

What it makes of the events has to be the message of the whole answer. Streams of hosts that speak OpenAI's dialect go
through as they came, so what the SDK makes of those is the hosts' affair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from inferxgate.canonical.chat import ChatResponse
from inferxgate.dialects.openai_answers import StreamBuilder, build_response
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder
from tests.recordings import gemini_reading
from tests.support import recordings
from tests.support.accumulating import accumulated, messages_of
from tests.support.recordings import Recording

DIALECT_OF = {"anthropic": "anthropic_messages", "gemini": "gemini", "vertex": "gemini"}
GOOGLES = ("generateContent", "streamGenerateContent")


def streams(provider: str) -> Iterator[tuple[Recording, bytes]]:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    apis = ("messages",) if provider == "anthropic" else GOOGLES
    for recording in recordings.find(lambda r: r.provider == provider and r.api in apis and r.status == 200):
        response = recording.load()["response"]
        if provider != "anthropic":
            bodies: Iterable[Any] = gemini_reading.bodies_of(response)
            yield recording, b"".join(b"data: %b\n\n" % json.dumps(body).encode() for body in bodies)
        elif response["text"] is not None:
            yield recording, response["text"].encode()


def translated(data: bytes, dialect: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The events that a client gets, and the whole answer that means the same."""
    reader, whole = DIALECTS[dialect].stream_reader(), ChatResponse()
    builder = StreamBuilder(include_usage=True, answer_id="chatcmpl-x", created_s=7, model="asked")
    sent = b""
    for item in (decoder := SSEDecoder()).feed(data) + decoder.flush():
        event = reader.feed(item)
        if event is not None:
            sent += builder.build(event)
            for chunk in event.chunks:
                whole.add(chunk)
    sent += builder.finish()
    events = [event.data for event in SSEDecoder().feed(sent)]
    assert events.pop() == b"[DONE]"
    answer = build_response(whole, answer_id="chatcmpl-x", created_s=7, model="asked")
    return [json.loads(event) for event in events], answer


@pytest.mark.parametrize("provider", DIALECT_OF)
def test_the_sdk_joins_a_stream_to_the_whole_answer(provider: str) -> None:
    wrong: dict[str, str] = {}
    seen = 0
    for recording, data in streams(provider):
        try:
            events, whole = translated(data, DIALECT_OF[provider])
        except GatewayError:
            continue  # a failure that was recorded; others hold how it is told
        seen += 1
        try:
            joined = messages_of(accumulated(events))
        except (RuntimeError, TypeError, IndexError) as error:
            wrong[recording.file] = repr(error)
            continue
        if joined != messages_of(whole):
            wrong[recording.file] = f"expected {messages_of(whole)}\n     got {joined}"
    assert not wrong, f"{len(wrong)} of {seen}:\n" + "\n".join(f"{file}: {why[:1500]}" for file, why in wrong.items())
    assert seen > 100
