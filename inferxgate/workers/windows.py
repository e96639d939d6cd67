"""The admissions of one scope's last 60 seconds, as entries of the workers' shared memory.

Entries are numbered and come in the order of their times, so those that have expired are at the front. An entry is
written once and deleted once, however many there are; what is asked of the log walks from its front.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

from inferxgate.workers.counters import Counters
from inferxgate.workers.limits import EXACT_UP_TO, WINDOW_SECONDS
from inferxgate.workers.shared import Transaction

_ENTRY = struct.Struct("<dqq")
_PLACE = struct.Struct(">q")


class Window:
    """One scope's log within one transaction. Its sums stand in ``row``, which the caller writes."""

    __slots__ = ("_database", "_expired_from", "_prefix", "_row", "_transaction")

    def __init__(self, transaction: Transaction, database: Any, name: bytes, row: Counters) -> None:
        self._transaction = transaction
        self._database = database
        self._prefix = name + b"\0"
        self._row = row
        self._expired_from = row.head

    def expire(self, now: float, *, write: bool = True) -> None:
        """Count no longer what has had its minute."""
        row = self._row
        if row.first_until > now or row.head == row.tail:
            return
        for place, (until, count, tokens) in self._entries():
            row.first_until = until
            if until > now:
                break
            row.head = place + 1
            row.count -= count
            row.tokens -= tokens
        if write:
            self.forget()

    def forget(self) -> bool:
        """Delete what has expired; whether there was any."""
        if self._expired_from == self._row.head:
            return False
        places = range(self._expired_from, self._row.head)
        for place in places:
            self._transaction.delete(self._key(place), db=self._database)
        self._expired_from = self._row.head
        return True

    def add(self, now: float, tokens: int) -> int:
        """Log one admission; its place."""
        row = self._row
        until, count = now + WINDOW_SECONDS, 1
        place = row.tail
        if place == row.head:
            row.first_until = until
        elif place - row.head >= EXACT_UP_TO:
            until = math.floor(now) + 1 + WINDOW_SECONDS
            last = self._entry(row.tail - 1)
            if last is not None and last[0] == until:
                place, count, tokens_before = row.tail - 1, last[1] + 1, last[2]
                self._put(place, until, count, tokens_before + tokens)
                row.count += 1
                row.tokens += tokens
                return place
        self._put(place, until, count, tokens)
        row.tail = place + 1
        row.count += 1
        row.tokens += tokens
        return place

    def settle(self, place: int, more_tokens: int) -> None:
        """Correct the tokens of an admission, unless it has had its minute."""
        entry = self._entry(place) if more_tokens and place >= self._row.head else None
        if entry is not None:
            until, count, tokens = entry
            self._put(place, until, count, tokens + more_tokens)
            self._row.tokens += more_tokens

    def until_count_is(self, most: int) -> float:
        """When at most so many requests will count, if none came."""
        left = self._row.count
        if left <= most + 1 and self._row.head < self._row.tail:
            return self._row.first_until
        until = 0.0
        for _, (until, count, _) in self._entries():
            left -= count
            if left <= most:
                return until
        return until

    def until_tokens_are(self, most: int) -> float | None:
        """When at most so many tokens will count, if none came; None: never."""
        if most < 0:
            return None
        if 2 * most < self._row.tokens:
            return self._until_all_but(most)
        left = self._row.tokens
        until = 0.0
        for _, (until, _, tokens) in self._entries():
            left -= tokens
            if left <= most:
                return until
        return until

    def _until_all_but(self, most: int) -> float:
        """The same, from the end of the log, which is nearer: everybody waits for what is asked here."""
        kept = 0
        for place in range(self._row.tail - 1, self._row.head - 1, -1):
            entry = self._entry(place)
            if entry is not None:
                kept += entry[2]
                if kept > most:
                    return entry[0]
        return self._row.first_until

    def _entries(self) -> Iterator[tuple[int, tuple[float, int, int]]]:
        for place in range(self._row.head, self._row.tail):
            entry = self._entry(place)
            if entry is not None:
                yield place, entry

    def _entry(self, place: int) -> tuple[float, int, int] | None:
        data = self._transaction.get(self._key(place), db=self._database)
        return None if data is None else _ENTRY.unpack(data)

    def _put(self, place: int, until: float, count: int, tokens: int) -> None:
        self._transaction.put(self._key(place), _ENTRY.pack(until, count, tokens), db=self._database)

    def _key(self, place: int) -> bytes:
        return self._prefix + _PLACE.pack(place)
