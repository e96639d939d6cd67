"""How often someone may fail to sign in before they have to wait."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

_MAX_TRACKED = 100_000


class Attempts:
    """Failures per name (an address, a client) within a sliding window."""

    def __init__(self, limit: int, window_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window_seconds = window_seconds
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, who: str) -> float | None:
        """Seconds to wait before the next try, or None to go on."""
        failures = self._failures.get(who)
        if failures is None:
            return None
        now = self._clock()
        while failures and failures[0] + self._window_seconds <= now:
            failures.popleft()
        if not failures:
            del self._failures[who]
            return None
        if len(failures) < self._limit:
            return None
        return failures[0] + self._window_seconds - now

    def failed(self, who: str) -> None:
        """Count one failure."""
        failures = self._failures.get(who)
        if failures is None:
            if len(self._failures) >= _MAX_TRACKED:  # the longest untouched goes first, so memory stays bounded
                self._failures.popitem(last=False)
            failures = self._failures[who] = deque(maxlen=self._limit)
        self._failures.move_to_end(who)
        failures.append(self._clock())

    def succeeded(self, who: str) -> None:
        """Forget the failures."""
        self._failures.pop(who, None)
