"""Where the parts are put together, and the only place: opened in order, closed in reverse.

Commands that need only the store call ``open_store`` and load nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from inferxgate.catalog.catalog import Catalog
from inferxgate.catalog.price_list import FILE_NAME
from inferxgate.config import Loaded, Settings
from inferxgate.config_watch import Stamp, stamp_of
from inferxgate.errors import StartError, StoreUnavailable
from inferxgate.gateway.discovery import USUAL_PACE, Discovery, Pace
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.pipeline import Gateway
from inferxgate.gateway.recovery import Presence, Recovery
from inferxgate.gateway.routing import Router
from inferxgate.gateway.setup import Policy, Setup
from inferxgate.gateway.upkeep import Upkeep
from inferxgate.runtime_engines import Engines, EnginesInUse, build_engines
from inferxgate.runtime_models import build_catalog, build_provider, build_router, read_model_lists
from inferxgate.storage import (
    journal_folder,
    open_store,
    reasoning_folder,
    retention_limits,
    shared_folder,
)
from inferxgate.storage_health import build_health_policy
from inferxgate.store.protocol import Store
from inferxgate.store.retention import Retention
from inferxgate.values import dataclass
from inferxgate.workers.attempts import Attempts, NoAttempts
from inferxgate.workers.election import Election
from inferxgate.workers.health import Health, LocalHealth
from inferxgate.workers.limits import Limits, NoLimits
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.model_lists import ModelLists
from inferxgate.workers.reasoning import NoReasoning, ReasoningMemory
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_attempts import SharedAttempts
from inferxgate.workers.shared_health import SharedHealth
from inferxgate.workers.shared_limits import SharedLimits
from inferxgate.workers.shared_reasoning import SharedReasoning, forget_reasoning
from inferxgate.workers.shared_slots import SharedSlots
from inferxgate.workers.slots import LocalSlots, Slots


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a configuration asks for, made and checked, so that it can be taken over as a whole."""

    loaded: Loaded
    setup: Setup
    engines: Engines
    prices: Stamp | None
    """The price file that its catalogue has read."""
    lists: ModelLists
    """What providers list themselves; the same in all that one process prepares."""


def prepare(loaded: Loaded, before: Prepared | None = None) -> Prepared:
    """What ``loaded`` asks for, with what can be kept of ``before``. May take long, and runs in any thread.

    Raises ``StartError`` for what cannot be made of it.
    """
    settings = loaded.settings
    prices = stamp_of(loaded.data_dir / FILE_NAME)
    if before is not None and before.prices == prices and _says_the_same(before.loaded.settings, settings):
        catalog = before.setup.catalog
    else:
        catalog = build_catalog(settings, loaded.data_dir)
    engines = build_engines(settings, before.engines if before is not None else None)
    lists = before.lists if before is not None else read_model_lists(loaded)
    router = build_router(settings, catalog, lists=lists)
    setup = Setup(router, catalog, engines.by_provider, engines.media, build_policy(settings))
    return Prepared(loaded, setup, engines, prices, lists)


def _says_the_same(one: Settings, other: Settings) -> bool:
    """Whether two configurations say the same of models; in the same order, for the first pattern that fits holds."""
    return [*one.pricing.items(), *one.catalog.items()] == [*other.pricing.items(), *other.catalog.items()]


