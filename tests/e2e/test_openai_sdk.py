"""The official OpenAI package for Python, pointed at a running gateway: what its users do every day."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello, please."}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(gateway: GatewayProcess, key: str) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0)


@pytest.fixture
def async_client(gateway: GatewayProcess, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0)


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o", "smart", "echo"])
def test_a_whole_answer(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_echo_says_what_it_was_told(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=HELLO)
    assert answer.choices[0].message.content == "Say hello, please."
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5, "UTF-8 bytes / 4, rounded up"


@pytest.mark.parametrize("model", ["gpt-4o", "echo"])
@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream(client: OpenAI, model: str, include_usage: bool) -> None:
    chunks = list(
        client.chat.completions.create(
            model=model, messages=HELLO, stream=True, stream_options={"include_usage": include_usage}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == "stop"
    assert set(reasons[:-1]) == {None}
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    if include_usage:
        assert with_usage == chunks[-1:]
        assert chunks[-1].choices == []
    else:
        assert with_usage == []
        assert all(chunk.choices for chunk in chunks)


def test_the_streaming_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content


async def test_the_asynchronous_client(async_client: AsyncOpenAI) -> None:
    async with async_client as client:
        whole = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert whole.choices[0].message.content
        stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == whole.choices[0].message.content
        async with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as helper:
            assert (await helper.get_final_completion()).choices[0].message.content == text


def test_tool_calls_whole_and_streamed(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, tools=[WEATHER], tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert calls[0].type == "function"
    json.loads(calls[0].function.arguments)
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert streamed
    assert [c.function.name for c in streamed] == [c.function.name for c in calls if c.type == "function"]

    results: list[ChatCompletionMessageParam] = [
        *HELLO,
        {
            "role": "assistant",
            "tool_calls": [
                {"id": calls[0].id, "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"},
    ]
    assert client.chat.completions.create(model="gpt-4o", messages=results).choices[0].message.content


class City(BaseModel):
    name: str


def test_structured_output_reaches_the_provider(client: OpenAI, provider: FakeProvider) -> None:
    provider.reply_json(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"name":"Oslo"}'}}
            ],
        }
    )
    answer = client.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Oslo")
    assert provider.last.json()["response_format"]["json_schema"]["strict"] is True


def test_models_are_listed_and_found(client: OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"echo", "smart", "gpt-4o-mini"} <= names
    assert client.models.retrieve("smart").owned_by == "openai"
    assert client.models.retrieve("gpt-4o").id == "gpt-4o", "what can be asked for is found, listed or not"


def error_body(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None, "param": None, **more}}


@pytest.mark.parametrize(
    ("status", "exception", "told"),
    [
        (400, openai.BadRequestError, 400),
        (401, openai.InternalServerError, 502),
        (403, openai.InternalServerError, 502),
        (404, openai.NotFoundError, 404),
        (422, openai.UnprocessableEntityError, 422),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 502),
        (503, openai.InternalServerError, 503),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_providers_errors_become_the_sdks_exceptions(
    client: OpenAI, provider: FakeProvider, status: int, exception: type[openai.APIStatusError], told: int, stream: bool
) -> None:
    provider.reply_json(error_body("the provider's words"), status=status)
    with pytest.raises(exception) as caught:
        client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=stream)
    assert caught.value.status_code == told
    assert caught.value.request_id
    if status not in (401, 403):
        assert "the provider's words" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "asked"), [(401, 1), (403, 1), (402, 1), (500, 3)], ids=["key", "forbidden", "quota", "failed"]
)
def test_the_sdk_tries_again_only_where_that_can_help(
    gateway: GatewayProcess, key: str, provider: FakeProvider, status: int, asked: int
) -> None:
    patient = OpenAI(base_url=gateway.base_url, api_key=key, max_retries=2)
    before = len(provider.requests)
    for _ in range(asked):
        provider.reply_json({"error": {"message": "no"}}, status=status)
    with pytest.raises(openai.APIStatusError) as caught:
        patient.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert len(provider.requests) - before == asked
    told = caught.value.response.headers.get_list("x-should-retry")
    assert told == ([] if asked > 1 else ["false"])


def test_an_error_within_a_stream_is_an_exception(client: OpenAI, provider: FakeProvider) -> None:
    first = {
        "id": "c",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}],
    }
    provider.reply_sse([first, error_body("overloaded in the middle")], delay_seconds=0.05)
    stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
    assert next(stream).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError, match="overloaded in the middle"):
        next(stream)


def test_our_own_refusals_are_the_sdks_exceptions(gateway: GatewayProcess) -> None:
    with pytest.raises(openai.AuthenticationError) as unknown:
        OpenAI(base_url=gateway.base_url, api_key="sk-nope", max_retries=0).models.list()
    assert unknown.value.code == "invalid_api_key"
    limited = OpenAI(base_url=gateway.base_url, api_key=gateway.create_key("--rpm", "1"), max_retries=0)
    limited.chat.completions.create(model="echo", messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        limited.chat.completions.create(model="echo", messages=HELLO)
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) <= 60
    narrow = OpenAI(base_url=gateway.base_url, api_key=gateway.create_key("--models", "gpt-*"), max_retries=0)
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        narrow.chat.completions.create(model="echo", messages=HELLO)
    assert forbidden.value.code == "model_not_allowed"
    names = {model.id for model in narrow.models.list()}
    assert names == {"gpt-4o-mini", "smart"}, "an alias is granted by its target"


def test_unknown_fields_reach_the_provider(client: OpenAI, provider: FakeProvider) -> None:
    client.chat.completions.create(
        model="gpt-4o", messages=HELLO, seed=7, extra_body={"chat_template_kwargs": {"enable_thinking": False}}
    )
    sent = provider.last.json()
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["seed"] == 7
    assert "stream_options" not in sent
