"""What Anthropic is sent for a request's settings: tools, forms, thinking, sampling; what is left out or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate import errors
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.anthropic_messages import DIALECT
from inferxgate.dialects.anthropic_thinking import DEFAULT_MAX_TOKENS
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.dialects.tool_names import JSON_ANSWER_TOOL
from inferxgate.errors import GatewayError
from tests.dialects.anthropic_asking import (
    ADAPTIVE,
    BOTH,
    BUDGET,
    CLOCK,
    OLD,
    PLAIN,
    SEALED,
    USER,
    WEATHER,
    Json,
    build,
    calls,
    refused,
    result,
    sent,
    thinking,
)

# --- the envelope


def test_a_plain_request() -> None:
    assert sent() == {
        "model": "claude-x",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "max_tokens": 8192,
    }
    assert sent(stream=True)["stream"] is True


def test_the_maximum_is_the_clients_else_the_models_else_a_constant() -> None:
    assert sent(max_tokens=7)["max_tokens"] == 7
    assert sent(max_completion_tokens=9)["max_tokens"] == 9
    assert sent()["max_tokens"] == 8192
    assert sent(abilities=Abilities())["max_tokens"] == DEFAULT_MAX_TOKENS


def test_json_too_deep_to_be_written_is_a_400() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    assert refused(context_management=deep).kind is errors.INVALID_JSON


# --- tools


def test_tools_are_described() -> None:
    marked = {**CLOCK, "cache_control": {"type": "ephemeral"}}
    assert sent(tools=[WEATHER, marked])["tools"] == [
        {
            "name": "weather",
            "description": "Tells the weather",
            "input_schema": WEATHER["function"]["parameters"],
        },
        {
            "name": "clock",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral"},
        },
    ]


@pytest.mark.parametrize(
    ("choice", "sent_choice"),
    [
        (None, None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "clock"}}, {"type": "tool", "name": "clock"}),
    ],
)
def test_the_choice_of_tools(choice: Any, sent_choice: Json | None) -> None:
    body = sent(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert body.get("tool_choice") == sent_choice
    assert len(body["tools"]) == 2
    one = sent(tools=[WEATHER, CLOCK], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
    if choice == "none":
        assert one == {"type": "none"}
    else:
        assert one == {**(sent_choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    assert sent(tools=[WEATHER], tool_choice="auto", parallel_tool_calls=True)["tool_choice"] == {"type": "auto"}


@pytest.mark.parametrize(("mode", "kind"), [("auto", "auto"), ("required", "any")])
def test_allowed_tools_are_the_only_ones(mode: str, kind: str) -> None:
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "clock"}}]}
    body = sent(tools=[WEATHER, CLOCK], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["name"] for tool in body["tools"]] == ["clock"]
    assert body["tool_choice"] == {"type": kind}


def test_no_tool_allowed_is_no_tool() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    body = sent(tools=[WEATHER], tool_choice=allowed)
    assert "tools" not in body
    assert "tool_choice" not in body


def test_a_choice_without_tools() -> None:
    assert "tool_choice" not in sent(tool_choice="auto", parallel_tool_calls=False)
    assert "tool_choice" not in sent(tool_choice="none")
    assert refused(tool_choice="required").param == "tools"
    named = {"type": "function", "function": {"name": "other"}}
    assert refused(tools=[WEATHER], tool_choice=named).param == "tool_choice"
    assert refused(tool_choice=named).param == "tool_choice"


def strict_tool(schema: Json) -> Json:
    return {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}


def test_strict_tools_have_what_can_be_enforced() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    tool = sent(tools=[strict_tool(schema)])["tools"][0]
    assert tool["strict"] is True
    assert tool["input_schema"] == {
        "type": "object",
        "properties": {"n": {"type": "integer", "description": "{minimum: 1}"}},
        "required": ["n"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("schema", "abilities"), [({"type": "object"}, PLAIN), ({"type": "object", "properties": {"a": {}}}, OLD)]
)
def test_strictness_that_is_not_to_be_had_is_left_out_and_named(schema: Json, abilities: Abilities) -> None:
    body, dropped = build(tools=[strict_tool(schema)], abilities=abilities)
    assert body["tools"][0] == {"name": "f", "input_schema": schema}
    assert dropped == ("tools.0.function.strict",)


def test_parameters_that_are_no_object_are_a_400() -> None:
    assert refused(tools=[CLOCK, strict_tool({"type": "string"})]).param == "tools.1.function.parameters"


# --- the form of the answer

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def form(schema: Json | None) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}


def test_a_schema_is_native_where_the_model_has_that() -> None:
    body = sent(response_format=form(PERSON))
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {**PERSON, "additionalProperties": False}}
    }
    assert "tools" not in body
    assert "output_config" not in sent(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("wanted", "abilities", "schema"),
    [
        (form(PERSON), OLD, PERSON),
        ({"type": "json_object"}, PLAIN, {"type": "object", "additionalProperties": True}),
        (form({"type": "object"}), PLAIN, {"type": "object"}),
    ],
)
def test_else_the_answer_is_the_input_of_a_tool(wanted: Json, abilities: Abilities, schema: Json) -> None:
    body = sent(response_format=wanted, abilities=abilities)
    assert [tool["name"] for tool in body["tools"]] == [JSON_ANSWER_TOOL]
    assert body["tools"][0]["input_schema"] == schema
    assert body["tool_choice"] == {"type": "tool", "name": JSON_ANSWER_TOOL, "disable_parallel_tool_use": True}
    assert "output_config" not in body


def test_other_tools_may_be_called_before_the_answer() -> None:
    wanted = {"response_format": form(PERSON), "abilities": OLD, "tools": [WEATHER]}
    body = sent(**wanted)
    assert [tool["name"] for tool in body["tools"]] == ["weather", JSON_ANSWER_TOOL]
    assert body["tool_choice"] == {"type": "any"}
    one = sent(**wanted, parallel_tool_calls=False)
    assert one["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    none = sent(**wanted, tool_choice="none")
    assert none["tool_choice"]["name"] == JSON_ANSWER_TOOL
    forced = sent(**wanted, tool_choice="required")  # a call is wanted, and no text
    assert [tool["name"] for tool in forced["tools"]] == ["weather"]
    assert forced["tool_choice"] == {"type": "any"}


def test_a_form_that_cannot_be_had_is_a_400() -> None:
    assert refused(response_format=form(None)).param == "response_format.json_schema.schema"
    error = refused(response_format=form({"type": "string"}), abilities=OLD)
    assert error.param == "response_format"
    assert "claude-host" in error.message


# --- thinking


@pytest.mark.parametrize(
    ("effort", "budget"),
    [("minimal", 1024), ("low", 1024), ("medium", 2048), ("high", 4096), ("xhigh", 8192), ("max", 16384)],
)
def test_effort_as_a_budget(effort: str, budget: int) -> None:
    body = sent(reasoning_effort=effort, abilities=BUDGET)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert body["max_tokens"] == 64_000
    assert "output_config" not in body


@pytest.mark.parametrize(
    ("effort", "max_tokens", "budget"),
    [
        ("high", 5000, 4096),
        ("high", 4097, 4096),
        ("high", 4096, 2048),
        ("high", 2200, 1100),
        ("high", 1500, 1024),
        ("low", 1025, 1024),
        ("low", 1024, None),
        ("max", 1, None),
    ],
)
def test_a_budget_stays_below_the_clients_maximum(effort: str, max_tokens: int, budget: int | None) -> None:
    body, dropped = build(reasoning_effort=effort, max_tokens=max_tokens, abilities=BUDGET)
    assert body["max_tokens"] == max_tokens
    assert body.get("thinking", {}).get("budget_tokens") == budget
    assert dropped == (("reasoning_effort",) if budget is None else ())


def test_effort_that_does_not_fit_is_a_400_where_strict() -> None:
    error = refused(reasoning_effort="high", max_tokens=500, abilities=BUDGET, strict=True)
    assert error.param == "reasoning_effort"
    assert "500" in error.message


def test_a_budget_stays_below_the_models_maximum() -> None:
    small = replace(BUDGET, max_output_tokens=4096)
    body = sent(reasoning_effort="max", abilities=small)
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (4096, 2048)
    tiny = replace(BUDGET, max_output_tokens=1000)
    assert build(reasoning_effort="max", abilities=tiny)[1] == ("reasoning_effort",)
    unknown = replace(BUDGET, max_output_tokens=None)
    assert sent(reasoning_effort="max", abilities=unknown)["max_tokens"] == 16384 + DEFAULT_MAX_TOKENS


@given(
    st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max"]),
    st.none() | st.integers(1, 100_000),
    st.none() | st.integers(1, 100_000),
    st.sampled_from([BUDGET, BOTH, ADAPTIVE, PLAIN]),
    st.none() | st.integers(1024, 100_000),
)
def test_no_answer_may_cost_more_than_the_client_allowed(
    effort: str, max_tokens: int | None, most: int | None, abilities: Abilities, budget: int | None
) -> None:
    given = {
        "thinking": None if budget is None else {"type": "enabled", "budget_tokens": budget},
        "max_tokens": max_tokens,
    }
    asked: Json = {name: value for name, value in given.items() if value is not None}
    body, _ = build(reasoning_effort=effort, abilities=replace(abilities, max_output_tokens=most), **asked)
    assert body["max_tokens"] == max_tokens or max_tokens is None
    assert 1024 <= body.get("thinking", {}).get("budget_tokens", 1024) < max(body["max_tokens"], 1025)


@pytest.mark.parametrize(
    ("effort", "sent_effort"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "xhigh"), ("max", "max")],
)
def test_effort_of_adaptive_models(effort: str, sent_effort: str) -> None:
    body = sent(reasoning_effort=effort, abilities=ADAPTIVE)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": sent_effort}
    both = sent(reasoning_effort=effort, abilities=BOTH, response_format=form(PERSON))
    assert both["thinking"] == {"type": "adaptive"}
    assert both["output_config"]["effort"] == ("high" if effort == "xhigh" else sent_effort)
    assert "format" in both["output_config"]


def test_effort_none_and_unknown_and_unheard_of() -> None:
    for abilities in (BUDGET, BOTH, ADAPTIVE):
        assert sent(reasoning_effort="none", abilities=abilities)["thinking"] == {"type": "disabled"}
    assert "thinking" not in sent(reasoning_effort="none", abilities=PLAIN)
    assert refused(reasoning_effort="huge", abilities=BUDGET).param == "reasoning_effort"
    body, dropped = build(reasoning_effort="high", abilities=PLAIN)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)


def test_models_that_always_think_and_are_never_forced_say_so() -> None:
    newest = replace(ADAPTIVE, thinking_off=False, forced_tools=False)
    assert refused(reasoning_effort="none", abilities=newest).param == "reasoning_effort"
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        assert refused(tools=[WEATHER], tool_choice=choice, abilities=newest).param == "tool_choice"
    assert sent(tools=[WEATHER], tool_choice="auto", abilities=newest)["tool_choice"] == {"type": "auto"}
    assert "format" in sent(response_format=form(PERSON), abilities=newest)["output_config"]
    error = refused(response_format={"type": "json_object"}, abilities=newest)
    assert error.param == "response_format"
    assert "json_schema" in error.message


def test_thinking_that_the_client_spelt_itself_is_sent_as_it_is() -> None:
    given = {"type": "enabled", "budget_tokens": 9000, "display": "omitted"}
    body = sent(thinking=given, abilities=ADAPTIVE)
    assert body["thinking"] == given
    body, dropped = build(thinking=given, max_tokens=9001, abilities=BUDGET, reasoning_effort="low")
    assert body["thinking"] == given
    assert body["max_tokens"] == 9001
    assert dropped == ("reasoning_effort",)
    assert (
        build(thinking={"type": "enabled", "budget_tokens": "x"}, max_tokens=9)[0]["thinking"]["budget_tokens"] == "x"
    )
    beside = sent(thinking={"type": "adaptive"}, reasoning_effort="max", abilities=ADAPTIVE)
    assert (beside["thinking"], beside["output_config"]) == ({"type": "adaptive"}, {"effort": "max"})
    assert refused(thinking="yes").param == "thinking"


def test_a_budget_of_the_clients_own_stays_below_the_maximum() -> None:
    given = {"type": "enabled", "budget_tokens": 9000, "display": "omitted"}
    body, dropped = build(thinking=given, max_tokens=9000, abilities=BUDGET)
    assert (body["max_tokens"], body["thinking"]) == (9000, {**given, "budget_tokens": 4500})
    assert dropped == ("thinking.budget_tokens",)
    body, dropped = build(thinking=given, max_tokens=10, abilities=BUDGET)
    assert body["max_tokens"] == 10
    assert "thinking" not in body
    assert dropped == ("thinking",)
    for max_tokens, param in ((9000, "thinking.budget_tokens"), (10, "thinking")):
        assert refused(thinking=given, max_tokens=max_tokens, abilities=BUDGET, strict=True).param == param


@pytest.mark.parametrize("name", ["anthropic_beta", "betas"])
def test_a_budget_for_a_whole_loop_may_be_larger(name: str) -> None:
    given = {"type": "enabled", "budget_tokens": 9000}
    body = sent(thinking=given, max_tokens=100, abilities=BUDGET, **{name: ["interleaved-thinking-2025-05-14"]})
    assert (body["max_tokens"], body["thinking"]) == (100, given)


def test_thinking_stands_back_for_what_cannot_go_with_it() -> None:
    forced: Json = {"tools": [WEATHER], "tool_choice": "required", "reasoning_effort": "high"}
    body, dropped = build(**forced, abilities=BUDGET)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)
    body = sent(**forced, abilities=ADAPTIVE)
    assert "thinking" not in body
    assert body["output_config"] == {"effort": "high"}
    begun = [USER, {"role": "assistant", "content": "It"}]
    _, dropped = build(messages=begun, reasoning_effort="low", abilities=BUDGET)
    assert dropped == ("reasoning_effort",)


def test_a_loop_of_calls_whose_thoughts_are_lost_goes_on_without_thinking() -> None:
    lost = [USER, calls("a"), result("a"), calls("b"), result("b")]
    body, dropped = build(messages=lost, reasoning_effort="low", abilities=BUDGET)
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)
    body, dropped = build(messages=lost, thinking={"type": "enabled", "budget_tokens": 1024}, abilities=BUDGET)
    assert "thinking" not in body
    assert dropped == ("thinking",)
    assert sent(messages=lost, reasoning_effort="low", abilities=BOTH)["thinking"] == {"type": "adaptive"}
    kept = [USER, thinking(SEALED, message=calls("a")), result("a"), calls("b"), result("b")]
    assert "thinking" in sent(messages=kept, reasoning_effort="low", abilities=BUDGET)
    over = [*lost, {"role": "assistant", "content": "Done"}, USER]
    assert "thinking" in sent(messages=over, reasoning_effort="low", abilities=BUDGET)
    earlier = [*kept, {"role": "assistant", "content": "Done"}, USER, calls("c"), result("c")]
    _, dropped = build(messages=earlier, reasoning_effort="low", abilities=BUDGET)
    assert dropped == ("reasoning_effort",)
    begun_by_the_model = [calls("a"), result("a")]
    _, dropped = build(messages=begun_by_the_model, reasoning_effort="low", abilities=BUDGET)
    assert dropped == ("reasoning_effort",)


# --- sampling and the rest


@pytest.mark.parametrize(
    ("fields", "abilities", "kept", "names"),
    [
        ({"temperature": 0.3}, PLAIN, {"temperature": 0.3}, ()),
        ({"temperature": 0.0, "top_k": 5}, PLAIN, {"temperature": 0.0, "top_k": 5}, ()),
        ({"temperature": 1.5}, PLAIN, {}, ("temperature",)),
        ({"temperature": 0.3, "top_p": 0.9}, PLAIN, {"temperature": 0.3, "top_p": 0.9}, ()),
        ({"temperature": 0.3, "top_p": 0.9}, BUDGET, {"temperature": 0.3}, ("top_p",)),
        ({"temperature": 1.5, "top_p": 0.9}, BUDGET, {"top_p": 0.9}, ("temperature",)),
        ({"temperature": 1, "top_p": 0.9, "top_k": 5}, ADAPTIVE, {}, ("temperature", "top_p", "top_k")),
        (
            {"temperature": 0.3, "top_p": 0.9, "top_k": 5, "reasoning_effort": "low"},
            BUDGET,
            {},
            ("temperature", "top_p", "top_k"),
        ),
        ({"temperature": 1, "reasoning_effort": "low"}, BUDGET, {"temperature": 1}, ()),
        ({"top_p": 0.96, "reasoning_effort": "low"}, BUDGET, {"top_p": 0.96}, ()),
    ],
)
def test_sampling_as_far_as_the_model_takes_it(
    fields: Json, abilities: Abilities, kept: Json, names: tuple[str, ...]
) -> None:
    body, dropped = build(**fields, abilities=abilities)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == kept
    assert dropped == names
    for name in names:
        with pytest.raises(GatewayError) as caught:
            build(**fields, abilities=abilities, strict=True)
        assert caught.value.code == "unsupported_parameter"
        assert caught.value.param in names, name
        assert "claude-host" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("presence_penalty", 0.5),
        ("frequency_penalty", 0.5),
        ("logit_bias", {"1": 2}),
        ("service_tier", "flex"),
        ("store", True),
        ("verbosity", "low"),
        ("prediction", {"type": "content", "content": "x"}),
        ("prompt_cache_key", "k"),
        ("metadata", {"team": "a"}),
        ("stop", ["\n"]),
    ],
)
def test_tuning_that_is_not_taken_is_left_out_and_named(name: str, value: Any) -> None:
    body, dropped = build(**{name: value})
    assert dropped == (name,)
    assert body == sent()
    error = refused(**{name: value}, strict=True)
    assert (error.code, error.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)
def test_meaning_that_there_are_no_words_for_is_a_400(fields: Json, param: str) -> None:
    error = refused(**fields)
    assert (error.code, error.param) == ("unsupported_parameter", param)
    assert "claude-host" in error.message


def test_meaning_that_asks_for_nothing_is_no_matter() -> None:
    assert sent(n=1, logprobs=False, top_logprobs=0, modalities=["text"], seed=None, stop=[]) == sent()


def test_stop_sequences() -> None:
    assert sent(stop="END")["stop_sequences"] == ["END"]
    body, dropped = build(stop=["END", " \n", "\nObservation:"])
    assert body["stop_sequences"] == ["END", "\nObservation:"]
    assert dropped == ("stop",)


@pytest.mark.parametrize(
    ("fields", "user_id", "names"),
    [
        ({"user": "u"}, "u", ()),
        ({"safety_identifier": "s"}, "s", ()),
        ({"user": "u", "safety_identifier": "u"}, "u", ()),
        ({"user": "u", "safety_identifier": "s"}, "u", ("safety_identifier",)),
        ({"metadata": {"user_id": "m"}}, "m", ()),
        ({"metadata": {"user_id": "m", "x": "y"}, "user": "u"}, "m", ("user", "metadata")),
    ],
)
def test_who_asks(fields: Json, user_id: str, names: tuple[str, ...]) -> None:
    body, dropped = build(**fields)
    assert body["metadata"] == {"user_id": user_id}
    assert dropped == names


def test_a_name_of_the_user_that_is_no_string_is_left_out_and_named() -> None:
    body, dropped = build(metadata={"user_id": 5}, safety_identifier=["s"], user="u")
    assert body["metadata"] == {"user_id": "u"}
    assert dropped == ("metadata.user_id", "safety_identifier")


@pytest.mark.parametrize(("tier", "sent_tier"), [("auto", "auto"), ("priority", "auto"), ("default", "standard_only")])
def test_service_tiers(tier: str, sent_tier: str) -> None:
    assert sent(service_tier=tier)["service_tier"] == sent_tier


def test_the_providers_own_settings_go_through() -> None:
    own: Json = {
        "container": "c_1",
        "mcp_servers": [{"type": "url", "url": "https://x.example", "name": "m"}],
        "context_management": {"edits": []},
        "inference_geo": "eu",
        "of_the_future": [1],
    }
    body, dropped = build(**own)
    assert {name: body[name] for name in own} == own
    assert dropped == ()
    assert sent(cache_control={"type": "ephemeral", "ttl": "1h"})["cache_control"]["ttl"] == "1h"


@pytest.mark.parametrize("kind", [["enabled"], {"a": 1}, 5, None])
def test_thinking_that_makes_no_sense_is_the_providers_to_refuse(kind: object) -> None:
    body, dropped = build(thinking={"type": kind}, temperature=0.5)
    assert (body["thinking"], body["temperature"], dropped) == ({"type": kind}, 0.5, ())


def test_the_providers_own_spelling_joins_or_is_refused() -> None:
    body = sent(output_config={"effort": "max"}, response_format=form(PERSON))
    assert set(body["output_config"]) == {"effort", "format"}
    assert sent(system="Be kind")["system"] == "Be kind"
    both = refused(system="Be kind", messages=[{"role": "system", "content": "x"}, USER])
    assert both.param == "system"
    assert refused(stop="a", stop_sequences=["b"]).param == "stop_sequences"


@pytest.mark.parametrize(
    ("fields", "header"),
    [
        ({}, None),
        ({"anthropic_beta": ["a-1", "b-2"]}, "a-1,b-2"),
        ({"betas": "a-1, b-2", "anthropic_beta": ["b-2"]}, "b-2,a-1"),
    ],
)
def test_betas_become_a_header(fields: Json, header: str | None) -> None:
    request = parse_request({"model": "m", "messages": [USER], **fields})
    call = DIALECT.build_request(request, BuildTarget("h", "m", PLAIN))
    assert call.headers.get("anthropic-beta") == header
    assert not {"betas", "anthropic_beta"} & json.loads(call.body).keys()


@pytest.mark.parametrize("betas", [["a\r\nx: y"], [1], [""], ["a b"], 5, {"a": "b"}])
def test_betas_that_are_no_names_are_a_400(betas: Any) -> None:
    assert refused(betas=betas).param == "betas"
