"""How often something may be tried, over all workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.workers.attempts import NoAttempts, Rule, TooManyAttempts
from inferxgate.workers.shared import SharedMemory, SharedUnavailable
from inferxgate.workers.shared_attempts import SharedAttempts

_names = count()


class Clock:
    now_s = 100.0

    def __call__(self) -> int:
        return round(self.now_s * 1_000_000_000)


class World:
    """One worker's count of a rule of its own, with a clock of ours."""

    def __init__(self, shared: SharedMemory, most: int, window_seconds: float = 60, *, max_tracked: int = 100) -> None:
        self.clock = Clock()
        self.rule = Rule(f"rule {next(_names)}", most, window_seconds)
        self.attempts = SharedAttempts(shared, max_tracked=max_tracked, clock=self.clock)

    def check(self, who: str) -> float | None:
        try:
            self.attempts.check((self.rule, who))
        except TooManyAttempts as error:
            return error.wait_seconds
        return None

    def claim(self, who: str) -> int | None:
        try:
            return self.attempts.claim((self.rule, who))
        except TooManyAttempts:
            return None

    def tracked(self) -> int:
        return self.attempts.tracked(self.rule)


def test_after_the_limit_one_waits_for_the_oldest_try_to_pass(shared: SharedMemory) -> None:
    world = World(shared, 3)
    for _ in range(3):
        assert world.check("ann") is None
        assert world.claim("ann") is not None
        world.clock.now_s += 10
    assert world.check("ann") == 30
    assert world.claim("ann") is None
    assert world.check("bob") is None
    world.clock.now_s += 30
    assert world.check("ann") is None
    assert world.claim("ann") is not None
    assert world.check("ann") == 10


def test_success_takes_back_one_or_all(shared: SharedMemory) -> None:
    world = World(shared, 2)
    first = world.claim("ann")
    world.clock.now_s += 10
    second = world.claim("ann")
    assert first is not None
    assert second is not None
    world.attempts.withdraw((world.rule, "ann"), first)
    assert world.check("ann") is None
    world.claim("ann")
    assert world.check("ann") == 60, "the second one still counts"
    world.attempts.withdraw((world.rule, "ann"), 12345)
    world.attempts.withdraw((world.rule, "bob"), first)
    assert world.check("ann") == 60, "what is not there cannot be taken back"
    world.attempts.forget((world.rule, "ann"))
    world.attempts.forget((world.rule, "ann"))
    assert world.check("ann") is None
    assert world.tracked() == 0


def test_a_try_counts_for_all_of_its_subjects_or_for_none(shared: SharedMemory) -> None:
    narrow, wide = World(shared, 1), World(shared, 3)
    for who in ("a", "b"):
        narrow.attempts.claim((narrow.rule, who), (wide.rule, "office"))
    for _ in range(5):
        with pytest.raises(TooManyAttempts):
            narrow.attempts.claim((narrow.rule, "a"), (wide.rule, "office"))
    assert wide.check("office") is None
    narrow.attempts.claim((narrow.rule, "c"), (wide.rule, "office"))
    with pytest.raises(TooManyAttempts):
        narrow.attempts.check((narrow.rule, "d"), (wide.rule, "office"))


def test_it_is_bounded_and_the_longest_untouched_goes_first(shared: SharedMemory) -> None:
    world = World(shared, 1, max_tracked=10)
    for number in range(50):
        world.claim(str(number))
        world.clock.now_s += 0.1
    assert world.tracked() == 10
    assert world.check("39") is None
    assert world.check("40") is not None
    world.clock.now_s += 60
    world.claim("again")
    assert world.tracked() == 1, "what has expired is removed"


def test_nothing_is_counted_by_the_engine_that_counts_nothing() -> None:
    subject, attempts = (Rule("r", 1, 60), "ann"), NoAttempts()
    for _ in range(3):
        attempts.check(subject)
        attempts.withdraw(subject, attempts.claim(subject))
        attempts.forget(subject)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.sampled_from("abc")),
        st.tuples(st.just("withdraw"), st.sampled_from("abc")),
        st.tuples(st.just("forget"), st.sampled_from("abc")),
        st.tuples(st.just("wait"), st.sampled_from("159")),
    ),
    max_size=60,
)


@given(STEPS)
def test_no_window_ever_has_more_than_the_rule_says(shared: SharedMemory, steps: list[tuple[str, str]]) -> None:
    """Against lists of moments: a try passes exactly if fewer than three of the last ten seconds count."""
    world = World(shared, 3, 10)
    counting: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for step, who in steps:
        match step:
            case "claim":
                young = [each for each in counting[who] if each > world.clock() - 10_000_000_000]
                moment = world.claim(who)
                assert (moment is not None) == (len(young) < 3)
                if moment is not None:
                    counting[who].append(moment)
                    world.clock.now_s += 0.001
            case "withdraw" if counting[who]:
                world.attempts.withdraw((world.rule, who), counting[who].pop(len(counting[who]) // 2))
            case "forget":
                world.attempts.forget((world.rule, who))
                counting[who].clear()
            case "wait":
                world.clock.now_s += int(who)
    assert world.tracked() <= 3
    world.clock.now_s += 10
    world.claim("z")
    assert world.tracked() == 1


def test_memory_that_cannot_be_written_counts_nothing(tmp_path: Path) -> None:
    memory = SharedMemory.open(tmp_path / "workers", map_bytes=256 * 1024)
    world = World(memory, 1, max_tracked=100_000)
    with pytest.raises(SharedUnavailable, match="it is full"):
        all(world.claim(str(number)) for number in range(10_000))
    memory.close()


# --- over processes

CLAIMS = """
import sys
from pathlib import Path
from inferxgate.workers.attempts import Rule, TooManyAttempts
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_attempts import SharedAttempts

attempts = SharedAttempts(SharedMemory.open(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
claimed = 0
for number in range(int(sys.argv[2])):
    try:
        attempts.claim((Rule("shared", 50, 3600), "ann"), (Rule("own", 1, 3600), sys.argv[3] + str(number)))
        claimed += 1
    except TooManyAttempts:
        pass
print(claimed, flush=True)
sys.stdin.readline()
"""


@contextmanager
def workers(folder: Path, number: int, tries: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have begun to try at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMS, str(folder), str(tries), f"w{each}_"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_processes_that_try_at_once_get_as_many_as_the_rule_says(folder: Path) -> None:
    with workers(folder, 3, 40) as processes:
        claimed = [int(process.stdout.readline()) for process in processes if process.stdout is not None]
    assert sum(claimed) == 50
    memory = SharedMemory.open(folder)
    assert SharedAttempts(memory).tracked(Rule("own", 1, 3600)) == 50, "a refused try counts for nobody"
    memory.close()


def test_a_killed_process_takes_nothing_back(folder: Path) -> None:
    for round_ in range(3):
        with workers(folder, 2, 1_000_000) as processes, pytest.raises(subprocess.TimeoutExpired):
            processes[0].wait(0.05 * (round_ + 1))
    memory = SharedMemory.open(folder)
    attempts = SharedAttempts(memory)
    assert attempts.tracked(Rule("own", 1, 3600)) == 50
    with pytest.raises(TooManyAttempts):
        attempts.check((Rule("shared", 50, 3600), "ann"))
    memory.close()
