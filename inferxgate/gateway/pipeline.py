"""A request's way from a known caller to its last byte and its record.

Strategy: ``Gateway.chat`` admits the request and asks its targets, one after the other as ``tries`` says, until one has
something to say: a whole answer, or a stream whose first event has come. Everything before that is raised, so that it
can become a status code. Once something was said there is no other try. Whatever the end, exactly one record of an
admitted request goes to the ledger: for answers before their last bytes are handed over, for failures and departures
when they happen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence

from inferxgate import errors
from inferxgate.accounts.callers import Caller
from inferxgate.canonical.chat import ChatRequest, Chunk, Finish
from inferxgate.catalog.catalog import UnpricedWarnings
from inferxgate.dialects.protocol import Event, FailedAnswer
from inferxgate.errors import GatewayError
from inferxgate.gateway.admission import Admission, Admitted, Offer
from inferxgate.gateway.attempt import Attempt, OpenStream
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.metering import Meter
from inferxgate.gateway.queueing import FairQueue
from inferxgate.gateway.routing import ModelEntry, Target
from inferxgate.gateway.selection import Selection
from inferxgate.gateway.settling import Settling
from inferxgate.gateway.setup import Setup
from inferxgate.gateway.state import Carried
from inferxgate.gateway.tries import GiveUp, Go, Tries, Wait, goes_on
from inferxgate.store.records import Status, UsageRecord
from inferxgate.values import dataclass
from inferxgate.workers.health import Health, HealthPolicy, LocalHealth
from inferxgate.workers.limits import Limits, RateState, Scope
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.reasoning import ReasoningMemory
from inferxgate.workers.shared import SharedUnavailable
from inferxgate.workers.slots import LocalSlots, Slots

CLIENT_GONE = "client gone"
"""The message with which whoever serves a client cancels its request when the client leaves."""
CLIENT_CLOSED_STATUS = 499
"""What a record says where the client left before it was told anything (nginx's convention)."""

_FAULT = errors.INTERNAL_ERROR.code
_NOTE_EVERY_SECONDS = 2.0
_NOTES_AT_ONCE = 100
_WATCH_EVERY_SECONDS = 1.0
_NO_RETRY = {"x-should-retry": "false"}
_WHOLE = ""
"""The name of the bound on all that is under way, beside the providers' own."""

log = logging.getLogger(__name__)


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
        setup: Setup,
        *,
        limits: Limits,
        ledger: Ledger,
        metrics: Metrics,
        reasoning: ReasoningMemory,
        health: Health | None = None,
        slots: Slots | None = None,
    ) -> None:
        """``health`` and ``slots`` are those of this process alone where none are given."""
        self.setup = setup
        """For the requests that come from now on."""
        self._limits = limits
        self._admission = Admission(limits, ledger, metrics)
        self.settling = Settling(limits, ledger, metrics)
        self._under_way: set[Meter] = set()
        self.ledger = ledger
        self.metrics = metrics
        self.reasoning = reasoning
        self.selection = Selection(health or LocalHealth())
        self.slots = slots or LocalSlots()
        self.queue = FairQueue(self.slots, most_waiting=setup.policy.max_queued)
        self.unpriced = UnpricedWarnings()
        metrics.watch_queue(self.queue.waiting)
        metrics.watch_targets(self.selection.unavailable)

    def configure(self, setup: Setup, *, health: HealthPolicy, bounds: Mapping[str, int]) -> None:
        """Take another configuration, at once and as a whole; what is under way keeps the one that it began with.

        ``bounds``: how many requests may be under way, by provider, and in all under the empty name.
        """
        self.setup = setup
        self.queue.most_waiting = setup.policy.max_queued
        self.selection.health.configure(health)
        self.slots.configure(bounds)

    def models(self, caller: Caller) -> list[tuple[str, Target]]:
        """The names of the models that a caller may use, and where they lead."""
        return self.setup.router.listed(caller)

    def model(self, caller: Caller, name: str) -> ModelEntry:
        """One of them. Raises ``GatewayError`` (404)."""
        return self.setup.router.entry(caller, name)

    async def chat(
        self, caller: Caller, request: ChatRequest, *, request_id: str, told: Told | None = None
    ) -> WholeReply | StreamReply:
        """Answer one chat request.

        Raises ``GatewayError`` for refusals and for everything that fails before the first event. Cancel with
        ``CLIENT_GONE`` when the client leaves: the provider's request ends at once, and the record says so.
        """
        setup = self.setup
        admitted = self._admission.admit(setup, caller, request, request_id)
        under_way = _Request(admitted, caller, request, request_id, told=told or Told(), gateway=self, setup=setup)
        try:
            return await under_way.answer()
        except BaseException as error:  # whatever it is gets its record
            under_way.failed(error)
            raise

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

    async def keep_watch(self) -> None:
        """Tell the other workers how this one's targets fare, and hear of theirs, for ever."""
        while True:
            await asyncio.sleep(_WATCH_EVERY_SECONDS)
            self.selection.health.sync()
            self.slots.tidy()

    def note(self, meters: Iterable[Meter] | None = None) -> None:
        """Note what some requests under way, or all, have used so far."""
        records = [record for meter in meters or self._under_way if (record := meter.so_far())]
        with contextlib.suppress(SharedUnavailable):  # admission tells of it; the older note stands
            self._limits.note(records)


