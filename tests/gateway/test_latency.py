"""Estimates of how long a target takes, from few samples and odd ones."""

from __future__ import annotations

from inferxgate.gateway.latency import Latencies


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_slow_answer_changes_nothing() -> None:
    seen = Latencies()
    for seconds in (1.0, 1.1, 60.0, 0.9, 1.0):
        seen.observe("a/m", seconds, stream=True)
    assert seen.estimate("a/m", stream=True) == 1.0


def test_of_less_than_three_answers_nothing_is_concluded() -> None:
    seen = Latencies()
    assert seen.estimate("a/m", stream=True) == 0.0
    seen.observe("a/m", 9.0, stream=True)
    seen.observe("a/m", 9.0, stream=True)
    assert seen.estimate("a/m", stream=True) == 0.0
    seen.observe("a/m", 9.0, stream=True)
    assert seen.estimate("a/m", stream=True) == 9.0


def test_streams_and_whole_answers_are_kept_apart() -> None:
    seen = Latencies()
    for _ in range(3):
        seen.observe("a/m", 0.2, stream=True)
        seen.observe("a/m", 20.0, stream=False)
    assert (seen.estimate("a/m", stream=True), seen.estimate("a/m", stream=False)) == (0.2, 20.0)


def test_what_was_slow_minutes_ago_is_asked_again() -> None:
    clock = Clock()
    seen = Latencies(clock)
    for _ in range(3):
        seen.observe("a/m", 9.0, stream=True)
    clock.now += 299
    assert seen.estimate("a/m", stream=True) == 9.0
    clock.now += 2
    assert seen.estimate("a/m", stream=True) == 0.0


def test_the_last_answers_count() -> None:
    seen = Latencies()
    for seconds in [9.0] * 100 + [1.0] * 25:
        seen.observe("a/m", seconds, stream=True)
    assert seen.estimate("a/m", stream=True) == 1.0


def test_made_up_names_do_not_fill_the_memory() -> None:
    seen = Latencies()
    for number in range(3_000):
        seen.observe(f"a/{number}", 1.0, stream=True)
    assert len(seen._seen) <= 1_000
