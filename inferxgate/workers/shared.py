"""The memory that all workers of one data folder share: an LMDB file, which each of them maps.

Why LMDB: every limit needs a few reads and writes that happen together or not at all, by processes that may be killed
at any moment, and nothing to be started beside them. LMDB gives transactions under one lock that outlives its holder
(a robust mutex: the next one repairs what a killed one left) and readers that wait for nobody. Nothing is synced to
the disk: what the page cache holds survives a killed process, and after another boot of the machine the limits start
anew while the money is counted again from the store. "How the workers agree" in the README has the figures that it was
chosen by.

What fails, and what then happens: where the file cannot be written (the disk is full, the map is full), every call
raises ``SharedUnavailable``; no request is admitted then, since no limit could be held. Some space is taken from the
disk at the start, so that a disk that fills up later does not come to that.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, cast

import lmdb

from inferxgate.errors import StartError, StoreUnavailable
from inferxgate.workers.boots import Hold, kept_as_it_is

log = logging.getLogger(__name__)

MAP_BYTES = 1 << 30
"""The most that the file may grow to. Only what is used takes space."""
PREALLOCATED_BYTES = 16 * 1024 * 1024
"""Taken from the disk at the start: room for tens of thousands of requests under way and in the windows."""
_MAX_DATABASES = 16
_MAX_READERS = 1024
_FORM = b"3"
"""Of everything within. What a release with another form left is begun anew, as after another boot."""


class Transaction(Protocol):
    """What is used of ``lmdb.Transaction``, which hands out bytes unless it is asked for views.

    ``db``: where it is not the database that the transaction was begun for.
    """

    def get(self, key: bytes, *, db: Any = None) -> bytes | None: ...

    def put(self, key: bytes, value: bytes, *, db: Any = None) -> bool: ...

    def pop(self, key: bytes, *, db: Any = None) -> bytes | None: ...

    def delete(self, key: bytes, *, db: Any = None) -> bool: ...


class SharedUnavailable(StoreUnavailable):
    """The workers' shared memory cannot be read or written now. The message names the cause."""


