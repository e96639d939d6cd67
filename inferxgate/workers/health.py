"""Which targets can be asked now: a circuit for each provider, model and credential.

A circuit opens when enough of its attempts failed within a sliding window. After a cool-down, which doubles with each
opening in a row, it is half-open: one attempt, the *probe*, may go, over all workers, and closes or opens it again.
A refused credential is set aside in the same way, for longer. A provider that named a time to wait is *cooling* until
then, which says nothing about its health: when that time is over everybody may go at once. Deadlines only move to
later moments.

What callers cause never gets here. Names of models come from callers all the same, so everything here is bounded:
circuits exist only for what has failed lately, and where there are too many the longest untouched go first, those that
hold nobody back before the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Literal, NamedTuple, Protocol, TypeVar

from inferxgate.values import dataclass

T = TypeVar("T")

PROBE_SECONDS = 60.0
"""A probe of which nothing was heard for so long holds nobody back any more: its worker may have been killed."""
LOOK_AGAIN_SECONDS = 1.0
"""What those are told to wait for whom a probe is under way: it can end at any moment."""
MAX_COOL_SECONDS = 86_400.0
"""No deadline is further away, whatever a provider says."""
MAX_CIRCUITS = 4096
KEEP_SECONDS = 600.0
"""How long a circuit is remembered that holds nobody back, after the last thing that happened to it."""
KEEP_HALF_OPEN_SECONDS = 3600.0
"""How long one is that waits for a probe which nobody makes."""
_SHARE_TO_FORGET = 8
"""Where there are too many circuits, one in so many goes at once: to choose them means to look at all."""
_MOST_BUCKETS = 60
_MOST_OPENINGS = 64
_MOST_NAME = 512
_MOST_CODE = 100

CircuitStateName = Literal["closed", "open", "half_open", "cooling", "set_aside"]


class CircuitKey(NamedTuple):
    """What a circuit is about."""

    provider: str
    model: str = ""
    """Empty: the credential as a whole."""
    credential: str = ""
    """A short digest; empty: none is sent."""
    about: str = ""
    """``refused``: whether this credential may use this model, which has nothing to do with how the model fares."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When circuits open, and for how long."""

    window_seconds: float = 30.0
    min_failures: int = 5
    failure_ratio: float = 0.5
    cooldown_seconds: float = 5.0
    """After the first opening; doubles at each one without a success in between."""
    max_cooldown_seconds: float = 120.0
    set_aside_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class CircuitState:
    """What people are shown of a circuit."""

    key: CircuitKey
    state: CircuitStateName
    until: float | None
    """Unix seconds; None: closed, or half-open and waiting for its probe."""
    failures: int
    """Within the window, as are ``requests``."""
    requests: int
    code: str
    """Of the last error, empty where there was none."""
    since: float
    """Unix seconds at which this state began."""


class Health(Protocol):
    """Counts how attempts end. No method raises or waits for anything but the other workers' writing.

    Each attempt calls ``enter`` and then, once, one of ``succeeded``, ``failed``, ``cool``, ``set_aside`` and
    ``abandoned``; a stream that breaks off calls ``failed`` after ``succeeded``. ``begun``, where it is given, is the
    ``time.monotonic()`` at which the attempt began. It tells late news of an attempt that is older than the circuit's
    opening from news of its probe; without, every attempt of the worker that holds the probe is taken for it.
    """

    @property
    def troubled(self) -> bool:
        """Whether there is any circuit. Without, nobody is held back, and only successes need to be told of."""

    def wait_seconds(self, key: CircuitKey) -> float:
        """0: it may be asked now; else for how long not. Looks only."""

    def enter(self, key: CircuitKey) -> float:
        """As ``wait_seconds``, and claims the probe where it is half-open: 0 is given once then, over all workers."""

    def succeeded(self, key: CircuitKey, *, begun: float | None = None) -> None:
        """Closes the circuit where this was its probe; otherwise counts."""

    def failed(
        self,
        key: CircuitKey,
        code: str,
        *,
        retry_after_seconds: float | None = None,
        begun: float | None = None,
        answered: bool = False,
    ) -> None:
        """Counts, and opens the circuit where that is too much or where this was the probe.

        ``answered``: ``succeeded`` was called for this attempt when its answer began, which broke off afterwards.
        """

    def cool(self, key: CircuitKey, code: str, seconds: float) -> None:
        """Not to be asked for so long. Does not count."""

    def set_aside(self, key: CircuitKey, code: str) -> None:
        """The credential was refused."""

    def abandoned(self, key: CircuitKey, *, begun: float | None = None) -> None:
        """The attempt's end says nothing. If it was the probe, another one may go."""

    def states(self) -> list[CircuitState]:
        """All that hold somebody back, and what was counted lately, in the order of their keys."""

    def configure(self, policy: HealthPolicy) -> None:
        """From now on."""

    def sync(self) -> None:
        """To be called about once a second."""


