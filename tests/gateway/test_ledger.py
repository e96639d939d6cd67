"""Records reach the store exactly once: through locked stores, full disks, torn lines and kills."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from inferxgate.canonical.usage import Usage
from inferxgate.errors import GatewayError, StartError
from inferxgate.gateway.ledger import Gathering, Ledger, recover
from inferxgate.ids import new_id
from inferxgate.store.connections import Database
from inferxgate.store.records import UsageFilter, UsageRecord
from inferxgate.store.sqlite import SQLiteStore

EVERYTHING = UsageFilter(since_ms=0, until_ms=2**53)
RECORD = UsageRecord(
    id="",
    request_id="r",
    started_at_ms=1_700_000_000_000,
    status="ok",
    http_status=200,
    error_code=None,
    key_id=None,
    user_id=None,
    end_user="ann",
    model_asked="smart",
    model="gpt-4o",
    provider="openai",
    stream=False,
    usage=Usage(input_tokens=3, output_tokens=2),
    usage_source="provider",
    cost_nanos=27_500,
    price_version="test",
    first_token_ms=None,
    duration_ms=12,
)


def record() -> UsageRecord:
    return replace(RECORD, id=new_id("use_"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore.open(tmp_path / "inferxgate.db")
    yield opened
    opened.close()


def ids(store: SQLiteStore) -> list[str]:
    return sorted(each.id for each in store.recent_usage(EVERYTHING, limit=10_000))


def only_reading(path: Path) -> SQLiteStore:
    """A store that cannot be written: such a connection stands in for a file system that went read-only."""
    reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
    return SQLiteStore(Database(path, reader))


def until(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


def test_what_is_appended_is_in_the_store_as_it_was(store: SQLiteStore, tmp_path: Path) -> None:
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    records = [record() for _ in range(2_500)]
    for each in records:
        ledger.append(each)
    until(lambda: ledger.waiting_bytes() == 0)
    assert ids(store) == sorted(each.id for each in records)
    assert records[0] in store.recent_usage(EVERYTHING, limit=10_000)
    ledger.close()
    assert list((tmp_path / "journal").iterdir()) == [], "an empty journal is not left behind"


def test_a_locked_store_loses_nothing_and_is_told_of(store: SQLiteStore, tmp_path: Path) -> None:
    failures: list[tuple[str, str]] = []
    ledger = Ledger(store, tmp_path / "journal", on_error=lambda part, cause: failures.append((part, cause)))
    ledger.start()
    with sqlite3.connect(tmp_path / "inferxgate.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        records = [record() for _ in range(10)]
        for each in records:
            ledger.append(each)
        until(lambda: ledger.store_error is not None)
        assert set(failures) == {("store", "locked")}
        assert ledger.journal_error is None
        assert ledger.waiting_bytes() > 0
        assert ledger.waiting_records() == 10
        other.execute("ROLLBACK")
    until(lambda: ledger.store_error is None)
    until(lambda: ledger.waiting_bytes() == 0)
    assert ledger.waiting_records() == 0
    assert ids(store) == sorted(each.id for each in records)
    ledger.close()


def test_a_read_only_store_loses_nothing(store: SQLiteStore, tmp_path: Path) -> None:
    failures: list[tuple[str, str]] = []
    path, journal = tmp_path / "inferxgate.db", tmp_path / "journal"
    read_only = only_reading(path)
    ledger = Ledger(read_only, journal, on_error=lambda part, cause: failures.append((part, cause)))
    ledger.start()
    records = [record() for _ in range(10)]
    for each in records:
        ledger.append(each)
        ledger.require_writable()
    until(lambda: ledger.store_error is not None)
    assert str(ledger.store_error).endswith("it is read-only")
    ledger.close()
    read_only.close()
    assert set(failures) == {("store", "readonly")}
    assert ids(store) == []
    assert recover(store, journal) == 10
    assert ids(store) == sorted(each.id for each in records)


def test_a_journal_that_cannot_grow_stops_admission_until_it_can(store: SQLiteStore, tmp_path: Path) -> None:
    """The limit on the size of files stands in for a full disk: the same system calls fail, also within a line."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger = Ledger(store, tmp_path / "journal")
    with sqlite3.connect(tmp_path / "inferxgate.db", isolation_level=None) as other:
        ledger.start()
        other.execute("BEGIN EXCLUSIVE")  # so that the journal cannot be emptied meanwhile
        try:
            first, second, third = record(), record(), record()
            ledger.append(first)
            resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.waiting_bytes() + 20, hard))
            ledger.append(second)
            ledger.append(third)
            assert ledger.journal_error is not None
            assert ledger.waiting_records() == 3, "in the journal or in memory"
            with pytest.raises(GatewayError) as refused:
                ledger.require_writable()
            assert (refused.value.status, refused.value.code) == (503, "store_unavailable")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
            other.execute("ROLLBACK")
    until(lambda: ledger.journal_error is None)
    ledger.require_writable()
    until(lambda: len(ids(store)) == 3)
    until(lambda: ledger.waiting_records() == 0)
    assert ids(store) == sorted([first.id, second.id, third.id])
    ledger.close()


