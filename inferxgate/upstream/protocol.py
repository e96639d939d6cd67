"""The seam towards providers: one request out, one response in. Every network failure becomes a ``GatewayError``.

What may be raised, by ``send`` and by reading alike: ``upstream_unreachable`` (refused, reset, no such host, TLS),
``upstream_timeout`` (connecting, first byte, silence between bytes, the total for a whole answer) and
``upstream_invalid_response`` (not HTTP, broken encoding, larger than allowed). None of their messages holds a header, a
credential or a query string.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a provider, in seconds."""

    connect_seconds: float = 10.0
    first_byte_seconds: float = 600.0
    """From the request being sent to the response's headers."""
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


class HttpResponse(Protocol):
    """A response whose headers have arrived. Must be closed, whether or not its body was read to the end."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of a repeated name, the values joined with a comma."""

    async def read(self, *, limit: int) -> bytes:
        """The whole body, decompressed; ``upstream_invalid_response`` where it is longer than ``limit`` bytes."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, decompressed. Ends only where the provider ended it properly."""

    async def close(self) -> None:
        """End the exchange. Before the body's end this cuts the connection, so that the provider stops working."""


class Upstream(Protocol):
    """An engine that can send requests of some URL schemes. Cancelling ``send`` cuts the connection at once."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send the request; return once the response's headers are here."""

    async def close(self) -> None:
        """Close every connection. The engine is not used afterwards."""