@dataclass(slots=True)
class Runtime:
    """The open parts of one gateway."""

    prepared: Prepared
    """The configuration in force."""
    engines: EnginesInUse
    store: Store
    ledger: Ledger
    limits: Limits
    attempts: Attempts
    metrics: Metrics
    gateway: Gateway
    discovery: Discovery | None
    """What asks providers for their lists, where this process serves."""

    @property
    def loaded(self) -> Loaded:
        return self.prepared.loaded

    @property
    def settings(self) -> Settings:
        """Those in force: read them anew for each request, as they may change."""
        return self.loaded.settings

    @property
    def catalog(self) -> Catalog:
        return self.prepared.setup.catalog

    @property
    def router(self) -> Router:
        return self.prepared.setup.router

    def prepare(self, loaded: Loaded) -> Prepared:
        """See the function; in any thread, for ``adopt`` on the loop."""
        return prepare(loaded, self.prepared)

    def adopt(self, prepared: Prepared) -> None:
        """Take another configuration, for the requests that come from now on."""
        before, self.prepared = self.prepared.setup, prepared
        settings = prepared.loaded.settings
        self.gateway.configure(prepared.setup, health=build_health_policy(settings), bounds=build_bounds(settings))
        self.limits.configure(alerts=settings.limits.budget_alerts)
        if self.discovery is not None:
            self.discovery.configure(prepared.setup.router.providers, prepared.setup.upstream)
        self.engines.replace(before.uses, prepared.engines)


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What workers agree on."""

    limits: Limits
    attempts: Attempts
    reasoning: ReasoningMemory
    health: Health
    slots: Slots


def _alone(settings: Settings) -> _Agreed:
    """Where there is nobody to agree with, and nobody to be limited."""
    health = LocalHealth(build_health_policy(settings))
    return _Agreed(NoLimits(), NoAttempts(), NoReasoning(), health, LocalSlots())


@dataclass(frozen=True, slots=True)
class _Among:
    """One worker's place among those of its data folder."""

    agreed: _Agreed
    limits: SharedLimits
    slots: SharedSlots
    presence: Presence
    election: Election

    @classmethod
    def join(cls, stack: AsyncExitStack, loaded: Loaded, ledger: Ledger) -> _Among:
        """To be left after the ledger is closed, whose thread uses all of it to its end. Raises ``StartError``."""
        settings, folder = loaded.settings, shared_folder(loaded)
        reasoning = _open_reasoning(stack, loaded, ledger)
        presence = _open_presence(stack, loaded)
        election = Election(folder / "upkeep.lock")
        stack.callback(election.close)
        memory = SharedMemory.open(folder)
        stack.callback(memory.close)
        limits = SharedLimits(memory, ledger.name, alerts=settings.limits.budget_alerts)
        slots = SharedSlots(memory, ledger.name)
        health = SharedHealth(memory, build_health_policy(settings))
        agreed = _Agreed(limits, SharedAttempts(memory), reasoning, health, slots)
        return cls(agreed, limits, slots, presence, election)

    def keep_order(self, loaded: Loaded, store: Store, ledger: Ledger, gateway: Gateway) -> None:
        """Account for what killed workers left, now and from now on, and for what has grown old.

        Raises ``StartError``.
        """
        recovery = Recovery(store, self.limits, ledger, gateway.settling, holdings=[self.slots])
        _put_in_order(recovery, self.presence)
        ledger.also(recovery.watch)
        ledger.also(self.limits.sweep)
        ledger.also(Upkeep(Retention(store, retention_limits(loaded)), self.election).step)


@asynccontextmanager
async def open_runtime(
    loaded: Loaded,
    metrics: Metrics | None = None,
    *,
    prepared: Prepared | None = None,
    serving: bool = True,
    pace: Pace = USUAL_PACE,
) -> AsyncIterator[Runtime]:
    """Open every part; ``metrics`` are made where none are given, and so is what ``prepare`` makes of ``loaded``.

    Not ``serving``: for the operator alone, who has no limits to be shared with anybody. ``pace``: when providers are
    asked for their models. Raises ``StartError`` of one line for what cannot be opened.
    """
    async with AsyncExitStack() as stack:
        store = open_store(loaded)
        stack.callback(store.close)
        metrics = metrics or Metrics()
        ledger = Ledger(store, journal_folder(loaded), on_error=metrics.store_failed)
        metrics.watch_ledger(ledger.waiting_bytes, ledger.waiting_records)
        metrics.watch_part("store", lambda: ledger.store_error)
        metrics.watch_part("journal", lambda: ledger.journal_error)
        others = _Among.join(stack, loaded, ledger) if serving else None
        agreed = _alone(loaded.settings) if others is None else others.agreed
        metrics.watch_part("limits", lambda: agreed.limits.failure)
        ledger.start()
        stack.callback(ledger.close)
        prepared = prepared or prepare(loaded)
        engines = EnginesInUse(prepared.engines)
        stack.push_async_callback(engines.close)
        gateway = Gateway(
            prepared.setup,
            limits=agreed.limits,
            ledger=ledger,
            metrics=metrics,
            reasoning=agreed.reasoning,
            health=agreed.health,
            slots=agreed.slots,
        )
        agreed.slots.configure(build_bounds(loaded.settings))
        ledger.also(gateway.settling.retry, without_store=True)
        discovery: Discovery | None = None
        if others is not None:
            others.keep_order(loaded, store, ledger, gateway)
            discovery = _keep_fresh(stack, prepared, pace, others.election)
            ledger.also(prepared.lists.look, without_store=True)
        for name, work in (("notes", gateway.keep_notes()), ("targets", gateway.keep_watch())):
            stack.callback(asyncio.create_task(work, name=name).cancel)
        yield Runtime(prepared, engines, store, ledger, agreed.limits, agreed.attempts, metrics, gateway, discovery)