def test_what_a_killed_process_left_is_imported_once(store: SQLiteStore, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    script = (
        "import sys, os, signal\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from inferxgate.gateway.ledger import Ledger\n"
        "from inferxgate.errors import StoreUnavailable\n"
        "from tests.gateway.test_ledger import RECORD, record\n"
        "class Down:\n"
        "    def add_usage_rows(self, rows): raise StoreUnavailable('down')\n"
        "ledger = Ledger(Down(), Path(sys.argv[1])); ledger.start()\n"
        "for _ in range(100):\n"
        "    each = record(); ledger.append(each); print(each.id, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(journal)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    written = sorted(done.stdout.split())
    assert len(written) == 100
    [left] = journal.iterdir()
    with left.open("ab") as torn:
        torn.write(b'{"id":"use_torn","request')

    assert recover(store, journal) == 100
    assert recover(store, journal) == 0
    assert ids(store) == written
    assert list(journal.iterdir()) == []


def test_the_journal_of_a_living_worker_is_left_alone(store: SQLiteStore, tmp_path: Path) -> None:
    living = Ledger(store, tmp_path / "journal")
    living.start()
    with sqlite3.connect(tmp_path / "inferxgate.db", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        living.append(record())
        assert recover(store, tmp_path / "journal") == 0
        other.execute("ROLLBACK")
    living.close()
    assert len(ids(store)) == 1


def test_a_line_longer_than_a_batch_does_not_hold_up_the_rest(store: SQLiteStore, tmp_path: Path) -> None:
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    records = [record(), replace(record(), request_id="r" * 6_000_000), record()]
    for each in records:
        ledger.append(each)
    until(lambda: ledger.waiting_bytes() == 0)
    ledger.close()
    assert ids(store) == sorted(each.id for each in records)


def test_a_worker_that_starts_is_not_taken_for_dead(store: SQLiteStore, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    stop = threading.Event()

    def import_on() -> None:
        while not stop.is_set():
            recover(store, journal)

    importer = threading.Thread(target=import_on)
    importer.start()
    try:
        for _ in range(200):
            ledger = Ledger(store, journal)
            ledger.start()
            assert len(list(journal.glob("worker_*.jsonl"))) == 1
            ledger.close()
    finally:
        stop.set()
        importer.join()


def test_damaged_lines_are_passed_over(store: SQLiteStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    wrong_type = orjson.dumps(replace(record(), id=7))  # type: ignore[arg-type]  # as a damaged line may have it
    good = record()
    (journal / "worker_x.jsonl").write_bytes(
        b'\n{"id": 1}\nnot json\n\xff\n[]\n' + wrong_type + b"\n" + orjson.dumps(good) + b"\n"
    )
    assert recover(store, journal) == 1
    assert ids(store) == [good.id]
    assert "damaged line" in caplog.text


def test_refusals_are_counted_by_caller_reason_and_minute(store: SQLiteStore, tmp_path: Path) -> None:
    one, two = Ledger(store, tmp_path / "journal"), Ledger(store, tmp_path / "journal")
    for ledger in (one, two):
        ledger.start()
        for _ in range(3):
            ledger.refused(None, None, "rate_limit_exceeded")
        ledger.refused(None, None, "model_not_allowed")
        ledger.flush()
        ledger.refused(None, None, "rate_limit_exceeded")
    for ledger in (one, two):
        ledger.close()
    now = UsageFilter(since_ms=0, until_ms=2**53)
    assert store.refusals_by_reason(now) == {"rate_limit_exceeded": 8, "model_not_allowed": 2}


def test_few_records_wait_for_no_others() -> None:
    gathering = Gathering()
    assert all(gathering.is_due(waiting, number / 4) for number, waiting in enumerate((0, 1, 5, 0, 40)))


def test_many_records_gather_for_a_second() -> None:
    gathering = Gathering()
    assert gathering.is_due(150, 10.0), "the first ones"
    passes = [(150, 10.25), (300, 10.5), (450, 10.75), (600, 11.0), (150, 11.25), (300, 11.5)]
    assert [gathering.is_due(*each) for each in passes] == [False, False, False, True, False, False]


def test_a_batch_that_is_full_waits_no_longer() -> None:
    gathering = Gathering()
    assert gathering.is_due(500, 10.0)
    assert [gathering.is_due(*each) for each in ((500, 10.25), (1_000, 10.5))] == [False, True]


def test_what_has_gathered_goes_when_no_more_come() -> None:
    gathering = Gathering()
    assert gathering.is_due(150, 10.0)
    assert [gathering.is_due(*each) for each in ((150, 10.25), (155, 10.5))] == [False, True]


def test_a_folder_that_cannot_be_written_is_told_at_the_start(store: SQLiteStore, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file, not a folder")
    with pytest.raises(StartError, match="journal"):
        Ledger(store, tmp_path / "journal").start()
