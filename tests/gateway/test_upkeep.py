"""What is too old goes while the gateway works, and only one worker deletes it."""

from __future__ import annotations

import time
from pathlib import Path

from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.upkeep import Upkeep
from inferxgate.store.retention import Retention, RetentionLimits
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.election import Election
from tests.support.stores import DAY_MS, EVER, new_record


def test_old_records_go_and_new_ones_stay(tmp_path: Path) -> None:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    now_ms = time.time_ns() // 1_000_000
    old = [new_record(started_at_ms=now_ms - 9 * DAY_MS, key_id="key_1") for _ in range(2_500)]
    new = new_record(started_at_ms=now_ms, key_id="key_1")
    store.add_usage([*old, new], ())
    retention = Retention(store, RetentionLimits(keep_days=7, keep_rollup_days=None, max_bytes=None))
    idle = Upkeep(retention, taken := Election(tmp_path / "office"))
    election = Election(tmp_path / "office")
    assert election.won()
    idle.step()
    assert len(store.recent_usage(EVER, limit=9_999)) == 2_501, "it is not its turn"
    ledger = Ledger(store, tmp_path / "journal")
    ledger.also(Upkeep(retention, election).step)
    ledger.start()
    deadline = time.monotonic() + 30
    while len(store.recent_usage(EVER, limit=9)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [record.id for record in store.recent_usage(EVER, limit=9)] == [new.id]
    assert store.spend_since("key", 0) == {"key_1": sum(record.cost_nanos or 0 for record in (*old, new))}
    ledger.close()
    election.close()
    taken.close()
    store.close()
