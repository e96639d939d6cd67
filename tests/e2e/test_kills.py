"""Processes that are killed at random moments under load: no answer is unrecorded, none counts twice, none stays open.

``python -m tests.bench.kills`` does the same for longer and at a higher rate.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import kills


def test_nothing_is_lost_or_counted_twice(tmp_path: Path) -> None:
    outcome = kills.run(tmp_path, rounds=4, rate=60, pause_seconds=1.0, seed=3)
    assert outcome.missing == []
    assert outcome.unaccounted == []
    assert outcome.duplicates == []
    assert outcome.reservations == 0
    assert outcome.spend == []
    assert outcome.verification == ""
    assert outcome.completed > 100, "there was load"
    assert outcome.lost > 0, "kills hit requests under way"
