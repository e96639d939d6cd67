"""Circuits of several workers: what one finds, all know, and one probe goes for all of them."""

from __future__ import annotations

import contextlib
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.errors import StartError
from inferxgate.workers.health import LOOK_AGAIN_SECONDS, PROBE_SECONDS, CircuitKey, HealthPolicy
from inferxgate.workers.shared import SharedMemory, SharedUnavailable, Transaction, read_values
from inferxgate.workers.shared_health import SharedHealth, read_states
from tests.workers.circuits import World, maker, new_key, state_of
from tests.workers.counting import Clock

KEY = CircuitKey("provider", "model", "c0ffee")


class Counted(SharedMemory):
    """Counts how often it is asked."""

    reads = writes = 0

    def reading(self, database: Any = None) -> contextlib.AbstractContextManager[Transaction]:
        self.reads += 1
        return super().reading(database)

    def writing(self, database: Any = None) -> contextlib.AbstractContextManager[Transaction]:
        self.writes += 1
        return super().writing(database)


@pytest.fixture
def counted(folder: Path) -> Iterator[Counted]:
    memory = Counted.open(folder)
    assert isinstance(memory, Counted)
    yield memory
    memory.close()


# --- workers in one process


def test_what_one_worker_finds_all_know_at_their_next_look(shared: SharedMemory) -> None:
    world = World(maker(shared))
    others = [world.worker(), world.worker()]
    world.fail(4)
    others[0].failed(world.key, "timeout")
    assert world.wait() == 5
    assert [other.enter(world.key) for other in others] == [5, 5]
    world.sleep(5)
    assert others[1].enter(world.key) == 0
    assert [world.enter(), others[0].enter(world.key)] == [LOOK_AGAIN_SECONDS, LOOK_AGAIN_SECONDS]
    world.succeed()
    others[0].abandoned(world.key)
    others[0].failed(world.key, "late")
    assert world.enter() == LOOK_AGAIN_SECONDS, "the end of another worker's attempt says nothing of the probe"
    others[1].succeeded(world.key)
    assert [world.enter(), others[0].enter(world.key)] == [0, 0]
    others[1].cool(world.key, "rate_limited", 7)
    world.health.cool(world.key, "rate_limited", 3)
    assert [world.wait(), others[0].wait_seconds(world.key)] == [7, 7]


def test_what_one_worker_writes_hides_nothing_that_another_wrote(shared: SharedMemory) -> None:
    world = World(maker(shared))
    other, elsewhere = world.worker(), new_key()
    other.set_aside(elsewhere, "x")
    world.fail()
    assert world.health.enter(elsewhere) == 600


def test_what_others_have_changed_is_not_pushed_out(shared: SharedMemory) -> None:
    world = World(maker(shared), max_circuits=20)
    other = world.worker()
    world.fail()
    world.sleep(1)
    other.set_aside(world.key, "x")
    for _ in range(20):
        world.health.failed(new_key(), "x")
    assert [each.enter(world.key) for each in (world.health, other, world.worker())] == [600] * 3


def test_what_one_worker_has_pushed_out_the_others_forget_too(shared: SharedMemory) -> None:
    world = World(maker(shared), max_circuits=20)
    other = SharedHealth(shared, clock=world.clock, wall_clock=world.wall)
    other.failed(world.key, "x")
    for _ in range(40):
        key = new_key()
        world.health.enter(key)
        world.health.failed(key, "x")
    other.succeeded(world.key)
    assert state_of(other, world.key) is None
    other.failed(world.key, "x")
    state = state_of(world.health, world.key)
    assert state is not None
    assert (state.failures, state.requests) == (1, 2), "its successes wait for the next one"


def test_a_circuit_takes_no_more_space_the_more_happens(folder: Path) -> None:
    memory = SharedMemory.open(folder)
    health = SharedHealth(memory)
    for _ in range(50):
        health.failed(KEY, "x")
    memory.close()
    assert [len(read_values(folder, name)) for name in ("health", "health_order")] == [1, 1]


class Meddling(Clock):
    """Something happens elsewhere while the clock is read."""

    meanwhile: Callable[[], object] | None = None

    def __call__(self) -> float:
        happen, self.meanwhile = self.meanwhile, None
        if happen is not None:
            happen()
        return self.now


