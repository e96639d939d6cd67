"""The counters of one scope, as one row of the workers' shared memory."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import get_args

from inferxgate.store.periods import period_start_ms
from inferxgate.store.records import BudgetPeriod

PERIODS: tuple[BudgetPeriod, ...] = get_args(BudgetPeriod)
_ROW = struct.Struct("<6q4q4q")
_DAY_MS = 86_400_000


class Counters:
    """What counts against the limits of one scope."""

    __slots__ = ("count", "head", "parallel", "reserved", "spent", "starts", "tail", "tokens")

    def __init__(self) -> None:
        self.head = 0
        """The first entry of the scope's log that still counts."""
        self.tail = 0
        """The place of the next one."""
        self.count = 0
        """Requests in the log."""
        self.tokens = 0
        """Tokens in the log."""
        self.parallel = 0
        """Requests under way."""
        self.reserved = 0
        """Nano-dollars that they have claimed."""
        self.starts: tuple[int, ...] = (0,) * len(PERIODS)
        """When the periods began that ``spent`` is about, in the order of ``PERIODS``."""
        self.spent: list[int] = [0] * len(PERIODS)
        """Nano-dollars."""

    @classmethod
    def parse(cls, data: bytes | None) -> Counters:
        row = cls()
        if data is not None:
            row.head, row.tail, row.count, row.tokens, row.parallel, row.reserved, *rest = _ROW.unpack(data)
            row.starts, row.spent = tuple(rest[:4]), rest[4:]
        return row

    def build(self) -> bytes:
        return _ROW.pack(
            self.head, self.tail, self.count, self.tokens, self.parallel, self.reserved, *self.starts, *self.spent
        )

    def turn(self, starts: tuple[int, ...]) -> None:
        """Begin the periods that have begun since: nothing is spent in them yet."""
        if starts != self.starts:
            self.spent = [
                spent if start <= known else 0
                for spent, start, known in zip(self.spent, starts, self.starts, strict=True)
            ]
            self.starts = tuple(max(pair) for pair in zip(starts, self.starts, strict=True))

    def spend(self, nanos: int, at: tuple[int, ...], now: tuple[int, ...]) -> list[int]:
        """Count money in the periods ``at`` which it was spent, if they still run ``now``; what was spent before."""
        self.turn(now)
        before = list(self.spent)
        self.spent = [
            spent + nanos if start == known else spent
            for spent, start, known in zip(self.spent, at, self.starts, strict=True)
        ]
        return before


def period_starts(at_ms: int) -> tuple[int, ...]:
    """When each of the periods around a moment began."""
    return _starts_of_day(at_ms // _DAY_MS)


@lru_cache(maxsize=64)
def _starts_of_day(day: int) -> tuple[int, ...]:
    return tuple(period_start_ms(period, day * _DAY_MS) for period in PERIODS)
