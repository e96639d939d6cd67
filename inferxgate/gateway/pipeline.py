"""A request's way from a known caller to its last byte and its record.

Strategy: ``Gateway.chat`` admits the request, opens the exchange with its target and returns a reply once there is
something to say: a whole answer, or a stream whose first event has come. Everything before that is raised, so that it
can become a status code. Whatever the end, exactly one record of an admitted request goes to the ledger: for answers
before their last bytes are handed over, for failures and departures when they happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from inferxgate import errors
from inferxgate.accounts.callers import Caller
from inferxgate.canonical.chat import ChatRequest, ChatResponse, Chunk, ReasoningDelta, ReasoningSeal, ToolCallDelta
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects.protocol import Event, FailedAnswer, MediaNeeded
from inferxgate.errors import GatewayError
from inferxgate.gateway.admission import Admission, Admitted, Policy
from inferxgate.gateway.exchange import Exchange
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.metering import Meter
from inferxgate.gateway.reasoning import restored, turn_of
from inferxgate.gateway.routing import ModelEntry, Router, Target
from inferxgate.gateway.settling import Settling
from inferxgate.store.records import Status, UsageRecord
from inferxgate.upstream.media import MediaFetcher, NoFetch
from inferxgate.upstream.protocol import HttpResponse, Upstream
from inferxgate.workers.limits import Limits, RateState, Scope
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.reasoning import ReasoningMemory
from inferxgate.workers.shared import SharedUnavailable

CLIENT_GONE = "client gone"
"""The message with which whoever serves a client cancels its request when the client leaves."""
CLIENT_CLOSED_STATUS = 499
"""What a record says where the client left before it was told anything (nginx's convention)."""

_MAX_ANSWER_BYTES = 256 * 1024 * 1024
_MAX_ERROR_BYTES = 1024 * 1024
_DRAIN_SECONDS = 1.0
_FAULT = errors.INTERNAL_ERROR.code
_NOTE_EVERY_SECONDS = 2.0
_NOTES_AT_ONCE = 100


@dataclass(slots=True)
class Told:
    """What the client has been told so far; kept by whoever serves it, read when the request is recorded."""

    status: int = 0
    """The HTTP status that went out; 0: none yet."""


@dataclass(frozen=True, slots=True)
class WholeReply:
    """A whole answer; its record is in the journal."""

    target: Target
    data: bytes | None
    """The provider's JSON as it came, for a client of the same dialect; None where it has to be translated."""
    chunks: tuple[Chunk, ...]
    """What it means."""
    cost_nanos: int | None
    dropped: tuple[str, ...]
    """Parameters that the target does not take and that were left out."""
    rate: RateState | None = None
    """The state of the caller's window now, where it is known."""


@dataclass(frozen=True, slots=True)
class StreamReply:
    """A stream whose first event has come.

    ``events`` yields what each read of the provider brought, and ends after the record is in the journal; it raises
    ``GatewayError`` where the stream fails after all.
    """

    target: Target
    dropped: tuple[str, ...]
    """Parameters that the target does not take and that were left out."""
    events: AsyncGenerator[list[Event], None]
    close: Callable[[Status | GatewayError], Awaitable[None]]
    """To be called whatever the end, after the last bytes have gone to the client; with the status of the record where
    the stream was not read to its end (``client_closed`` or ``gateway_error``), or with what was wrong with an event.
    """


class Gateway:
    """The path of every request that reaches a provider."""

    def __init__(
        self,
        *,
        router: Router,
        catalog: Catalog,
        upstream: Mapping[str, Upstream],
        limits: Limits,
        ledger: Ledger,
        metrics: Metrics,
        reasoning: ReasoningMemory,
        media: MediaFetcher | None = None,
        policy: Policy | None = None,
        strict: bool = False,
    ) -> None:
        """``upstream``: the engine for each provider by its name; ``media``: fetches what clients name by URLs, by
        default nothing; ``strict``: see ``Exchange``."""
        self._router = router
        self._limits = limits
        self._admission = Admission(router, catalog, limits, ledger, metrics, policy or Policy())
        self.settling = Settling(limits, ledger, metrics)
        self._under_way: set[Meter] = set()
        self.catalog = catalog
        self.upstream = upstream
        self.ledger = ledger
        self.metrics = metrics
        self.reasoning = reasoning
        self.media = media or NoFetch()
        self.strict = strict

    def models(self, caller: Caller) -> list[tuple[str, Target]]:
        """The names of the models that a caller may use, and where they lead."""
        return self._router.listed(caller)

    def model(self, caller: Caller, name: str) -> ModelEntry:
        """One of them. Raises ``GatewayError`` (404)."""
        return self._router.entry(caller, name)

    async def chat(
        self, caller: Caller, request: ChatRequest, *, request_id: str, told: Told | None = None
    ) -> WholeReply | StreamReply:
        """Answer one chat request.

        Raises ``GatewayError`` for refusals and for everything that fails before the first event. Cancel with
        ``CLIENT_GONE`` when the client leaves: the provider's request ends at once, and the record says so.
        """
        admitted = self._admission.admit(caller, request, request_id)
        attempt = _Attempt(admitted, caller, request, request_id, told=told or Told(), gateway=self)
        with attempt.recorded():
            attempt.restore()
            if request.stream:
                return await attempt.stream()
            return await attempt.whole()

    def began(self, meter: Meter) -> None:
        """A request is under way from now on."""
        self._under_way.add(meter)

    def ended(self, meter: Meter, record: UsageRecord, scopes: Sequence[Scope] = ()) -> RateState | None:
        """It has ended, and this is its record; with its caller's scopes, the state of their window afterwards."""
        self._under_way.discard(meter)
        waited_seconds = meter.waited_seconds if meter.sent else None
        return self.settling.end(record, scopes, waited_seconds=waited_seconds, total_seconds=meter.seconds)

    async def keep_notes(self) -> None:
        """Note what requests under way have used so far, for ever: should this process be killed, it is charged."""
        while True:
            await asyncio.sleep(_NOTE_EVERY_SECONDS)
            under_way = list(self._under_way)
            for begin in range(0, len(under_way), _NOTES_AT_ONCE):
                self.note(under_way[begin : begin + _NOTES_AT_ONCE])
                await asyncio.sleep(0)

    def note(self, meters: Iterable[Meter] | None = None) -> None:
        """Note what some requests under way, or all, have used so far."""
        records = [record for meter in meters or self._under_way if (record := meter.so_far())]
        with contextlib.suppress(SharedUnavailable):  # admission tells of it; the older note stands
            self._limits.note(records)


class _Attempt:
    """One admitted request at one target."""

    def __init__(
        self,
        admitted: Admitted,
        caller: Caller,
        request: ChatRequest,
        request_id: str,
        *,
        told: Told,
        gateway: Gateway,
    ) -> None:
        target = admitted.target
        provider = target.provider
        self._target = target
        self._admitted = admitted
        self._upstream = gateway.upstream[provider.name]
        self._reasoning = gateway.reasoning
        self._tenant = caller.tenant
        self._answer: ChatResponse | None = None
        """What the model thought and called, where a client of another dialect may leave it out next time."""
        if provider.row.dialect != request.source.dialect:
            self._answer = ChatResponse()
        self._request = request
        self._media = gateway.media
        self._request_id = request_id
        self._gateway = gateway
        self._scopes = caller.scopes
        self._exchange = self._exchange_of(request)
        self._meter = Meter(caller, request, admitted, request_id=request_id)
        gateway.began(self._meter)
        self._active = gateway.metrics.active.labels(provider.name)
        self._active.inc()
        self._told = told
        self._ended: Status = "client_closed"
        """What it means when the stream is closed before its end."""
        self._recorded = False

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record whatever failure leaves this block, and let it go on."""
        try:
            yield
        except GatewayError as error:
            if isinstance(error, FailedAnswer):
                self._meter.observe(error.chunks)
            self._exchange.name(error)
            self._meter.answered = error.upstream_status is not None or self._meter.answered
            status: Status = "gateway_error" if error.kind.fault is errors.Fault.GATEWAY else "provider_error"
            self._record(status, self._told.status or error.status, error_code=error.code)
            raise
        except asyncio.CancelledError as error:
            if CLIENT_GONE in error.args or not any("shutdown" in str(word) for word in error.args):
                self._record("client_closed", self._told.status or CLIENT_CLOSED_STATUS)
            else:  # the server's word when the time to finish is over
                self._record("gateway_error", self._told.status or 503, error_code=errors.DRAINING.code)
            raise
        except GeneratorExit:
            if self._ended == "client_closed":
                self._record("client_closed", self._told.status or CLIENT_CLOSED_STATUS)
            else:
                self._record(self._ended, self._told.status or 500, error_code=_FAULT)
            raise
        except BaseException:  # a fault of ours: the server answers 500 and logs it; here it only gets its record
            self._record("gateway_error", self._told.status or 500, error_code=_FAULT)
            raise

    def restore(self) -> None:
        """Put back the thoughts that a client of another dialect left out; what goes wrong with that is recorded."""
        if self._answer is not None:
            name = self._target.provider.name
            request = restored(self._request, name, lambda call: self._reasoning.recall(self._tenant, call))
            if request is not self._request:
                self._exchange = self._exchange_of(request)

    def _exchange_of(self, request: ChatRequest) -> Exchange:
        seed = self._admitted.record_id.removeprefix("use_")
        return Exchange(request, self._target, self._admitted.abilities, strict=self._gateway.strict, seed=seed)

    async def whole(self) -> WholeReply:
        """Ask, and wait for the whole answer."""
        response = await self._send()
        try:
            with self._meter.waiting():
                data = await response.read(limit=_MAX_ANSWER_BYTES)
        finally:
            await response.close()
        data, chunks = self._exchange.whole(data)
        self._observe(chunks)
        as_it_came = data if self._exchange.verbatim else None
        cost_nanos, rate = self._record("ok", 200, scopes=self._scopes)
        return WholeReply(self._target, as_it_came, chunks, cost_nanos, self._exchange.dropped, rate)

    async def stream(self) -> StreamReply:
        """Ask, and wait for the first event."""
        response = await self._send()
        try:
            data = self._meter.timed(response.chunks())
            batches = self._batches(data)
            first: list[Event] = await anext(batches, [])
        except BaseException:  # also a cancellation must not leave the provider working
            await response.close()
            raise
        events = self._events(first, batches)

        async def close(end: Status | GatewayError) -> None:
            try:
                if isinstance(end, GatewayError):
                    with contextlib.suppress(GatewayError, StopAsyncIteration):
                        await events.athrow(end)  # named and recorded there, unless it came from there
                else:
                    self._ended = end
                    await events.aclose()
                if self._exchange.done:
                    await _drain(data)
            finally:
                await response.close()

        return StreamReply(self._target, self._exchange.dropped, events, close)

    async def _send(self) -> HttpResponse:
        """The provider's answer with status 200. Raises ``GatewayError`` for any other."""
        try:
            http_request = self._exchange.http_request()
        except MediaNeeded as needed:
            fetched = await self._media.fetch(needed, request_id=self._request_id)
            http_request = self._exchange.http_request(fetched)
        self._meter.sent = True
        with self._meter.waiting():
            response = await self._upstream.send(http_request)
        if 200 <= response.status < 300:
            return response
        try:
            data = await response.read(limit=_MAX_ERROR_BYTES)
        finally:
            await response.close()
        raise self._exchange.error(response.status, response.headers, data, now_s=time.time())

    async def _batches(self, data: AsyncIterator[bytes]) -> AsyncIterator[list[Event]]:
        """The events of each read that brought any; raises ``GatewayError`` where the stream fails."""
        exchange = self._exchange
        beginning = b""
        async for piece in self._until_complete(data):
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

    async def _until_complete(self, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of a body. Where it breaks off after the answer was finished, nothing is missing."""
        try:
            async for piece in data:
                yield piece
        except GatewayError:
            if not self._exchange.complete:
                raise

    def _observed(self, events: list[Event]) -> list[Event]:
        for event in events:
            self._observe(event.chunks)
        return events

    def _observe(self, chunks: Sequence[Chunk]) -> None:
        self._meter.observe(chunks)
        if self._answer is not None:
            for chunk in chunks:
                if isinstance(chunk, ReasoningDelta | ReasoningSeal | ToolCallDelta):
                    self._answer.add(chunk)

    async def _events(
        self, first: list[Event], batches: AsyncIterator[list[Event]]
    ) -> AsyncGenerator[list[Event], None]:
        with self.recorded():
            yield first
            async for events in batches:
                yield events
            self._record("ok", 200)

    def _record(
        self, status: Status, http_status: int, *, error_code: str | None = None, scopes: Sequence[Scope] = ()
    ) -> tuple[int | None, RateState | None]:
        """Put the one record of this request into the journal; its cost, and what ``Gateway.ended`` says."""
        if self._recorded:
            return None, None
        self._recorded = True
        self._active.dec()
        if status == "ok" and self._answer is not None:
            name = self._target.provider.name
            turns = [turn for choice in self._answer.choices.values() if (turn := turn_of(choice, name))]
            if turns:
                self._reasoning.remember(self._tenant, turns)
        record = self._meter.record(status, http_status, error_code=error_code)
        return record.cost_nanos, self._gateway.ended(self._meter, record, scopes)


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