def test_of_two_that_found_the_probe_free_one_has_it(shared: SharedMemory) -> None:
    world = World(maker(shared))
    clock = Meddling()
    slower = SharedHealth(shared, clock=clock)
    world.open()
    world.sleep(5)
    clock.now = world.clock()
    first: list[float] = []
    clock.meanwhile = lambda: first.append(world.enter())
    assert slower.enter(world.key) == LOOK_AGAIN_SECONDS
    assert first == [0]


def test_news_of_a_probe_that_has_expired_ends_no_other(shared: SharedMemory) -> None:
    world = World(maker(shared))
    slower = world.worker()
    world.open()
    world.sleep(5)
    assert slower.enter(world.key) == 0
    world.sleep(PROBE_SECONDS)
    assert world.enter() == 0
    slower.succeeded(world.key)
    slower.abandoned(world.key)
    slower.failed(world.key, "late")
    assert [slower.enter(world.key), world.enter()] == [LOOK_AGAIN_SECONDS] * 2
    world.sleep(PROBE_SECONDS)
    assert slower.enter(world.key) == 0
    world.health.abandoned(world.key)
    assert slower.enter(world.key) == LOOK_AGAIN_SECONDS


def test_a_worker_that_comes_later_knows_it_too(shared: SharedMemory) -> None:
    world = World(maker(shared))
    world.open()
    assert world.worker().enter(world.key) == 5


def test_successes_of_all_workers_count(shared: SharedMemory) -> None:
    world = World(maker(shared))
    other = world.worker()
    world.succeed(4)
    for _ in range(6):
        other.succeeded(world.key)
    world.fail(5)
    assert world.wait() == 5, "of the other's nothing is known yet: five of nine"
    again = new_key()
    for _ in range(6):
        other.succeeded(again)
        world.health.succeeded(again)
    world.health.failed(again, "x")
    other.sync()
    for _ in range(6):
        other.failed(again, "x")
    assert world.health.wait_seconds(again) == 0, "seven of nineteen"
    state = state_of(world.health, again)
    assert state is not None
    assert (state.failures, state.requests) == (7, 19)


def test_looking_costs_no_transaction(counted: Counted) -> None:
    world = World(maker(counted))
    other = world.worker()
    world.open()
    other.enter(world.key)
    before = (counted.reads, counted.writes)
    for key in (world.key, new_key()):
        for _ in range(50):
            world.health.enter(key)
            other.enter(key)
            other.wait_seconds(key)
            other.succeeded(key)
            other.abandoned(key)
    assert (counted.reads, counted.writes) == before
    other.sync()
    assert counted.writes == before[1] + 1, "all successes are told at once"


def test_a_change_that_was_promised_and_never_came(counted: Counted, folder: Path) -> None:
    """A writer was killed at the end of its transaction, just before it was committed."""
    world = World(maker(counted))
    other = world.worker()
    world.fail()
    with (folder / "health.number").open("r+b") as file:
        number = struct.unpack("Q", file.read())[0]
        file.seek(0)
        file.write(struct.pack("Q", number + 1))
    world.fail(4)
    assert other.enter(world.key) == 5, "the next change is told apart from the one that was lost"
    with (folder / "health.number").open("r+b") as file:
        file.write(struct.pack("Q", number + 100))
    other.sync()
    world.wait()
    before = counted.reads
    assert (world.wait(), other.wait_seconds(world.key)) == (5, 5)
    assert counted.reads == before, "nobody looks for it any more"


def test_a_file_beside_the_memory_that_cannot_be_made(shared: SharedMemory, tmp_path: Path) -> None:
    memory = SharedMemory.open(tmp_path / "workers")
    (tmp_path / "workers" / "health.number").mkdir()
    with pytest.raises(StartError, match="make the data folder writable"):
        SharedHealth(memory)
    memory.close()


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["enter", "enter", "succeed", "fail", "fail", "abandon", "cool", "sync", "sleep", "set_aside"]),
        st.integers(1, 8),
    ),
    max_size=60,
)


