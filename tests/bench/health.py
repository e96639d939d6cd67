"""What it costs that workers share circuits: ``python -m tests.bench.health``, in nanoseconds a call.

Each is called many times in a row, by both engines, and the best of the rounds counts: a busy machine can only add. To
call nothing is taken off.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from inferxgate.workers.health import CircuitKey, Health, HealthPolicy, LocalHealth
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_health import SharedHealth

_KEY = CircuitKey("provider", "model", "0123456789abcdef")
_OPEN = CircuitKey("provider", "broken", "0123456789abcdef")
_OFTEN = 100_000
_SELDOM = 2_000
_POLICY = HealthPolicy(cooldown_seconds=86_400, max_cooldown_seconds=86_400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        memory = SharedMemory.open(Path(folder) / "workers")
        engines: list[tuple[str, Health, Health]] = [
            ("local", local := LocalHealth(_POLICY), local),
            ("shared", SharedHealth(memory, _POLICY), SharedHealth(memory, _POLICY)),
        ]
        for name, health, other in engines:
            for what, nanos in _measure(health, other, rounds):
                print(f"{name:8}{what:48}{nanos:10,.0f}")
        memory.close()


def _measure(health: Health, other: Health, rounds: int) -> list[tuple[str, float]]:
    def often(call: Callable[[], object]) -> float:
        return _best(call, _OFTEN, rounds)

    def seldom(call: Callable[[], object]) -> float:
        return _best(call, _SELDOM, rounds)

    def elsewhere() -> None:
        other.failed(_OPEN, "timeout")
        health.wait_seconds(_OPEN)

    found = [(f"{name}, all is well", often(call)) for name, call in _calls(health, _KEY)]
    for _ in range(_POLICY.min_failures):
        health.failed(_OPEN, "timeout")
    found += [(f"{name}, another one is open", often(call)) for name, call in _calls(health, _KEY)]
    found += [(f"{name}, it is open", often(call)) for name, call in _calls(health, _OPEN)]
    found += [
        ("failed", seldom(lambda: health.failed(_OPEN, "timeout"))),
        ("cool", seldom(lambda: health.cool(_KEY, "rate_limited", 1))),
        ("failed, and seen by another worker", seldom(elsewhere)),
        ("sync", seldom(health.sync)),
    ]
    return found


def _calls(health: Health, key: CircuitKey) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("wait_seconds", lambda: health.wait_seconds(key)),
        ("enter", lambda: health.enter(key)),
        ("succeeded", lambda: health.succeeded(key)),
    ]


def _best(call: Callable[[], object], number: int, rounds: int) -> float:
    return min(_once(call, number) - _once(lambda: None, number) for _ in range(rounds))


def _once(call: Callable[[], object], number: int) -> float:
    """Nanoseconds of the processor."""
    begun = time.process_time_ns()
    for _ in range(number):
        call()
    return (time.process_time_ns() - begun) / number


if __name__ == "__main__":
    main()
