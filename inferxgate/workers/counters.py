"""The counters of one scope, as one row of the workers' shared memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

from inferxgate.store.periods import period_start_ms
from inferxgate.store.records import BudgetPeriod

PERIODS: tuple[BudgetPeriod, ...] = get_args(BudgetPeriod)
_ROW = struct.Struct("<6qd4q4q")
_EMPTY = bytes(_ROW.size)
_DAY_MS = 86_400_000


class Counters:
    """What counts against the limits of one scope."""

    __slots__ = ("count", "first_until", "head", "parallel", "reserved", "spent", "starts", "tail", "tokens")

    def __init__(self, data: bytes | None = None) -> None:
        """``data`` is what ``build`` gave; None: nothing counts yet."""
        fields = _ROW.unpack(_EMPTY if data is None else data)
        self.head: int
        """The first entry of the scope's log that still counts."""
        self.tail: int
        """The place of the next one."""
        self.count: int
        """Requests in the log."""
        self.tokens: int
        """Tokens in the log."""
        self.parallel: int
        """Requests under way."""
        self.reserved: int
        """Nano-dollars that they have claimed."""
        self.first_until: float
        """Until when the log's first entry counts, where there is one."""
        self.head, self.tail, self.count, self.tokens, self.parallel, self.reserved, self.first_until = fields[:7]
        self.starts: tuple[int, ...] = fields[7:11]
        """When the periods began that ``spent`` is about, in the order of ``PERIODS``."""
        self.spent: Sequence[int] = fields[11:]
        """Nano-dollars."""

    def build(self) -> bytes:
        return _ROW.pack(
            *(self.head, self.tail, self.count, self.tokens, self.parallel, self.reserved, self.first_until),
            *self.starts,
            *self.spent,
        )

    def turn(self, starts: tuple[int, ...]) -> None:
        """Begin the periods that have begun since: nothing is spent in them yet."""
        if starts != self.starts:
            self.spent = [
                spent if start <= known else 0
                for spent, start, known in zip(self.spent, starts, self.starts, strict=True)
            ]
            self.starts = tuple(max(pair) for pair in zip(starts, self.starts, strict=True))

    def spend(self, nanos: int, at: tuple[int, ...], now: tuple[int, ...]) -> Sequence[int]:
        """Count money in the periods ``at`` which it was spent, if they still run ``now``; what was spent before."""
        self.turn(now)
        before = self.spent
        if nanos:
            self.spent = [
                spent + nanos if start == known else spent
                for spent, start, known in zip(before, at, self.starts, strict=True)
            ]
        return before


def period_starts(at_ms: int) -> tuple[int, ...]:
    """When each of the periods around a moment began."""
    return _starts_of_day(at_ms // _DAY_MS)


@lru_cache(maxsize=64)
def _starts_of_day(day: int) -> tuple[int, ...]:
    return tuple(period_start_ms(period, day * _DAY_MS) for period in PERIODS)