@given(STEPS)
def test_workers_agree_whatever_the_order(shared: SharedMemory, steps: list[tuple[int, str, int]]) -> None:
    """All say the same at any moment, and while a probe is under way nobody else goes."""
    world = World(maker(shared), min_failures=2, cooldown_seconds=4, set_aside_seconds=9)
    workers = [world.health, world.worker(), world.worker()]
    holder: int | None = None
    for who, step, number in steps:
        worker = workers[who]
        match step:
            case "enter":
                state = state_of(workers[(who + 1) % 3], world.key)
                if worker.enter(world.key) == 0 and state is not None and state.state == "half_open":
                    assert holder is None
                    holder = who
            case "succeed":
                worker.succeeded(world.key)
                if who == holder:
                    holder = None
                    assert worker.enter(world.key) == 0
            case "fail":
                worker.failed(world.key, "x")
                if who == holder:
                    holder = None
                    assert worker.wait_seconds(world.key) >= 4
            case "abandon" | "cool":
                worker.abandoned(world.key) if step == "abandon" else worker.cool(world.key, "x", number)
                holder = None if who == holder else holder
            case "set_aside":
                worker.set_aside(world.key, "x")
                holder = None
            case "sync":
                worker.sync()
            case _:
                world.sleep(number / 8)  # so that no probe expires
        waits = {workers[(who + each) % 3].wait_seconds(world.key) for each in (1, 2, 3)}
        assert len(waits) == 1
        assert holder is None or waits.pop() > 0


# --- without the memory


@contextmanager
def nothing_can_be_written() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_where_nothing_can_be_written_each_worker_goes_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    memory = SharedMemory.open(folder, preallocated_bytes=0)
    world = World(maker(memory))
    other, cooled = world.worker(), new_key()
    other.cool(cooled, "x", 5)
    other.failed(world.key, "x")
    world.succeed(2)
    with nothing_can_be_written():
        world.open()
        world.health.cool(cooled, "x", 60)
        other.cool(cooled, "x", 30)
        other.failed(world.key, "x")
        world.health.sync()
        other.sync()
        seen = [world.wait(), other.wait_seconds(world.key), other.wait_seconds(cooled)]
        world.sleep(5)
        probes = [world.enter(), world.enter()]
    assert seen == [5, 0, 30], "each by itself"
    assert probes == [0, LOOK_AGAIN_SECONDS]
    assert len([each for each in caplog.messages if "by itself" in each]) == 2, "each tells once"
    other.cool(cooled, "x", 1)
    seen = [each.wait_seconds(cooled) for each in (other, world.health)]
    assert seen == [25, 55], "nobody forgets an own deadline for one that is written"
    world.health.sync()
    assert other.wait_seconds(cooled) == 55, "what it has written by now, others may change"
    other.sync()
    assert "shared by all workers again" in caplog.text
    assert other.enter(world.key) == LOOK_AGAIN_SECONDS, "what happened last"
    assert {each.wait_seconds(cooled) for each in (world.health, other)} == {55}, "the later deadline"
    world.succeed()
    assert other.enter(world.key) == 0
    memory.close()


def test_a_full_memory_fails_no_request(folder: Path) -> None:
    memory = SharedMemory.open(folder, map_bytes=256 * 1024, preallocated_bytes=0)
    world = World(maker(memory))
    for number in range(3_000):
        world.health.failed(world.key._replace(model=f"{number} " + "m" * 400), "x")
        if number % 500 == 0:
            world.health.sync()
    assert memory.failure == "it is full"
    world.open()
    world.sleep(5)
    assert [world.enter(), world.enter()] == [0, LOOK_AGAIN_SECONDS]
    world.succeed()
    assert world.enter() == 0
    memory.close()


# --- for other programs


def test_another_process_reads_the_states(folder: Path) -> None:
    memory = SharedMemory.open(folder)
    health = SharedHealth(memory, HealthPolicy(window_seconds=3600))
    for _ in range(5):
        health.failed(KEY, "timeout")
    asked = [sys.executable, "-c", READS, str(folder)]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines == ["provider model open 5 5 timeout"]
    state = health.states()[0]
    memory.close()
    without_server = read_states(folder, HealthPolicy(window_seconds=3600))
    assert [(each.key, each.state, each.failures) for each in without_server] == [(KEY, state.state, 5)]


READS = """
import sys
from pathlib import Path
from inferxgate.workers.health import HealthPolicy
from inferxgate.workers.shared_health import read_states
for state in read_states(Path(sys.argv[1]), HealthPolicy(window_seconds=3600)):
    print(state.key.provider, state.key.model, state.state, state.failures, state.requests, state.code)
"""


