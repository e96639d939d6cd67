"""The counters of one scope, as one row of the workers' shared memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

from inferxgate.store.periods import DAY_MS, period_start_ms
from inferxgate.store.records import BudgetPeriod

PERIODS: tuple[BudgetPeriod, ...] = get_args(BudgetPeriod)
_ROW = struct.Struct("<6qd5q")
_EMPTY = bytes(_ROW.size)


class Counters:
    """What counts against the limits of one scope."""

    __slots__ = ("count", "day_ms", "first_until", "head", "parallel", "reserved", "spent", "tail", "tokens")

    def __init__(self, data: bytes | None = None) -> None:
        """``data`` is what ``build`` gave; None: nothing counts yet."""
        self.head: int
        """The first entry of the scope's log that still counts."""
        self.tail: int
        """The place of the next one."""
        self.count: int
        """Requests in the log."""
        self.tokens: int
        """Tokens in the log, as far as a limit asked for them."""
        self.parallel: int
        """Requests under way."""
        self.reserved: int
        """Nano-dollars that they have claimed."""
        self.first_until: float
        """Until when the log's first entry counts, where there is one."""
        self.day_ms: int
        """When the day began that the row has come to: ``spent`` is about the periods around it."""
        self.spent: Sequence[int]
        """Nano-dollars, in the order of ``PERIODS``."""
        (
            self.head,
            self.tail,
            self.count,
            self.tokens,
            self.parallel,
            self.reserved,
            self.first_until,
            self.day_ms,
            *self.spent,
        ) = _ROW.unpack(data or _EMPTY)

    def build(self) -> bytes:
        return _ROW.pack(
            self.head,
            self.tail,
            self.count,
            self.tokens,
            self.parallel,
            self.reserved,
            self.first_until,
            self.day_ms,
            *self.spent,
        )

    def turn(self, now_ms: int) -> None:
        """Begin the periods that have begun since: nothing is spent in them yet."""
        if now_ms - self.day_ms >= DAY_MS:
            day_ms = now_ms // DAY_MS * DAY_MS
            periods = zip(self.spent, _starts(self.day_ms), _starts(day_ms), strict=True)
            self.spent = [spent if known == start else 0 for spent, known, start in periods]
            self.day_ms = day_ms

    def spend(self, nanos: int, at_ms: int) -> None:
        """Count money in the periods around ``at_ms``, when it was spent, those of them that still run."""
        if 0 <= at_ms - self.day_ms < DAY_MS:
            self.spent = [spent + nanos for spent in self.spent]
        else:
            periods = zip(self.spent, _starts(self.day_ms), _starts(at_ms // DAY_MS * DAY_MS), strict=True)
            self.spent = [spent + nanos if known == start else spent for spent, known, start in periods]


@lru_cache(maxsize=64)
def _starts(day_ms: int) -> tuple[int, ...]:
    """When each of the periods around a day began."""
    return tuple(period_start_ms(period, day_ms) for period in PERIODS)
