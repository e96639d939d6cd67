"""OpenAI chat completions at both ends: envelopes, forwarding, streams, usage, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate import errors
from inferxgate.canonical.chat import (
    ChatRequest,
    ChatResponse,
    Chunk,
    Finish,
    Start,
    TextDelta,
    ToolCall,
    UsageReport,
    collect,
)
from inferxgate.canonical.usage import Usage
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import openai_chat
from inferxgate.dialects.failures import retry_after
from inferxgate.dialects.openai_answers import StreamBuilder
from inferxgate.dialects.protocol import BuildTarget, Call
from inferxgate.dialects.quirks import Quirks
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder, SSEEvent

HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}


def build(request: ChatRequest, model: str, *, ask: bool) -> Call:
    return openai_chat.build_request(request, BuildTarget("host", model, Abilities(), Quirks(stream_usage=ask)))


# --- requests


@pytest.mark.parametrize(
    ("change", "param", "says"),
    [
        ({"model": None}, "model", "no 'model'"),
        ({"model": 7}, "model", "must be a string, not a number"),
        ({"model": ""}, "model", "1 to 256"),
        ({"model": "x" * 257}, "model", "1 to 256"),
        ({"model": "gpt\n4"}, "model", "printable"),
        ({"messages": None}, "messages", "no 'messages'"),
        ({"messages": "Hello"}, "messages", "must be a list of messages, not a string"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": {"role": "user"}}, "messages", "not an object"),
        ({"messages": ["Hello"]}, "messages.0", "must be an object"),
        ({"messages": [*HELLO["messages"], {"content": "x"}]}, "messages.1.role", "no 'role'"),
        ({"messages": [{"role": 1}]}, "messages.0.role", "must be a string"),
        ({"stream": "yes"}, "stream", "true or false, not a string"),
        ({"stream": 1}, "stream", "true or false, not a number"),
        ({"stream_options": True}, "stream_options", "an object, not true"),
        ({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage", "true or false"),
    ],
)
def test_a_wrong_envelope_names_its_field(change: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(GatewayError) as caught:
        openai_chat.parse_request({**HELLO, **change})
    assert caught.value.status == 400
    assert caught.value.param == param
    assert says in caught.value.message


@pytest.mark.parametrize("body", [None, [], "text", 7, True])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(GatewayError, match="must be a JSON object"):
        openai_chat.parse_request(body)


def test_everything_else_is_left_to_the_provider() -> None:
    body = {**HELLO, "temperature": "hot", "n": -1, "made_up": {"deep": [1, None]}, "tools": "x"}
    request = openai_chat.parse_request(body)
    sent = json.loads(build(request, "gpt-4o", ask=True).body)
    assert sent == body


def test_only_the_model_changes() -> None:
    body = {"model": "smart", "messages": [{"role": "user", "content": "é 😀"}], "seed": 7, "user": "ann"}
    request = openai_chat.parse_request(body)
    assert (request.model, request.end_user, request.stream) == ("smart", "ann", False)
    assert json.loads(build(request, "gpt-4o", ask=True).body) == {**body, "model": "gpt-4o"}
    assert body["model"] == "smart", "the client's own body is not written to: other targets are built from it too"


@pytest.mark.parametrize(
    ("options", "ask", "sent"),
    [
        (None, True, {"include_usage": True}),
        (None, False, None),
        ({"include_usage": False}, True, {"include_usage": True}),
        ({"include_usage": False}, False, None),
        ({"include_usage": True}, False, None),
        ({"include_usage": True, "include_obfuscation": False}, False, {"include_obfuscation": False}),
        (
            {"include_usage": True, "include_obfuscation": False},
            True,
            {"include_usage": True, "include_obfuscation": False},
        ),
        ({"include_obfuscation": False}, True, {"include_usage": True, "include_obfuscation": False}),
    ],
)
def test_a_stream_is_asked_for_its_usage(options: object, ask: bool, sent: object) -> None:
    body = {**HELLO, "stream": True} | ({} if options is None else {"stream_options": options})
    request = openai_chat.parse_request(body)
    assert json.loads(build(request, "m", ask=ask).body).get("stream_options") == sent


def test_a_whole_request_gets_no_stream_options() -> None:
    request = openai_chat.parse_request(HELLO)
    assert "stream_options" not in json.loads(build(request, "m", ask=True).body)


def test_nesting_too_deep_to_write_again_is_the_callers_error() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    request = openai_chat.parse_request({**HELLO, "metadata": deep})
    with pytest.raises(GatewayError, match="nested too deeply") as caught:
        build(request, "m", ask=True)
    assert (caught.value.status, caught.value.param) == (400, "metadata")


# --- whole answers


def answer(**message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


def test_a_whole_answer_says_what_it_holds() -> None:
    calls = [
        {"id": "call_a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    body = answer(content="Hi", reasoning_content="hm", refusal="no", tool_calls=calls)
    response = openai_chat.response_of(json.dumps(body).encode())
    choice = response.choices[0]
    assert (response.id, response.model) == ("chatcmpl-1", "gpt-4o-2024-08-06")
    assert (choice.text, choice.reasoning, choice.refusal, choice.finish_reason) == ("Hi", "hm", "no", "stop")
    assert [(i, c.id, c.name, c.arguments) for i, c in choice.tool_calls.items()] == [
        (0, "call_a", "f", '{"x":1}'),
        (1, "call_b", "g", ""),
    ]
    assert response.usage == Usage(input_tokens=10, output_tokens=5)


@pytest.mark.parametrize(
    "thinking",
    ["hm", [{"type": "text", "text": "hm"}], [{"type": "thinking", "thinking": "h"}, 7, {"type": "text", "text": "m"}]],
)
def test_content_in_parts_is_read(thinking: object) -> None:
    parts = [{"type": "thinking", "thinking": thinking}, {"type": "text", "text": "Hi"}, 7, {"type": "image", "x": 1}]
    choice = openai_chat.response_of(json.dumps(answer(content=parts)).encode()).choices[0]
    assert (choice.text, choice.reasoning) == ("Hi", "hm")


def test_the_deprecated_function_call_is_a_tool_call() -> None:
    body = answer(content=None, function_call={"name": "f", "arguments": "{}"})
    assert openai_chat.response_of(json.dumps(body).encode()).choices[0].tool_calls == {0: ToolCall("", "f", "{}")}


def test_what_a_message_holds_but_does_not_say_is_nothing() -> None:
    body = answer(content="", refusal=None, reasoning="", tool_calls=[None, "f"], function_call={"name": None})
    _, chunks = openai_chat.parse_response(json.dumps(body).encode())
    assert chunks == (
        Start("chatcmpl-1", "gpt-4o-2024-08-06"),
        Finish(0, "stop"),
        UsageReport(Usage(input_tokens=10, output_tokens=5)),
    )


@pytest.mark.parametrize("choice", [{"index": 0}, {"message": None, "finish_reason": None}, {"message": "Hi"}])
def test_an_answer_that_leaves_out_message_reason_and_usage_is_one_that_says_nothing(choice: dict[str, Any]) -> None:
    assert openai_chat.response_of(json.dumps({"id": 7, "choices": [choice]}).encode()) == ChatResponse()


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>502</html>", b"{", b"[]", b'"text"', b"{}", b'{"choices": null}', b'{"choices": [7]}', b'{"a": NaN}'],
)
def test_nonsense_is_the_providers_fault(data: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        openai_chat.parse_response(data)
    assert caught.value.kind is errors.UPSTREAM_INVALID_RESPONSE


def test_an_error_with_status_200_is_an_error() -> None:
    data = json.dumps({"error": {"message": "Provider returned error", "code": 429}}).encode()
    with pytest.raises(GatewayError) as caught:
        openai_chat.parse_response(data)
    assert caught.value.kind is errors.UPSTREAM_RATE_LIMITED


# --- usage


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, Usage(input_tokens=10, output_tokens=5)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5},
            },
            Usage(
                input_tokens=30,
                cache_read_tokens=60,
                audio_input_tokens=10,
                output_tokens=15,
                reasoning_tokens=30,
                audio_output_tokens=5,
            ),
        ),
        (  # DeepSeek
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5},
            Usage(input_tokens=5, cache_read_tokens=4, output_tokens=1),
        ),
        (  # Mistral, at times
            {"prompt_tokens": 273, "completion_tokens": 97, "total_tokens": 370, "num_cached_tokens": 48},
            Usage(input_tokens=225, cache_read_tokens=48, output_tokens=97),
        ),
        (  # Together
            {"prompt_tokens": 44, "completion_tokens": 23, "total_tokens": 67, "cached_tokens": 40},
            Usage(input_tokens=4, cache_read_tokens=40, output_tokens=23),
        ),
        (  # OpenRouter's Gemini: the same tokens are written and read, and charged as both
            {
                "prompt_tokens": 2168,
                "completion_tokens": 100,
                "prompt_tokens_details": {"cached_tokens": 2161, "cache_write_tokens": 2161},
            },
            Usage(input_tokens=7, cache_read_tokens=2161, cache_write_5m_tokens=2161, output_tokens=100),
        ),
        (  # xAI: reasoning stands beside the completion
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 115,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(input_tokens=10, output_tokens=5, reasoning_tokens=100),
        ),
        ({"prompt_tokens": "10", "completion_tokens": True, "total_tokens": -1}, Usage(input_tokens=10)),
        (  # Azure's Grok: more is said to be cached than was sent
            {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 5}},
            Usage(cache_read_tokens=1),
        ),
        (  # Azure's Grok again: what is cached may be an image
            {"prompt_tokens": 265, "prompt_tokens_details": {"cached_tokens": 161, "image_tokens": 256}},
            Usage(cache_read_tokens=161, image_input_tokens=104),
        ),
        (  # Gemini behind Vercel's gateway: reasoning stands beside the completion, and not in the total either
            {
                "prompt_tokens": 57,
                "completion_tokens": 18,
                "total_tokens": 75,
                "completion_tokens_details": {"reasoning_tokens": 95},
            },
            Usage(input_tokens=57, output_tokens=18, reasoning_tokens=95),
        ),
        (  # Mistral: audio stands beside the prompt
            {
                "prompt_tokens": 9,
                "completion_tokens": 248,
                "total_tokens": 632,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
            },
            Usage(input_tokens=9, audio_input_tokens=375, output_tokens=248),
        ),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(input_tokens=3)),
    ],
)
def test_usage_falls_into_disjoint_buckets(reported: dict[str, Any], usage: Usage) -> None:
    assert openai_chat.parse_usage(reported) == usage


def test_groqs_streamed_usage_is_found() -> None:
    body = {"choices": [], "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}}
    assert openai_chat.usage_of(body) == Usage(input_tokens=3, output_tokens=2)


# --- streams


def delta(content: str | None = None, *, index: int = 0, reason: str | None = None, **more: Any) -> dict[str, Any]:
    said = {} if content is None else {"content": content}
    choice = {"index": index, "delta": {**said, **more}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def relay(*events: Any, include_usage: bool) -> tuple[str, openai_chat.StreamParser]:
    parser, builder = openai_chat.StreamParser(), StreamBuilder(include_usage=include_usage)
    out = b""
    for event in events:
        data = event.encode() if isinstance(event, str) else json.dumps(event).encode()
        parsed = parser.feed(SSEEvent(data))
        if parsed is not None:
            out += builder.build(parsed)
    return (out + builder.finish()).decode(), parser


def sent(text: str) -> list[Any]:
    return [json.loads(line) if line != "[DONE]" else line for line in text.replace("data: ", "").split("\n\n") if line]


def test_events_go_through_as_the_provider_wrote_them() -> None:
    odd = '{ "choices":[{"delta":{"content":"é\\u00e9"},"index":0}],  "obfuscation":"xx", "made_up":1.50 }'
    text, _ = relay(odd, include_usage=False)
    assert text.startswith(f"data: {odd}\n\n")


def test_usage_comes_last_and_only_when_asked_for() -> None:
    usage_event = {**delta(), "choices": [], "usage": USAGE}
    for include, last in ((True, [usage_event, "[DONE]"]), (False, ["[DONE]"])):
        text, parser = relay(delta("Hi"), delta(reason="stop"), usage_event, "[DONE]", include_usage=include)
        assert sent(text) == [delta("Hi"), delta(reason="stop"), *last]
        assert parser.done
        assert parser.complete


def test_usage_that_rides_on_a_choice_is_split_off() -> None:
    riding = {**delta(reason="stop"), "usage": USAGE}
    text, _ = relay(delta("Hi"), riding, "[DONE]", include_usage=True)
    assert sent(text) == [delta("Hi"), delta(reason="stop"), {**delta(), "choices": [], "usage": USAGE}, "[DONE]"]
    text, _ = relay(delta("Hi"), riding, "[DONE]", include_usage=False)
    assert sent(text) == [delta("Hi"), delta(reason="stop"), "[DONE]"]


def test_of_usage_on_every_event_the_last_counts() -> None:
    events = [{**delta("a"), "usage": {**USAGE, "completion_tokens": n}} for n in (1, 2, 3)]
    text, _ = relay(*events, delta(reason="stop"), "[DONE]", include_usage=True)
    assert sent(text)[-2]["usage"]["completion_tokens"] == 3
    assert all("usage" not in event for event in sent(text)[:-2])


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b'{"choices":[{"delta":{"content":"a"}}],"usage":null}', b'{"choices":[{"delta":{"content":"a"}}]}'),
        (
            b'{"choices":[{"delta":{"content":"a"}}],"usage":null,"x":1}',
            b'{"choices":[{"delta":{"content":"a"}}],"x":1}',
        ),
        (b'{"usage": null, "choices": [{"delta": {}}]}', b'{"choices":[{"delta":{}}]}'),
        (
            b'{"choices":[{"delta":{"content":"a","usage":null}}],"usage":null}',
            b'{"choices":[{"delta":{"content":"a","usage":null}}]}',
        ),
        (
            b'{"choices":[{"delta":{"content":",\\"usage\\":null"}}],"usage":null}',
            b'{"choices":[{"delta":{"content":",\\"usage\\":null"}}]}',
        ),
    ],
)
def test_the_null_usage_that_our_asking_brings_is_taken_out_again(raw: bytes, left: bytes) -> None:
    event = openai_chat.StreamParser().feed(SSEEvent(raw))
    assert event is not None
    assert StreamBuilder(include_usage=False).build(event) == b"data: " + left + b"\n\n"
    assert StreamBuilder(include_usage=True).build(event) == b"data: " + raw + b"\n\n"


@pytest.mark.parametrize("nothing", [[], None])
def test_azures_empty_opening_is_dropped(nothing: object) -> None:
    opening = {"id": "", "choices": nothing, "prompt_filter_results": [{"prompt_index": 0}]}
    text, _ = relay(opening, delta("Hi"), delta(reason="stop"), "[DONE]", include_usage=False)
    assert sent(text) == [delta("Hi"), delta(reason="stop"), "[DONE]"]


@pytest.mark.parametrize("data", [b"", b" ", b"\n"])
def test_a_keep_alive_without_data_says_nothing(data: bytes) -> None:
    parser = openai_chat.StreamParser()
    assert parser.feed(SSEEvent(data)) is None
    assert not parser.done


@pytest.mark.parametrize("choices", [None, []])
def test_an_opening_without_choices_says_nothing(choices: object) -> None:
    parser = openai_chat.StreamParser()
    assert parser.feed(SSEEvent(json.dumps({"choices": choices, "prompt_filter_results": [{}]}).encode())) is None
    assert not parser.done


@pytest.mark.parametrize("choices", [7, {"index": 0}, ["Hi"], [{"index": 0}], [{"delta": "Hi"}]])
def test_an_event_whose_choices_make_no_sense_goes_through_and_says_nothing(choices: object) -> None:
    data, parser = json.dumps({"choices": choices}).encode(), openai_chat.StreamParser()
    event = parser.feed(SSEEvent(data))
    assert event is not None
    assert (event.raw, event.chunks) == (data, ())
    assert not parser.complete


def test_a_stream_is_complete_when_each_choice_has_its_reason() -> None:
    _, parser = relay(delta("a"), delta("b", index=1), delta(reason="stop"), include_usage=False)
    assert not parser.complete
    _, parser = relay(
        delta("a"), delta("b", index=1), delta(reason="stop"), delta(index=1, reason="length"), include_usage=False
    )
    assert parser.complete
    assert not parser.done


def test_nothing_is_not_a_complete_stream() -> None:
    assert not openai_chat.StreamParser().complete


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "slow down", "type": "rate_limit_error"}}, errors.UPSTREAM_RATE_LIMITED),
        ({"error": {"message": "no money", "code": "insufficient_quota"}}, errors.UPSTREAM_QUOTA_EXCEEDED),
        ({"error": {"message": "boom"}}, errors.UPSTREAM_ERROR),
        ({"error": {"message": "busy", "code": 503}, **delta(reason="error")}, errors.UPSTREAM_OVERLOADED),
        ({"error": {"message": "bad", "status_code": 400}}, errors.INVALID_VALUE),
        ({"error": {"message": "slow down", "code": "429"}}, errors.UPSTREAM_RATE_LIMITED),
        ({"error": {"message": "boom", "code": 200, "status": 503}}, errors.UPSTREAM_OVERLOADED),
        ({"error": "broke"}, errors.UPSTREAM_ERROR),
        ({"x_groq": {"error": "broke"}, "choices": []}, errors.UPSTREAM_ERROR),
        ("{", errors.UPSTREAM_INVALID_RESPONSE),
        ("[1]", errors.UPSTREAM_INVALID_RESPONSE),
    ],
)
def test_an_error_in_a_stream_is_raised(event: Any, kind: errors.Kind) -> None:
    with pytest.raises(GatewayError) as caught:
        relay(event, include_usage=False)
    assert caught.value.kind is kind


def test_an_event_named_error_is_raised() -> None:
    with pytest.raises(GatewayError, match="slow down"):
        openai_chat.StreamParser().feed(SSEEvent(b'{"message": "slow down", "type": "rate_limit_error"}', "error"))


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
DELTAS = st.one_of(
    st.fixed_dictionaries({"content": TEXT}),
    st.fixed_dictionaries({"reasoning_content": TEXT}),
    st.fixed_dictionaries({"refusal": TEXT}),
    st.builds(
        lambda index, arguments: {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]},
        st.integers(0, 3),
        TEXT,
    ),
)


@given(
    st.lists(st.tuples(st.integers(0, 2), DELTAS), min_size=1, max_size=20),
    st.lists(st.integers(1, 40), max_size=60),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_stream_means_the_same_as_the_whole_answer_however_it_is_cut(
    deltas: list[tuple[int, dict[str, Any]]], cuts: list[int], newline: str
) -> None:
    whole: dict[int, dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    for index, piece in deltas:
        events.append({"choices": [{"index": index, "delta": piece}]})
        message = whole.setdefault(index, {"tool_calls": []})
        for name, value in piece.items():
            if name != "tool_calls":
                message[name] = message.get(name, "") + value
                continue
            call = next((c for c in message["tool_calls"] if c["index"] == value[0]["index"]), None)
            if call is None:
                call = {"index": value[0]["index"], "function": {"arguments": ""}}
                message["tool_calls"].append(call)
            call["function"]["arguments"] += value[0]["function"]["arguments"]
    events += [{"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]} for index in whole]
    body = {"choices": [{"index": i, "message": m, "finish_reason": "stop"} for i, m in whole.items()], "usage": USAGE}
    events.append({"choices": [], "usage": USAGE})

    data = "".join(f"data: {json.dumps(event)}{newline}{newline}" for event in events).encode() + b"data: [DONE]\n\n"
    decoder, parser, chunks = SSEDecoder(), openai_chat.StreamParser(), list[Chunk]()
    pieces = []
    for length in cuts:
        pieces.append(data[:length])
        data = data[length:]
    for part in (*pieces, data):
        for sse in decoder.feed(part):
            parsed = parser.feed(sse)
            chunks += parsed.chunks if parsed else ()
    assert parser.complete
    assert parser.done
    assert collect(chunks) == openai_chat.response_of(json.dumps(body).encode())


# --- errors


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, errors.INVALID_VALUE, 400),
        (404, errors.MODEL_NOT_FOUND, 404),
        (413, errors.REQUEST_TOO_LARGE, 413),
        (422, errors.INVALID_VALUE, 422),
        (401, errors.UPSTREAM_AUTH_ERROR, 502),
        (403, errors.UPSTREAM_AUTH_ERROR, 502),
        (402, errors.UPSTREAM_QUOTA_EXCEEDED, 429),
        (408, errors.UPSTREAM_TIMEOUT, 504),
        (429, errors.UPSTREAM_RATE_LIMITED, 429),
        (424, errors.UPSTREAM_ERROR, 502),
        (500, errors.UPSTREAM_ERROR, 502),
        (502, errors.UPSTREAM_ERROR, 502),
        (503, errors.UPSTREAM_OVERLOADED, 503),
        (504, errors.UPSTREAM_TIMEOUT, 504),
        (529, errors.UPSTREAM_OVERLOADED, 503),
        (302, errors.UPSTREAM_INVALID_RESPONSE, 502),
        (418, errors.UPSTREAM_ERROR, 502),
    ],
)
def test_statuses_become_those_of_the_contract(status: int, kind: errors.Kind, told: int) -> None:
    data = b'{"error": {"message": "because", "type": "t", "code": "c", "param": "p"}}'
    error = openai_chat.parse_error(status, {}, data, 0)
    assert (error.kind, error.status, error.upstream_status) == (kind, told, status)
    if told == status and status < 429:
        assert (error.message, error.type, error.code, error.param) == ("because", kind.type, "c", "p")


@pytest.mark.parametrize("code", ["model_not_found", "model_permission_blocked_org"])
def test_a_model_that_a_project_may_not_use_is_one_that_is_not_there(code: str) -> None:
    words = "Project `proj_1` does not have access to model `gpt-4o`"
    data = json.dumps({"error": {"message": words, "type": "invalid_request_error", "param": None, "code": code}})
    error = openai_chat.parse_error(403, {}, data.encode(), 0)
    assert (error.kind, error.status, error.upstream_status) == (errors.MODEL_NOT_FOUND, 404, 403)
    assert (error.message, error.code) == (words, "model_not_found")


def test_the_providers_words_about_our_credential_are_not_passed_on() -> None:
    data = b'{"error": {"message": "Incorrect API key provided: sk-abc***xyz"}}'
    assert "sk-" not in openai_chat.parse_error(401, {}, data, 0).message


def test_a_used_up_quota_is_not_worth_a_retry() -> None:
    data = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    error = openai_chat.parse_error(429, {"retry-after": "1"}, data, 0)
    assert (error.kind, error.headers) == (errors.UPSTREAM_QUOTA_EXCEEDED, {"x-should-retry": "false"})
    assert error.type == "insufficient_quota"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "m"}}, "m"),
        ({"error": "m"}, "m"),
        ({"error": ["a", "b"]}, "a; b"),
        ({"object": "error", "message": "m", "type": "t"}, "m"),
        ({"detail": [{"loc": ["body", "n"], "msg": "extra", "type": "x"}]}, "body.n: extra"),
        ({"detail": [{"msg": "extra"}, {"loc": ["n"]}, 7]}, 'extra; {"loc":["n"]}; 7'),
        ({"detail": "m"}, "m"),
        ([{"error": {"message": "m"}}], "m"),
        ({"error": {"message": {"detail": ["x"]}}}, '{"detail":["x"]}'),
    ],
)
def test_every_spelling_of_an_error_is_read(body: Any, message: str) -> None:
    assert openai_chat.parse_error(400, {}, json.dumps(body).encode(), 0).message == message


@pytest.mark.parametrize(
    "data", [b"", b"<html><body>no</body></html>", b"null", b"7", b"[]", b"\xff", b'{"error": 7}', b'{"error": true}']
)
def test_an_error_without_words_still_says_something(data: bytes) -> None:
    error = openai_chat.parse_error(400, {}, data, 0)
    assert "status 400" in error.message
    assert "<html>" not in error.message


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "99999999999"}, 99_999_999_999.0),
    ],
)
def test_every_spelling_of_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now_s=60) == seconds


@pytest.mark.parametrize(
    ("status", "error_type", "code"),
    [(404, "not_found_error", "route_not_found"), (413, "invalid_request_error", "request_too_large")],
)
def test_a_kept_status_without_words_has_the_contracts(status: int, error_type: str, code: str) -> None:
    error = openai_chat.parse_error(status, {}, b"{}", now_s=0)
    assert (error.status, error.type, error.code) == (status, error_type, code)


@pytest.mark.parametrize("word", ["z" * 5_000_000, "a\nb", "", 7, ["x"], {"a": 1}, None])
def test_words_of_a_provider_are_short_and_printable_or_ours(word: object) -> None:
    data = json.dumps({"error": {"message": "m", "type": word, "code": word, "param": word}}).encode()
    error = openai_chat.parse_error(400, {}, data, now_s=0)
    assert (error.type, error.code, error.param) == ("invalid_request_error", "invalid_value", None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["error", "message", "code", "type", "param", "detail", "loc", "msg", "choices", "delta", "index", "usage",
             "tool_calls", "function", "arguments", "finish_reason", "content", "prompt_tokens", "x_groq", "status"]
        ),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip


@given(JSON, st.sampled_from([400, 404, 422, 429, 500, 503]))
def test_whatever_json_a_provider_sends_only_our_own_errors_come_of_it(body: Any, status: int) -> None:
    data = json.dumps(body).encode()
    assert isinstance(openai_chat.parse_error(status, {}, data, now_s=0), GatewayError)
    builder = StreamBuilder(include_usage=True)
    parser = openai_chat.StreamParser()
    for read in (openai_chat.parse_response, lambda raw: parser.feed(SSEEvent(raw))):
        try:
            event = read(data)
            if event is not None and not isinstance(event, tuple):
                builder.build(event)
        except GatewayError:
            continue


@pytest.mark.parametrize("depth", [300, 900])
def test_json_too_deep_to_write_again_is_no_crash(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    told = openai_chat.parse_error(400, {}, b'{"error": {"message": DEEP}}'.replace(b"DEEP", deep), now_s=0)
    assert told.status == 400
    call = b'{"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": DEEP}}]}}]}'
    with pytest.raises(GatewayError) as caught:
        openai_chat.parse_response(call.replace(b"DEEP", deep))
    assert caught.value.kind is errors.UPSTREAM_INVALID_RESPONSE
    with_usage = b'{"choices": [{"x": DEEP}], "usage": {"prompt_tokens": 1}}'
    event = openai_chat.StreamParser().feed(SSEEvent(with_usage.replace(b"DEEP", deep)))
    assert event is not None
    with pytest.raises(GatewayError):
        StreamBuilder(include_usage=False).build(event)


def test_counts_that_are_no_counts_are_none() -> None:
    usage = {"prompt_tokens": 1e300, "completion_tokens": float("nan"), "total_tokens": -7}
    assert openai_chat.parse_usage(usage) == Usage()
    assert openai_chat.parse_usage({"prompt_tokens": "7", "completion_tokens": 2.0}) == Usage(7, output_tokens=2)


def test_errors_have_openais_form() -> None:
    error = GatewayError(errors.MODEL_NOT_FOUND, "There is no model 'x'.", param="model")
    assert json.loads(openai_chat.build_error(error)) == {
        "error": {
            "type": "not_found_error",
            "message": "There is no model 'x'.",
            "code": "model_not_found",
            "param": "model",
        }
    }


# --- events that are nothing but text take a shorter way


DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.sampled_from(["a", "", "\u00e9\u4e2d", None, ["part"]]),
        "role": st.sampled_from(["assistant", None]),
        "refusal": st.sampled_from([None, "", "no"]),
        "annotations": st.just([]),
        "reasoning_content": st.just("hm"),
        "tool_calls": st.just([{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]),
    },
)
CHOICES = st.fixed_dictionaries(
    {"delta": DELTAS},
    optional={"index": st.sampled_from([0, 1, True, None, "0"]), "finish_reason": st.sampled_from([None, "stop"])},
)
USUAL = st.builds(
    lambda text, role, reason: {"id": "x", "choices": [{"index": 0, "delta": {"content": text} | role} | reason]},
    st.sampled_from(["a", "\u00e9", ""]),
    st.sampled_from([{}, {"role": "assistant"}, {"refusal": None}, {"refusal": "no"}]),
    st.sampled_from([{}, {"finish_reason": None}, {"finish_reason": "stop"}]),
)
EVENTS = USUAL | st.fixed_dictionaries(
    {"choices": st.one_of(st.lists(CHOICES, min_size=1, max_size=2), st.just([None]), st.none())},
    optional={
        "id": st.just("x"),
        "usage": st.sampled_from([None, {"prompt_tokens": 1, "completion_tokens": 2}]),
        "x_groq": st.just({"id": "r"}),
        "obfuscation": st.just("padding"),
    },
)


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_the_short_way_means_what_the_long_way_means(bodies: list[dict[str, Any]]) -> None:
    short, long = openai_chat.StreamParser(), openai_chat.StreamParser()
    for body in bodies:
        event = short.feed(SSEEvent(json.dumps(body).encode()))
        # A field that nobody knows keeps an event from the short way.
        other = long.feed(SSEEvent(json.dumps({**body, "unknown": 1}).encode()))
        assert (event and event.chunks) == (other and other.chunks)
        assert (short.complete, short.done) == (long.complete, long.done)
        assert other is None or not other.plain
        if event is not None and event.plain:
            assert [type(chunk) for chunk in event.chunks] == [TextDelta]


@given(st.lists(EVENTS, min_size=1, max_size=4), st.booleans())
def test_events_written_together_are_those_written_one_by_one(bodies: list[dict[str, Any]], asked: bool) -> None:
    parser = openai_chat.StreamParser()
    found = [parser.feed(SSEEvent(json.dumps(body).encode())) for body in bodies]
    events = [event for event in found if event is not None]
    together, one_by_one = StreamBuilder(include_usage=asked), StreamBuilder(include_usage=asked)
    pieces: list[bytes] = []
    together.build_all(events, pieces)
    assert pieces == [one_by_one.build(event) for event in events]
    assert together.finish() == one_by_one.finish()


def test_a_plain_event_of_several_lines_is_written_as_one() -> None:
    event = openai_chat.StreamParser().feed(SSEEvent(b'{"choices":\n[{"index": 0, "delta": {"content": "a"}}]}'))
    assert event is not None
    assert event.plain
    pieces: list[bytes] = []
    StreamBuilder(include_usage=False).build_all([event], pieces)
    assert pieces == [b'data: {"choices":\ndata: [{"index": 0, "delta": {"content": "a"}}]}\n\n']


@pytest.mark.parametrize(
    ("delta", "plain"),
    [
        ({"content": "a"}, True),
        ({"role": "assistant", "content": "a", "refusal": None}, True),
        ({"content": ""}, False),
        ({"content": None}, False),
        ({"content": "a", "refusal": "no"}, False),
        ({"content": "a", "reasoning_content": "hm"}, False),
    ],
)
def test_what_takes_the_short_way(delta: dict[str, Any], plain: bool) -> None:
    raw = json.dumps({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode()
    event = openai_chat.StreamParser().feed(SSEEvent(raw))
    assert event is not None
    assert event.plain is plain
    pieces: list[bytes] = []
    StreamBuilder(include_usage=False).build_all([event], pieces)
    assert pieces == [b"data: " + raw + b"\n\n"]
