"""How long targets took lately, for aliases that go by it.

The estimate is the median of the last answers, so that one slow answer changes nothing, and they are forgotten after
minutes, so that a target that was slow is asked again. A target of which less than a few answers are known goes first:
else nobody would ever know more. Streams count by their first token, whole answers by their end; the two are kept
apart, since they have nothing to do with each other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median

_REMEMBERED = 25
_ENOUGH = 3
_FORGET_SECONDS = 300.0
_MAX_TARGETS = 1_000
"""Names of models are the clients' to choose; of those beyond, the longest unseen is forgotten."""


class Latencies:
    """What one worker has seen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, bool], deque[tuple[float, float]]] = {}

    def observe(self, target: str, seconds: float, *, stream: bool) -> None:
        """An answer that went well took so long."""
        seen = self._seen.pop((target, stream), None) or deque(maxlen=_REMEMBERED)
        seen.append((self._clock(), seconds))
        self._seen[target, stream] = seen
        if len(self._seen) > _MAX_TARGETS:
            del self._seen[next(iter(self._seen))]

    def estimate(self, target: str, *, stream: bool) -> float:
        """Seconds that the next one will take; 0 where too little is known."""
        since = self._clock() - _FORGET_SECONDS
        lately = [seconds for at, seconds in self._seen.get((target, stream), ()) if at >= since]
        return median(lately) if len(lately) >= _ENOUGH else 0.0
