"""Tries that are counted over all workers exactly, in their shared memory.

Each who tries has one row with the moments of the tries that count, under the rule and a hash of the name. A second
row, whose key begins with the moment of the last one, keeps all of a rule in the order of time: what has expired is
removed from its front by whoever counts next, and where there are too many the longest untouched goes first. The times
are of the machine's monotonic clock.
"""

from __future__ import annotations

import hashlib
import struct
import time
from array import array
from collections.abc import Callable

from inferxgate.workers.attempts import Rule, Subject, TooManyAttempts
from inferxgate.workers.shared import SharedMemory, Transaction

MAX_TRACKED = 100_000
"""Those who are counted by one rule. Passwords take long to hash, so nobody gets near it within a window."""
_MOMENT = struct.Struct(">Q")
_NUMBER = struct.Struct("<q")
_EXPIRED_AT_ONCE = 100
_NANOS = 1_000_000_000


class SharedAttempts:
    """``inferxgate.workers.attempts.Attempts`` for one worker among several."""

    def __init__(
        self,
        shared: SharedMemory,
        *,
        max_tracked: int = MAX_TRACKED,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``clock`` counts nanoseconds."""
        self._shared = shared
        self._attempts = shared.database("attempts")
        self._order = shared.database("attempts_order")
        self._max_tracked = max_tracked
        self._clock = clock

    def check(self, *subjects: Subject) -> None:
        with self._shared.reading() as transaction:
            self._refuse(transaction, subjects, self._clock())

    def claim(self, *subjects: Subject) -> int:
        with self._shared.writing() as transaction:
            now = self._clock()  # read while nobody else can write, so that moments come in their order
            self._refuse(transaction, subjects, now)
            for rule, who in subjects:
                moments = self._moments(transaction, rule, who)
                young = [each for each in moments if each > now - _window(rule)]
                self._put(transaction, rule, who, moments, [*young, now])
                self._tidy(transaction, rule, now)
        return now

    def withdraw(self, subject: Subject, moment: int) -> None:
        rule, who = subject
        with self._shared.writing() as transaction:
            moments = self._moments(transaction, rule, who)
            if moment in moments:
                left = list(moments)
                left.remove(moment)
                self._put(transaction, rule, who, moments, left)

    def forget(self, subject: Subject) -> None:
        rule, who = subject
        with self._shared.writing() as transaction:
            self._put(transaction, rule, who, self._moments(transaction, rule, who), [])

    def tracked(self, rule: Rule) -> int:
        """Those of whom the rule has tries, expired ones included until they are removed."""
        with self._shared.reading() as transaction:
            return self._count(transaction, rule)

    # --- within

    def _refuse(self, transaction: Transaction, subjects: tuple[Subject, ...], now: int) -> None:
        waits = [self._wait(transaction, rule, who, now) for rule, who in subjects]
        if any(waits):
            raise TooManyAttempts(max(waits) / _NANOS)

    def _wait(self, transaction: Transaction, rule: Rule, who: str, now: int) -> int:
        """Nanoseconds; 0: none."""
        moments = self._moments(transaction, rule, who)
        return max(0, moments[-rule.most] + _window(rule) - now) if len(moments) >= rule.most else 0

    def _moments(self, transaction: Transaction, rule: Rule, who: str) -> list[int]:
        return list(array("q", transaction.get(_key(rule, who), db=self._attempts) or b""))

    def _put(self, transaction: Transaction, rule: Rule, who: str, old: list[int], new: list[int]) -> None:
        key = _key(rule, who)
        if old:
            transaction.delete(_order_key(rule, old[-1], key), db=self._order)
        if new:
            transaction.put(key, array("q", new).tobytes(), db=self._attempts)
            transaction.put(_order_key(rule, new[-1], key), key, db=self._order)
        elif old:
            transaction.delete(key, db=self._attempts)
        if bool(old) != bool(new):
            self._set_count(transaction, rule, self._count(transaction, rule) + (1 if new else -1))

    def _tidy(self, transaction: Transaction, rule: Rule, now: int) -> None:
        """Remove a few that have expired, and as many as there are too many."""
        count = before = self._count(transaction, rule)
        prefix = _prefix(rule)
        for _ in range(_EXPIRED_AT_ONCE):
            found = next(self._shared.rows(transaction, self._order, prefix), None)
            if found is None:
                break
            order, key = found
            (moment,) = _MOMENT.unpack_from(order, len(prefix))
            if moment > now - _window(rule) and count <= self._max_tracked:
                break
            transaction.delete(order, db=self._order)
            transaction.delete(key, db=self._attempts)
            count -= 1
        if count != before:
            self._set_count(transaction, rule, count)

    def _count(self, transaction: Transaction, rule: Rule) -> int:
        data = transaction.get(_count_key(rule), db=self._shared.meta)
        return int(_NUMBER.unpack(data)[0]) if data else 0

    def _set_count(self, transaction: Transaction, rule: Rule, count: int) -> None:
        transaction.put(_count_key(rule), _NUMBER.pack(count), db=self._shared.meta)


def _window(rule: Rule) -> int:
    return round(rule.window_seconds * _NANOS)


def _prefix(rule: Rule) -> bytes:
    return rule.name.encode() + b"\0"


def _key(rule: Rule, who: str) -> bytes:
    return _prefix(rule) + hashlib.blake2b(who.encode(errors="surrogatepass"), digest_size=16).digest()


def _order_key(rule: Rule, moment: int, key: bytes) -> bytes:
    return _prefix(rule) + _MOMENT.pack(moment) + key


def _count_key(rule: Rule) -> bytes:
    return b"attempts:" + rule.name.encode()
