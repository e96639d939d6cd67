"""One HTTP request to a provider, as a value: what the providers' rows make and the upstream engines send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a provider, in seconds."""

    connect_seconds: float = 10.0
    first_byte_seconds: float = 600.0
    """From the request being sent to the response's headers and, in streams, on to the first event."""
    idle_seconds: float = 300.0
    """The longest silence between two reads of a stream's body."""
    total_seconds: float | None = None
    """For the whole exchange; None for streams, which live as long as they speak."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request to a provider, ready to send."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    """With the credential, so never shown."""
    body: bytes = field(repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
