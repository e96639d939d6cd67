"""What hosts do differently: each quirk of a request and of an answer, and each row that has some."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from inferxgate.canonical.chat import UsageReport
from inferxgate.canonical.usage import Usage
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import openai_chat, openai_quirks
from inferxgate.dialects.openai_chat import StreamParser, parse_response
from inferxgate.dialects.openai_quirks import mend, short_id
from inferxgate.dialects.protocol import BuildTarget, FailedAnswer
from inferxgate.dialects.quirks import Quirks
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEEvent
from inferxgate.providers.registry import ROWS

USER = {"role": "user", "content": "x"}


def sent(host: str, changes: dict[str, Any], *, strict: bool = False) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What of ``changes`` to a plain request reaches the host, and what is named as dropped."""
    body = {"model": "m", "messages": [USER], **changes}
    target = BuildTarget(host, "m", Abilities(), ROWS[host].quirks, strict)
    before = json.dumps(body)
    call = openai_chat.build_request(openai_chat.parse_request(body), target)
    assert json.dumps(body) == before, "the client's request is not written to: other targets are built from it too"
    arrived = json.loads(call.body)
    del arrived["model"]
    if arrived["messages"] == [USER]:
        del arrived["messages"]
    return arrived, call.dropped


@pytest.mark.parametrize(
    ("host", "asked", "arrives", "dropped"),
    [
        (
            "openai",
            {"n": 3, "logit_bias": {"1": 1}, "made_up": None},
            {"n": 3, "logit_bias": {"1": 1}, "made_up": None},
            (),
        ),
        ("groq", {"logit_bias": {"1": 1}, "n": 1, "user": "ann"}, {"n": 1, "user": "ann"}, ("logit_bias",)),
        ("groq", {"logprobs": False, "top_logprobs": 0, "n": None, "seed": None}, {}, ()),
        (
            "groq",
            {"reasoning_format": "parsed", "include_reasoning": True},
            {"reasoning_format": "parsed", "include_reasoning": True},
            (),
        ),
        ("mistral", {"seed": 7, "max_completion_tokens": 9}, {"random_seed": 7, "max_tokens": 9}, ()),
        ("mistral", {"seed": 7, "random_seed": 8}, {"random_seed": 8}, ()),
        ("mistral", {"user": "ann", "logit_bias": None, "store": True}, {}, ("user", "store")),
        (
            "mistral",
            {"n": 2, "safe_prompt": True, "prompt_cache_key": "k"},
            {"n": 2, "safe_prompt": True, "prompt_cache_key": "k"},
            (),
        ),
        ("mistral", {"service_tier": "auto"}, {"service_tier": "auto"}, ()),
        ("mistral", {"service_tier": None}, {"service_tier": None}, ()),
        ("mistral", {"service_tier": "flex"}, {}, ("service_tier",)),
        ("mistral", {"service_tier": ["flex"]}, {}, ("service_tier",)),
        ("mistral", {"modalities": ["text"]}, {}, ()),
        ("mistral", {"stream": True}, {"stream": True}, ()),
        ("mistral", {"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}, ()),
        (
            "deepseek",
            {"max_completion_tokens": 9, "thinking": {"type": "disabled"}},
            {"max_tokens": 9, "thinking": {"type": "disabled"}},
            (),
        ),
        ("together", {"max_completion_tokens": 9, "max_tokens": 8}, {"max_tokens": 8}, ()),
        ("perplexity", {"max_completion_tokens": 9, "search_mode": "web"}, {"max_tokens": 9, "search_mode": "web"}, ()),
        ("ollama", {"max_completion_tokens": 9, "n": 1}, {"max_tokens": 9, "n": 1}, ()),
        ("vllm", {"top_p": None, "chat_template_kwargs": {"a": None}}, {"chat_template_kwargs": {"a": None}}, ()),
        ("xai", {"top_p": None, "max_completion_tokens": 9}, {"top_p": None, "max_completion_tokens": 9}, ()),
    ],
)
def test_what_reaches_each_host(
    host: str, asked: dict[str, Any], arrives: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    assert sent(host, asked) == (arrives, dropped)


@pytest.mark.parametrize(
    ("host", "asked", "param"),
    [
        ("groq", {"n": 2}, "n"),
        ("groq", {"logprobs": True}, "logprobs"),
        ("groq", {"top_logprobs": 2}, "top_logprobs"),
        ("mistral", {"modalities": ["text", "audio"]}, "modalities"),
        ("mistral", {"functions": [{"name": "f"}]}, "functions"),
        ("deepseek", {"n": 2}, "n"),
        ("ollama", {"n": 2}, "n"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_has_meaning_is_never_dropped(host: str, asked: dict[str, Any], param: str, *, strict: bool) -> None:
    with pytest.raises(GatewayError) as caught:
        sent(host, asked, strict=strict)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", param)
    assert host in caught.value.message


def test_a_strict_policy_refuses_what_would_be_dropped() -> None:
    with pytest.raises(GatewayError) as caught:
        sent("mistral", {"user": "ann"}, strict=True)
    assert (caught.value.status, caught.value.param) == (400, "user")
    assert sent("mistral", {"user": None, "seed": 1}, strict=True) == ({"random_seed": 1}, ())


def test_messages_lose_the_keys_that_a_host_forbids() -> None:
    messages = [
        {"role": "developer", "content": "d", "name": "ann"},
        {"role": "user", "content": "u", "name": "ann"},
        {
            "role": "assistant",
            "content": "a",
            "refusal": None,
            "annotations": [],
            "reasoning_content": "r",
            "prefix": True,
        },
        {"role": "tool", "content": "t", "tool_call_id": "abcDEF123", "name": "f"},
        {"role": "function", "content": "kept as it came", "name": "f"},
    ]
    arrived, dropped = sent("mistral", {"messages": messages})
    assert arrived["messages"] == [
        {"role": "system", "content": "d"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a", "prefix": True},
        {"role": "tool", "content": "t", "tool_call_id": "abcDEF123", "name": "f"},
        {"role": "function", "content": "kept as it came", "name": "f"},
    ]
    assert dropped == ("messages.0.name", "messages.1.name", "messages.2.reasoning_content"), (
        "what said nothing goes without a word"
    )
    arrived, dropped = sent("groq", {"messages": messages[:4]})
    assert [message.keys() for message in arrived["messages"]] == [
        {"role", "content"},
        {"role", "content"},
        {"role", "content"},
        {"role", "content", "tool_call_id"},
    ]
    assert arrived["messages"][0]["role"] == "developer"
    assert sent("openai", {"messages": messages}) == ({"messages": messages}, ())


MISTRALS_OWN = {
    "model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata",
    "response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "n",
    "prediction", "parallel_tool_calls", "reasoning_effort", "prompt_cache_key", "service_tier", "stream_options",
}  # fmt: skip
"""OpenAI's keys that the ``ChatCompletionRequest`` of Mistral's library (mistralai 3.7) has; and ``stream_options``,
which it lacks, and which was taken in recorded requests."""


def test_no_key_of_openais_reaches_mistral_that_it_refuses() -> None:
    quirks = ROWS["mistral"].quirks
    for name in CompletionCreateParamsBase.__annotations__:
        known = name in MISTRALS_OWN
        assert known != (name in quirks.drops or name in quirks.refuses or name in quirks.renames), name
    assert set(quirks.renames.values()) <= MISTRALS_OWN


@pytest.mark.parametrize("host", ["mistral", "deepseek", "perplexity"])
def test_hosts_without_developers_get_system_messages(host: str) -> None:
    arrived, dropped = sent(host, {"messages": [{"role": "developer", "content": "d"}, USER]})
    assert (arrived["messages"], dropped) == ([{"role": "system", "content": "d"}, USER], ())


def test_tool_call_ids_are_made_short_the_same_way_everywhere() -> None:
    calls = [
        {"id": "call_0123456789abcdef01234567", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "a1B2c3D4e", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"type": "function"},
        "nonsense",
    ]
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_0123456789abcdef01234567", "content": "1"},
        {"role": "tool", "tool_call_id": "a1B2c3D4e", "content": "2"},
    ]
    arrived, dropped = sent("mistral", {"messages": messages})
    _, assistant, first, second = arrived["messages"]
    assert assistant["tool_calls"][0]["id"] == first["tool_call_id"] == short_id("call_0123456789abcdef01234567")
    assert assistant["tool_calls"][1]["id"] == second["tool_call_id"] == "a1B2c3D4e", "its own ids stay as they are"
    assert assistant["tool_calls"][2:] == calls[2:]
    assert dropped == ()


@given(st.lists(st.text(max_size=40), unique=True, max_size=20))
def test_short_ids_are_nine_letters_or_digits_and_differ(ids: list[str]) -> None:
    short = [short_id(each) for each in ids]
    assert all(len(each) == 9 and each.isascii() and each.isalnum() for each in short)
    assert len(set(short)) == len(ids)
    assert [short_id(each) for each in short] == short


def whole(reason: str | None, **more: Any) -> bytes:
    return json.dumps(
        {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": reason}], **more}
    ).encode()


@pytest.mark.parametrize(
    ("host", "theirs", "ours"),
    [
        ("mistral", "model_length", "length"),
        ("together", "eos", "stop"),
        ("huggingface", "eos_token", "stop"),
        ("huggingface", "stop_sequence", "stop"),
    ],
)
def test_finish_reasons_become_openais(host: str, theirs: str, ours: str) -> None:
    assert json.loads(mend(whole(theirs), ROWS[host].quirks)) == json.loads(whole(ours))


def test_of_several_choices_only_those_with_the_hosts_own_reason_change() -> None:
    reasons = ["stop", "eos", None, "length", "eos"]
    data = json.dumps({"choices": [{"index": n, "finish_reason": reason} for n, reason in enumerate(reasons)]}).encode()
    mended = json.loads(mend(data, Quirks(finish_reasons={"eos": "stop"})))["choices"]
    assert [choice["finish_reason"] for choice in mended] == ["stop", "stop", None, "length", "stop"]


@pytest.mark.parametrize(
    ("host", "reason", "status"),
    [
        ("mistral", "error", 502),
        ("openrouter", "error", 502),
        ("vllm", "abort", 502),
        ("deepseek", "insufficient_system_resource", 503),
    ],
)
def test_a_reason_that_is_a_failure_is_no_answer(host: str, reason: str, status: int) -> None:
    answer = {**json.loads(whole(reason)), "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    mended = mend(json.dumps(answer).encode(), ROWS[host].quirks)
    for read in (parse_response, lambda data: StreamParser().feed(SSEEvent(data))):
        with pytest.raises(FailedAnswer, match=reason) as caught:
            read(mended)
        assert caught.value.status == status
        assert caught.value.chunks == (UsageReport(Usage(input_tokens=7, output_tokens=2)),)


@pytest.mark.parametrize(
    "data",
    [
        whole("stop"),
        whole(None),
        b'{"choices":[{"message":{"content":"the word \\"eos\\" and \\"error\\""},"finish_reason":"stop"}]}',
        b'{"choices":["eos", null, {"finish_reason": ["eos"]}], "a": 1.0}',
        b'{"error": {"message": "the host\'s own error is told as it came"}, "choices": []}',
        b'["eos"]',
        b'{"choices": "eos"}',
        b'not JSON "eos" "error"',
        b"[DONE]",
        b"",
    ],
)
def test_everything_else_stays_as_it_came(data: bytes) -> None:
    quirks = Quirks(finish_reasons={"eos": "stop"}, failed_reasons={"error": 500})
    assert mend(data, quirks) == data


def test_a_host_without_quirks_costs_nothing() -> None:
    assert not Quirks().in_requests
    assert not Quirks().in_answers
    assert not ROWS["openai"].quirks.in_requests
    assert openai_quirks.apply({"model": "m", "messages": [USER]}, BuildTarget("p", "m", Abilities())) == ()
