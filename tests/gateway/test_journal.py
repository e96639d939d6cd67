"""A journal on disks that fill up: what was set aside is used, the last of it by those who are under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inferxgate.errors import GatewayError
from inferxgate.gateway.journal import AHEAD_BYTES, LEAST_BYTES, Journal
from inferxgate.gateway.ledger import Ledger
from inferxgate.store.sqlite import SQLiteStore
from tests.gateway.test_ledger import ids, only_reading, record
from tests.support.disks import MIB, fill, mounted

LINE = b"x" * 4_095 + b"\n"


def until(condition: Callable[[], object]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to pass")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", mib=32) as folder:
        yield folder


def renewed(journal: Journal) -> bool:
    """Have it set aside what it can, as the ledger does with each pass; whether there is room."""
    journal.set_aside()
    return not journal.disk_full


def taken(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_space_is_set_aside_and_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "worker_1.jsonl"
    journal = Journal(path)
    assert (path.stat().st_size, taken(path) >= AHEAD_BYTES) == (0, True)
    for _ in range(600):
        assert journal.append(LINE)
    journal.set_aside()
    assert (path.stat().st_size, taken(path) >= 600 * len(LINE) + AHEAD_BYTES) == (600 * len(LINE), True)
    journal.empty()
    assert (path.stat().st_size, AHEAD_BYTES <= taken(path) < 2 * AHEAD_BYTES) == (0, True)
    assert journal.append(LINE)
    assert journal.read(0, 2 * len(LINE)) == LINE
    journal.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_on_a_full_disk_what_was_set_aside_is_used(disk: Path) -> None:
    causes: list[str] = []
    path = disk / "worker_1.jsonl"
    journal = Journal(path, on_error=causes.append)
    ballast = fill(disk)
    lines = 0
    while journal.error is None:
        assert journal.append(LINE)
        lines += 1
    assert lines * len(LINE) >= AHEAD_BYTES - LEAST_BYTES
    assert (journal.error, journal.disk_full, set(causes)) == ("the disk is full", True, {"full"})
    for _ in range(LEAST_BYTES // len(LINE) - 1):  # those who are under way
        assert journal.append(LINE)
        lines += 1
        assert journal.error is not None
    while journal.append(LINE):
        lines += 1
    assert journal.error is not None
    assert path.stat().st_size == journal.size == lines * len(LINE), "no torn line is left"
    ballast.unlink()
    until(lambda: renewed(journal) and journal.append(LINE) and journal.error is None)
    assert not journal.disk_full
    assert set(path.read_bytes().splitlines(keepends=True)) == {LINE}
    journal.close(remove=False)


def test_a_disk_that_is_full_from_the_beginning(disk: Path) -> None:
    ballast = fill(disk, leave_bytes=LEAST_BYTES // 2)
    journal = Journal(disk / "worker_1.jsonl")
    assert journal.error == "the disk is full"
    ballast.unlink()
    until(lambda: renewed(journal))
    assert not journal.disk_full
    journal.close(remove=True)


def test_a_disk_with_a_little_room_is_used(disk: Path) -> None:
    fill(disk, leave_bytes=3 * MIB)
    journal = Journal(disk / "worker_1.jsonl")
    assert (journal.error, journal.disk_full) == (None, True)
    assert journal.append(LINE)
    assert journal.error is None
    journal.close(remove=True)


def test_a_file_system_on_which_nothing_can_be_set_aside(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ramfs") as disk:
        path = disk / "worker_1.jsonl"
        journal = Journal(path)
        assert all(journal.append(LINE) for _ in range(100))
        journal.empty()
        assert journal.append(LINE)
        assert (journal.error, journal.disk_full) == (None, False)
        assert path.read_bytes() == LINE
        journal.close(remove=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_what_waits_in_memory_at_the_end_goes_to_the_store(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, read_only: bool
) -> None:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    target = only_reading(tmp_path / "inferxgate.db") if read_only else store
    ledger = Ledger(target, disk / "journal")
    ledger.start()
    fill(disk)
    records = [replace(record(), request_id="r" * 2 * AHEAD_BYTES), record()]
    for each in records:
        ledger.append(each)
    assert (ledger.waiting_records(), ledger.waiting_bytes()) == (2, 0)
    ledger.close()
    assert ids(store) == ([] if read_only else sorted(each.id for each in records))
    assert ("2 usage records are lost: neither journal nor store takes them" in caplog.text) == read_only
    assert list((disk / "journal").iterdir()) == []
    target.close()
    store.close()


def test_nothing_is_lost_where_store_and_journal_share_a_full_disk(disk: Path) -> None:
    store = SQLiteStore.open(disk / "inferxgate.db")
    ledger = Ledger(store, disk / "journal")
    ledger.start()
    ballast = fill(disk)
    written = []
    try:
        while ledger.journal_error is None:
            ledger.require_writable()
            written.append(replace(record(), request_id="r" * 2_000))
            ledger.append(written[-1])
        with pytest.raises(GatewayError, match="cannot be recorded now"):
            ledger.require_writable()
        written.append(record())  # which was under way
        ledger.append(written[-1])
        assert len(written) > (AHEAD_BYTES - LEAST_BYTES) // 3_000
    finally:
        ballast.unlink()
    until(lambda: ledger.journal_error is None)
    ledger.require_writable()
    until(lambda: ledger.waiting_records() == 0)
    assert ids(store) == sorted(each.id for each in written)
    assert (ledger.store_error, ledger.disk_full) == (None, False)
    ledger.close()
    store.close()