def _open_reasoning(stack: AsyncExitStack, loaded: Loaded, ledger: Ledger) -> ReasoningMemory:
    settings, folder = loaded.settings.reasoning, reasoning_folder(loaded)
    if not settings.keep_hours:
        forget_reasoning(folder)
        return NoReasoning()
    reasoning = SharedReasoning.open(folder, settings.keep_hours * 3600, max_bytes=settings.max_mb * 1024 * 1024)
    stack.callback(reasoning.close)
    ledger.also(reasoning.sweep)
    return reasoning


def _open_presence(stack: AsyncExitStack, loaded: Loaded) -> Presence:
    folder = shared_folder(loaded)
    try:
        presence = Presence(folder)
    except OSError as error:
        raise StartError(f"cannot write in {folder}: {error.strerror}; make the data folder writable") from error
    stack.callback(presence.close)  # after the ledger is closed: until then records of this process are on their way
    return presence


def _keep_fresh(stack: AsyncExitStack, prepared: Prepared, pace: Pace, election: Election) -> Discovery:
    setup = prepared.setup
    discovery = Discovery(setup.router.providers, setup.upstream, prepared.lists, pace=pace)
    stack.callback(asyncio.create_task(discovery.keep_fresh(election), name="discovery").cancel)
    return discovery


def _put_in_order(recovery: Recovery, presence: Presence) -> None:
    """Account for what killed processes left. Raises ``StartError``."""
    try:
        with presence.starting() as alone:
            recovery.at_start(alone=alone)
    except StoreUnavailable as error:
        raise StartError(f"the store cannot be read, so nobody's budget is known: {error}") from error


def build_policy(settings: Settings) -> Policy:
    """What the configuration says about single requests."""
    routing = settings.routing
    return Policy(
        reserve_output_tokens=settings.limits.reserve_output_tokens,
        allow_unpriced=settings.limits.allow_unpriced,
        strict=settings.params.unsupported == "strict",
        retries=routing.retries,
        retry_within_seconds=routing.retry_within_seconds,
        max_wait_seconds=routing.max_wait_seconds,
        queue_seconds=routing.queue_seconds,
        max_queued=routing.max_queued_requests,
    )


def build_bounds(settings: Settings) -> dict[str, int]:
    """How many requests may be under way at once: by provider, and in the whole gateway under the empty name."""
    bounds = {name: section.max_parallel_requests for name, section in settings.providers.items()}
    return {**bounds, "": settings.routing.max_parallel_requests}


@asynccontextmanager
async def open_discovery(loaded: Loaded) -> AsyncIterator[Discovery]:
    """What asks the configured providers which models they have. Raises ``StartError``."""
    async with AsyncExitStack() as stack:
        providers = [build_provider(name, section) for name, section in loaded.settings.providers.items()]
        engines = EnginesInUse(build_engines(loaded.settings))
        stack.push_async_callback(engines.close)
        yield Discovery(providers, engines.in_force.by_provider, read_model_lists(loaded))
