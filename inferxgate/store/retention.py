"""Deletes what is too old or too much, in steps that are short enough for nobody to notice.

Records (and counts of refusals) go by age, and the oldest go first when the database is larger than it may be. What
they have added to hours, days and spend stays. Hours go at a higher age, when reports have the days; days and what
keys and users have spent are never deleted.

Space: in a database that was created with incremental vacuum (every one is, from schema 3 on), pages that deleting has
freed are handed back to the file system, some at a time, once they are more than a part of the file; below that they
are soon written again. A database from before keeps its size and writes its free pages again; ``PRAGMA
auto_vacuum = 2`` and ``VACUUM``, with the gateway stopped, turn it into one of the new kind.

A record must not be deleted while a journal may still bring it a second time: it would count twice. Journals are
carried over within moments and by each start, so whoever runs this does so after the start has carried them, and
nothing younger than ``LEAST_AGE_MS`` is deleted, however large the database is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from inferxgate.store.periods import DAY_MS, HOUR_MS
from inferxgate.values import dataclass

if TYPE_CHECKING:
    import sqlite3  # the store's protocol is read by commands that open no store

BATCH_ROWS = 1_000
"""Rows that one step deletes."""
BATCH_PAGES = 500
"""Free pages that one step hands back."""
STEP_PAUSE_SECONDS = 0.05
"""What to wait between two steps, so that writers that wait for their turn come first."""
LEAST_AGE_MS = HOUR_MS

_KEPT_FREE = 0.1
"""The part of the file that may be free pages, to be written again."""
_KEPT_FREE_PAGES = 1_000

_OLDEST_RECORDS = """
    SELECT max(started_at_ms), count(*) FROM (
        SELECT started_at_ms FROM usage WHERE started_at_ms < :before ORDER BY started_at_ms LIMIT :limit
    )
"""
_DELETE_RECORDS = """
    DELETE FROM usage WHERE rowid IN (
        SELECT rowid FROM usage WHERE started_at_ms < :before ORDER BY started_at_ms LIMIT :limit
    )
"""
_MOVE_RECORDS_KEPT = "UPDATE usage_kept SET records_since_ms = max(records_since_ms, ?)"
_DELETE_REFUSALS = """
    DELETE FROM refusals WHERE (minute_ms, key_id, user_id, reason, source) IN (
        SELECT minute_ms, key_id, user_id, reason, source FROM refusals WHERE minute_ms < :before
        ORDER BY minute_ms LIMIT :limit
    )
"""
_OLDEST_HOURS = """
    SELECT max(start_ms), count(*) FROM (
        SELECT start_ms FROM usage_rollups WHERE span_hours = 1 AND start_ms < :before ORDER BY start_ms LIMIT :limit
    )
"""
_DELETE_HOURS = """
    DELETE FROM usage_rollups WHERE (span_hours, start_ms, series_id) IN (
        SELECT span_hours, start_ms, series_id FROM usage_rollups WHERE span_hours = 1 AND start_ms < :before
        ORDER BY start_ms LIMIT :limit
    )
