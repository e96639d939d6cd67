"""Requests a minute: never more than N in any 60 seconds, and never fewer than N allowed when they are spread out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.workers.limits import EXACT_UP_TO, UNLIMITED, WINDOW_SECONDS, RateLimits


class Clock:
    def __init__(self, now: float = 1_700_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


STEPS = st.lists(st.floats(0, 90, allow_nan=False).map(lambda seconds: round(seconds, 3)), min_size=1, max_size=120)


@given(st.integers(1, 8), STEPS)
def test_never_more_than_the_limit_in_any_minute(rpm: int, steps: list[float]) -> None:
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    admitted: list[float] = []
    for step in steps:
        clock.now += step
        ok, state, wait = limits.admit("key:a", rpm)
        window = [time for time in admitted if time + WINDOW_SECONDS > clock.now]
        assert ok == (len(window) < rpm), "refused if and only if the window is full: refusals leave no trace"
        if ok:
            admitted.append(clock.now)
            window.append(clock.now)
        assert state.remaining == rpm - len(window)
        assert state.reset_at_s == math.ceil(round(window[0] + WINDOW_SECONDS, 3))
        assert wait == (0.0 if ok else pytest.approx(window[0] + WINDOW_SECONDS - clock.now))


@given(st.integers(1, 50))
def test_a_limit_spread_evenly_always_passes(rpm: int) -> None:
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    for _ in range(3 * rpm):
        assert limits.admit("key:a", rpm)[0]
        clock.now += WINDOW_SECONDS / rpm + 1e-6


def test_the_next_request_passes_when_the_reset_has_come() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    for _ in range(60):
        assert limits.admit("key:a", 60)[0]
    ok, state, wait = limits.admit("key:a", 60)
    assert (ok, state.remaining) == (False, 0)
    clock.now += wait - 0.001
    assert not limits.admit("key:a", 60)[0]
    clock.now = state.reset_at_s
    assert limits.admit("key:a", 60)[0]


def test_callers_do_not_share_a_window() -> None:
    limits = RateLimits(clock=Clock(), wall_clock=Clock())
    assert limits.admit("key:a", 1)[0]
    assert not limits.admit("key:a", 1)[0]
    assert limits.admit("key:b", 1)[0]


def test_peeking_counts_nothing() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    before = limits.peek("key:a", 2)
    assert (before.limit, before.remaining, before.reset_at_s) == (2, 2, math.ceil(clock.now))
    limits.admit("key:a", 2)
    assert limits.peek("key:a", 2) == limits.peek("key:a", 2)
    assert limits.peek("key:a", 2).remaining == 1


def test_a_lowered_limit_tells_when_it_next_grows() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    first = clock.now
    for _ in range(5):
        limits.admit("key:a", 10)
        clock.now += 1
    state = limits.peek("key:a", 2)
    assert state.remaining == 0
    assert state.reset_at_s == math.ceil(first + 3 + WINDOW_SECONDS), "the fourth must leave before one of two is free"


def test_no_limit_never_refuses_and_keeps_no_log() -> None:
    limits = RateLimits(clock=Clock(), wall_clock=Clock())
    for _ in range(1000):
        ok, state, _ = limits.admit("key:a", 0)
        assert ok
    assert state.remaining == UNLIMITED


@given(st.lists(st.floats(0, 1.5), min_size=1, max_size=60))
def test_above_the_exact_range_seconds_err_towards_refusing(steps: list[float]) -> None:
    rpm = EXACT_UP_TO + 1
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    admitted: list[float] = []
    for step in steps:
        clock.now += step
        admitted += [clock.now for _ in range(1_000) if limits.admit("key:a", rpm)[0]]
        assert sum(time + WINDOW_SECONDS > clock.now for time in admitted) <= rpm
    clock.now += WINDOW_SECONDS + 1
    assert limits.peek("key:a", rpm).remaining == rpm, "all is forgotten one second late at the most"


def test_idle_callers_are_forgotten() -> None:
    clock = Clock()
    limits = RateLimits(clock=clock, wall_clock=clock)
    for number in range(20_000):
        limits.admit(f"key:{number}", 10)
        clock.now += 0.1
    assert len(limits._logs) < 6_000, "a caller without an admission in the window costs no memory"
