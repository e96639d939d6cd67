"""How much Gemini's models are told to think."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dialects.gemini_asking import Json, call_for, config, refusal, target


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "expected"),
    [
        ("gemini-2.5-flash", "budget", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "budget", "minimal", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-flash", "budget", "medium", {"thinkingBudget": 8192, "includeThoughts": True}),
        ("gemini-2.5-flash-lite", "budget", "max", {"thinkingBudget": 24576, "includeThoughts": True}),
        ("gemini-2.5-pro", "budget", "xhigh", {"thinkingBudget": 32768, "includeThoughts": True}),
        ("gemini-3-flash-preview", "level", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3-flash-preview", "level", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3-pro-preview", "level", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3-pro-preview", "level", "medium", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "level", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-3.8-flash", "level", "max", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-2.0-flash", "none", "none", None),
    ],
)
def test_effort_is_a_budget_or_a_level(model: str, thinking: Any, effort: str, expected: Json | None) -> None:
    built = config({"reasoning_effort": effort}, target(model, thinking=thinking))
    assert built.get("thinkingConfig") == expected


@pytest.mark.parametrize(("model", "thinking"), [("gemini-2.5-pro", "budget"), ("gemini-3-pro-preview", "level")])
def test_models_that_always_think_are_not_told_otherwise(model: str, thinking: Any) -> None:
    error = refusal({"reasoning_effort": "none"}, target(model, thinking=thinking, thinking_off=False))
    assert (error.code, error.param) == ("unsupported_parameter", "reasoning_effort")
    assert model in error.message


def test_models_that_do_not_think_drop_the_effort() -> None:
    assert call_for({"reasoning_effort": "high"}, target()).dropped == ("reasoning_effort",)


@pytest.mark.parametrize(
    ("model", "max_tokens", "budget"),
    [
        ("gemini-2.5-pro", 8193, 8192),
        ("gemini-2.5-pro", 8192, 4096),
        ("gemini-2.5-pro", 200, 128),
        ("gemini-2.5-pro", 128, None),
        ("gemini-2.5-flash-lite", 600, 512),
        ("gemini-2.5-flash-lite", 512, None),
        ("gemini-2.5-flash", 600, 300),
        ("gemini-2.5-flash", 2, 1),
        ("gemini-2.5-flash", 1, None),
    ],
)
def test_a_budget_leaves_room_for_the_answer(model: str, max_tokens: int, budget: int | None) -> None:
    call = call_for({"reasoning_effort": "medium", "max_tokens": max_tokens}, target(model, thinking="budget"))
    built = json.loads(call.body)["generationConfig"]
    assert built["maxOutputTokens"] == max_tokens
    assert built.get("thinkingConfig", {}).get("thinkingBudget") == budget
    assert call.dropped == (("reasoning_effort",) if budget is None else ())


def test_an_effort_that_leaves_no_room_is_a_400_where_strict() -> None:
    to = target("gemini-2.5-pro", thinking="budget", strict=True)
    assert refusal({"reasoning_effort": "low", "max_tokens": 100}, to).param == "reasoning_effort"
