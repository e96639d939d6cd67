"""What a model takes and gives: the facts by which a request is built for it."""

from __future__ import annotations

from typing import Literal

from inferxgate.values import dataclass

Thinking = Literal["none", "budget", "adaptive", "both", "level"]
"""How thinking is asked for: not at all, by a budget of tokens, by effort alone, either, or by a level."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """One model's. The defaults are those of a model that nothing is known of: what it is asked for goes through."""

    max_output_tokens: int | None = None
    """The most that it can answer with; what a provider that demands a maximum is told where the client gave none."""
    sampling: bool = True
    """Whether it takes temperature, top_p and top_k."""
    temperature_with_top_p: bool = True
    """Whether it takes both at once."""
    prefill: bool = True
    """Whether the last message may be the beginning of the answer."""
    thinking: Thinking = "none"
    thinking_off: bool = True
    """Whether it can be told not to think at all."""
    forced_tools: bool = True
    """Whether it can be made to call a tool, any or a certain one."""
    json_schema: bool = True
    """Whether it takes a JSON Schema for its answer natively."""
    json_with_tools: bool = True
    """Whether it takes a form of its answer and tools at once."""
    image_output: bool = False
