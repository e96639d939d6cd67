"""The counters of money agree with the store, and where they do not, it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferxgate.gateway.agreement import compare
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.recovery import Recovery
from inferxgate.gateway.settling import Settling
from inferxgate.store.lines import values_of
from inferxgate.store.records import Disagreement, UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.limits import Claim, Scope
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from tests.support.stores import new_record

SCOPES = (Scope("key", "key_1", budget_nanos=10**9), Scope("user", "user_1"))


@dataclass
class Books:
    folder: Path
    store: SQLiteStore
    limits: SharedLimits
    ledger: Ledger
    settling: Settling

    def admit(self) -> UsageRecord:
        record = new_record(
            started_at_ms=time.time_ns() // 1_000_000, key_id="key_1", user_id="user_1", cost_nanos=1_500
        )
        assert self.limits.admit(SCOPES, Claim(record.id, record.started_at_ms, 9, 2_000, values_of(record))) is None
        return record

    def compared(self) -> tuple[int, list[Disagreement]] | None:
        found = compare(self.store, self.limits, self.folder / "journal")
        return None if found is None else (found[0], list(found[1]))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    shared = SharedMemory.open(tmp_path / "workers")
    limits = SharedLimits(shared, ledger.name)
    yield Books(tmp_path, store, limits, ledger, Settling(limits, ledger, Metrics()))
    ledger.close()
    shared.close()
    store.close()


def test_what_was_settled_is_what_was_stored(books: Books) -> None:
    assert books.compared() is None, "nobody has counted the store yet"
    Recovery(books.store, books.limits, books.ledger, books.settling).at_start(alone=True)
    assert books.compared() == (0, [])
    for _ in range(3):
        books.settling.end(books.admit())
    assert books.compared() == (2, [])


def test_what_is_on_its_way_is_waited_for(books: Books) -> None:
    Recovery(books.store, books.limits, books.ledger, books.settling).at_start(alone=True)
    books.admit()
    assert books.compared() is None


def test_a_wrong_counter_is_told(books: Books) -> None:
    Recovery(books.store, books.limits, books.ledger, books.settling).at_start(alone=True)
    books.settling.end(books.admit())
    books.ledger.flush()
    books.store.add_usage([new_record(key_id="key_1", cost_nanos=5, started_at_ms=0)], ())
    assert books.compared() == (2, [Disagreement("counter", "key_1", "total", 1_505, 1_500)])
