"""Circuits of targets with a clock of our own, one worker's or several workers', over both engines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from inferxgate.workers.health import MAX_CIRCUITS, CircuitKey, CircuitState, Health, HealthPolicy, LocalHealth
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_health import SharedHealth
from tests.workers.counting import Clock, Wall

_names = count()

MakeHealth = Callable[..., Health]


def new_key(model: str = "model") -> CircuitKey:
    """Of a provider of its own, so that tests keep apart in one memory."""
    return CircuitKey(f"provider_{next(_names)}", model, "c0ffee")


class World:
    """One worker and one target."""

    def __init__(self, make: MakeHealth, *, max_circuits: int = MAX_CIRCUITS, **policy: float) -> None:
        self.clock = Clock()
        self.wall = Wall(self.clock)
        self.policy = HealthPolicy(**policy)  # type: ignore[arg-type]  # tests name them one by one
        self._make = make
        self._max_circuits = max_circuits
        self.health = self.worker()
        self.key = new_key()

    def worker(self) -> Health:
        """Another worker with the same clock."""
        return self._make(self.policy, max_circuits=self._max_circuits, clock=self.clock, wall_clock=self.wall)

    def fail(self, times: int = 1, code: str = "upstream_error") -> None:
        for _ in range(times):
            self.health.failed(self.key, code)

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.health.succeeded(self.key)

    def wait(self) -> float:
        return self.health.wait_seconds(self.key)

    def enter(self) -> float:
        return self.health.enter(self.key)

    def sleep(self, seconds: float) -> None:
        self.health.sync()  # as about every second
        self.clock.now += seconds

    def open(self) -> None:
        """Let it fail until it opens."""
        self.fail(self.policy.min_failures)
        assert self.wait() > 0

    def state(self) -> CircuitState | None:
        return state_of(self.health, self.key)


def state_of(health: Health, key: CircuitKey) -> CircuitState | None:
    found = [state for state in health.states() if state.key == key]
    assert len(found) <= 1
    return found[0] if found else None


def maker(shared: SharedMemory | None) -> MakeHealth:
    """The engine for one process, or the one over ``shared``."""
    if shared is None:
        return LocalHealth
    return lambda *args, **options: SharedHealth(shared, *args, **options)
