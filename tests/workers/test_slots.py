"""Slots: never more than the bound, over all workers, and those of a killed one come back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.workers.shared import SharedMemory, SharedUnavailable
from inferxgate.workers.shared_slots import SharedSlots
from inferxgate.workers.slots import LocalSlots, Slots

_names = count()

NewSlots = Callable[[], Slots]


@pytest.fixture(params=["local", "shared"])
def new_slots(request: pytest.FixtureRequest, shared: SharedMemory) -> NewSlots:
    """A worker with nothing under way, alone."""

    def new() -> Slots:
        return LocalSlots() if request.param == "local" else SharedSlots(shared, f"worker_{next(_names)}")

    return new


def fresh(name: str = "") -> str:
    """A name that no other test counts."""
    return f"{name}{next(_names)}"


def test_as_many_as_the_bound_says(new_slots: NewSlots) -> None:
    slots, name = new_slots(), fresh()
    slots.configure({name: 2})
    assert [slots.take(name) for _ in range(3)] == [True, True, False]
    assert slots.in_use() == {name: 2}
    slots.give_back(name)
    assert [slots.take(name) for _ in range(2)] == [True, False]
    assert (slots.bound(name), slots.bound("other")) == (2, 0)


@pytest.mark.parametrize("bounds", [{}, {"any": 0}])
def test_without_a_bound_all_are_counted(new_slots: NewSlots, bounds: dict[str, int]) -> None:
    slots = new_slots()
    slots.configure(bounds)
    assert all(slots.take("any") for _ in range(100))
    assert slots.in_use() == {"any": 100}
    for _ in range(100):
        slots.give_back("any")
    assert slots.in_use() == {}


def test_names_have_bounds_of_their_own(new_slots: NewSlots) -> None:
    slots, longer = new_slots(), fresh("x")
    name = longer[:-1] or "x"
    slots.configure({"": 10, name: 1, longer: 1})
    taken = [slots.take(each) for each in (longer, name, name, longer, "")]
    assert taken == [True, True, False, False, True]
    for each in (longer, name, ""):
        slots.give_back(each)


def test_a_bound_that_changes(new_slots: NewSlots) -> None:
    slots, name = new_slots(), fresh()
    assert all(slots.take(name) for _ in range(3))
    slots.configure({name: 2})
    assert not slots.take(name), "those from before the bound count"
    slots.give_back(name)
    assert not slots.take(name)
    slots.give_back(name)
    assert slots.take(name)
    slots.configure({name: 5})
    assert [slots.take(name) for _ in range(4)] == [True] * 3 + [False]
    slots.configure({})
    assert slots.take(name)
    assert slots.in_use() == {name: 6}


def test_what_has_no_bound_is_not_shared(tmp_path: Path) -> None:
    memory = SharedMemory.open(tmp_path / "workers")
    slots = SharedSlots(memory, "worker_1")
    slots.configure({"bounded": 1})
    memory.close()
    assert slots.take("free"), "it needs no shared memory"
    slots.give_back("free")


def test_a_name_that_loses_its_bound_leaves_no_row(shared: SharedMemory) -> None:
    name, owner = fresh(), fresh("worker_")
    slots = SharedSlots(shared, owner)
    slots.configure({name: 3})
    assert slots.take(name)
    assert owner in slots.owners()
    slots.configure({})
    assert owner not in slots.owners()
    assert name not in slots.in_use_by_all()
    slots.give_back(name)


@settings(deadline=None)
@given(
    bounds=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    moves=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=60),
    killed=st.lists(st.integers(0, 60), max_size=3),
)
def test_never_more_over_all_workers(
    shared: SharedMemory, bounds: tuple[int, int], moves: list[tuple[int, int, bool]], killed: list[int]
) -> None:
    names = [fresh("a"), fresh("b")]
    most = dict(zip(names, bounds, strict=True))

    def started() -> tuple[str, SharedSlots]:
        owner = f"worker_{next(_names)}"
        slots = SharedSlots(shared, owner)
        slots.configure(most)
        return owner, slots

    workers = [started() for _ in range(3)]
    taken = [Counter[str]() for _ in workers]
    for step, (number, which, takes) in enumerate(moves):
        name = names[which]
        if step in killed:
            workers[0][1].forget(workers[number][0])
            workers[number], taken[number] = started(), Counter()
        slots = workers[number][1]
        everybody = sum(each[name] for each in taken)
        if takes:
            got = slots.take(name)
            assert got == (not most[name] or everybody < most[name])
            taken[number][name] += got
        elif taken[number][name]:
            slots.give_back(name)
            taken[number][name] -= 1
        assert slots.in_use() == +taken[number]
        bounded = [each for each in names if most[each]]
        found = slots.in_use_by_all()
        assert {each: found.get(each, 0) for each in bounded} == {
            each: sum(of_one[each] for of_one in taken) for each in bounded
        }
    for owner, slots in workers:
        slots.forget(owner)


def test_what_could_not_be_given_back_is_given_back_later(tmp_path: Path) -> None:
    memory = SharedMemory.open(tmp_path / "workers", map_bytes=256 * 1024)
    one, other = SharedSlots(memory, "worker_1"), SharedSlots(memory, "worker_2")
    for slots in (one, other):
        slots.configure({"name": 1})
    assert one.take("name")
    with memory.reading():  # no page is used again while somebody reads what it was
        fill(memory)
        one.give_back("name")
        with pytest.raises(SharedUnavailable, match="it is full"):
            one.take("name")
        one.tidy()
        assert one.in_use() == {}
        assert not other.take("name"), "the others do not know yet"
    one.tidy()
    assert one.owners() == set()
    assert other.take("name")
    memory.close()


def fill(memory: SharedMemory) -> None:
    while memory.failure is None:
        with contextlib.suppress(SharedUnavailable), memory.writing() as transaction:
            transaction.put(b"ballast", b"%d" % next(_names), db=memory.meta)


# --- processes

TAKES = """
import sys
from pathlib import Path
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_slots import SharedSlots

