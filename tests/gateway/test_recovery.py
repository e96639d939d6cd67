"""After a kill: what had ended counts as it ended, what had not as far as it is known, and nothing stands open."""

from __future__ import annotations

import fcntl
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferxgate.canonical.usage import Usage
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.recovery import Presence, Recovery
from inferxgate.gateway.settling import Settling
from inferxgate.store.lines import build_line
from inferxgate.store.records import UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from inferxgate.workers.shared_slots import SharedSlots
from tests.support.stores import EVER, NOON_MS, new_record
from tests.workers.counting import Counting, new_scope

WORKER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from inferxgate.canonical.usage import Usage
from inferxgate.gateway.ledger import Ledger
from inferxgate.store.lines import values_of
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.limits import Claim, Scope
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from inferxgate.workers.shared_slots import SharedSlots
from tests.support.stores import new_record

folder = Path(sys.argv[1])
store = SQLiteStore.open(folder / "inferxgate.db")
ledger = Ledger(store, folder / "journal")
shared = SharedMemory.open(folder / "workers")
limits = SharedLimits(shared, ledger.name)
slots = SharedSlots(shared, ledger.name)
slots.configure({"": 3, "local": 1})
ledger.start()
scope = Scope("key", "key_1", tokens_per_minute=10_000, budget_nanos=1_000_000, parallel_requests=9)

def admit(name):
    lost = new_record(
        id=name, started_at_ms=time.time_ns() // 1_000_000, key_id="key_1", status="gateway_error", http_status=0,
        error_code="worker_lost", usage=Usage(input_tokens=5), usage_source="estimated", cost_nanos=50,
    )
    assert limits.admit([scope], Claim(name, lost.started_at_ms, 100, 1_000, values_of(lost))) is None
    return lost

def end(lost, **fields):
    return replace(lost, status="ok", http_status=200, error_code=None, usage_source="provider", **fields)

settled = end(admit("settled"), usage=Usage(input_tokens=10), cost_nanos=100)
ledger.append(settled)
limits.settle(settled)
ledger.append(end(admit("written"), usage=Usage(input_tokens=20), cost_nanos=200))
ledger.flush()
ledger.append(end(admit("in the journal"), usage=Usage(input_tokens=30), cost_nanos=300))
admit("under way")
limits.note([replace(admit("well under way"), usage=Usage(input_tokens=5, output_tokens=7), cost_nanos=120)])
assert slots.take("local") and slots.take("")
print("ready", flush=True)
sys.stdin.readline()
"""


@dataclass
class Books:
    """What a process has that looks after the dead."""

    store: SQLiteStore
    limits: SharedLimits
    slots: SharedSlots
    ledger: Ledger
    recovery: Recovery
    metrics: Metrics

    def records(self) -> dict[str, UsageRecord]:
        self.ledger.flush()
        return {record.id: record for record in self.store.recent_usage(EVER, limit=100)}


@contextmanager
def opened(folder: Path) -> Iterator[Books]:
    store = SQLiteStore.open(folder / "inferxgate.db")
    ledger = Ledger(store, folder / "journal")
    shared = SharedMemory.open(folder / "workers")
    limits = SharedLimits(shared, ledger.name)
    slots = SharedSlots(shared, ledger.name)
    metrics = Metrics()
    recovery = Recovery(store, limits, ledger, Settling(limits, ledger, metrics), holdings=[slots])
    ledger.start()
    try:
        yield Books(store, limits, slots, ledger, recovery, metrics)
    finally:
        ledger.close()
        shared.close()
        store.close()


@contextmanager
def worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


COSTS = {"settled": 100, "written": 200, "in the journal": 300, "under way": 50, "well under way": 120}


def test_everything_counts_once_after_a_kill(tmp_path: Path) -> None:
    with worker(tmp_path):
        pass
    with opened(tmp_path) as books:
        assert books.limits.reserved() == {("key", "key_1"): (4, 4_000)}
        assert books.recovery.settle_dead() == 4
        assert books.limits.reserved() == {}
        records = books.records()
        assert {name: record.cost_nanos for name, record in records.items()} == COSTS
        lost = [name for name, record in records.items() if record.error_code == "worker_lost"]
        assert sorted(lost) == ["under way", "well under way"]
        assert records["well under way"].usage == Usage(input_tokens=5, output_tokens=7)
        now_ms = records["settled"].started_at_ms
        assert books.limits.spent("key", "key_1", now_ms)["total"] == sum(COSTS.values())
        assert books.recovery.settle_dead() == 0
        assert books.limits.owners() == set()
        assert b'llm_gateway_requests_total{model="small-1",provider="local",status="gateway_error"} 2.0' in (
            books.metrics.render()
        ), "the dead worker had counted the others itself"


def test_the_books_agree_with_the_store_afterwards(tmp_path: Path) -> None:
    with worker(tmp_path):
        pass
    with opened(tmp_path) as books:
        books.recovery.at_start(alone=True)
        now_ms = books.records()["settled"].started_at_ms
        before = books.limits.spent("key", "key_1", now_ms)
        books.recovery.recount(now_ms)
        assert books.limits.spent("key", "key_1", now_ms) == before
        assert before["total"] == before["month"] == sum(COSTS.values())


def test_a_start_waits_for_whoever_imports_a_journal(tmp_path: Path) -> None:
    """Else the store's sums would hold what was imported, and its claim, settled later, would add it again."""
    with worker(tmp_path):
        pass
    with opened(tmp_path) as books, ThreadPoolExecutor(1) as threads:
        (owner,) = books.limits.owners()
        with books.ledger.journal_of(owner).open("ab") as journal:
            fcntl.flock(journal, fcntl.LOCK_EX)
            starting = threads.submit(books.recovery.at_start, alone=True)
            time.sleep(0.2)
            assert not books.limits.counted()
        starting.result()
        assert books.limits.reserved() == {}
        now_ms = books.records()["settled"].started_at_ms
        assert books.limits.spent("key", "key_1", now_ms)["total"] == sum(COSTS.values())


