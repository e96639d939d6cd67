"""How much Anthropic's models think and say: ``thinking``, ``output_config.effort`` and ``max_tokens``.

- A forced tool call and a prefilled answer cannot go with thinking. They are meaning and thinking is tuning, so
  thinking gives way and ``reasoning_effort`` is named; ``thinking`` that the client spelt itself is sent as it is.
- A budget has to be below ``max_tokens``, which bounds what an answer costs: it is never more than the client asked
  for. A budget that is not gets half of it; where that is less than the API's least, there is no thinking, and it is
  named. A budget of the client's own is named where it is changed. Only interleaved thinking may have a larger one.

Sources: Anthropic's pages on extended and adaptive thinking ("max tokens and context window size", "interleaved
thinking") and on effort, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferxgate import errors
from inferxgate.canonical.conversation import Conversation
from inferxgate.dialects.anthropic_turns import Omissions, Turns, refused
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError

DEFAULT_MAX_TOKENS = 4096
"""The maximum where neither the client nor the catalogue says one: Anthropic demands it, and every model since Claude 3
takes as much."""

_MIN_BUDGET = 1024
"""The smallest budget for thinking that the API takes."""
_BUDGETS: Mapping[str, int] = {
    "minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16384,
}  # fmt: skip
"""Tokens of thought for each effort, where a model takes a budget: the figures that clients of other gateways know."""
_EFFORTS: Mapping[str, str] = {
    "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max",
}  # fmt: skip


def add_thinking(
    body: dict[str, Any], conversation: Conversation, target: BuildTarget, turns: Turns, omissions: Omissions
) -> None:
    forced = body.get("tool_choice", {}).get("type") in {"any", "tool"}
    given = conversation.extra.get("thinking")
    if given is not None:
        if not isinstance(given, dict):
            raise GatewayError(errors.INVALID_VALUE, "'thinking' must be an object.", param="thinking")
        body["thinking"] = dict(given)
        if given.get("type") == "enabled" and turns.loop_without_thought:
            del body["thinking"]
            omissions.tuning("thinking", "without the thoughts of the tool calls so far is not taken")
        elif conversation.reasoning_effort is not None:
            _add_effort(body, conversation.reasoning_effort, target, omissions)
    elif conversation.reasoning_effort is not None:
        _think(body, conversation.reasoning_effort, target, turns, omissions, forced=forced)
    _add_max_tokens(body, conversation, target, omissions)


def _add_effort(body: dict[str, Any], effort: str, target: BuildTarget, omissions: Omissions) -> None:
    """The effort beside ``thinking`` that the client spelt itself, where the model takes an effort."""
    if target.abilities.thinking in {"adaptive", "both", "level"} and effort in _EFFORTS:
        _set_effort(body, effort, target)
    else:
        omissions.tuning("reasoning_effort", "beside 'thinking' is not taken")


def _set_effort(body: dict[str, Any], effort: str, target: BuildTarget) -> None:
    spelt = _EFFORTS[effort]
    if spelt == "xhigh" and target.abilities.thinking == "both":
        spelt = "high"  # the models that take either way know low, medium, high and max
    body.setdefault("output_config", {})["effort"] = spelt


def _think(
    body: dict[str, Any], effort: str, target: BuildTarget, turns: Turns, omissions: Omissions, *, forced: bool
) -> None:
    kind = target.abilities.thinking
    if effort == "none":
        if kind != "none" and not target.abilities.thinking_off:
            raise refused(target, "reasoning_effort", "A 'reasoning_effort' of none (it always thinks) is not taken")
        if kind != "none":
            body["thinking"] = {"type": "disabled"}
        return
    if effort not in _EFFORTS:
        raise GatewayError(
            errors.INVALID_VALUE,
            f"'reasoning_effort' must be one of none, {', '.join(_EFFORTS)}.",
            param="reasoning_effort",
        )
    stands_back = forced or turns.prefill is not None
    if kind == "none":
        omissions.tuning("reasoning_effort")
    elif kind == "budget":
        if stands_back or turns.loop_without_thought:
            omissions.tuning("reasoning_effort", "here (a forced call, a begun answer, or thoughts lost) is not taken")
            return
        most = target.abilities.max_output_tokens
        budget = _BUDGETS[effort] if most is None else min(_BUDGETS[effort], max(_MIN_BUDGET, most // 2))
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    else:
        _set_effort(body, effort, target)
        if not stands_back:
            # Models that only think adaptively leave their thoughts out of the answer unless they are asked for.
            body["thinking"] = {"type": "adaptive"} | ({"display": "summarized"} if kind == "adaptive" else {})


def _add_max_tokens(
    body: dict[str, Any], conversation: Conversation, target: BuildTarget, omissions: Omissions
) -> None:
    most = target.abilities.max_output_tokens
    budget = body.get("thinking", {}).get("budget_tokens")
    if isinstance(budget, bool) or not isinstance(budget, int) or _interleaved(conversation):
        budget = 0
    bound = conversation.max_tokens or most
    if bound is not None and bound <= budget:
        _fit_budget(body, bound, omissions, own="thinking" in conversation.extra)
    body["max_tokens"] = bound or DEFAULT_MAX_TOKENS + budget


def _fit_budget(body: dict[str, Any], bound: int, omissions: Omissions, *, own: bool) -> None:
    """Think less, or not at all, so that an answer with its thoughts stays within ``bound`` tokens."""
    fitted = max(_MIN_BUDGET, bound // 2)
    fits = fitted < bound
    if own or not fits:
        name = "reasoning_effort" if not own else "thinking.budget_tokens" if fits else "thinking"
        omissions.tuning(name, f"with no more than {bound} tokens for the answer is not taken")
    if fits:
        body["thinking"]["budget_tokens"] = fitted
    else:
        del body["thinking"]


def _interleaved(conversation: Conversation) -> bool:
    """Whether the client asks for thinking between calls, whose budget is that of all turns of a loop together."""
    return any("interleaved-thinking" in str(conversation.extra.get(name)) for name in ("anthropic_beta", "betas"))