class _Request:
    """One admitted request."""

    def __init__(
        self,
        admitted: Admitted,
        caller: Caller,
        request: ChatRequest,
        request_id: str,
        *,
        told: Told,
        gateway: Gateway,
        setup: Setup,
    ) -> None:
        self._admitted = admitted
        self._request = request
        self._request_id = request_id
        self._gateway = gateway
        self._setup = setup
        self._tenant = caller.tenant
        self._scopes = caller.scopes
        self._carried = Carried(
            request,
            [offer.target for offer in admitted.offers],
            setup.router.providers,
            recall=lambda call: gateway.reasoning.recall(caller.tenant, call),
            made_by=lambda mark: gateway.reasoning.made_by(caller.tenant, mark),
        )
        self._meter = Meter(caller, request, admitted, request_id=request_id)
        gateway.began(self._meter)
        setup.uses.begin()
        self._told = told
        self._ended: Status = "client_closed"
        """What it means when the stream is closed before its end."""
        self._recorded = False
        self._attempt: Attempt | None = None
        """The one that is under way."""
        self._begun, self._has_answered = 0.0, False
        self._slots: list[str] = []

    def failed(self, error: BaseException) -> None:
        """Record a failure of whatever kind, which the caller lets go on."""
        told = self._told.status
        match error:
            case GatewayError():
                self._note_failure(error)
                status: Status = "gateway_error" if error.kind.fault is errors.Fault.GATEWAY else "provider_error"
                self._record(status, told or error.status, error_code=error.code)
            case asyncio.CancelledError() if CLIENT_GONE in error.args or not _is_shutdown(error):
                self._record("client_closed", told or CLIENT_CLOSED_STATUS)
            case asyncio.CancelledError():
                self._record("gateway_error", told or 503, error_code=errors.DRAINING.code)
            case GeneratorExit() if self._ended == "client_closed":
                self._record("client_closed", told or CLIENT_CLOSED_STATUS)
            case GeneratorExit():
                self._record(self._ended, told or 500, error_code=_FAULT)
            case _:  # a fault of ours: the server answers 500 and logs it; here it only gets its record
                self._record("gateway_error", told or 500, error_code=_FAULT)

    async def answer(self) -> WholeReply | StreamReply:
        """Ask one target after the other, until one answers or nothing is left to be tried."""
        selection, stream = self._gateway.selection, self._request.stream
        offers = selection.order(self._admitted, stream=stream, rank=self._carried.rank())
        tries = self._tries(offers)
        failure: GatewayError | None = None
        failed: Offer | None = None
        while True:
            step = tries.next(time.monotonic())
            if failed is not None and failure is not None:
                self._log_what_follows(failed, failure, step)
                failed = None
            match step:
                case Go(offer):
                    try:
                        reply = await self._ask(offer, tries)
                    except GatewayError as error:
                        self._note_failure(error)
                        self._leave_slots()
                        if not goes_on(error, self._admitted.plan.fallback_on):
                            raise
                        tries.failed(offer, error, time.monotonic())
                        failed, failure = offer, error
                    else:
                        if reply is not None:
                            return reply
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case GiveUp(ready_seconds):
                    raise self._given_up(failure, tries, ready_seconds)

    def _log_what_follows(self, failed: Offer, failure: GatewayError, step: Go | Wait | GiveUp) -> None:
        """One line about a failure that the client will not hear of."""
        match step:
            case Go(offer):
                follows = f"{offer.target.name} is asked next"
                if offer is not failed and offer.target.name == failed.target.name:
                    follows += f", with the key {offer.target.provider.credential}"
            case Wait(seconds):
                follows = f"another attempt follows in {seconds:.1f} s"
            case GiveUp():
                return  # it will hear of this one
        said = "" if failure.withheld is None else f". It said: {failure.withheld}"
        log.log(
            logging.INFO if failure.withheld is None else logging.WARNING,
            "request %s to %s failed with %s (status %s): %s%s",
            self._request_id,
            failed.target.name,
            failure.code or failure.kind.code,
            failure.upstream_status or "none",
            follows,
            said,
        )

    def _tries(self, offers: Sequence[Offer]) -> Tries:
        selection = self._gateway.selection
        return Tries(
            offers,
            self._setup.policy,
            began=time.monotonic(),
            ready_in=selection.ready_in,
            is_aside=selection.is_aside,
            random=random.random,
        )

    async def _ask(self, offer: Offer, tries: Tries) -> WholeReply | StreamReply | None:
        """What one target answers; None: it may not be asked just now. Raises for whatever else goes wrong."""
        attempt = Attempt(
            offer,
            self._request,
            setup=self._setup,
            meter=self._meter,
            carried=self._carried,
            seed=self._admitted.record_id.removeprefix("use_"),
            request_id=self._request_id,
        )
        if not self._take_slots_now(offer):
            if tries.postpone(offer):
                return None
            await self._take_slots(offer, tries)
        if not self._begin(attempt):
            tries.not_asked(offer)
            return None
        if not self._request.stream:
            data, chunks = await attempt.whole()
            self._go_on_for_filter(chunks, offer, tries)
            self._answered()
            self._ended_well()
            cost_nanos, rate = self._record("ok", 200, scopes=self._scopes)
            return WholeReply(offer.target, data, chunks, cost_nanos, attempt.dropped, rate)
        opened = await attempt.stream()
        try:
            self._go_on_for_filter([chunk for event in opened.first for chunk in event.chunks], offer, tries)
        except GatewayError:
            await opened.close(done=False)
            raise
        self._answered()
        return self._stream_reply(attempt, opened)

    def _stream_reply(self, attempt: Attempt, opened: OpenStream) -> StreamReply:
        events = self._events(opened)

        async def close(end: Status | GatewayError) -> None:
            try:
                if isinstance(end, GatewayError):
                    with contextlib.suppress(GatewayError, StopAsyncIteration):
                        await events.athrow(end)  # named and recorded there, unless it came from there
                else:
                    self._ended = end
                    await events.aclose()
                if not self._recorded:  # not even its first event was read
                    self.failed(end if isinstance(end, GatewayError) else GeneratorExit())
            finally:
                await opened.close(done=attempt.exchange.done)

        return StreamReply(attempt.target, attempt.dropped, events, close)

    async def _events(self, opened: OpenStream) -> AsyncGenerator[list[Event], None]:
        try:
            yield opened.first
            async for events in opened.batches:
                yield events
            self._ended_well()
            self._record("ok", 200)
        except BaseException as error:  # whatever it is gets its record
            self.failed(error)
            raise

    # --- one attempt's beginning and end

    def _take_slots_now(self, offer: Offer) -> bool:
        """Whether there is a place at the provider and in the gateway, which is taken then."""
        for name in (offer.target.provider.name, _WHOLE):
            if not self._gateway.queue.enter_now(name):
                self._leave_slots()
                return False
            self._slots.append(name)
        return True

    async def _take_slots(self, offer: Offer, tries: Tries) -> None:
        """Wait for them. Raises ``GatewayError`` (503) where it takes too long or too many wait already."""
        for name in (offer.target.provider.name, _WHOLE):
            try:
                await self._gateway.queue.enter(name, self._tenant, seconds=self._setup.policy.queue_seconds)
            except GatewayError:
                tries.no_room(name)
                raise
            self._slots.append(name)

    def _leave_slots(self) -> None:
        while self._slots:
            self._gateway.queue.leave(self._slots.pop())

    def _begin(self, attempt: Attempt) -> bool:
        """Whether the target may be asked, which is begun then."""
        offer = attempt.offer
        if not self._gateway.selection.enter(offer):
            self._leave_slots()
            return False
        self._attempt = attempt
        if self._begun:
            self._gateway.metrics.tried_again(offer.target.provider.name)
        self._begun, self._has_answered = time.monotonic(), False
        self._meter.tries(offer)
        self._gateway.unpriced.note(offer.target.name, offer.price)
        self._gateway.metrics.began(offer.target.provider.name)
        return True

    def _answered(self) -> None:
        """Its target has answered, or begun to: it works."""
        if self._attempt is not None:
            self._has_answered = True
            self._gateway.selection.succeeded(
                self._attempt.offer,
                begun=self._begun,
                seconds=time.monotonic() - self._attempt.sent_at,
                stream=self._request.stream,
            )

    def _ended_well(self) -> None:
        attempt = self._attempt
        if attempt is not None:
            if turns := attempt.turns():
                self._gateway.reasoning.remember(self._tenant, turns)
            self._left(attempt)

    def _note_failure(self, error: GatewayError) -> None:
        """Put down to its target what an attempt failed of."""
        attempt = self._attempt
        if attempt is None:
            return
        if isinstance(error, FailedAnswer):
            self._meter.observe(error.chunks)
        attempt.exchange.name(error)
        if self._meter.sent:
            self._gateway.metrics.attempt_failed(attempt.target.provider.name, error.kind.code)
        self._meter.answered = error.upstream_status is not None or self._meter.answered
        self._gateway.selection.failed(attempt.offer, error, begun=self._begun, answered=self._has_answered)
        self._left(attempt)

    def _abandoned(self) -> None:
        attempt = self._attempt
        if attempt is not None:
            self._gateway.selection.abandoned(attempt.offer, begun=self._begun)
            self._left(attempt)

    def _left(self, attempt: Attempt) -> None:
        """The attempt is over, however it ended."""
        self._attempt = None
        self._gateway.selection.left(attempt.offer)
        self._gateway.metrics.ended(attempt.target.provider.name)
        self._leave_slots()

    def _go_on_for_filter(self, chunks: Sequence[Chunk], offer: Offer, tries: Tries) -> None:
        """Raise where the answer is that the content was filtered, and the alias wants another target asked then."""
        if "content_filter" not in self._admitted.plan.fallback_on or not tries.has_other(offer.target.name):
            return
        if any(isinstance(chunk, Finish) and chunk.reason == "content_filter" for chunk in chunks):
            raise FailedAnswer(_filtered(), ())

    def _given_up(self, failure: GatewayError | None, tries: Tries, ready_seconds: float | None) -> GatewayError:
        """What the client is told when nothing is left to be tried: the last failure, and when to come back."""
        if failure is None:
            names = " and ".join(dict.fromkeys(offer.target.name for offer in self._admitted.offers))
            return GatewayError(
                errors.NO_TARGET_AVAILABLE,
                f"{names} failed lately and is left alone for now.",
                retry_after_seconds=ready_seconds,
            )
        if failure.status in (429, 503) and ready_seconds is not None:
            failure.retry_after_seconds = ready_seconds
        if tries.count > 1:
            failure.headers = {**failure.headers, **_NO_RETRY}  # it was tried again already, and often enough
        return failure

    def _record(
        self, status: Status, http_status: int, *, error_code: str | None = None, scopes: Sequence[Scope] = ()
    ) -> tuple[int | None, RateState | None]:
        """Put the one record of this request into the journal; its cost, and what ``Gateway.ended`` says."""
        if self._recorded:
            return None, None
        self._recorded = True
        if self._attempt is not None or self._slots:
            self._abandoned()
            self._leave_slots()
        record = self._meter.record(status, http_status, error_code=error_code)
        rate = self._gateway.ended(self._meter, record, scopes)
        self._setup.uses.end()
        return record.cost_nanos, rate


def _is_shutdown(error: asyncio.CancelledError) -> bool:
    """Whether it is the server's word when the time to finish is over."""
    return any("shutdown" in str(word) for word in error.args)


def _filtered() -> GatewayError:
    return GatewayError(
        errors.INVALID_VALUE,
        "The provider refused the content.",
        code="content_filter",
        upstream_status=200,
    )
