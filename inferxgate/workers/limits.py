"""How many requests a caller may make: at most N in any 60 seconds, counted exactly.

A sliding log of admissions per caller: a request is admitted when fewer than N admissions lie in the last 60 seconds.
Refused requests leave no trace, so a client that hammers gets through as soon as its oldest admission is a minute old.
Above ``EXACT_UP_TO`` a minute the log keeps one count per second instead of one time per request; a second then counts
until its end is a minute old, which errs towards refusing.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
EXACT_UP_TO = 10_000
UNLIMITED = 2_147_483_647
"""What ``limit`` and ``remaining`` say where there is no limit: clients that pace themselves by them keep going."""

_SWEEP_EVERY = 4_096


@dataclass(frozen=True, slots=True)
class RateState:
    """What the rate-limit headers say."""

    limit: int
    remaining: int
    reset_at_s: int
    """Unix second, rounded up, at which ``remaining`` next grows; now where nothing is used."""


class _Log:
    """The admissions of one caller: times with how many came at each, oldest first."""

    __slots__ = ("entries", "total")

    def __init__(self) -> None:
        self.entries: deque[list[float]] = deque()  # [time until which it counts, how many]
        self.total = 0

    def expire(self, now: float) -> None:
        entries = self.entries
        while entries and entries[0][0] <= now:
            self.total -= int(entries.popleft()[1])

    def add(self, now: float, *, exact: bool) -> None:
        until = now + WINDOW_SECONDS if exact else math.floor(now) + 1 + WINDOW_SECONDS
        if not exact and self.entries and self.entries[-1][0] == until:
            self.entries[-1][1] += 1
        else:
            self.entries.append([until, 1])
        self.total += 1


class RateLimits:
    """The request windows of all callers of this process."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` counts, so that setting the machine's clock moves no window; ``wall_clock`` gives Unix seconds."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._logs: dict[str, _Log] = {}
        self._until_sweep = _SWEEP_EVERY

    def admit(self, subject: str, rpm: int) -> tuple[bool, RateState, float]:
        """Count one request of ``subject`` if its limit of ``rpm`` a minute (0: none) allows it.

        Returns whether it was admitted, the state after it, and the seconds until the next one would be (0 if now).
        """
        now = self._clock()
        if rpm == 0:
            return True, self._unlimited(), 0.0
        log = self._logs.get(subject)
        if log is None:
            self._sweep(now)
            log = self._logs[subject] = _Log()
        log.expire(now)
        if log.total < rpm:
            log.add(now, exact=rpm <= EXACT_UP_TO)
            return True, self._state(log, rpm, now), 0.0
        return False, self._state(log, rpm, now), _wait(log, rpm, now)

    def peek(self, subject: str, rpm: int) -> RateState:
        """The state without counting anything."""
        now = self._clock()
        if rpm == 0:
            return self._unlimited()
        log = self._logs.get(subject)
        if log is None:
            return RateState(rpm, rpm, math.ceil(self._wall_clock()))
        log.expire(now)
        return self._state(log, rpm, now)

    def _unlimited(self) -> RateState:
        return RateState(UNLIMITED, UNLIMITED, math.ceil(self._wall_clock()))

    def _state(self, log: _Log, rpm: int, now: float) -> RateState:
        grows_at_s = self._wall_clock() + _grows_at(log, rpm, now) - now
        return RateState(rpm, max(0, rpm - log.total), math.ceil(round(grows_at_s, 3)))

    def _sweep(self, now: float) -> None:
        """Forget callers without an admission in the window, once in a while, so that memory stays bounded."""
        self._until_sweep -= 1
        if self._until_sweep > 0:
            return
        self._until_sweep = _SWEEP_EVERY
        for subject, log in list(self._logs.items()):
            log.expire(now)
            if not log.entries:
                del self._logs[subject]


def _grows_at(log: _Log, rpm: int, now: float) -> float:
    """When ``remaining`` next grows: at the first expiry, or later where a lowered limit leaves more to wait out."""
    excess = log.total - rpm
    for until, count in log.entries:
        excess -= int(count)
        if excess < 0:
            return until
    return now


def _wait(log: _Log, rpm: int, now: float) -> float:
    return max(0.0, _grows_at(log, rpm, now) - now)
