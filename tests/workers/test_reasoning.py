"""What is kept of a model's thought: for a while, for its caller, within bounds, whichever worker is asked."""

from __future__ import annotations

import hashlib
import logging
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.errors import StartError
from inferxgate.workers.reasoning import Maker, NoReasoning, Thoughts, Turn
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_reasoning import SharedReasoning, forget_reasoning
from tests.workers.counting import Clock

TENANTS = ("ann", "bob")
_folders = count()


ANTHROPIC, GEMINI = Maker("anthropic", "c0ffee", "claude-sonnet-4-5"), Maker("gemini", "f00d", "gemini-2.5-flash")


def turn(*call_ids: str, text: str = "hm", signature: str | None = None) -> Turn:
    return Turn(ANTHROPIC, ((text, "signed", None, None),), dict.fromkeys(call_ids, signature))


def thoughts(text: str = "hm", signature: str | None = None) -> Thoughts:
    return Thoughts(ANTHROPIC, ((text, "signed", None, None),), signature)


class World:
    """The memory, with a clock of our own."""

    def __init__(self, folder: Path, *, max_bytes: int = 1024 * 1024, map_bytes: int = 16 * 1024 * 1024) -> None:
        self.clock = Clock(1_000.0)
        self.folder = folder
        self.max_bytes = max_bytes
        self.shared = SharedMemory.open(folder, map_bytes=map_bytes, preallocated_bytes=0, outlives_boot=True)
        self.memory = SharedReasoning(self.shared, 60, max_bytes=max_bytes, clock=self.clock)

    def rows(self) -> tuple[int, int]:
        """How many turns and calls stand in the file."""
        with self.shared.reading() as transaction:
            turns, calls = (
                [key for key, _ in self.shared.rows(transaction, self.shared.database(name))]
                for name in ("turns", "calls")
            )
        return len({key[:8] for key in turns}), len(calls)

    def close(self) -> None:
        self.shared.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "reasoning")
    yield world
    world.close()


# --- what is found


def test_what_was_put_away_is_found_by_its_caller_only(world: World) -> None:
    signed = Turn(GEMINI, (), {"call_1": "TS", "call_2": None})
    world.memory.remember("ann", [signed, turn("call_3", text="c")])
    assert world.memory.recall("ann", "call_1") == Thoughts(GEMINI, (), "TS")
    assert world.memory.recall("ann", "call_2") == Thoughts(GEMINI)
    assert world.memory.recall("ann", "call_3") == thoughts("c")
    assert world.memory.recall("bob", "call_1") is None
    assert world.memory.recall("ann", "call_4") is None


def test_who_made_what_is_known_by_its_mark_to_its_caller_only(world: World) -> None:
    world.memory.remember("ann", [Turn(ANTHROPIC, (), {"call_1": None}, ("m1", "m2")), Turn(GEMINI, (), {}, ("m3",))])
    assert [world.memory.made_by("ann", mark) for mark in ("m1", "m2", "m3")] == [ANTHROPIC, ANTHROPIC, GEMINI]
    assert world.memory.made_by("ann", "call_1") is None, "ids are no marks"
    assert world.memory.recall("ann", "m1") is None, "and marks no ids"
    assert world.memory.made_by("bob", "m1") is None
    assert world.memory.made_by("ann", "m4") is None
    assert world.rows() == (2, 4)
    world.clock.now += 60
    assert world.memory.made_by("ann", "m1") is None
    assert not world.memory.remove_old()
    assert world.rows() == (0, 0), "marks go with their turn"


def test_a_mark_that_comes_again_has_the_later_maker(world: World) -> None:
    world.memory.remember("ann", [Turn(ANTHROPIC, (), {}, ("m1",))])
    world.memory.remember("ann", [Turn(GEMINI, (), {}, ("m1",))])
    assert world.memory.made_by("ann", "m1") == GEMINI


def test_the_maker_of_a_long_turn_is_found(world: World) -> None:
    calls = {f"call_{number}": None for number in range(100)}
    world.memory.remember("ann", [Turn(ANTHROPIC, (("x" * 30_000, "S", None, None),), calls, ("m1",))])
    assert world.memory.made_by("ann", "m1") == ANTHROPIC


