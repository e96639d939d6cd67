"""How much Gemini's models are told to think: an effort as a budget of tokens, or as a level.

Gemini 2.5 takes ``thinkingBudget``, Gemini 3 and later ``thinkingLevel``; both in one request are refused.

Sources: https://ai.google.dev/gemini-api/docs/openai (what each effort amounts to: 1,024, 8,192 and 24,576 tokens, or
the level of that name), https://ai.google.dev/gemini-api/docs/thinking (ranges of budgets, levels of each model, and
which model cannot be kept from thinking), read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from inferxgate import errors
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_BUDGETS: Mapping[str, int] = {"minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}

_PRO = re.compile(r"gemini-2\.5-pro")
_MOST, _MOST_OF_PRO = 24_576, 32_768
"""The largest budgets, of the Flash line and of Pro."""

_LEAST: Sequence[tuple[re.Pattern[str], int]] = (
    (_PRO, 128),
    (re.compile(r"gemini-2\.5-flash-lite"), 512),
    (re.compile(""), 1),
)
"""The smallest budgets of each model, the first that fits."""

_LEVELS: Sequence[tuple[re.Pattern[str], tuple[str, ...]]] = (
    (re.compile(r"gemini-3-pro"), ("LOW", "HIGH")),
    (re.compile(r"gemini-3(\.[1-6])?-flash"), ("MINIMAL", "LOW", "MEDIUM", "HIGH")),
    (re.compile(""), ("LOW", "MEDIUM", "HIGH")),
)
"""The levels of each model, the first that fits. Even at ``MINIMAL`` a model may think."""

_NEAREST: Mapping[str, Sequence[str]] = {
    "none": ("MINIMAL", "LOW"),
    "minimal": ("MINIMAL", "LOW"),
    "low": ("LOW",),
    "medium": ("MEDIUM", "HIGH"),
    "high": ("HIGH",),
    "xhigh": ("HIGH",),
    "max": ("HIGH",),
}


def thinking_config(effort: str, target: BuildTarget, *, max_tokens: int | None = None) -> dict[str, Any] | None:
    """``thinkingConfig`` for an effort; empty where nothing has to be said, None where the model cannot be told.

    ``max_tokens`` bounds thoughts and answer together: a budget that would use it up leaves half of it to the answer.
    Raises ``GatewayError`` (400) for an effort that nobody knows, and for ``none`` where a model always thinks.
    """
    if effort not in EFFORTS:
        raise GatewayError(
            errors.INVALID_VALUE,
            f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.",
            param="reasoning_effort",
        )
    abilities = target.abilities
    if effort == "none" and abilities.thinking != "none" and not abilities.thinking_off:
        raise GatewayError(
            errors.UNSUPPORTED_PARAMETER,
            f"The model {target.model} of {target.provider} always thinks: 'reasoning_effort' cannot be 'none', and is "
            "least at 'minimal'.",
            param="reasoning_effort",
        )
    match abilities.thinking:
        case "level":
            return _level(effort, target.model)
        case "budget" | "both":
            return _budget(effort, target.model, max_tokens)
        case _:
            return {} if effort == "none" else None


def _budget(effort: str, model: str, max_tokens: int | None) -> dict[str, Any] | None:
    if effort == "none":
        return {"thinkingBudget": 0}
    budget = _BUDGETS.get(effort, _MOST_OF_PRO if _PRO.search(model) else _MOST)
    if max_tokens is not None and max_tokens <= budget:
        least = next(least for pattern, least in _LEAST if pattern.search(model))
        budget = max(least, max_tokens // 2)
        if max_tokens <= budget:
            return None
    return {"thinkingBudget": budget, "includeThoughts": True}


def _level(effort: str, model: str) -> dict[str, Any]:
    levels = next(levels for pattern, levels in _LEVELS if pattern.search(model))
    level = next(level for level in _NEAREST[effort] if level in levels)
    return {"thinkingLevel": level} if effort == "none" else {"thinkingLevel": level, "includeThoughts": True}
