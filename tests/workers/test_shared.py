"""The memory that workers share: made once, whole after any kill, and clear about what is wrong with it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferxgate.errors import StartError
from inferxgate.store.records import UsageRecord
from inferxgate.workers.shared import PREALLOCATED_BYTES, SharedMemory, SharedUnavailable
from tests.workers.counting import Counting, new_scope

ADMITS = """
import sys, time
from pathlib import Path
from inferxgate.store.records import UsageRecord
from inferxgate.workers.limits import Scope
from inferxgate.store.records import UsageRecord
from inferxgate.workers.shared import SharedMemory
from tests.workers.counting import Counting

owner, wanted = sys.argv[2], int(sys.argv[3])
shared = SharedMemory.open(Path(sys.argv[1]))
counting = Counting(shared, owner=owner)
counting.limits._clock = time.monotonic
scope = Scope("key", "shared", requests_per_minute=60, budget_nanos=4_500, parallel_requests=1_000)
print("ready", flush=True)
sys.stdin.readline()
admitted = 0
for _ in range(wanted):
    asked = counting.ask(scope, cost=100)
    admitted += isinstance(asked, UsageRecord)
print(admitted, flush=True)
sys.stdin.readline()
"""


@contextmanager
def workers(folder: Path, number: int, wanted: int) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(ADMITS), str(folder), f"worker_{each}", str(wanted)],
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


def test_processes_that_ask_at_once_get_as_much_as_there_is(folder: Path) -> None:
    with workers(folder, 4, 50) as processes:
        for process in processes:
            go(process)
        admitted = [int(process.stdout.readline()) for process in processes if process.stdout is not None]
    assert sum(admitted) == 45, "the budget holds 45, of 60 that the minute would"


def test_a_process_killed_at_any_moment_leaves_it_whole(folder: Path) -> None:
    for round_ in range(5):
        with workers(folder, 2, 1_000_000) as processes:
            for process in processes:
                go(process)
            for process in processes:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.02 * (round_ + 1))
                process.send_signal(signal.SIGKILL)
    memory = SharedMemory.open(folder)
    limits = Counting(memory).limits
    (reserved,) = limits.reserved().values()
    claims = [claim for owner in limits.owners() for claim in limits.claims_of(owner)]
    assert reserved == (len(claims), 100 * len(claims)) == (45, 4_500)
    for owner in limits.owners():
        for claim in limits.claims_of(owner):
            limits.settle_for(owner, claim)
    assert limits.reserved() == {}
    memory.close()


def test_space_is_set_aside(folder: Path) -> None:
    SharedMemory.open(folder).close()
    status = (folder / "data.mdb").stat()
    assert status.st_blocks * 512 >= PREALLOCATED_BYTES
    assert status.st_mode & 0o777 == 0o600
    lock = (folder / "lock.mdb").stat()
    assert lock.st_blocks * 512 >= lock.st_size
    assert folder.stat().st_mode & 0o777 == 0o700


def test_it_can_be_full_and_be_written_again(folder: Path) -> None:
    memory = SharedMemory.open(folder, map_bytes=256 * 1024)
    counting, scope = Counting(memory), new_scope(requests_per_minute=100_000)
    admitted: list[UsageRecord] = []
    with pytest.raises(SharedUnavailable, match=r"shared memory .*it is full"):
        admitted.extend(counting.admitted(scope) for _ in range(10_000))
    assert "it is full" in str(memory.failure)
    memory.probe()
    assert memory.failure is None, "what failed was undone, so there is room for less"
    for record in admitted:
        counting.end(record)
    counting.admitted(scope)
    memory.close()


def test_another_boot_begins_anew(folder: Path) -> None:
    memory = SharedMemory.open(folder)
    counting, scope = Counting(memory), new_scope(requests_per_minute=1)
    counting.admitted(scope)
    counting.limits.recount({"total": {}, "day": {}, "week": {}, "month": {}}, counting.now_ms)
    memory.close()
    of_another_boot(folder)
    memory = SharedMemory.open(folder)
    counting = Counting(memory)
    assert not counting.limits.counted()
    counting.admitted(scope)
    memory.close()
    memory = SharedMemory.open(folder)
    assert Counting(memory).refused(scope).limit == "requests", "and the same boot keeps what there is"
    memory.close()


def of_another_boot(folder: Path) -> None:
    """As if the machine had been started again since."""
    note = folder / "boot"
    note.write_bytes(b"another " + note.read_bytes().partition(b" ")[2])


def note_one(memory: SharedMemory) -> None:
    with memory.writing() as transaction:
        transaction.put(b"one", b"1", db=memory.meta)


def noted(memory: SharedMemory) -> bool:
    with memory.reading() as transaction:
        return transaction.get(b"one", db=memory.meta) is not None


def test_what_outlives_a_boot_does_so_where_it_is_whole(folder: Path) -> None:
    memory = SharedMemory.open(folder, outlives_boot=True)
    note_one(memory)
    memory.close()
    for _ in range(2):  # closed the second time without having been changed
        of_another_boot(folder)
        memory = SharedMemory.open(folder, outlives_boot=True)
        assert noted(memory)
        memory.close()
    of_another_boot(folder)
    memory = SharedMemory.open(folder)
    assert not noted(memory), "what need not outlive a boot does not"
    memory.close()


def test_what_a_crash_of_the_machine_left_is_not_read(folder: Path) -> None:
    memory = SharedMemory.open(folder, outlives_boot=True)
    memory.close()
    with opened_elsewhere(folder):
        pass  # killed: as by the crash, nothing was synced
    of_another_boot(folder)
    (folder / "data.mdb").write_bytes(b"no database" * 2_000)
    memory = SharedMemory.open(folder, outlives_boot=True)
    assert not noted(memory)
    memory.close()


def test_only_the_last_to_close_calls_it_whole(folder: Path) -> None:
    with opened_elsewhere(folder):
        memory = SharedMemory.open(folder, outlives_boot=True)
        note_one(memory)
        memory.close()
        assert b"whole" not in (folder / "boot").read_bytes()
        of_another_boot(folder)  # clocks that jump look like this where there is no boot id
        memory = SharedMemory.open(folder, outlives_boot=True)
        assert noted(memory), "what somebody has open is of this boot"
        memory.close()
    memory = SharedMemory.open(folder, outlives_boot=True)
    memory.close()
    assert b"whole" in (folder / "boot").read_bytes()


OPENS = """
import sys
from pathlib import Path
from inferxgate.workers.shared import SharedMemory