def test_a_start_waits_also_where_only_settled_records_are_on_their_way(tmp_path: Path) -> None:
    """Else the sums that are put in the place of the workers' would lack them, and nobody would add them later."""
    now_ms = time.time_ns() // 1_000_000
    dead = tmp_path / "journal" / "worker_dead.jsonl"
    dead.parent.mkdir()
    dead.write_bytes(build_line(new_record(key_id="key_1", cost_nanos=7, started_at_ms=now_ms)))
    with dead.open("ab") as journal, ThreadPoolExecutor(1) as threads:
        fcntl.flock(journal, fcntl.LOCK_EX)
        with opened(tmp_path) as books:
            starting = threads.submit(books.recovery.at_start, alone=True)
            time.sleep(0.2)
            assert not books.limits.counted()
            fcntl.flock(journal, fcntl.LOCK_UN)
            starting.result()
            assert books.limits.spent("key", "key_1", now_ms)["total"] == 7


def test_a_start_waits_for_nobody_who_lives_and_has_carried_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as books:
        living = Ledger(books.store, tmp_path / "journal")
        living.start()
        books.recovery.at_start(alone=True)
        living.close()
        assert caplog.messages == []
        assert books.limits.counted()


def test_slots_of_the_dead_are_free_again(tmp_path: Path) -> None:
    with worker(tmp_path):
        pass
    with opened(tmp_path) as books:
        books.slots.configure({"": 3, "local": 1})
        assert not books.slots.take("local")
        for owner in books.limits.owners():  # also where it has no claims any more
            for claim in books.limits.claims_of(owner):
                books.limits.settle_for(owner, claim)
        books.recovery.settle_dead()
        assert books.slots.in_use_by_all() == {}
        assert books.slots.take("local")
        books.recovery.settle_dead()
        assert books.slots.in_use_by_all() == {"local": 1}, "its own stay"


def test_the_living_are_left_alone(tmp_path: Path) -> None:
    with worker(tmp_path), opened(tmp_path) as books:
        assert books.recovery.settle_dead() == 0
        assert books.slots.in_use_by_all() == {"": 1, "local": 1}
        assert books.limits.reserved() == {("key", "key_1"): (4, 4_000)}


def test_two_that_recover_at_once_do_it_once(tmp_path: Path) -> None:
    with worker(tmp_path):
        pass
    with opened(tmp_path) as books:
        other_ledger = Ledger(books.store, tmp_path / "journal")
        other_ledger.start()
        other = Recovery(books.store, books.limits, other_ledger, Settling(books.limits, other_ledger, books.metrics))
        (owner,) = books.limits.owners()
        claims = books.limits.claims_of(owner)
        books.recovery.settle_dead()
        for claim in claims:  # the other one had seen them before, and comes late
            other_ledger.append(claim)
            assert books.limits.settle_for(owner, claim) is None
        assert other.settle_dead() == 0
        other_ledger.close()
        records = books.records()
        assert {name: record.cost_nanos for name, record in records.items()} == COSTS


def test_a_recount_takes_what_the_store_says(tmp_path: Path) -> None:
    with opened(tmp_path) as books:
        books.store.add_usage(
            [
                new_record(key_id="key_1", user_id="user_1", cost_nanos=70, started_at_ms=NOON_MS),
                new_record(key_id="key_1", user_id=None, cost_nanos=5, started_at_ms=NOON_MS - 40 * 86_400_000),
                new_record(key_id=None, user_id="user_2", cost_nanos=None, started_at_ms=NOON_MS),
            ],
            (),
        )
        assert not books.limits.counted()
        books.recovery.recount(NOON_MS)
        assert books.limits.counted()
        assert books.limits.spent("key", "key_1", NOON_MS) == {"total": 75, "day": 70, "week": 70, "month": 70}
        assert books.limits.spent("user", "user_1", NOON_MS)["day"] == 70
        assert books.limits.spent("user", "user_2", NOON_MS)["total"] == 0


def test_who_starts_alone_knows_it(tmp_path: Path) -> None:
    first, second = Presence(tmp_path / "workers"), Presence(tmp_path / "workers")
    with first.starting() as alone:
        assert alone
    with second.starting() as alone:
        assert not alone
    first.close()
    third = Presence(tmp_path / "workers")
    with third.starting() as alone:
        assert not alone
    second.close()
    third.close()
    fourth = Presence(tmp_path / "workers")
    with fourth.starting() as alone:
        assert alone
    fourth.close()


def test_what_cannot_be_settled_now_is_settled_later(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    shared = SharedMemory.open(tmp_path / "workers")
    counting = Counting(shared, owner=ledger.name)
    settling = Settling(counting.limits, ledger, Metrics())
    scope = new_scope(budget_nanos=10**9, parallel_requests=10**6)
    record = counting.admitted(scope, cost=5)
    with nothing_can_be_written():
        settling.end(record)
        settling.retry()
        assert "File too large" in str(counting.limits.failure)
        assert ledger.journal_error == "File too large"
    assert counting.limits.reserved() == {("key", scope.id): (1, 5)}
    ledger.flush()
    settling.retry()
    assert counting.limits.failure is None
    assert counting.limits.reserved() == {}
    assert [each.id for each in store.recent_usage(EVER, limit=2)] == [record.id]
    ledger.close()
    shared.close()
    store.close()


@contextmanager
def nothing_can_be_written() -> Iterator[None]:
    """No file of this process can be written beyond its first byte."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
