"""How a host differs from the dialect that it speaks; a module of its own, because rows are loaded by every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Quirks:
    """How a host differs from the dialect that it speaks. Every field has its reason beside the row that sets it."""

    stream_usage: bool = True
    """Whether a stream may be asked for its usage with ``stream_options``.

    Other hosts never see the option: they report usage unasked, or not at all.
    """
    renames: Mapping[str, str] = field(default_factory=dict)
    """Request fields that the host knows by another name."""
    drops: frozenset[str] = frozenset()
    """Tuning fields that the host refuses: dropped and named, or 400 where the policy is strict."""
    refuses: frozenset[str] = frozenset()
    """Fields with meaning that the host cannot honour: always a 400 that names host and field.

    ``n`` may be 1, and ``modalities`` text alone: that is what is given anyway.
    """
    only_values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Tuning fields of which the host takes no other values: those are dropped and named, or 400 where strict."""
    nulls: bool = True
    """Whether a field of the request may be null; to others nothing is sent in its place, which means the same."""
    developer_role: bool = True
    """Whether the host knows the role ``developer``; to others such messages go as ``system``, which they are."""
    message_keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By role, the only keys that a message may have; others are left out and named."""
    short_tool_ids: bool = False
    """Whether tool call ids must be nine letters or digits."""
    finish_reasons: Mapping[str, str] = field(default_factory=dict)
    """Finish reasons that the host spells in its own way, and OpenAI's value for each."""
    failed_reasons: Mapping[str, int] = field(default_factory=dict)
    """Finish reasons that say that the host failed, and the HTTP status that each amounts to."""

    @property
    def in_requests(self) -> bool:
        """Whether a request has to be changed for the host; most hosts take it as it is."""
        return not (self.stream_usage and self.nulls) or bool(
            self.renames or self.drops or self.refuses or self.only_values or self.in_messages
        )

    @property
    def in_messages(self) -> bool:
        """Whether messages have to be looked at one by one."""
        return bool(self.message_keys) or self.short_tool_ids or not self.developer_role

    @property
    def in_answers(self) -> bool:
        """Whether answers have to be put right before they are read or forwarded."""
        return bool(self.finish_reasons) or bool(self.failed_reasons)
