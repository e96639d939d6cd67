"""How a host differs from the dialect that it speaks; a module of its own, because rows are loaded by every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a host differs from the dialect that it speaks. Every field has its reason beside the row that sets it."""

    stream_usage: bool = True
    """Whether a stream may be asked for its usage with ``stream_options``."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """Request fields that the host knows by another name."""
    drops: frozenset[str] = frozenset()
    """Tuning fields that the host refuses: dropped and named, or 400 where the policy is strict."""
    refuses: frozenset[str] = frozenset()
    """Fields with meaning that the host cannot honour: always a 400 that names host and field."""
    finish_reasons: Mapping[str, str] = field(default_factory=dict)
    """Finish reasons that the host spells in its own way, and OpenAI's value for each."""
    short_tool_ids: bool = False
    """Whether tool call ids must be nine letters or digits (Mistral)."""
