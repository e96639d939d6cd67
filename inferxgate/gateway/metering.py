"""What one admitted request used and cost: watches the chunks, and makes one record whatever the end.

The provider's own count is taken where one came. Where none did and the provider had begun to work, or where it counts
nothing for an answer that says something, tokens are estimated at four UTF-8 bytes each and the record says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from inferxgate.accounts.callers import Caller
from inferxgate.canonical.chat import ChatRequest, Chunk, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from inferxgate.canonical.chat import UsageReport as ProviderUsage
from inferxgate.canonical.usage import NO_USAGE, Usage
from inferxgate.catalog.pricing import FREE
from inferxgate.gateway.admission import LOST, Admitted, Offer
from inferxgate.store.records import Status, UsageRecord, UsageSource

_BYTES_PER_TOKEN = 4


class Meter:
    """Observes one request from its admission to its end."""

    def __init__(
        self,
        caller: Caller,
        request: ChatRequest,
        admitted: Admitted,
        *,
        request_id: str,
    ) -> None:
        self._caller = caller
        self._request = request
        self._admitted = admitted
        self._request_id = request_id
        self._offer = admitted.offers[0]
        self._before = NO_USAGE
        self._cost_before: int | None = 0
        self._attempts = 0
        self._started = time.monotonic()
        self._first_token: float | None = None
        self._reported: Usage | None = None
        self._text_bytes = 0
        self._reasoning_bytes = 0
        self._noted: object = (self._offer, 1, 0, 0, None)
        self.waited_seconds = 0.0
        """How long the provider was waited for."""
        self.sent = False
        """Whether the provider may have begun to work."""
        self.answered = False
        """Whether the provider said that it will not do the work: an error with a status of its own."""

    def tries(self, offer: Offer) -> None:
        """The request goes to a target now. What an earlier one reported to have used is kept, and counts as well."""
        if self.sent and self._reported is not None:
            price, before = self._offer.price, self._cost_before
            self._before += self._reported
            self._cost_before = None if price is None or before is None else before + price.cost_nanos(self._reported)
        self._offer = offer
        self._attempts += 1
        self._reported = self._first_token = None
        self._text_bytes = self._reasoning_bytes = 0
        self.sent = self.answered = False

    def observe(self, chunks: Sequence[Chunk]) -> None:
        """Take note of what came."""
        for chunk in chunks:
            if isinstance(chunk, TextDelta):
                text = chunk.text
                self._text_bytes += len(text) if text.isascii() else _size(text)
            elif isinstance(chunk, ProviderUsage):
                self._reported = chunk.usage
                continue
            elif isinstance(chunk, ReasoningDelta):
                self._reasoning_bytes += _size(chunk.text)
            elif isinstance(chunk, RefusalDelta):
                self._text_bytes += _size(chunk.text)
            elif isinstance(chunk, ToolCallDelta):
                self._text_bytes += _size(chunk.name or "") + _size(chunk.arguments)
            else:
                continue
            if self._first_token is None:
                self._first_token = time.monotonic()

    def waited_since(self, began: float) -> None:
        """The time since ``began``, by the monotonic clock, was spent waiting for the provider."""
        self.waited_seconds += time.monotonic() - began

    @property
    def seconds(self) -> float:
        """Since the request was admitted."""
        return time.monotonic() - self._started

    def so_far(self) -> UsageRecord | None:
        """The record should this process be killed now; None where the last one still holds."""
        # Of one that was sent once and brought nothing, the claim itself says as much.
        seen = (self._offer, max(self._attempts, 1), self._text_bytes, self._reasoning_bytes, self._reported)
        if seen == self._noted:
            return None
        self._noted = seen
        return self.record("gateway_error", 0, error_code=LOST, lost=True)

    def record(
        self, status: Status, http_status: int, *, error_code: str | None = None, lost: bool = False
    ) -> UsageRecord:
        """The record of this request, which has just ended, or would be ``lost`` now."""
        usage, source = self._usage(worked=lost or status in ("ok", "client_closed"))
        price = self._offer.price
        priced = usage.total_tokens > 0 or source == "provider"
        cost: int | None = 0
        if priced:
            cost = price.cost_nanos(usage) if price is not None else None
        elif self.sent and not self.answered and price is not FREE:
            cost = None  # it broke off in silence: the provider may have done the work, and nobody knows how much
        if self._before.total_tokens:
            before = self._cost_before
            usage, cost = usage + self._before, None if cost is None or before is None else cost + before
            source = "provider" if source == "none" else source
        now = time.monotonic()
        return UsageRecord(
            id=self._admitted.record_id,
            request_id=self._request_id,
            started_at_ms=self._admitted.started_at_ms,
            status=status,
            http_status=http_status,
            error_code=error_code,
            key_id=self._caller.key_id,
            user_id=self._caller.user_id,
            end_user=self._request.end_user,
            model_asked=self._request.model,
            model=self._offer.target.model,
            provider=self._offer.target.provider.name,
            stream=self._request.stream,
            usage=usage,
            usage_source=source,
            cost_nanos=cost,
            price_version=price.version if price is not None and priced else None,
            first_token_ms=None if self._first_token is None else round((self._first_token - self._started) * 1000),
            duration_ms=round((now - self._started) * 1000),
            attempts=self._attempts,
        )

    def _usage(self, *, worked: bool) -> tuple[Usage, UsageSource]:
        if self._reported is not None and (self._reported.total_tokens or self._first_token is None):
            return self._reported, "provider"
        worked = worked or self._first_token is not None
        refused = self.answered and self._first_token is None
        if not worked or not self.sent or refused:
            return NO_USAGE, "none"
        return (
            Usage(
                input_tokens=self._admitted.size.text_tokens,
                output_tokens=_tokens(self._text_bytes),
                reasoning_tokens=_tokens(self._reasoning_bytes),
            ),
            "estimated",
        )


def _size(text: str) -> int:
    """UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode())


def _tokens(count_of_bytes: int) -> int:
    return -(-count_of_bytes // _BYTES_PER_TOKEN)