class SharedMemory:
    """One process's hold on the shared file. Usable from any thread; not across a fork: open it after one."""

    def __init__(
        self, environment: lmdb.Environment, path: Path, hold: Hold, lock_file: IO[bytes], *, outlives_boot: bool
    ) -> None:
        """``lock_file`` stays open as long as the environment: to close any handle of it in this process would take
        away LMDB's own lock on it (POSIX), and whoever opens it next would begin its mutexes anew beside us."""
        self._environment = environment
        self._path = path
        self._hold = hold
        self._lock_file = lock_file
        self._outlives_boot = outlives_boot
        self._databases: dict[str, Any] = {}
        self.failure: str | None = None
        """Why nothing can be written, or None, as the last attempt found."""
        self.begin: Callable[[Any], contextlib.AbstractContextManager[Transaction]] = partial(
            environment.begin, write=True
        )
        """What ``writing`` is made of, without any Python around it: for what every request does. Whoever takes it
        raises ``unavailable`` in the place of LMDB's errors, and after a commit sets ``failure`` to None."""
        self.meta = self.database("meta")

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        map_bytes: int = MAP_BYTES,
        preallocated_bytes: int = PREALLOCATED_BYTES,
        outlives_boot: bool = False,
    ) -> SharedMemory:
        """The memory in ``folder``, created where needed (0700). Raises ``StartError``.

        ``outlives_boot``: keep what is there when the machine was started again, unless it crashed. Without, it is
        forgotten then, as times of the monotonic clock have to be.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = folder / "data.mdb"
            hold = Hold(folder / "boot", (data, folder / "lock.mdb"), form=_FORM, outlives_boot=outlives_boot)
            try:
                environment = _open(folder, map_bytes)
                # Killed processes leave their places among the readers; a place that is held keeps old pages alive.
                environment.reader_check()
                _preallocate(data, preallocated_bytes)
                lock_file = (folder / "lock.mdb").open("r+b")
                _preallocate_open(lock_file, os.fstat(lock_file.fileno()).st_size)
            except (lmdb.Error, OSError):
                hold.close()
                raise
        except (lmdb.Error, OSError) as error:
            raise StartError(
                f"cannot open the workers' shared memory in {folder}: {_cause(error)}; make the data folder writable,"
                " or remove this folder while no gateway runs"
            ) from error
        return cls(environment, folder, hold, lock_file, outlives_boot=outlives_boot)

    def database(self, name: str) -> Any:
        """A named database within the file, created where needed."""
        if name not in self._databases:
            with self._translated():
                self._databases[name] = self._environment.open_db(name.encode())
        return self._databases[name]

    @property
    def folder(self) -> Path:
        """Where it stands; its users may keep small files beside it."""
        return self._path

    def probe(self) -> None:
        """See whether it can be written again, where it could not. Never raises."""
        if self.failure is not None:
            with contextlib.suppress(SharedUnavailable), self.writing() as transaction:
                transaction.put(b"probe", b"%d" % time.monotonic_ns(), db=self.meta)

    def writing(self, database: Any = None) -> contextlib.AbstractContextManager[Transaction]:
        """One transaction, alone among all processes; undone where the block raises.

        ``database``: the one that is meant where the block names none.
        """
        return _Within(self, self._environment, database, write=True)

    def reading(self, database: Any = None) -> contextlib.AbstractContextManager[Transaction]:
        """A view of the last committed state; waits for nobody."""
        return _Within(self, self._environment, database, write=False)

    def unavailable(self, error: lmdb.Error, *, write: bool) -> SharedUnavailable:
        """What to raise for ``error``."""
        if write:
            self.failure = _cause(error)
        return SharedUnavailable(f"the workers' shared memory {self._path}: {_cause(error)}")

    def rows(
        self, transaction: Transaction, database: Any, prefix: bytes = b"", *, begin: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """The rows whose keys begin with ``prefix``, in the order of their keys, from ``begin`` on."""
        with cast(lmdb.Transaction, transaction).cursor(db=database) as cursor:
            if not cursor.set_range(max(prefix, begin)):
                return
            for key, value in cursor.iternext():
                if not bytes(key).startswith(prefix):
                    return
                yield bytes(key), bytes(value)

    def close(self) -> None:
        """The last one to close what outlives a boot syncs it first."""
        if self._outlives_boot:
            try:
                self._hold.whole(lambda: self._environment.sync(force=True))
            except (lmdb.Error, OSError) as error:
                log.warning("%s will not outlive the end of the machine: %s", self._path, _cause(error))
        self._environment.close()
        self._lock_file.close()
        self._hold.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise self.unavailable(error, write=False) from error


def read_values(folder: Path, name: str) -> list[bytes]:
    """All values of a database, for a process that takes no part: it creates and changes nothing in ``folder``.

    None where there is no memory of this boot and form. Raises ``SharedUnavailable``. Not for a process that has the
    memory open: LMDB must not open a file twice.
    """
    try:
        with kept_as_it_is(folder / "boot", form=_FORM) as usable:
            # LMDB would create the lock file, and it is not safe to read without.
            if not usable or not (folder / "data.mdb").exists() or not (folder / "lock.mdb").exists():
                return []
            with _open(folder, MAP_BYTES, readonly=True) as environment, environment.begin() as transaction:
                database = environment.open_db(name.encode(), transaction, create=False)
                return [bytes(value) for _, value in transaction.cursor(db=database)]
    except lmdb.NotFoundError:
        return []
    except (lmdb.Error, OSError) as error:
        raise SharedUnavailable(f"the workers' shared memory {folder}: {_cause(error)}") from error


class _Within:
    """A transaction and its end. A generator for each would cost as much as LMDB itself."""

    __slots__ = ("_database", "_environment", "_shared", "_transaction", "_write")

    def __init__(self, shared: SharedMemory, environment: Any, database: Any, *, write: bool) -> None:
        self._shared = shared
        self._environment = environment
        self._database = database
        self._write = write

    def __enter__(self) -> Transaction:
        try:
            transaction: Transaction = self._environment.begin(self._database, None, self._write)
        except lmdb.Error as error:
            raise self._shared.unavailable(error, write=self._write) from error
        self._transaction: Any = transaction
        return transaction

    def __exit__(self, kind: object, raised: BaseException | None, traceback: object) -> None:
        try:
            if raised is None and self._write:
                self._transaction.commit()
                self._shared.failure = None
            else:
                self._transaction.abort()
        except lmdb.Error as error:
            raise self._shared.unavailable(error, write=self._write) from error
        if isinstance(raised, lmdb.Error):
            raise self._shared.unavailable(raised, write=self._write) from raised


def _open(folder: Path, map_bytes: int, *, readonly: bool = False) -> lmdb.Environment:
    return lmdb.open(
        str(folder),
        readonly=readonly,
        create=not readonly,
        map_size=map_bytes,
        max_dbs=_MAX_DATABASES,
        max_readers=_MAX_READERS,
        mode=0o600,
        sync=False,
        metasync=False,
        readahead=False,
    )


def _preallocate(path: Path, size: int) -> None:
    """Take the file's space from the disk. The lock file is only mapped: where it has a hole, a full disk would end the
    process that comes to it."""
    with path.open("r+b") as file:
        _preallocate_open(file, size)


def _preallocate_open(file: IO[bytes], size: int) -> None:
    if not size or not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:  # a full disk, or a file system that cannot: the file grows as it is used
        log.warning("no space is set aside for the workers' shared memory %s: %s", file.name, error.strerror)


def _cause(error: lmdb.Error | OSError) -> str:
    if isinstance(error, lmdb.MapFullError):
        return "it is full"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error).rpartition(": ")[2]
