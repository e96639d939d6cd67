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


class Window(Counters):
    """One scope's counters within one transaction, which is begun for their database, and its log."""

    __slots__ = ("_database", "_expired_from", "_name", "_transaction")

    def __init__(self, transaction: Transaction, database: Any, name: bytes) -> None:
        """``database``: where the logs are."""
        Counters.__init__(self, transaction.get(name))
        self._transaction = transaction
        self._database = database
        self._name = name
        self._expired_from = self.head

    def save(self) -> None:
        """Write the counters, and delete what has expired of the log; the rest of it is written by then."""
        if self._expired_from != self.head:
            self._forget()
        self._transaction.put(self._name, self.build())

    def save_expiry(self) -> None:
        """The same, where something has expired."""
        if self._expired_from != self.head:
            self.save()

    def expire(self, now: float) -> None:
        """Count no longer what has had its minute."""
        if self.first_until > now or self.head == self.tail:
            return
        for place, (until, count, tokens) in self._entries():
            self.first_until = until
            if until > now:
                break
            self.head = place + 1
            self.count -= count
            self.tokens -= tokens

    def add(self, now: float, tokens: int) -> int:
        """Log one admission; its place."""
        place, until = self.tail, now + WINDOW_SECONDS
        self.count += 1
        self.tokens += tokens
        if place == self.head:
            self.first_until = until
        elif place - self.head >= EXACT_UP_TO:
            until = math.floor(now) + 1 + WINDOW_SECONDS
            last = self._entry(place - 1)
            if last is not None and last[0] == until:
                self._put(place - 1, until, last[1] + 1, last[2] + tokens)
                return place - 1
        self._put(place, until, 1, tokens)
        self.tail = place + 1
        return place

    def settle(self, place: int, more_tokens: int) -> None:
        """Correct the tokens of an admission, unless it has had its minute."""
        entry = self._entry(place) if more_tokens and place >= self.head else None
        if entry is not None:
            until, count, tokens = entry
            self._put(place, until, count, tokens + more_tokens)
            self.tokens += more_tokens

    def until_count_is(self, most: int) -> float:
        """When at most so many requests will count, if none came."""
        left = self.count
        if left <= most + 1 and self.head < self.tail:
            return self.first_until
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
        if 2 * most < self.tokens:
            return self._until_all_but(most)
        left = self.tokens
        until = 0.0
        for _, (until, _, tokens) in self._entries():
            left -= tokens
            if left <= most:
                return until
        return until

    def _until_all_but(self, most: int) -> float:
        """The same, from the end of the log, which is nearer: everybody waits for what is asked here."""
        kept = 0
        for place in range(self.tail - 1, self.head - 1, -1):
            entry = self._entry(place)
            if entry is not None:
                kept += entry[2]
                if kept > most:
                    return entry[0]
        return self.first_until

    def _forget(self) -> None:
        for place in range(self._expired_from, self.head):
            self._transaction.delete(self._key(place), db=self._database)
        self._expired_from = self.head

    def _entries(self) -> Iterator[tuple[int, tuple[float, int, int]]]:
        for place in range(self.head, self.tail):
            entry = self._entry(place)
            if entry is not None:
                yield place, entry

    def _entry(self, place: int) -> tuple[float, int, int] | None:
        data = self._transaction.get(self._key(place), db=self._database)
        return None if data is None else _ENTRY.unpack(data)

    def _put(self, place: int, until: float, count: int, tokens: int) -> None:
        key = self._name + b"\0" + _PLACE.pack(place)
        self._transaction.put(key, _ENTRY.pack(until, count, tokens), db=self._database)

    def _key(self, place: int) -> bytes:
        return self._name + b"\0" + _PLACE.pack(place)