def test_what_an_earlier_version_kept_is_found_and_removed(world: World) -> None:
    """Its rows know the provider alone, before the thoughts themselves."""
    words = b"3:anncall_1"
    place = hashlib.blake2b(words, digest_size=16).digest()
    kept = b'["anthropic",[["hm","signed",null,null]],["TS"]]'
    row = struct.pack("<dI", world.clock.now, 1) + b'["' + place.hex().encode() + b'"]\n' + kept
    with world.shared.writing() as transaction:
        transaction.put(struct.pack(">QI", 0, 0), row, db=world.shared.database("turns"))
        transaction.put(place, struct.pack(">QH", 0, 0), db=world.shared.database("calls"))
        transaction.put(b"state", struct.pack("<3q", 0, 1, 2048 + 128), db=world.shared.meta)
    assert world.memory.recall("ann", "call_1") == Thoughts(Maker("anthropic"), (("hm", "signed", None, None),), "TS")
    world.memory.remember("ann", [turn("call_2")])
    world.clock.now += 60
    assert not world.memory.remove_old()
    assert world.rows() == (0, 0)
    with world.shared.reading() as transaction:
        assert transaction.get(b"state", db=world.shared.meta) == struct.pack("<3q", 2, 2, 0)


def test_where_a_caller_ends_and_an_id_begins_is_part_of_the_name(world: World) -> None:
    world.memory.remember("ann", [turn("a_call")])
    for tenant, call_id in (("anna", "_call"), ("an", "na_call"), ("", "anna_call"), ("ann\0", "a_call")):
        assert world.memory.recall(tenant, call_id) is None


def test_ids_may_be_anything(world: World) -> None:
    for call_id in ("", "\0", "x" * 10_000, "\ud800", "ключ"):
        world.memory.remember("ann", [turn(call_id, text=call_id[:3].encode(errors="replace").decode())])
        assert world.memory.recall("ann", call_id) is not None


def test_an_id_that_comes_again_has_the_later_thought_for_as_long(world: World) -> None:
    world.memory.remember("ann", [turn("call_1", "call_2", text="first")])
    world.clock.now += 30
    world.memory.remember("ann", [turn("call_1", text="second")])
    world.clock.now += 30
    assert not world.memory.remove_old()
    assert world.memory.recall("ann", "call_1") == thoughts("second"), "the first one's end is not its end"
    assert world.memory.recall("ann", "call_2") is None
    assert world.rows() == (1, 1)


# --- how long


def test_it_is_forgotten_after_its_time(world: World) -> None:
    world.memory.remember("ann", [turn("call_1")])
    world.clock.now += 59
    assert world.memory.recall("ann", "call_1") is not None
    world.clock.now += 1
    assert world.memory.recall("ann", "call_1") is None
    world.memory.remember("ann", [turn("call_2")])
    assert world.rows() == (1, 1), "what is too old makes room"


def test_what_is_too_old_is_removed_where_nothing_new_comes(world: World) -> None:
    for number in range(5):
        world.memory.remember("ann", [turn(f"call_{number}")])
        world.clock.now += 10
    assert not world.memory.remove_old()
    world.clock.now += 30
    assert world.memory.remove_old(2), "there may be more"
    assert world.rows() == (3, 3)
    assert not world.memory.remove_old(2)
    assert world.rows() == (2, 2)
    world.clock.now += 1_000
    world.memory.sweep()
    assert world.rows() == (0, 0)


def test_a_clock_that_was_set_back_keeps_nothing_for_longer(world: World) -> None:
    world.clock.now += 1_000_000
    world.memory.remember("ann", [turn("call_1")])
    world.clock.now -= 1_000_000
    assert world.memory.recall("ann", "call_1") is None
    world.memory.remember("ann", [turn("call_2")])
    assert world.memory.recall("ann", "call_2") is not None
    assert world.rows() == (1, 1)


def test_nothing_is_kept_by_the_engine_that_keeps_nothing() -> None:
    memory = NoReasoning()
    memory.remember("ann", [turn("call_1")])
    assert memory.recall("ann", "call_1") is None
    assert memory.made_by("ann", "m1") is None


