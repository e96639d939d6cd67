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

_ALWAYS_THINKS = re.compile(r"gemini-2\.5-pro")
"""Models with a budget that cannot be 0: from 128 to 32,768; those of the Flash line go from 0 to 24,576."""
_MOST, _MOST_OF_PRO = 24_576, 32_768

_LEVELS: Sequence[tuple[re.Pattern[str], tuple[str, ...]]] = (
    (re.compile(r"gemini-3-pro"), ("LOW", "HIGH")),
    (re.compile(r"gemini-3(\.[1-6])?-flash"), ("MINIMAL", "LOW", "MEDIUM", "HIGH")),
    (re.compile(""), ("LOW", "MEDIUM", "HIGH")),
)
"""The levels of each model, the first that fits. ``MINIMAL`` is the nearest there is to no thought."""

_NEAREST: Mapping[str, Sequence[str]] = {
    "none": ("MINIMAL",),
    "minimal": ("MINIMAL", "LOW"),
    "low": ("LOW",),
    "medium": ("MEDIUM", "HIGH"),
    "high": ("HIGH",),
    "xhigh": ("HIGH",),
    "max": ("HIGH",),
}


def thinking_config(effort: str, target: BuildTarget) -> dict[str, Any] | None:
    """``thinkingConfig`` for an effort; empty where nothing has to be said, None where the model cannot be told.

    Raises ``GatewayError`` (400) for an effort that nobody knows, and for ``none`` where a model always thinks.
    """
    if effort not in EFFORTS:
        raise GatewayError(
            errors.INVALID_VALUE,
            f"'reasoning_effort' must be one of {', '.join(EFFORTS)}.",
            param="reasoning_effort",
        )
    match target.abilities.thinking:
        case "level":
            return _level(effort, target)
        case "budget" | "both":
            return _budget(effort, target)
        case _:
            return {} if effort == "none" else None


def _budget(effort: str, target: BuildTarget) -> dict[str, Any]:
    always = _ALWAYS_THINKS.search(target.model) is not None
    if effort == "none":
        if always:
            raise _cannot_stop(target)
        return {"thinkingBudget": 0}
    most = _MOST_OF_PRO if always else _MOST
    return {"thinkingBudget": _BUDGETS.get(effort, most), "includeThoughts": True}


def _level(effort: str, target: BuildTarget) -> dict[str, Any]:
    levels = next(levels for pattern, levels in _LEVELS if pattern.search(target.model))
    level = next((level for level in _NEAREST[effort] if level in levels), None)
    if level is None:
        raise _cannot_stop(target)
    return {"thinkingLevel": level} if effort == "none" else {"thinkingLevel": level, "includeThoughts": True}


def _cannot_stop(target: BuildTarget) -> GatewayError:
    return GatewayError(
        errors.UNSUPPORTED_PARAMETER,
        f"The model {target.model} of {target.provider} always thinks: 'reasoning_effort' cannot be 'none'.",
        param="reasoning_effort",
    )