memory = SharedMemory.open(Path(sys.argv[1]), outlives_boot=True)
print("ready", flush=True)
sys.stdin.readline()
"""


@contextmanager
def opened_elsewhere(folder: Path) -> Iterator[None]:
    """Another process has it open, and is killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", OPENS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def test_what_an_older_release_left_begins_anew(folder: Path) -> None:
    memory = SharedMemory.open(folder, outlives_boot=True)
    note_one(memory)
    memory.close()
    note = folder / "boot"
    boot, form, state = note.read_bytes().split(b" ", 2)
    note.write_bytes(b" ".join((boot, form + b"0", state)))
    memory = SharedMemory.open(folder, outlives_boot=True)
    assert not noted(memory)
    memory.close()


def test_something_else_in_its_place(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file")
    with pytest.raises(StartError, match="cannot open the workers' shared memory"):
        SharedMemory.open(folder)
    folder.unlink()
    SharedMemory.open(folder).close()
    (folder / "data.mdb").write_bytes(b"no database" * 2_000)
    with pytest.raises(StartError, match="remove this folder while no gateway runs") as error:
        SharedMemory.open(folder)
    assert "\n" not in str(error.value)


def test_a_file_system_without_room_to_set_aside(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PREALLOCATED_BYTES // 2, hard))
    try:
        memory = SharedMemory.open(folder)
        Counting(memory).admitted(new_scope(requests_per_minute=1))
        memory.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_whoever_opens_it_next_sees_that_it_is_in_use(tmp_path: Path) -> None:
    """LMDB begins its mutexes anew where nobody holds its lock: then two would write at once, and changes be lost."""
    memory = SharedMemory.open(tmp_path / "workers")
    asking = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)\n"
    )
    command = [sys.executable, "-c", asking, str(tmp_path / "workers" / "lock.mdb")]
    held = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "BlockingIOError" in held.stderr
    memory.close()
    assert subprocess.run(command, check=False).returncode == 0