def test_all_of_it_can_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / "reasoning"
    forget_reasoning(folder)
    world = World(folder)
    world.memory.remember("ann", [turn("call_1", text="a secret thought")])
    world.close()
    forget_reasoning(folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / "folder").mkdir()
    with pytest.raises(StartError, match=r"cannot remove .*keep_hours = 0"):
        forget_reasoning(folder)


# --- how much


def test_memory_is_bounded_by_bytes_and_the_oldest_goes_first(world: World) -> None:
    for number in range(100):
        world.memory.remember("ann", [turn(f"call_{number}", text="x" * 30_000)])
    turns, calls = world.rows()
    assert turns == calls == world.max_bytes // (16 * 2048 + 128)
    assert world.memory.recall("ann", f"call_{99 - turns}") is None
    assert world.memory.recall("ann", f"call_{100 - turns}") is not None
    assert world.memory.recall("ann", "call_99") is not None


def test_one_that_does_not_fit_pushes_nobody_out(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.memory.remember("ann", [turn("call_1")])
    world.memory.remember("ann", [turn("huge", text="x" * world.max_bytes)])
    assert world.memory.recall("ann", "huge") is None
    assert world.memory.recall("ann", "call_1") is not None
    assert "larger than what is kept" in caplog.text


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("remember"),
            st.sampled_from(TENANTS),
            st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True),
            st.sampled_from([10, 3_000]),
        ),
        st.tuples(st.just("wait"), st.integers(0, 40)),
        st.tuples(st.just("remove")),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("properties")


@given(STEPS)
def test_whatever_happens_it_has_the_newest_that_fit(root: Path, steps: list[tuple[object, ...]]) -> None:
    """Against a list of what was put away: what is found was the caller's, young, and among the last to come."""
    world = World(root / str(next(_folders)), max_bytes=80 * 1024)
    said: list[tuple[float, str, tuple[str, ...], str]] = []
    for number, step in enumerate(steps):
        match step:
            case ("remember", str(tenant), list(ids), int(size)):
                text = f"{number}:" + "x" * size
                calls = tuple(f"call_{each}" for each in ids)
                world.memory.remember(tenant, [turn(*calls, text=text)])
                said.append((world.clock.now, tenant, calls, text))
            case ("wait", int(seconds)):
                world.clock.now += seconds
            case _:
                while world.memory.remove_old(1):
                    pass
    turns, calls_kept = world.rows()
    assert turns <= len(said)
    alive = said[len(said) - turns :]
    assert {each for each in said if each[0] + 60 > world.clock.now} <= set(alive) or turns >= 17
    for tenant in TENANTS:
        for call_id in (f"call_{each}" for each in range(13)):
            latest = next((each for each in reversed(said) if each[1] == tenant and call_id in each[2]), None)
            found = latest is not None and latest in alive and latest[0] + 60 > world.clock.now
            expected = thoughts(latest[3]) if latest is not None and found else None
            assert world.memory.recall(tenant, call_id) == expected
    assert calls_kept == len({(each[1], call_id) for each in alive for call_id in each[2]})
    world.close()


def test_the_file_keeps_its_size_however_long_it_is_used(tmp_path: Path) -> None:
    world = World(tmp_path / "reasoning", max_bytes=1024 * 1024, map_bytes=4 * 1024 * 1024)
    sizes = (300, 45_000, 1_200, 9_000, 55_000, 2_100, 20_000)
    for number in range(3_000):
        text = "x" * (sizes[number % 7] + number * 37 % 4_000)
        world.memory.remember("ann", [turn(*(f"call_{number}_{each}" for each in range(number % 4 + 1)), text=text)])
        assert world.shared.failure is None
        assert world.memory.recall("ann", f"call_{number}_0") == thoughts(text)
    world.close()


# --- what fails


