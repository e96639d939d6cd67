"""What a gateway has recorded, what it has reserved, and what it thinks of its providers, read from its data folder."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from inferxgate.workers.health import CircuitKey, CircuitState, HealthPolicy
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_health import read_states
from inferxgate.workers.shared_limits import SharedLimits

Record = dict[str, Any]


def records_by_request(data_dir: Path) -> dict[str, list[Record]]:
    """All records in the store, by the request's id. What still stands in a journal is not among them."""
    with closing(sqlite3.connect(f"file:{data_dir}/inferxgate.db?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        found: dict[str, list[Record]] = defaultdict(list)
        for row in store.execute("SELECT * FROM usage"):
            found[row["request_id"]].append(dict(row))
    return found


def reserved(data_dir: Path) -> Mapping[Any, tuple[int, int]]:
    """Requests under way and nano-dollars reserved, of each key and user that has any."""
    memory = SharedMemory.open(data_dir / "workers")
    try:
        return SharedLimits(memory, "a test").reserved()
    finally:
        memory.close()


def circuits(data_dir: Path, window_seconds: float) -> Mapping[CircuitKey, CircuitState]:
    """What all workers think of each target and credential of which there is something to say."""
    states = read_states(data_dir / "workers", HealthPolicy(window_seconds=window_seconds))
    return {state.key: state for state in states}


def under_way(url: str) -> float:
    """How many requests are at a provider now, as the public metrics of a gateway say."""
    lines = httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text.splitlines()
    found = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("llm_gateway_active_requests{")]
    assert found
    return sum(found)
