"""The provider in memory: what it answers, and that it behaves like one behind a socket."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder
from inferxgate.upstream.echo import EchoUpstream
from inferxgate.upstream.protocol import HttpRequest, HttpResponse


async def send(body: object, *, method: str = "POST") -> HttpResponse:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return await EchoUpstream().send(HttpRequest(method, "echo://local/v1/chat/completions", {}, raw))


async def whole(**body: Any) -> Any:
    response = await send({"model": "echo", **body})
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    return orjson.loads(await response.read(limit=10**9))


async def streamed(**body: Any) -> list[Any]:
    response = await send({"model": "echo", "stream": True, **body})
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    decoder = SSEDecoder()
    events = [event.data async for chunk in response.chunks() for event in decoder.feed(chunk)]
    assert events.pop() == b"[DONE]"
    return [orjson.loads(event) for event in events]


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


async def test_answers_with_the_last_user_message() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        *user("first"),
        {"role": "assistant", "content": None, "tool_calls": []},
        *user([{"type": "text", "text": "sec"}, {"type": "image_url"}, {"type": "text", "text": "ond"}]),
        {"role": "tool", "content": "later"},
    ]
    answer = await whole(messages=messages)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "echo"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "second", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


texts = st.text(max_size=200)


@given(texts, st.one_of(st.none(), st.integers(1, 60)), st.integers(1, 3), st.booleans())
async def test_a_stream_says_what_the_whole_answer_says(text: str, limit: int | None, n: int, usage: bool) -> None:
    asked = {"messages": user(text), "n": n, "max_tokens": limit}
    answer = await whole(**asked)
    chunks = await streamed(**asked, stream_options={"include_usage": usage})
    said, reasons = [""] * n, [""] * n
    for chunk in chunks:
        for choice in chunk["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
            reasons[choice["index"]] += choice["finish_reason"] or ""
    assert said == [choice["message"]["content"] for choice in answer["choices"]]
    assert reasons == [choice["finish_reason"] for choice in answer["choices"]]
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == ([answer["usage"]] if usage else [])
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert answer["usage"]["prompt_tokens"] == math.ceil(len(text.encode()) / 4)
    assert answer["usage"]["completion_tokens"] == n * math.ceil(len(said[0].encode()) / 4)
    if limit is None or limit >= math.ceil(len(text.encode()) / 4):
        assert (said[0], reasons[0]) == (text, "stop")
    else:
        assert text.startswith(said[0])
        assert 4 * limit - 4 < len(said[0].encode()) <= 4 * limit
        assert reasons[0] == "length"


async def test_streams_word_by_word() -> None:
    chunks = await streamed(messages=user("one two\n three "))
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "",
        "one",
        " two",
        "\n three",
        " ",
        None,
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages"),
        ({}, "messages"),
        ({"messages": user("x"), "n": 0}, "n"),
        ({"messages": user("x"), "n": 10**9}, "n"),
        ({"messages": user("x"), "max_tokens": "5"}, "max_tokens"),
        ({"messages": user("x"), "max_completion_tokens": True}, "max_completion_tokens"),
        ([], None),
        (b"{", None),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', None),
    ],
)
async def test_refuses_as_openai_does(body: object, param: str | None) -> None:
    response = await send(body)
    assert response.status == 400
    assert response.headers["content-type"] == "application/json"
    error = orjson.loads(await response.read(limit=10**6))["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert error["code"] is None


async def test_answers_post_only() -> None:
    assert (await send(b"", method="GET")).status == 405


async def test_says_nothing_more_once_closed() -> None:
    response = await send({"messages": user("a b c"), "stream": True})
    chunks = response.chunks()
    assert b"assistant" in await anext(chunks)
    await response.close()
    assert [chunk async for chunk in chunks] == []


async def test_holds_the_limit_of_a_read() -> None:
    response = await send({"messages": user("a" * 1000)})
    with pytest.raises(GatewayError):
        await response.read(limit=100)