def test_a_full_file_is_told_once_and_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(tmp_path / "reasoning", max_bytes=8 * 1024 * 1024, map_bytes=256 * 1024)
    for number in range(20):
        world.memory.remember("ann", [turn(f"call_{number}", text="x" * 30_000)])
        assert world.memory.recall("ann", "call_0") == thoughts("x" * 30_000), "what was kept before is there"
        world.memory.sweep()
    assert len(caplog.messages) == 1
    assert world.memory.recall("ann", "call_19") is None
    world.clock.now += 60
    assert not world.memory.remove_old()
    world.memory.remember("ann", [turn("call_20")])
    assert world.memory.recall("ann", "call_20") is not None
    assert caplog.messages[0].startswith("thoughts are not kept for clients that do not send them back: ")
    assert caplog.messages[0].endswith("it is full")
    assert "thoughts are kept again" in caplog.messages
    world.close()


def test_a_file_that_is_not_there_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path / "reasoning")
    world.shared.close()
    for _ in range(3):
        world.memory.remember("ann", [turn("call_1")])
        assert world.memory.recall("ann", "call_1") is None
        assert world.memory.made_by("ann", "m1") is None
        assert not world.memory.remove_old()
    assert len(caplog.messages) == 1


def test_only_its_owner_can_read_it(world: World) -> None:
    world.memory.remember("ann", [turn("call_1")])
    assert world.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in world.folder.iterdir()} == {0o600}


# --- over processes

REMEMBERS = """
import sys
from pathlib import Path
from inferxgate.workers.reasoning import Maker, Turn
from inferxgate.workers.shared_reasoning import SharedReasoning

maker = Maker("anthropic", "c0ffee", "claude-sonnet-4-5")
memory = SharedReasoning.open(Path(sys.argv[1]), 3600, max_bytes=1024 * 1024)
name, most = sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(most):
    text = f"{name} thought {number} " + "x" * (number % 20_000)
    memory.remember(name, [Turn(maker, ((text, "signed", None, None),), {f"call_{number}": None})])
    print(number, flush=True)
sys.stdin.readline()
memory.close()
"""


class Worker:
    """Another process that keeps thoughts under its name."""

    def __init__(self, folder: Path, name: str, most: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", REMEMBERS, str(folder), name, str(most)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> int:
        """The last thought that it is known to have kept."""
        self.process.kill()
        rest, _ = self.process.communicate()
        return int(rest.split()[-2]) if len(rest.split()) > 1 else 0


def test_a_thought_of_one_process_is_found_by_another_and_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "reasoning"
    workers = [Worker(folder, name, 3) for name in TENANTS]
    memory = SharedReasoning.open(folder, 3600, max_bytes=1024 * 1024)
    for worker in workers:
        worker.go()
    for worker in workers:
        assert [worker.line() for _ in range(3)] == ["0", "1", "2"]
    found = {name: [memory.recall(name, f"call_{number}") for number in range(3)] for name in TENANTS}
    memory.close()
    for name, worker in zip(TENANTS, workers, strict=True):
        assert found[name] == [thoughts(f"{name} thought {number} " + "x" * number) for number in range(3)]
        worker.go()
        assert worker.process.wait(60) == 0
        worker.kill()
    memory = SharedReasoning.open(folder, 3600, max_bytes=1024 * 1024)
    assert memory.recall("ann", "call_2") is not None, "a restart forgets nothing"
    memory.close()


def test_a_process_killed_at_any_moment_leaves_it_whole(tmp_path: Path) -> None:
    folder = tmp_path / "reasoning"
    for round_ in range(5):
        workers = [Worker(folder, name, 1_000_000) for name in TENANTS]
        for worker in workers:
            worker.go()
        time.sleep(0.03 * (round_ + 1))
        last = {name: worker.kill() for name, worker in zip(TENANTS, workers, strict=True)}
        memory = SharedReasoning.open(folder, 3600, max_bytes=1024 * 1024)
        assert any(memory.recall(name, f"call_{number}") is not None for name, number in last.items())
        memory.remember("eve", [turn("call_1")])
        assert memory.recall("eve", "call_1") is not None
        memory.close()
    world = World(folder, map_bytes=4 * 1024 * 1024)
    world.clock.now = time.time() + 7_200
    while world.memory.remove_old():
        pass
    assert world.rows() == (0, 0), "every call belongs to a turn that is there"
    world.close()
