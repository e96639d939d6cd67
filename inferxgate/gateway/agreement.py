"""Whether the counters of money that the workers share agree with the store, also while they go on counting.

A request is written to the journal, then counted, then imported, so the two differ for moments. They are compared when
nothing is on its way: no claim, no journal line, and the counters the same before and after the store was read. A
gateway that is never quiet for that long is not compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from inferxgate.gateway.recovery import sums_of
from inferxgate.store.protocol import Store
from inferxgate.store.records import BudgetPeriod, Disagreement
from inferxgate.workers.shared_limits import SharedLimits

_ATTEMPTS = 10
_PAUSE_SECONDS = 0.3


def compare(store: Store, limits: SharedLimits, journals: Path) -> tuple[int, Sequence[Disagreement]] | None:
    """How many counters were compared, and those that are wrong. None: they are not there, or never at rest.

    Raises ``StoreUnavailable`` and ``SharedUnavailable``.
    """
    if not limits.counted():
        return None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        now_ms = time.time_ns() // 1_000_000
        before = limits.totals(now_ms)
        if limits.reserved() or any(path.stat().st_size for path in journals.glob("worker_*.jsonl")):
            continue
        expected = sums_of(store, now_ms)
        if limits.totals(now_ms) == before:
            scopes = before.keys() | {scope for sums in expected.values() for scope in sums}
            wrong = [
                Disagreement("counter", scope[1], period, expected[period].get(scope, 0), found)
                for scope in sorted(scopes)
                for period in get_args(BudgetPeriod)
                if (found := before.get(scope, {}).get(period, 0)) != expected[period].get(scope, 0)
            ]
            return len(scopes), wrong
    return None
