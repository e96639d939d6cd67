"""The seam towards providers: one request out, one response in. Every network failure becomes a ``GatewayError``.

What may be raised, by ``send`` and by reading alike: ``upstream_unreachable`` (nothing was sent: refused, no such host,
TLS), ``upstream_error`` (sent, and the connection ended without an answer or within one: the provider may have done the
work), ``upstream_timeout`` (connecting, first byte, silence between bytes, the total for a whole answer) and
``upstream_invalid_response`` (not HTTP, broken encoding, larger than allowed). None of their messages holds a header, a
credential or a query string.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from inferxgate.providers.http import HttpRequest, Timeouts

__all__ = ["HttpRequest", "HttpResponse", "Timeouts", "Upstream"]


class HttpResponse(Protocol):
    """A response whose headers have arrived. Must be closed, whether or not its body was read to the end."""

    @property
    def status(self) -> int: ...

    @property
    def begin_by(self) -> float | None:
        """The loop's time until which an answer has to have begun: ``first_byte_seconds`` after the request was sent,
        of which the wait for the headers has used a part. None: it needs no bound."""

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
