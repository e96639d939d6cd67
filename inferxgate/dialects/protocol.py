"""What the two ends of every dialect pass to the rest of the gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferxgate.canonical.chat import Chunk


@dataclass(frozen=True, slots=True)
class Call:
    """A request in a provider's wire format, before the provider's row adds its address and signature."""

    operation: str
    """What is asked for, such as ``chat``; the provider's row knows the path of each operation."""
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a provider's stream: as it came, and what it means."""

    raw: bytes | None
    """The data exactly as the provider sent it, for clients of the same dialect."""
    body: Mapping[str, Any]
    """The parsed data."""
    chunks: tuple[Chunk, ...]