"""
_MOVE_HOURS_KEPT = "UPDATE usage_kept SET hours_since_ms = max(hours_since_ms, ?)"


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """How long, and how much, is kept. None: without bound."""

    keep_days: int | None
    """Age of records and of counts of refusals."""
    keep_rollup_days: int | None
    """Age of hourly sums; they stay at least as long as the records of their hour."""
    max_bytes: int | None
    """Size of the database file, without its write-ahead log."""


@dataclass(frozen=True, slots=True)
class Space:
    """How large the database file is."""

    page_bytes: int
    pages: int
    free_pages: int
    gives_back: bool
    """Whether free pages can be handed back to the file system while others work."""

    @property
    def used_bytes(self) -> int:
        return (self.pages - self.free_pages) * self.page_bytes

    @property
    def file_bytes(self) -> int:
        return self.pages * self.page_bytes


class Prunable(Protocol):
    """What retention asks of a store. Each method is one short transaction and raises ``StoreUnavailable``."""

    def space(self) -> Space: ...

    def delete_records(self, *, before_ms: int, limit: int) -> int: ...

    def delete_refusals(self, *, before_ms: int, limit: int) -> int: ...

    def delete_hours(self, *, before_ms: int, limit: int) -> int: ...

    def give_back(self) -> int: ...


class Retention:
    """Keeps one store within its limits, step by step. One process of a gateway is enough to run it."""

    def __init__(self, store: Prunable, limits: RetentionLimits) -> None:
        self._store = store
        self._limits = limits

    def step(self, now_ms: int) -> bool:
        """Do one bounded piece of work; whether there may be more. Raises ``StoreUnavailable``.

        Call it again after ``STEP_PAUSE_SECONDS`` while there is more, and after a minute or so when there is not.
        """
        return any(work(now_ms) for work in (self._delete_old, self._delete_excess, self._give_back))

    def _delete_old(self, now_ms: int) -> bool:
        young_ms = now_ms - LEAST_AGE_MS
        records = _before(now_ms, self._limits.keep_days)
        hours = _before(now_ms, self._limits.keep_rollup_days)
        works: list[tuple[Callable[..., int], int]] = []
        if records is not None:
            works += [(self._store.delete_records, records), (self._store.delete_refusals, records)]
        if hours is not None:
            works.append((self._store.delete_hours, hours))
        return any(work(before_ms=min(before_ms, young_ms), limit=BATCH_ROWS) for work, before_ms in works)

    def _delete_excess(self, now_ms: int) -> bool:
        """Records first, then refusals, then hours: what a report misses least."""
        if self._limits.max_bytes is None or self._store.space().used_bytes <= self._limits.max_bytes:
            return False
        works = (self._store.delete_records, self._store.delete_refusals, self._store.delete_hours)
        return any(work(before_ms=now_ms - LEAST_AGE_MS, limit=BATCH_ROWS) for work in works)

    def _give_back(self, _now_ms: int) -> bool:
        space = self._store.space()
        if not space.gives_back:
            return False
        spare = space.free_pages - max(int(space.pages * _KEPT_FREE), _KEPT_FREE_PAGES)
        if self._limits.max_bytes is not None:
            excess = min(-(-(space.file_bytes - self._limits.max_bytes) // space.page_bytes), space.free_pages)
            spare = max(spare, excess)
        return spare > 0 and self._store.give_back() > 0


def _before(now_ms: int, days: int | None) -> int | None:
    return None if days is None else now_ms - days * DAY_MS


# What a store in SQLite does for it, each within the caller's transaction.


_INCREMENTAL = 2
"""What SQLite calls incremental vacuum."""


def space(connection: sqlite3.Connection) -> Space:
    """How large the database is now."""
    page_bytes, pages, free_pages, kind = (
        connection.execute(question).fetchone()[0]
        for question in ("PRAGMA page_size", "PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA auto_vacuum")
    )
    return Space(page_bytes, pages, free_pages, gives_back=kind == _INCREMENTAL)


def delete_records(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest records; how many there were. The hour of the newest of them counts as no longer whole."""
    chosen = {"before": before_ms, "limit": limit}
    newest, count = connection.execute(_OLDEST_RECORDS, chosen).fetchone()
    if count:
        connection.execute(_MOVE_RECORDS_KEPT, (newest // HOUR_MS * HOUR_MS + HOUR_MS,))
        connection.execute(_DELETE_RECORDS, chosen)
    return int(count)


def delete_refusals(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest counts of refusals; how many there were."""
    return connection.execute(_DELETE_REFUSALS, {"before": before_ms, "limit": limit}).rowcount


def delete_hours(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete the oldest hourly sums of days without records; how many there were. Their days stay."""
    records_since: int = connection.execute("SELECT records_since_ms FROM usage_kept").fetchone()[0]
    whole_days = min(before_ms, records_since) // DAY_MS * DAY_MS
    chosen = {"before": whole_days, "limit": limit}
    newest, count = connection.execute(_OLDEST_HOURS, chosen).fetchone()
    if count:
        connection.execute(_MOVE_HOURS_KEPT, (newest // DAY_MS * DAY_MS + DAY_MS,))
        connection.execute(_DELETE_HOURS, chosen)
    return int(count)


def give_back(connection: sqlite3.Connection) -> int:
    """Hand up to ``BATCH_PAGES`` free pages back to the file system; how many were."""
    before = space(connection).pages
    connection.execute("PRAGMA incremental_vacuum(500)").fetchall()  # it frees a page for each row that is asked for
    return before - space(connection).pages
