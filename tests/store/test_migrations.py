"""The schema comes into being once, whoever starts and however many do, and is never guessed at."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferxgate.errors import StartError
from inferxgate.store import connections, files
from inferxgate.store.migrations import MIGRATIONS, Migration, migrate
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import new_user

RELEASED = {
    1: "8dfe4ff11d3d5206b95f8838673843e2329d5f2a8600310235c13ebaf8902d45",
    2: "4382bff0dba2a48c13b0bcd2004bee58677ff135e8dde0343d91f0d36dd6527b",
    3: "eb27db15a372e89fb57dee0aecce9464dd6f021dd7f336df49d3d4ed530a2891",
    4: "e36935c06714dcb4d08f80bf4edabcded596dcc14e7ba5dbceda2cce60295f43",
}

NEXT = Migration(
    len(MIGRATIONS) + 1,
    "notes",
    ("CREATE TABLE notes (text TEXT NOT NULL)", "INSERT INTO notes (text) VALUES ('made by the next step')"),
)
BROKEN = Migration(NEXT.number, "broken", (*NEXT.statements, "INSERT INTO nowhere VALUES (1)"))

OPENS_STORES = """
import sys
from pathlib import Path
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import new_user

print("ready", flush=True)
for line in sys.stdin:
    store = SQLiteStore.open(Path(line.rstrip()))
    print(store.add_user(new_user(), first_is_admin=True).role, flush=True)
    store.close()
"""


def open_with(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    files.prepare(path)
    connection = connections.connect(path)
    try:
        migrate(connection, path, migrations=migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def test_released_steps_are_never_edited() -> None:
    """Stores in the world hold these checksums: a changed step would lock their owners out. Add a new step instead."""
    assert {migration.number: migration.checksum for migration in MIGRATIONS} == RELEASED


def test_steps_are_numbered_without_gaps() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_how_statements_are_laid_out_does_not_change_the_checksum() -> None:
    wide = Migration(2, "notes", tuple(statement.replace(" ", "\n\t ") for statement in NEXT.statements))
    assert wide.checksum == NEXT.checksum
    assert Migration(2, "notes", NEXT.statements[:1]).checksum != NEXT.checksum


def test_processes_that_start_at_once_all_succeed(tmp_path: Path) -> None:
    with Openers(5) as processes:
        for number in range(12):
            path = tmp_path / f"round {number}" / "deeper" / "inferxgate.db"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
            roles = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
            assert sorted(roles) == ["admin", "user", "user", "user", "user"], f"round {number}"
            with sqlite3.connect(path) as connection:
                assert connection.execute("SELECT count(*) FROM inferxgate_migrations").fetchone() == (len(MIGRATIONS),)


class Openers:
    """So many processes that open stores, all ready."""

    def __init__(self, number: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", OPENS_STORES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(number)
        ]

    def __enter__(self) -> list[subprocess.Popen[str]]:
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return self.processes

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.communicate()
            assert process.returncode == 0


def test_threads_that_open_a_new_store_at_once_all_succeed(path: Path) -> None:
    start = threading.Barrier(8)

    def open_store(_: int) -> str:
        start.wait()
        store = SQLiteStore.open(path)
        try:
            return store.add_user(new_user(), first_is_admin=True).role
        finally:
            store.close()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(open_store, range(8))) == ["admin"] + ["user"] * 7


def test_what_is_missing_is_applied_once_and_what_is_there_is_kept(path: Path) -> None:
    store = SQLiteStore.open(path)
    user = store.add_user(new_user(), first_is_admin=False)
    store.close()
    for _ in range(2):
        connection = open_with(path, (*MIGRATIONS, NEXT))
        assert [row[0] for row in connection.execute("SELECT text FROM notes")] == ["made by the next step"]
        assert connection.execute("SELECT id FROM users").fetchone()[0] == user.id
        connection.close()


def test_what_the_first_release_stored_comes_along(path: Path) -> None:
    connection = open_with(path, MIGRATIONS[:1])
    connection.execute(
        "INSERT INTO users VALUES ('user_1', 'ann@example.com', NULL, 'x', 'user', 0, 1, 30, 1)",
    )
    connection.execute(
        "INSERT INTO keys VALUES ('key_1', 'h', 'p', NULL, 'user_1', 5, NULL, NULL, 0, NULL, 1, NULL)",
    )
    connection.close()
    store = SQLiteStore.open(path)
    (user,), (key,) = store.users(), store.keys()
    assert (user.rate_limit_rpm, user.rate_limit_tpm, user.max_budget_nanos, user.budget_period) == (
        *(30, None, None),
        "total",
    )
    assert (key.rate_limit_rpm, key.rate_limit_tpm, key.max_parallel_requests) == (5, None, None)
    assert (key.max_budget_nanos, key.budget_period) == (None, "total")
    store.close()


def test_a_store_in_use_can_be_migrated(store: SQLiteStore, path: Path) -> None:
    user = store.add_user(new_user(), first_is_admin=False)
    open_with(path, (*MIGRATIONS, NEXT)).close()
    assert store.users() == [user]
    assert store.update_user(user.id, {"username": "still writing"})


def test_a_step_that_fails_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        open_with(path, (*MIGRATIONS, BROKEN))
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()
    SQLiteStore.open(path).close()
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        open_with(path, (*MIGRATIONS, BROKEN))
    open_with(path, (*MIGRATIONS, NEXT)).close()


def test_a_newer_store_is_left_alone(path: Path) -> None:
    open_with(path, (*MIGRATIONS, NEXT)).close()
    before = path.read_bytes()
    with pytest.raises(
        StartError, match=r"newer version of inferxgate .*use that version, or restore a backup"
    ) as error:
        SQLiteStore.open(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_store_with_another_schema_is_left_alone(path: Path) -> None:
    changed = dataclasses.replace(MIGRATIONS[0], statements=(*MIGRATIONS[0].statements, "CREATE TABLE more (x)"))
    open_with(path, (changed,)).close()
    before = path.read_bytes()
    with pytest.raises(StartError, match="has another schema 1 than this version") as error:
        SQLiteStore.open(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StartError, match="a database of another program; move it away"):
        SQLiteStore.open(path)
    assert path.read_bytes() == before


def test_foreign_keys_hold_and_the_journal_is_a_wal(path: Path) -> None:
    connection = open_with(path, MIGRATIONS)
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    connection.close()