def test_reading_creates_nothing(folder: Path) -> None:
    assert read_states(folder) == []
    assert not folder.exists()
    folder.mkdir()
    assert read_states(folder) == []
    assert list(folder.iterdir()) == []
    SharedMemory.open(folder).close()
    (folder / "lock.mdb").unlink()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert read_states(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_what_another_boot_or_another_release_left_is_not_read(folder: Path) -> None:
    memory = SharedMemory.open(folder)
    SharedHealth(memory).set_aside(KEY, "x")
    memory.close()
    assert [state.state for state in read_states(folder)] == ["set_aside"]
    note = (folder / "boot").read_bytes()
    boot, form, state = note.split(b" ", 2)
    for other in ((b"another-boot", form, state), (boot, b"0", state)):
        (folder / "boot").write_bytes(b" ".join(other))
        assert read_states(folder) == []
    memory = SharedMemory.open(folder)
    assert SharedHealth(memory).enter(KEY) == 0, "and neither by a worker"
    memory.close()


def test_a_memory_without_circuits_or_that_is_none(folder: Path) -> None:
    SharedMemory.open(folder).close()
    assert read_states(folder) == []
    (folder / "data.mdb").write_bytes(b"no database" * 2_000)
    with pytest.raises(SharedUnavailable, match="shared memory"):
        read_states(folder)


# --- over processes

WORKER = """
import sys, time
from pathlib import Path
from inferxgate.workers.health import CircuitKey, HealthPolicy
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_health import SharedHealth

KEY = CircuitKey("provider", "model", "c0ffee")
policy = HealthPolicy(window_seconds=3600, min_failures=int(sys.argv[3]), cooldown_seconds=0)
health = SharedHealth(SharedMemory.open(Path(sys.argv[1])), policy)
print("ready", flush=True)
sys.stdin.readline()
number = int(sys.argv[4])
match sys.argv[2]:
    case "enter":
        print(sum(health.enter(KEY) == 0 for _ in range(number)), flush=True)
    case "count":
        for each in range(number):
            health.failed(KEY, "timeout")
            health.succeeded(KEY)
            health.succeeded(KEY._replace(model=str(each % 7)))
            health.failed(KEY._replace(model=str(each % 7)), "timeout")
        health.sync()
        print("done", flush=True)
    case "probe":
        while True:
            if health.enter(KEY) == 0:
                health.failed(KEY, "timeout")
sys.stdin.readline()
"""


@contextmanager
def processes(
    folder: Path, number: int, what: str, times: int = 0, *, min_failures: int = 1
) -> Iterator[list[subprocess.Popen[str]]]:
    """Workers that have begun at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder), what, str(min_failures), str(times)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(number)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def answers(started: list[subprocess.Popen[str]]) -> list[str]:
    return [process.stdout.readline().strip() for process in started if process.stdout is not None]


def test_one_probe_goes_in_all_processes_and_a_killed_one_does_not_hold_it(folder: Path) -> None:
    memory = SharedMemory.open(folder)
    health = SharedHealth(memory, HealthPolicy(cooldown_seconds=0))
    later = SharedHealth(memory, clock=lambda: time.monotonic() + PROBE_SECONDS)
    for _ in range(5):
        health.failed(KEY, "timeout")
    with processes(folder, 4, "enter", 5_000) as started:
        assert sorted(answers(started)) == ["0", "0", "0", "1"]
        assert health.enter(KEY) == LOOK_AGAIN_SECONDS
    assert health.enter(KEY) == LOOK_AGAIN_SECONDS, "they are killed, one of them with the probe"
    assert [later.enter(KEY), later.enter(KEY)] == [0, LOOK_AGAIN_SECONDS]
    memory.close()


def test_processes_count_every_outcome(folder: Path) -> None:
    with processes(folder, 3, "count", 300, min_failures=1_000_000) as started:
        assert answers(started) == ["done"] * 3
    states = {state.key.model: state for state in read_states(folder, HealthPolicy(window_seconds=3600))}
    assert (states["model"].failures, states["model"].requests) == (900, 1_800)
    others = [states[str(number)] for number in range(7)]
    assert sum(state.failures for state in others) == 900
    assert sum(state.requests for state in others) == 1_800


def test_killed_processes_leave_circuits_that_work(folder: Path) -> None:
    for round_ in range(4):
        with processes(folder, 3, "probe") as started, pytest.raises(subprocess.TimeoutExpired):
            started[0].wait(0.05 * (round_ + 1))
    memory = Counted.open(folder)
    assert isinstance(memory, Counted)
    health, other = SharedHealth(memory), SharedHealth(memory)
    health.set_aside(KEY, "x")
    assert other.enter(KEY) > 500
    other.sync()
    health.sync()
    before = memory.reads
    health.enter(KEY)
    other.enter(KEY)
    assert memory.reads == before, "no promise of the killed ones is left"
    memory.close()
