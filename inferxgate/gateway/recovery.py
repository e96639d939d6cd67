"""What is done about processes that were killed: their journals are imported, their claims settled, their slots freed.

A worker is dead when nobody holds the lock of its journal. Its claims whose records have reached the store are settled
with them. The others are requests that nobody saw end: each is recorded with what was known of it (``worker_lost``),
and settled with that. Every step may be done twice, and by several at once: records are stored once by their id, and a
claim is settled once.

A process that finds itself alone at the start also replaces the sums of money in the workers' shared memory by those
of the store, which is what they are kept from. No claim may stand then whose record is in the store: it would be
settled later and count twice. No record may be on its way to the store whose claim is settled: it would not count at
all. So it waits for whoever is importing a journal at that moment (``inferxgate stats``).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, get_args

from inferxgate.gateway.ledger import Ledger, recover_one
from inferxgate.gateway.settling import Settling
from inferxgate.store.periods import period_start_ms
from inferxgate.store.protocol import Store
from inferxgate.store.records import BudgetPeriod, UsageRecord
from inferxgate.workers.limits import ScopeKind
from inferxgate.workers.shared import SharedUnavailable
from inferxgate.workers.shared_limits import SharedLimits

_EVERY_SECONDS = 5.0
_IMPORTER_SECONDS = 10
"""How long a start waits for another command that imports a journal, which takes far less."""
_LOOK_AGAIN_SECONDS = 0.05

log = logging.getLogger(__name__)


class Holdings(Protocol):
    """What workers hold for as long as they live. Every method raises ``SharedUnavailable``."""

    def owners(self) -> set[str]:
        """The workers that hold any."""

    def forget(self, owner: str) -> None:
        """Free what a dead one held; may be done twice."""


class Recovery:
    """Puts in order what dead workers left, at the start and while this one runs."""

    def __init__(
        self,
        store: Store,
        limits: SharedLimits,
        ledger: Ledger,
        settling: Settling,
        *,
        holdings: Sequence[Holdings] = (),
    ) -> None:
        """``holdings``: whatever else is to be freed for the dead."""
        self._store = store
        self._limits = limits
        self._ledger = ledger
        self._settling = settling
        self._holdings = holdings
        self._next = 0.0

    def watch(self) -> None:
        """Settle for the dead every few seconds; to be called often. Raises ``StoreUnavailable``."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_SECONDS
            with contextlib.suppress(SharedUnavailable):  # told where requests are refused for it
                self.settle_dead()

    def settle_dead(self) -> int:
        """Settle the claims of dead workers; how many there were. Raises ``StoreUnavailable``."""
        return sum(self._settle_one(owner) for owner in self._others())

    def at_start(self, *, alone: bool) -> None:
        """Put in order what there is. Raises ``StoreUnavailable``."""
        self.settle_dead()
        patience = time.monotonic() + _IMPORTER_SECONDS
        while alone and self._being_imported() and time.monotonic() < patience:
            time.sleep(_LOOK_AGAIN_SECONDS)
            self.settle_dead()
        settled = not self._being_imported()
        if alone and not settled:
            log.warning("somebody has held a killed worker's journal for %d s; it is settled later", _IMPORTER_SECONDS)
        if (alone and settled) or not self._limits.counted():
            self._ledger.flush()  # what was just recorded of the dead counts too
            self.recount(time.time_ns() // 1_000_000)

    def recount(self, now_ms: int) -> None:
        """Take what was spent from the store. For a process that is alone. Raises ``StoreUnavailable``."""
        self._limits.recount(sums_of(self._store, now_ms), now_ms)

    def _others(self) -> set[str]:
        """Other processes that hold anything: where this one is alone, they are dead."""
        return self._limits.owners().union(*(each.owners() for each in self._holdings)) - {self._ledger.name}

    def _being_imported(self) -> bool:
        """Whether the store lacks anything of the dead, because somebody else is carrying it there."""
        own = self._ledger.journal_of(self._ledger.name)
        held = [path for path in own.parent.glob("worker_*.jsonl") if path != own and self._is_held(path)]
        return bool(held or self._others())

    def _is_held(self, journal: Path) -> bool:
        """Import it; whether somebody else has it, with lines in it. Those who live leave none for long."""
        if recover_one(self._store, journal) is not None:
            return False
        try:
            return journal.stat().st_size > 0
        except FileNotFoundError:  # the other one is done
            return False

    def _settle_one(self, owner: str) -> int:
        path = self._ledger.journal_of(owner)
        if recover_one(self._store, path) is None:
            return 0
        for holdings in self._holdings:
            holdings.forget(owner)
        claims = self._limits.claims_of(owner)
        stored = {record.id: record for record in self._store.usage_records([claim.id for claim in claims])}
        lost = 0
        for claim in claims:
            record = stored.get(claim.id)
            if record is None:
                lost += 1
                record = claim
                self._ledger.append(record)
            self._tell(owner, record, new=claim.id not in stored)
        if claims:
            log.warning(
                "a worker was killed: of %d requests %d had ended; %d are recorded with what is known of them",
                *(len(claims), len(claims) - lost, lost),
            )
        return len(claims)

    def _tell(self, owner: str, record: UsageRecord, *, new: bool) -> None:
        settled = self._limits.settle_for(owner, record)
        if settled is None:  # somebody else was faster
            return
        if new:
            self._settling.count(record)
        self._settling.tell(settled.alerts)


def sums_of(store: Store, now_ms: int) -> dict[BudgetPeriod, dict[tuple[ScopeKind, str], int]]:
    """What every key and user has spent in the periods around a moment, by the store. Raises ``StoreUnavailable``."""
    sums: dict[BudgetPeriod, dict[tuple[ScopeKind, str], int]] = {}
    for period in get_args(BudgetPeriod):
        since_ms = period_start_ms(period, now_ms)
        sums[period] = {
            (kind, scope_id): nanos
            for kind in get_args(ScopeKind)
            for scope_id, nanos in store.spend_since(kind, since_ms).items()
        }
    return sums


class Presence:
    """Says to other processes that this one works in a folder, until it is closed."""

    def __init__(self, folder: Path) -> None:
        """Raises ``OSError``."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._fd = os.open(folder / "running.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def starting(self) -> Iterator[bool]:
        """One process after the other within this block; whether this one is alone in the folder."""
        turn = os.open(self._folder / "starting.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
            except BlockingIOError:
                alone = False
            yield alone
            fcntl.flock(self._fd, fcntl.LOCK_SH)  # nobody steps between: whoever starts waits for its turn
        finally:
            os.close(turn)

    def close(self) -> None:
        os.close(self._fd)