slots = SharedSlots(SharedMemory.open(Path(sys.argv[1])), sys.argv[2])
slots.configure({"name": 10})
print("ready", flush=True)
sys.stdin.readline()
held = 0
for number in range(int(sys.argv[3])):
    if number == 2:
        print("under way", flush=True)
    held += slots.take("name")
    if held and number % 3 == 0:
        slots.give_back("name")
        held -= 1
print(held, flush=True)
sys.stdin.readline()
"""


@contextmanager
def workers(folder: Path, number: int, takes: int, *, named: str = "worker") -> Iterator[list[subprocess.Popen[str]]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(TAKES), str(folder), f"{named}_{each}", str(takes)],
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
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def see_under_way(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"


def test_processes_that_take_at_once_get_as_many_as_there_are(folder: Path) -> None:
    with workers(folder, 4, 400) as processes:
        for process in processes:
            go(process)
        for process in processes:
            see_under_way(process)
        held = [int(process.stdout.readline()) for process in processes if process.stdout is not None]
    memory = SharedMemory.open(folder)
    assert SharedSlots(memory, "looker").in_use_by_all() == {"name": sum(held)}
    assert sum(held) <= 10
    memory.close()


def test_a_process_killed_at_any_moment_can_be_forgotten(folder: Path) -> None:
    memory = SharedMemory.open(folder)
    slots = SharedSlots(memory, "survivor")
    slots.configure({"name": 10})
    for round_ in range(3):
        named = f"round_{round_}"
        with workers(folder, 2, 1_000_000, named=named) as processes:
            for process in processes:
                go(process)
            for process in processes:
                see_under_way(process)
            for process in processes:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.02 * (round_ + 1))
                process.send_signal(signal.SIGKILL)
        assert slots.owners() <= {f"{named}_0", f"{named}_1"}
        assert 0 < slots.in_use_by_all()["name"] <= 10
        for owner in slots.owners():
            slots.forget(owner)
            slots.forget(owner)
        assert [slots.take("name") for _ in range(11)] == [True] * 10 + [False]
        for _ in range(10):
            slots.give_back("name")
    memory.close()
