"""Connections to one SQLite file: one that writes, behind a lock, and a few that read beside it.

In WAL mode readers see the last committed state and never wait for the writer. Every write is one transaction that
takes SQLite's write lock at its beginning, so that what it reads cannot change before it writes.

Every failure of SQLite's leaves here as ``StoreUnavailable`` with the cause in words.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from inferxgate.errors import StoreCause, StoreUnavailable
from inferxgate.store import histograms

BUSY_SECONDS = 5.0
"""How long SQLite waits for another process's transaction."""
TURN_SECONDS = 10.0
"""How long a thread waits for its turn at the writer, or for a free reader."""
READERS = 8
"""How many threads read at once; more wait for their turn."""

_CAUSES = {
    sqlite3.SQLITE_BUSY: "it is locked by another process",
    sqlite3.SQLITE_LOCKED: "it is locked by another process",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_PERM: "access is not permitted",
    sqlite3.SQLITE_IOERR: "reading or writing the disk failed",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not a database; restore it from a backup",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}
_KINDS: dict[int, StoreCause] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}
"""The causes that have a name in the metrics."""


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of the Python module's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def cause_of(error: sqlite3.Error) -> str:
    """What went wrong, for people, with SQLite's own words where ours are missing or too general."""
    known = _CAUSES.get(code_of(error))
    if known is None:
        return str(error)
    name: str = getattr(error, "sqlite_errorname", "")
    return f"{known} ({name})" if name.startswith("SQLITE_IOERR") else known


def connect(path: Path) -> sqlite3.Connection:
    """One connection to a file that exists, without implicit transactions. Raises ``sqlite3.Error``."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # the lock and the pool see to it that one thread has it at a time
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        # A commit survives the end of the process at once, and the loss of power after the next checkpoint.
        connection.execute("PRAGMA synchronous = NORMAL")
        histograms.register(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. Raises ``sqlite3.Error``."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the failure on its way out matters more than this one
                connection.execute("ROLLBACK")


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Every read within it sees the same state, whatever is committed meanwhile. Raises ``sqlite3.Error``."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class Database:
    """The writer and the readers of one open file. Usable from any thread."""

    def __init__(self, path: Path, writer: sqlite3.Connection) -> None:
        self._path = path
        self._identity = _identity(path)
        self._writer = writer
        self._write_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._turns = threading.BoundedSemaphore(READERS)
        self._pool_lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writer, within one transaction. Raises ``StoreUnavailable``."""
        if not self._write_lock.acquire(timeout=TURN_SECONDS):
            raise self._unavailable("other writes take too long", "slow")
        try:
            self._require_usable()
            with transaction(self._writer):
                yield self._writer
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            self._write_lock.release()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A reader. Raises ``StoreUnavailable``."""
        if not self._turns.acquire(timeout=TURN_SECONDS):
            raise self._unavailable("other reads take too long", "slow")
        try:
            self._require_usable()
            connection = self._take()
            try:
                yield connection
            except sqlite3.Error:
                connection.close()
                raise
            self._give_back(connection)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close every connection; a read under way closes its own when it ends. Closing twice does no harm."""
        with self._write_lock:
            with self._pool_lock:
                self._closed = True
                idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self._writer.close()

    def _take(self) -> sqlite3.Connection:
        with self._pool_lock:
            if self._idle:
                return self._idle.pop()
        connection = connect(self._path)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _require_usable(self) -> None:
        if self._closed:
            raise self._unavailable("it is closed")
        # A file that was deleted or replaced lives on for those who have it open: what is written there is lost.
        if _identity(self._path) != self._identity:
            raise self._unavailable("the file was deleted or replaced; start again")

    def _failed(self, error: sqlite3.Error) -> StoreUnavailable:
        return self._unavailable(cause_of(error), _KINDS.get(code_of(error), "other"))

    def _unavailable(self, why: str, cause: StoreCause = "other") -> StoreUnavailable:
        return StoreUnavailable(f"the database {self._path} cannot be used: {why}", cause)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
