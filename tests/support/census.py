"""What lives in the memory of a gateway's processes, counted by themselves when they are sent SIGUSR2.

with GatewayProcess(folder, environment=census.environment(folder / "census")) as gateway:
    before = census.take(folder / "census", pid)

The program knows nothing of it: Python imports a ``sitecustomize`` at its start, which is where this gets in.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import weakref
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

_FOLDER = "INFERXGATE_TEST_CENSUS"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Census:
    """One process at one moment, after a full collection; weak references are left out."""

    blocks: int
    """Memory blocks that Python has handed out: objects of every kind, those that no collector sees included."""
    entries: int
    """All that is in its dicts, lists, sets and deques, together."""
    kinds: dict[str, int]
    """The objects that the collector sees, by type."""

    @property
    def objects(self) -> int:
        return sum(self.kinds.values())

    def grown(self, since: Census, *, at_least: int) -> dict[str, int]:
        """The types of which there are more than then, by at least so many."""
        more = {kind: count - since.kinds.get(kind, 0) for kind, count in self.kinds.items()}
        return {kind: count for kind, count in sorted(more.items(), key=lambda each: -each[1]) if count >= at_least}


def environment(folder: Path) -> dict[str, str]:
    """What a process must find in its environment to be counted; ``folder`` takes the counts."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text("from tests.support import census\ncensus.listen()\n")
    inherited = os.environ.get("PYTHONPATH")
    return {_FOLDER: str(folder), "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), str(_ROOT), inherited]))}


def listen() -> None:
    """Count whenever SIGUSR2 comes. Called in the process that is counted."""
    signal.signal(signal.SIGUSR2, lambda *_: _count(Path(os.environ[_FOLDER])))


def take(folder: Path, pid: int) -> Census:
    """Have a process count, and wait for it."""
    counted = folder / f"{pid}.json"
    counted.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    for _ in range(3_000):
        if counted.exists():
            return Census(**json.loads(counted.read_text()))
        time.sleep(0.01)
    raise AssertionError(f"process {pid} did not count itself")


def _count(folder: Path) -> None:
    gc.collect()
    blocks = sys.getallocatedblocks()
    kinds: Counter[str] = Counter()
    entries = 0
    for each in gc.get_objects():
        # An open SQLite connection keeps the weak references of its last 200 cursors: they come and go by hundreds.
        if isinstance(each, weakref.ref):
            blocks -= 1
            continue
        if isinstance(each, list) and each and isinstance(each[0], weakref.ref):
            continue
        kind = type(each)
        kinds[f"{kind.__module__}.{kind.__qualname__}"] += 1
        if isinstance(each, (dict, list, set, deque)):  # no ABC: asking one leaves entries in its cache
            entries += len(each)
        # The collector does not see dicts that hold nothing but strings and numbers; those who hold them are seen.
        entries += sum(len(held) for held in gc.get_referents(each) if type(held) is dict and not gc.is_tracked(held))
    text = json.dumps({"blocks": blocks, "entries": entries, "kinds": kinds})
    unfinished = folder / f"{os.getpid()}.unfinished"
    unfinished.write_text(text)
    unfinished.rename(folder / f"{os.getpid()}.json")
