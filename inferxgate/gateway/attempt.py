"""One request at one target, from the first byte out to the last byte in.

An attempt raises ``GatewayError`` for whatever goes wrong; whether that is the end of the request is for ``pipeline``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from inferxgate import errors
from inferxgate.canonical.chat import (
    ChatRequest,
    ChatResponse,
    Chunk,
    ImageOutput,
    ReasoningDelta,
    ReasoningSeal,
    ServerBlock,
    Start,
    TextSeal,
    ToolCallDelta,
    UsageReport,
)
from inferxgate.dialects.protocol import Event, MediaNeeded
from inferxgate.errors import GatewayError
from inferxgate.gateway.admission import Offer
from inferxgate.gateway.exchange import Exchange, laid_over
from inferxgate.gateway.metering import Meter
from inferxgate.gateway.reasoning import maker_of, marks_of, turn_of
from inferxgate.gateway.setup import Setup
from inferxgate.gateway.state import Carried
from inferxgate.providers.http import HttpRequest
from inferxgate.upstream.protocol import HttpResponse
from inferxgate.workers.reasoning import Turn

_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_MAX_ERROR_BYTES = 1024 * 1024
_ERROR_SECONDS = 5.0
"""How long a failure may take to be told once its status has come; another target may be waiting for its turn."""
_DRAIN_SECONDS = 1.0
_MOST_OPENINGS = 1_000
"""Events before the first that says something: they are kept until then."""
_KEPT = (ReasoningDelta, ReasoningSeal, TextSeal, ToolCallDelta, ServerBlock)
"""What of an answer may be state, or lead to it."""


class Attempt:
    """One try at one target."""

    def __init__(
        self,
        offer: Offer,
        request: ChatRequest,
        *,
        setup: Setup,
        meter: Meter,
        carried: Carried,
        seed: str,
        request_id: str,
    ) -> None:
        """``carried``: the state of the request's conversation; ``seed``: see ``Exchange``."""
        self.offer = offer
        target = self.target = offer.target
        self._setup = setup
        self._meter = meter
        self._request_id = request_id
        self.sent_at = 0.0
        """By the monotonic clock, when the target was asked."""
        self._answer: ChatResponse | None = None
        """What the model thought and called, where a client of another dialect may leave it out next time."""
        request = laid_over(request, target)
        if target.provider.row.dialect != request.source.dialect:
            self._answer = ChatResponse()
        self._fitted = carried.fitted(request, target)
        self.exchange = Exchange(self._fitted.request, target, offer.abilities, strict=setup.policy.strict, seed=seed)

    @property
    def dropped(self) -> tuple[str, ...]:
        """What the target does not take and was not sent, by its place in the client's request."""
        return self._fitted.named(self.exchange.dropped)

    async def whole(self) -> tuple[bytes | None, tuple[Chunk, ...]]:
        """Ask, and wait for the whole answer: as it came, where the client speaks its dialect, and its meaning."""
        response = await self._send(await self._written())
        began = time.monotonic()
        try:
            data = await response.read(limit=_MAX_ANSWER_BYTES)
        finally:
            self._meter.waited_since(began)
            await response.close()
        data, chunks = self.exchange.whole(data)
        self._observe(chunks)
        return (data if self.exchange.verbatim else None), chunks

    async def stream(self) -> OpenStream:
        """Ask, and wait for the first event that the client is told of. Raises for streams that fail before it."""
        response = await self._send(await self._written())
        try:
            data = response.chunks()
            batches = self._batches(data)
            try:
                async with asyncio.timeout_at(response.begin_by):
                    more: list[Event] = await anext(batches, [])
                    first = [*more]
                    # Openings, which the client never sees; whoever sends them without end has begun all the same.
                    while more and len(first) < _MOST_OPENINGS and not any(map(self._tells, more)):
                        more = await anext(batches, [])
                        first += more
            except TimeoutError:  # comments alone, which a proxy may send for ever, are no beginning
                seconds = self.target.provider.timeouts.first_byte_seconds
                raise GatewayError(
                    errors.UPSTREAM_TIMEOUT, f"The provider did not begin to answer within {seconds:g} seconds."
                ) from None
        except BaseException:  # also a cancellation must not leave the provider working
            await response.close()
            raise
        return OpenStream(first, batches, data, response)

    def _tells(self, event: Event) -> bool:
        """Whether an event becomes something that the client reads."""
        if not event.chunks:
            return self.exchange.verbatim
        return any(not isinstance(chunk, Start | UsageReport) for chunk in event.chunks)

    def turns(self) -> list[Turn]:
        """What has to come back with the next turn, or will be known by its marks."""
        maker = maker_of(self.target)
        if self._answer is None:
            state = self.exchange.state
            return [Turn(maker, (), {}, marks_of(state))] if state else []
        return [turn for choice in self._answer.choices.values() if (turn := turn_of(choice, maker))]

    async def _written(self) -> HttpRequest:
        """The request, with what its caller's URLs lead to where the target takes only bytes: none of its own time."""
        try:
            return self.exchange.http_request()
        except MediaNeeded as needed:
            fetched = await self._setup.media.fetch(needed, request_id=self._request_id)
            return self.exchange.http_request(fetched)

    async def _send(self, http_request: HttpRequest) -> HttpResponse:
        """The provider's answer with status 200. Raises ``GatewayError`` for any other."""
        exchange = self.exchange
        self._meter.sent = True
        self.sent_at = time.monotonic()
        try:
            response = await self._setup.upstream[self.target.provider.name].send(http_request)
        finally:
            self._meter.waited_since(self.sent_at)
        if 200 <= response.status < 300:
            return response
        try:
            data = await self._words(response)
        finally:
            await response.close()
        raise exchange.error(response.status, response.headers, data, now_s=time.time())

    async def _words(self, response: HttpResponse) -> bytes:
        """What a provider says of its failure. Its status says enough, so that what does not come soon is left out."""
        said = bytearray()
        with contextlib.suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(min(_ERROR_SECONDS, self.target.provider.timeouts.idle_seconds)):
                async for piece in response.chunks():
                    said += piece
                    if len(said) > _MAX_ERROR_BYTES:
                        break
        return bytes(said)

    async def _batches(self, data: AsyncIterator[bytes]) -> AsyncIterator[list[Event]]:
        """The events of each read that brought any; raises ``GatewayError`` where the stream fails."""
        exchange, meter = self.exchange, self._meter
        beginning = b""
        while True:
            began = time.monotonic()
            try:
                piece = await anext(data, None)
            except GatewayError:
                if not exchange.complete:
                    raise
                piece = None  # it broke off after the answer was finished: nothing is missing
            finally:
                meter.waited_since(began)
            if piece is None:
                break
            if not beginning:
                beginning = piece.lstrip()
                if exchange.is_document(beginning):
                    raise exchange.not_a_stream(beginning + await _rest(data, limit=_MAX_ERROR_BYTES))
            events = exchange.events(piece)
            if events:
                yield self._observed(events)
            if exchange.failure is not None:
                raise exchange.failure
            if exchange.done:
                break
        events = exchange.last_events()
        if events:
            yield self._observed(events)
        if exchange.failure is not None:
            raise exchange.failure

    def _observed(self, events: list[Event]) -> list[Event]:
        self._observe([chunk for event in events for chunk in event.chunks])
        return events

    def _observe(self, chunks: Sequence[Chunk]) -> None:
        self._meter.observe(chunks)
        if self._answer is not None:
            for chunk in chunks:
                if isinstance(chunk, _KEPT):
                    self._answer.add(chunk)
                elif isinstance(chunk, ImageOutput):
                    self._answer.add(replace(chunk, base64=""))


class OpenStream:
    """A stream whose first event has come."""

    def __init__(
        self,
        first: list[Event],
        batches: AsyncIterator[list[Event]],
        data: AsyncIterator[bytes],
        response: HttpResponse,
    ) -> None:
        self.first = first
        """What came first; nothing where the stream ended properly without any event."""
        self.batches = batches
        """What comes after it."""
        self._data = data
        self._response = response

    async def close(self, *, done: bool) -> None:
        """End it. ``done``: the provider has said all, so that its connection can be used again."""
        try:
            if done:
                await _drain(self._data)
        finally:
            await self._response.close()


async def _rest(data: AsyncIterator[bytes], *, limit: int) -> bytes:
    """What is left of a body, up to about ``limit`` bytes."""
    rest = bytearray()
    async for piece in data:
        rest += piece
        if len(rest) > limit:
            break
    return bytes(rest)


async def _drain(data: AsyncIterator[bytes]) -> None:
    """Read a finished stream to the end of its body, so that the connection can be used again."""
    with contextlib.suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in data:
                pass
