"""What goes wrong while a store is in use becomes one exception that names the cause, and passes when that does."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferxgate.errors import StartError, StoreUnavailable
from inferxgate.store import connections, files
from inferxgate.store.connections import Database
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import EVER, NOON_MS, new_record, new_user

HOLDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path, statement: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path), statement], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.communicate()


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """Connections to a file with one table of text."""
    files.prepare(path)
    writer = connections.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE notes (text TEXT)")
    opened = Database(path, writer)
    yield opened
    opened.close()


def notes(database: Database) -> list[str]:
    with database.reading() as connection:
        return [row["text"] for row in connection.execute("SELECT text FROM notes")]


def write(database: Database, text: str) -> None:
    with database.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES (?)", (text,))


def test_while_another_process_writes_reading_goes_on_and_writing_waits_then_gives_up(
    store: SQLiteStore, path: Path
) -> None:
    user = store.add_user(new_user(), first_is_admin=False)
    with held_by_another_process(path, "BEGIN IMMEDIATE"):
        assert store.users() == [user]
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            store.update_user(user.id, {"role": "admin"})
        assert store.users() == [user]
    changed = store.update_user(user.id, {"role": "admin"})
    assert changed is not None
    assert changed.role == "admin"


def test_a_write_waits_for_the_turn_of_another_process(store: SQLiteStore, path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with held_by_another_process(path, "BEGIN IMMEDIATE"):
            waiting = pool.submit(store.add_user, new_user(), first_is_admin=True)
        assert waiting.result().role == "admin"


def test_a_new_file_that_another_program_holds_is_named(path: Path) -> None:
    files.prepare(path)
    with (
        held_by_another_process(path, "BEGIN EXCLUSIVE"),
        pytest.raises(StartError, match="is locked by another process; end that process and try again"),
    ):
        SQLiteStore.open(path)
    SQLiteStore.open(path).close()


def test_a_full_disk_is_named_and_passes(database: Database) -> None:
    write(database, "before")
    with database.writing() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute("PRAGMA max_page_count = 4").fetchone()
    assert pages <= 4
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        write(database, "x" * 100_000)
    assert notes(database) == ["before"]
    with database.writing() as connection:
        connection.execute("PRAGMA max_page_count = 10000").fetchone()
    write(database, "after")
    assert notes(database) == ["before", "after"]


def test_a_disk_that_fails_is_named_and_a_batch_is_all_or_nothing(path: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
from inferxgate.errors import StoreUnavailable
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import EVER, new_record

store = SQLiteStore.open(Path(sys.argv[1]))
store.add_usage([new_record()], ())
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, {resource.RLIM_INFINITY}))
try:
    store.add_usage([new_record() for _ in range(5_000)], ())
except StoreUnavailable as error:
    print(error)
print(store.usage_report(EVER).totals.requests)
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
store.add_usage([new_record() for _ in range(5_000)], ())
print(store.usage_report(EVER).totals.requests)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    said, kept, after = done.stdout.splitlines()
    assert said.startswith(
        f"the database {path} cannot be used: reading or writing the disk failed (SQLITE_IOERR_WRITE"
    )
    assert (kept, after) == ("1", "5001")


def test_a_reader_cannot_write(database: Database) -> None:
    with (
        pytest.raises(StoreUnavailable, match="it is read-only"),
        database.reading() as connection,
    ):
        connection.execute("DELETE FROM notes")


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_deleted_or_replaced_is_not_written_to_any_more(
    store: SQLiteStore, path: Path, *, replaced: bool
) -> None:
    store.add_user(new_user(), first_is_admin=True)
    path.rename(path.with_name("gone.db"))
    if replaced:
        path.write_bytes(b"")
    for call in (store.users, store.change_stamp, lambda: store.add_usage([new_record()], ())):
        with pytest.raises(StoreUnavailable, match="the file was deleted or replaced; start again"):
            call()
    path.with_name("gone.db").replace(path)
    assert len(store.users()) == 1


def test_a_write_that_breaks_off_is_undone_and_the_next_one_works(database: Database) -> None:
    def break_off() -> None:
        with database.writing() as connection:
            connection.execute("INSERT INTO notes (text) VALUES ('half')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    write(database, "whole")
    assert notes(database) == ["whole"]


def test_an_error_of_sqlite_says_what_it_was(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="no such table: nowhere"), database.reading() as connection:
        connection.execute("SELECT * FROM nowhere")
    assert notes(database) == []


def test_readers_see_what_is_committed_and_nothing_else(database: Database) -> None:
    with database.writing() as connection:
        connection.execute("INSERT INTO notes (text) VALUES ('new')")
        assert notes(database) == []
    assert notes(database) == ["new"]


def test_more_threads_than_readers_take_turns(database: Database) -> None:
    write(database, "here")
    number = connections.READERS * 3
    start = threading.Barrier(number)

    def read(_: int) -> list[str]:
        start.wait()
        return [text for _ in range(20) for text in notes(database)]

    with ThreadPoolExecutor(number) as pool:
        assert list(pool.map(read, range(number))) == [["here"] * 20] * number


def test_a_read_under_way_survives_the_closing(database: Database) -> None:
    write(database, "here")
    with database.reading() as connection:
        database.close()
        assert connection.execute("SELECT count(*) FROM notes").fetchone()[0] == 1
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
    with pytest.raises(StoreUnavailable, match="closed"):
        notes(database)


def test_two_processes_share_one_store(store: SQLiteStore, path: Path) -> None:
    code = """
import sys
from pathlib import Path
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import new_record

store = SQLiteStore.open(Path(sys.argv[1]))
for _ in range(100):
    store.add_usage([new_record(key_id="key_1", cost_nanos=1)], ())
store.close()
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
    for _ in range(100):
        store.add_usage([new_record(key_id="key_1", cost_nanos=1)], ())
    assert [process.wait() for process in processes] == [0, 0]
    assert store.usage_report(EVER).totals.requests == 300
    assert store.spend_by_key(["key_1"], now_ms=NOON_MS) == {"key_1": 300}
