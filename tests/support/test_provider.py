"""The fake provider itself: what others rely on when a test of theirs is green."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.provider import (
    HANG,
    RESET,
    FakeProvider,
    Reply,
    SeenRequest,
    Until,
    body_reply,
    cut,
    json_reply,
    sse_reply,
)


def ask(provider: FakeProvider, body: object, *, path: str = "/v1/chat/completions") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", provider.port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"Authorization": "Bearer sk-1", "X-Twice": "a"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_answers_like_openai_by_default() -> None:
    with FakeProvider() as provider:
        status, body = ask(provider, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == provider.text
        assert provider.last.json()["model"] == "m"
        assert provider.last.headers["authorization"] == "Bearer sk-1"


@pytest.mark.parametrize("asked", [False, True])
def test_streams_usage_only_when_asked(*, asked: bool) -> None:
    with FakeProvider() as provider:
        options = {"include_usage": True} if asked else {}
        _, body = ask(provider, {"model": "m", "messages": [], "stream": True, "stream_options": options})
    events = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == provider.text
    assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == ([provider.usage] if asked else [])


def test_calls_the_tools_that_it_is_given() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("weather", "time")]
    with FakeProvider() as provider:
        _, whole = ask(provider, {"model": "m", "messages": [], "tools": tools})
        _, streamed = ask(provider, {"model": "m", "messages": [], "tools": tools, "stream": True})
    choice = json.loads(whole)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    arguments = ["", ""]
    for event in streamed.decode().split("\n\n")[:-2]:
        for call in json.loads(event.removeprefix("data: "))["choices"][0]["delta"].get("tool_calls", []):
            arguments[call["index"]] += call["function"]["arguments"]
    assert arguments == [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]


def test_uses_scripted_replies_in_order_then_the_handler() -> None:
    def handler(request: SeenRequest) -> Reply:
        return json_reply({"path": request.path}, status=201)

    with FakeProvider(handler) as provider:
        provider.reply_json({"error": "no"}, status=429, headers={"retry-after": "7"})
        provider.reply_sse([{"a": 1}, "[DONE]"], cuts=3)
        assert ask(provider, {}) == (429, b'{"error":"no"}')
        assert ask(provider, {}) == (200, b'data: {"a":1}\n\ndata: [DONE]\n\n')
        assert ask(provider, {}, path="/x?y=1") == (201, b'{"path":"/x"}')
        assert provider.last.query == "y=1"


def test_answers_when_it_is_told_to() -> None:
    with FakeProvider() as provider, ThreadPoolExecutor(1) as threads:
        told = threading.Event()
        provider.reply(Reply((Until(told), *json_reply({"late": True}).steps)))
        answer = threads.submit(ask, provider, {})
        provider.wait_for_requests(1)
        assert not answer.done()
        told.set()
        assert answer.result() == (200, b'{"late":true}')


def test_says_where_a_client_went_away() -> None:
    with FakeProvider() as provider:
        stages = []
        for count, reply in enumerate([Reply((HANG,)), sse_reply(["a", "b"]).cut_short(HANG, keep=2)], start=1):
            provider.reply(reply)
            with socket.create_connection(("127.0.0.1", provider.port)) as client:
                client.sendall(b"POST /v1/x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
                provider.wait_for_requests(count)
                if count == 2:
                    assert client.recv(10) == b"HTTP/1.1 2"
            ended = provider.wait_closed_early(count=count)
            stages.append(ended.stage)
            assert provider.last.ended_early is ended
        with socket.create_connection(("127.0.0.1", provider.port)) as client:
            client.sendall(b"POST /v1/x HTTP/1.1\r\ncontent-length: 2\r\n\r\n{")
            provider.wait_for(lambda provider: provider.connections == 3)
        stages.append(provider.wait_closed_early(count=3).stage)
        assert stages == ["headers", "body", "request"]


def test_a_whole_exchange_is_not_ended_early() -> None:
    with FakeProvider() as provider:
        ask(provider, {})
        provider.wait_for(lambda provider: provider.open_connections == 0)
        assert provider.ended_early == []


def test_can_reset_and_close_in_the_middle() -> None:
    with FakeProvider() as provider:
        provider.reply(body_reply(b"0123456789").cut_short(RESET, keep=1))
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            ask(provider, {})
        provider.reply_raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        with pytest.raises(http.client.IncompleteRead):
            ask(provider, {})


def test_a_handler_that_raises_fails_the_test() -> None:
    def handler(request: SeenRequest) -> Reply:
        raise LookupError(request.path)

    provider = FakeProvider(handler)
    with pytest.raises(LookupError, match="/v1/chat"), provider, pytest.raises(http.client.RemoteDisconnected):
        ask(provider, {})


def test_cuts_are_random_but_repeatable() -> None:
    data = bytes(range(200))
    assert cut(data, 1) == cut(data, 1) != cut(data, 2)
    assert b"".join(cut(data, 1)) == data
    assert all(cut(data, 1))
    assert cut(b"", 1) == []
    assert cut(b"a", 1) == [b"a"]