@dataclass(slots=True)
class Circuit:
    """The state machine: pure, but for what it remembers. Times are seconds of the monotonic clock."""

    key: CircuitKey
    since: float
    changed: float = 0.0
    """When something last happened to it but successes."""
    kind: Literal["", "open", "set_aside"] = ""
    """Why it is closed no more; it stays so while it is half-open."""
    tripped: float = 0.0
    until: float = 0.0
    """When it is half-open."""
    cool_until: float = 0.0
    openings: int = 0
    """In a row, without a success in between."""
    prober: str = ""
    """The worker whose attempt decides."""
    probe_until: float = 0.0
    code: str = ""
    buckets: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Failures and requests, by the second from which they count together."""

    def wait(self, now: float) -> float:
        until = self.cool_until
        if self.kind:
            if self.until > until:
                until = self.until
            if until <= now < self.probe_until:
                return min(self.probe_until - now, LOOK_AGAIN_SECONDS)
        return until - now if until > now else 0.0

    def is_half_open(self, now: float) -> bool:
        return bool(self.kind) and now >= self.until

    def enter(self, now: float, who: str) -> float:
        wait = self.wait(now)
        if not wait and self.is_half_open(now):
            self.prober, self.probe_until, self.changed = who, now + PROBE_SECONDS, now
        return wait

    def is_told_by(self, who: str, begun: float | None) -> bool:
        """Whether the end of an attempt says how things are since the circuit opened."""
        if begun is None:
            return self.prober == who
        return begun > self.tripped

    def succeeded(self, now: float) -> None:
        """It was the probe, or one that was made in spite of the circuit."""
        self.kind, self.openings, self.until, self.since = "", 0, 0.0, now
        self._end_probe(now)
        self.buckets.clear()

    def failed(
        self, now: float, policy: HealthPolicy, code: str, who: str, begun: float | None, *, answered: bool = False
    ) -> None:
        self._note(now, code)
        if begun is not None and begun <= self.tripped:
            return  # old news: what it tells of is what the circuit opened for
        self.count(bucket(now, policy), 1, 0 if answered else 1)
        if self.kind:
            if now >= self.until and self.is_told_by(who, begun):
                self._open(now, policy)
            return
        failures, requests = self.counts(now, policy)
        if failures >= policy.min_failures and failures >= policy.failure_ratio * requests:
            self._open(now, policy)

    def cool(self, now: float, code: str, seconds: float) -> None:
        seconds = min(seconds, MAX_COOL_SECONDS) if seconds > 0 else 0.0  # which NaN is not
        if max(self.until, self.cool_until) <= now:
            self.since = now
        self.cool_until = max(self.cool_until, now + seconds)
        self._note(now, code)

    def set_aside(self, now: float, policy: HealthPolicy, code: str) -> None:
        if self.kind != "set_aside" or now >= self.until:
            self.since = now
        self.kind, self.tripped = "set_aside", now
        self.until = max(self.until, now + policy.set_aside_seconds)
        self._note(now, code)
        self._end_probe(now)

    def release(self, now: float, who: str, begun: float | None = None) -> None:
        """Give back the probe, if this worker has it."""
        if self.prober == who and self.is_told_by(who, begun):
            self._end_probe(now)

    def count(self, start: int, failures: int, requests: int) -> None:
        before = self.buckets.get(start, (0, 0))
        self.buckets[start] = (before[0] + failures, before[1] + requests)
        if len(self.buckets) > _MOST_BUCKETS + 1:
            del self.buckets[min(self.buckets)]

    def counts(self, now: float, policy: HealthPolicy) -> tuple[int, int]:
        """Failures and requests in the window. Forgets what is older."""
        over = window_start(now, policy)
        if any(start <= over for start in self.buckets):
            self.buckets = {start: counts for start, counts in self.buckets.items() if start > over}
        failures = requests = 0
        for failed, asked in self.buckets.values():
            failures += failed
            requests += asked
        return failures, requests

    def is_forgotten(self, now: float) -> bool:
        if self.kind:
            return now >= max(self.until, self.cool_until) + KEEP_HALF_OPEN_SECONDS and now >= self.probe_until
        return now >= max(self.changed + KEEP_SECONDS, self.cool_until)

    def take_over(self, other: Circuit) -> None:
        """Keep the later deadline of another account of the same circuit, which is the older one."""
        self.cool_until = max(self.cool_until, other.cool_until)

    def state(self, now: float, policy: HealthPolicy, wall_now: float) -> CircuitState:
        name: CircuitStateName = "closed"
        until, since = None, self.since
        if self.kind and now < self.until:
            name, until = self.kind, max(self.until, self.cool_until)
        elif now < self.cool_until:
            name, until, since = "cooling", self.cool_until, max(since, self.until)
        elif self.kind:
            name, since = "half_open", max(self.until, self.cool_until)
            until = self.probe_until if now < self.probe_until else None
        failures, requests = self.counts(now, policy)
        ahead = wall_now - now
        until = None if until is None else until + ahead
        return CircuitState(self.key, name, until, failures, requests, self.code, since + ahead)

    def _open(self, now: float, policy: HealthPolicy) -> None:
        seconds = min(policy.cooldown_seconds * 2.0**self.openings, policy.max_cooldown_seconds)
        self.openings = min(self.openings + 1, _MOST_OPENINGS)
        self.kind, self.tripped, self.since = "open", now, now
        self.until = max(self.until, now + seconds)
        self._end_probe(now)

    def _end_probe(self, now: float) -> None:
        self.prober, self.probe_until, self.changed = "", 0.0, now

    def _note(self, now: float, code: str) -> None:
        self.code, self.changed = code[:_MOST_CODE].encode(errors="replace").decode(), now


class Successes:
    """What one worker has seen succeed within the window and not told yet, by key and second."""

    def __init__(self) -> None:
        self.fresh: dict[CircuitKey, int] = {}
        """Since the last ``settle``: all that a success costs is an increment here."""
        self._earlier: dict[CircuitKey, dict[int, int]] = {}

    def first(self, key: CircuitKey, now: float, policy: HealthPolicy) -> None:
        """Count a success of what is not in ``fresh``."""
        if is_countable(key):
            if len(self.fresh) >= MAX_CIRCUITS:
                self.settle(now, policy)
            self.fresh[key] = 1

    def settle(self, now: float, policy: HealthPolicy) -> None:
        """Note when it was, and forget what the window has passed by."""
        start, over = bucket(now, policy), window_start(now, policy)
        for key, number in self.fresh.items():
            buckets = self._earlier.pop(key, {})  # and to the end, so that the longest unseen come first
            buckets[start] = buckets.get(start, 0) + number
            if len(buckets) > _MOST_BUCKETS + 1:
                del buckets[min(buckets)]
            self._earlier[key] = buckets
        self.fresh.clear()
        for key in [key for key, buckets in self._earlier.items() if max(buckets) <= over]:
            del self._earlier[key]
        for key in list(self._earlier)[: max(0, len(self._earlier) - MAX_CIRCUITS)]:
            del self._earlier[key]

    def of(self, key: CircuitKey, now: float, policy: HealthPolicy) -> dict[int, int]:
        """How many succeeded, by second."""
        buckets = dict(self._earlier.get(key, ()))
        if key in self.fresh:
            start = bucket(now, policy)
            buckets[start] = buckets.get(start, 0) + self.fresh[key]
        return buckets

    def told(self, key: CircuitKey) -> None:
        """It is counted elsewhere now."""
        self.fresh.pop(key, None)
        self._earlier.pop(key, None)

    def untold(self, circuits: Mapping[CircuitKey, Circuit]) -> list[CircuitKey]:
        """Of which circuits there is something to tell."""
        return [key for key in circuits if key in self.fresh or key in self._earlier]


class LocalHealth:
    """``Health`` within one process. To be used by one thread."""

    def __init__(
        self,
        policy: HealthPolicy | None = None,
        *,
        who: str = "local",
        max_circuits: int = MAX_CIRCUITS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``who`` has the probes that are claimed here. ``wall_clock`` gives Unix seconds, for ``states``."""
        self._policy = policy or HealthPolicy()
        self._who = who
        self._max_circuits = max_circuits
        self._clock = clock
        self._wall_clock = wall_clock
        self._circuits: dict[CircuitKey, Circuit] = {}
        self._successes = Successes()

    def configure(self, policy: HealthPolicy) -> None:
        self._policy = policy

    @property
    def troubled(self) -> bool:
        return bool(self._circuits)

    def wait_seconds(self, key: CircuitKey) -> float:
        circuit = self._circuits.get(key)
        return 0.0 if circuit is None else circuit.wait(self._clock())

    def enter(self, key: CircuitKey) -> float:
        circuit = self._circuits.get(key)
        if circuit is None:
            return 0.0
        now = self._clock()
        wait = circuit.wait(now)
        if wait or not circuit.is_half_open(now):
            return wait
        return self._change(key, lambda circuit, now: circuit.enter(now, self._who))

    def succeeded(self, key: CircuitKey, *, begun: float | None = None) -> None:
        circuit = self._circuits.get(key)
        if circuit is not None and circuit.kind and circuit.is_told_by(self._who, begun):
            self._change(key, lambda circuit, now: self._close(circuit, now, begun))
            return
        fresh = self._successes.fresh
        if key in fresh:
            fresh[key] += 1
        else:
            self._successes.first(key, self._clock(), self._policy)

    def failed(
        self,
        key: CircuitKey,
        code: str,
        *,
        retry_after_seconds: float | None = None,
        begun: float | None = None,
        answered: bool = False,
    ) -> None:
        def change(circuit: Circuit, now: float) -> None:
            circuit.failed(now, self._policy, code, self._who, begun, answered=answered)
            if retry_after_seconds is not None:
                circuit.cool(now, code, retry_after_seconds)

        self._change_countable(key, change)

    def cool(self, key: CircuitKey, code: str, seconds: float) -> None:
        def change(circuit: Circuit, now: float) -> None:
            circuit.cool(now, code, seconds)
            circuit.release(now, self._who)

        self._change_countable(key, change)

    def set_aside(self, key: CircuitKey, code: str) -> None:
        self._change_countable(key, lambda circuit, now: circuit.set_aside(now, self._policy, code))

    def abandoned(self, key: CircuitKey, *, begun: float | None = None) -> None:
        circuit = self._circuits.get(key)
        if circuit is not None and circuit.prober == self._who and circuit.is_told_by(self._who, begun):
            self._change(key, lambda circuit, now: circuit.release(now, self._who, begun))

    def states(self) -> list[CircuitState]:
        self._tell_successes()
        now, wall_now = self._clock(), self._wall_clock()
        return states_of(self._circuits, now, self._policy, wall_now)

    def sync(self) -> None:
        self._tell_successes()
        self._successes.settle(self._clock(), self._policy)
        self._forget(self._forgotten())

    # --- within

    def _change_countable(self, key: CircuitKey, change: Callable[[Circuit, float], None]) -> None:
        if is_countable(key):
            self._change(key, change)

    def _change(self, key: CircuitKey, change: Callable[[Circuit, float], T]) -> T:
        """Change the circuit of ``key``, one that is closed where there is none, with all successes counted."""
        now = self._clock()
        circuit = self._circuits.get(key) or Circuit(key, now)
        self._count(circuit, now)
        result = change(circuit, now)
        self._successes.told(key)
        self._keep(circuit)
        return result

    def _close(self, circuit: Circuit, now: float, begun: float | None) -> None:
        if circuit.kind and circuit.is_told_by(self._who, begun):
            circuit.succeeded(now)

    def _count(self, circuit: Circuit, now: float) -> None:
        """This worker's successes."""
        for start, number in self._successes.of(circuit.key, now, self._policy).items():
            circuit.count(start, 0, number)

    def _keep(self, circuit: Circuit) -> None:
        self._circuits.pop(circuit.key, None)  # and to the end, so that the longest untouched come first
        self._circuits[circuit.key] = circuit
        if len(self._circuits) > self._max_circuits:
            self._forget(self._least_needed())

    def _least_needed(self) -> list[CircuitKey]:
        now = self._clock()
        number = max(1, self._max_circuits // _SHARE_TO_FORGET)
        free = [key for key, circuit in self._circuits.items() if not circuit.kind and circuit.cool_until <= now]
        return (free if len(free) >= number else list(self._circuits))[:number]

    def _forgotten(self) -> list[CircuitKey]:
        now = self._clock()
        return [key for key, circuit in self._circuits.items() if circuit.is_forgotten(now)]

    def _forget(self, keys: list[CircuitKey]) -> None:
        for key in keys:
            del self._circuits[key]

    def _tell_successes(self) -> None:
        """Count what succeeded where there is a circuit."""
        now = self._clock()
        for key in self._successes.untold(self._circuits):
            self._count(self._circuits[key], now)
            self._successes.told(key)


def bucket(now: float, policy: HealthPolicy) -> int:
    """The second from which what happens now counts."""
    width = max(1, math.ceil(policy.window_seconds / _MOST_BUCKETS))
    return math.floor(now) // width * width


def window_start(now: float, policy: HealthPolicy) -> float:
    """What counts together from then or before does not count any more. The second that has begun always counts."""
    return now - max(policy.window_seconds, 1.0)


def is_countable(key: CircuitKey) -> bool:
    """Nothing is kept of names that no model can have: they would take memory, and some cannot be written."""
    if len(key.provider) + len(key.model) + len(key.credential) > _MOST_NAME:
        return False
    try:
        "".join(key).encode()
    except UnicodeEncodeError:
        return False
    return True


def states_of(
    circuits: Mapping[CircuitKey, Circuit], now: float, policy: HealthPolicy, wall_now: float
) -> list[CircuitState]:
    """What there is to show of them."""
    states = [circuits[key].state(now, policy, wall_now) for key in sorted(circuits)]
    return [state for state in states if state.state != "closed" or state.requests]
