"""Records that survive a crash and reach the store in batches.

Strategy: a finished request is one line appended with one ``write(2)`` to this worker's journal, a file beside the
store. The page cache outlives a killed process, so what was appended is not lost; there is no fsync, so loss of power
is out of scope. A background thread carries complete lines into the store, idempotent by the record's own id, at once
where few come and in large batches where many do, and cuts the journal back now and then, once the store has taken
everything.

Each worker locks its journal while it lives. Whoever starts next imports the journals that nobody holds any more.

What fails, and what then happens: the store does not take a batch (locked, full, read-only): the lines stay in the
journal, ``health`` says why, and it is tried again. The disk is full: requests go on while what the journal has set
aside lasts. The journal cannot be written: the record waits in memory, and no new request is admitted (503) until the
journal works again, because it could not be accounted for.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from inferxgate import errors
from inferxgate.errors import GatewayError, StoreCause, StoreUnavailable
from inferxgate.gateway.journal import Journal
from inferxgate.ids import new_id
from inferxgate.store.lines import build_line
from inferxgate.store.protocol import Store
from inferxgate.store.records import Refusal, UsageRecord
from inferxgate.store.rows import UsageRow, parse_row

log = logging.getLogger(__name__)

_BATCH_LINES = 1_000
_BATCH_BYTES = 4 * 1024 * 1024
_LINES_AT_ONCE = 16
_BREATH_SECONDS = 20e-6
"""After so many lines the thread sleeps for an instant: the event loop gets Python's lock then, for which it would wait
up to 5 ms otherwise, each time that it comes back from a call of the system while a batch is being parsed."""
_CUT_BYTES = 1024 * 1024
_CUT_EVERY_SECONDS = 10.0
"""How long lines stay in the journal that the store has taken. Cutting it back and setting space aside takes up to some
milliseconds, so it is not done each time; far sooner than retention might delete what a restart would carry again."""
_PASS_EVERY_SECONDS = 0.25
"""How soon a record is carried while few come."""
_MANY_RECORDS = 64
"""So many within one pass, and they are left to gather: what a batch adds to each sum is written once for all of it."""
_LONGEST_WAIT_SECONDS = 1.0
"""How long they may gather."""
_RETRY_AFTER_SECONDS = 1.0
_REFUSALS_EVERY_SECONDS = 2.0
_MINUTE_MS = 60_000

OnError: TypeAlias = Callable[[Literal["store", "journal"], StoreCause], None]
"""Told of every attempt to write records that failed: what failed, and why."""


class Gathering:
    """Says with each pass whether records are carried, so that under load they come in large batches.

    What a batch adds to each sum is written once for all of it. While few come, none of them waits for others.
    """

    def __init__(self) -> None:
        self._before = 0
        """How many waited in the pass before and were left to."""
        self._due_at = 0.0

    def is_due(self, waiting: int, now: float) -> bool:
        """``waiting`` records, at ``now`` in seconds by any clock that does not go back."""
        many = waiting - self._before >= _MANY_RECORDS
        if many and waiting < _BATCH_LINES and now < self._due_at:
            self._before = waiting
            return False
        self._before = 0
        self._due_at = now + _LONGEST_WAIT_SECONDS
        return True


class Ledger:
    """One worker's journal, and the thread that empties it into the store."""

    def __init__(self, store: Store, folder: Path, *, on_error: OnError = lambda part, cause: None) -> None:
        self._store = store
        self._folder = folder
        self._on_error = on_error
        self._source = new_id("worker_")
        self._path = self.journal_of(self._source)
        self._lock = threading.Lock()
        """Held for a moment at a time: around the journal's end and the counters."""
        self._importing = threading.Lock()
        """Held while lines are on their way to the store, so that a flush and the thread never carry the same ones."""
        self._journal: Journal | None = None
        self._imported = 0
        """How many bytes of it the store has taken."""
        self._next_cut = 0.0
        self._waiting_records = 0
        self._gathering = Gathering()
        self._unwritten: deque[bytes] = deque()
        self._store_error: str | None = None
        self._refusals: dict[tuple[int, str | None, str | None, str], int] = {}
        self._refusals_changed = False
        self._chores: list[Callable[[], None]] = []
        self._chores_without_store: list[Callable[[], None]] = []
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Import what dead workers left, open this worker's journal, and start carrying it to the store.

        Raises ``StartError`` where the journal cannot be opened.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._journal = Journal(self._path, on_error=lambda cause: self._on_error("journal", cause))
        except OSError as error:
            raise errors.StartError(
                f"cannot write the journal {self._path}: {error.strerror}; make the data folder writable"
            ) from error
        try:
            recover(self._store, self._folder)
        except StoreUnavailable as error:  # they stay where they are; the next start imports them
            self._store_error = str(error)
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """This worker's own, by which its journal is found."""
        return self._source

    def journal_of(self, name: str) -> Path:
        """The journal of a worker, by its name."""
        return self._folder / f"{name}.jsonl"

    def also(self, chore: Callable[[], None], *, without_store: bool = False) -> None:
        """Have something done on the ledger's thread, with each of its passes. It may raise ``StoreUnavailable``.

        ``without_store``: it does not need the store, so it is done while that is away as well.
        """
        (self._chores_without_store if without_store else self._chores).append(chore)

    def append(self, record: UsageRecord) -> None:
        """Write one record to the journal. Never raises: a record that cannot be written waits in memory."""
        line = build_line(record)
        with self._lock:
            self._waiting_records += 1
            if self._unwritten or self._journal is None or not self._journal.append(line):
                self._unwritten.append(line)

    def refused(self, key_id: str | None, user_id: str | None, reason: str) -> None:
        """Count a request that was turned away. Kept in memory for a moment: a kill may lose the last two seconds."""
        minute = time.time_ns() // 1_000_000 // _MINUTE_MS * _MINUTE_MS
        key = (minute, key_id, user_id, reason)
        with self._lock:
            self._refusals[key] = self._refusals.get(key, 0) + 1
            self._refusals_changed = True

    def require_writable(self) -> None:
        """Raise ``GatewayError`` (503) while nothing can be accounted for."""
        if self.journal_error is not None:
            raise GatewayError(
                errors.STORE_UNAVAILABLE,
                "Requests cannot be recorded now, so none is accepted; the operator sees the reason at /health.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )

    @property
    def journal_error(self) -> str | None:
        """Why the journal cannot be written, or None. While it cannot, no request is admitted."""
        return None if self._journal is None else self._journal.error

    @property
    def disk_full(self) -> bool:
        """Whether only what the journal has set aside on the disk is left."""
        return self._journal is not None and self._journal.disk_full

    @property
    def store_error(self) -> str | None:
        """Why the store does not take records, or None. They wait in the journal meanwhile."""
        return self._store_error

    def waiting_bytes(self) -> int:
        """Journal bytes that the store has not taken yet."""
        return 0 if self._journal is None else self._journal.size - self._imported

    def waiting_records(self) -> int:
        """Records that the store has not taken yet, in the journal and in memory."""
        return self._waiting_records

    def flush(self) -> None:
        """Carry everything to the store now. Raises ``StoreUnavailable``; what was not taken stays in the journal."""
        with self._lock:
            self._look_after_journal()
        while self._import_batch():
            pass
        self._carry_unwritten()
        self._import_refusals()

    def close(self) -> None:
        """Carry what can be carried, then let go of the journal. An empty journal is removed."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except StoreUnavailable as error:
            log.warning("usage records wait in %s: %s", self._path, error)
        if self._unwritten:
            log.error("%d usage records are lost: neither journal nor store takes them", len(self._unwritten))
        if self._journal is not None:
            self._journal.close(remove=self.waiting_bytes() == 0)
            self._journal = None

    # --- the journal

    def _look_after_journal(self) -> None:
        """Write what waits in memory, and set aside what has been used; the lock is held."""
        if self._journal is None:
            return
        while self._unwritten and self._journal.append(self._unwritten[0]):
            self._unwritten.popleft()
        if not self._unwritten and self._journal.error is not None:
            self._journal.append(b"\n")  # an empty line, which the import passes over: to see whether it can be written
        self._journal.set_aside()

    def _carry_unwritten(self) -> None:
        """Carry to the store what no journal has; what the journal takes later is known by its id."""
        with self._lock:
            lines = [*self._unwritten]
        if not lines:
            return
        self._store.add_usage_rows(list(_rows([line.rstrip() for line in lines], self._path)))
        carried = set(map(id, lines))
        with self._lock:  # some of them may be in the journal by now
            kept = [line for line in self._unwritten if id(line) not in carried]
            self._waiting_records -= len(self._unwritten) - len(kept)
            self._unwritten = deque(kept)

    # --- from the journal to the store

    def _run(self) -> None:
        next_refusals = 0.0
        while not self._closing:
            self._wake.wait(_PASS_EVERY_SECONDS)
            try:
                with self._lock:
                    self._look_after_journal()
                for chore in self._chores_without_store:
                    chore()
                # Whether a store that failed is back is seen by trying.
                if self._store_error is not None or self._gathering.is_due(self._waiting_records, time.monotonic()):
                    while self._import_batch():
                        pass
                    self._carry_unwritten()
                if self._refusals_changed and time.monotonic() >= next_refusals:
                    self._import_refusals()
                    next_refusals = time.monotonic() + _REFUSALS_EVERY_SECONDS
                for chore in self._chores:
                    chore()
            except StoreUnavailable as error:
                self._store_failed(str(error), error.cause)
                self._wake.wait(_RETRY_AFTER_SECONDS)
            except Exception as error:  # whatever it is, records must go on to be carried afterwards
                log.exception("the ledger met a fault of its own")
                self._store_failed(f"{type(error).__name__} in the ledger; the log has it", "other")
                self._wake.wait(_RETRY_AFTER_SECONDS)
            else:
                self._store_error = None

    def _store_failed(self, why: str, cause: StoreCause) -> None:
        if self._store_error is None:
            log.warning("the store takes no usage records: %s; they wait in the journal", why)
        self._store_error = why
        self._on_error("store", cause)

    def _import_batch(self) -> bool:
        """Carry up to a batch of lines to the store; whether there may be more."""
        with self._importing:
            journal = self._journal
            if journal is None:
                return False
            size = journal.size
            if self._imported < size:
                self._carry(journal, size)
            with self._lock:
                if self._imported < journal.size:
                    return True
                if journal.size >= _CUT_BYTES or (journal.size and time.monotonic() >= self._next_cut):
                    journal.empty()
                    self._imported = 0
                    self._next_cut = time.monotonic() + _CUT_EVERY_SECONDS
                return False

    def _carry(self, journal: Journal, size: int) -> None:
        """Carry a batch of the lines up to ``size`` to the store."""
        data = journal.read(self._imported, min(size - self._imported, _BATCH_BYTES))
        if b"\n" not in data:  # a line longer than a batch: take all there is
            data = journal.read(self._imported, size - self._imported)
        end = data.rfind(b"\n") + 1
        lines = data[:end].split(b"\n")[:-1][:_BATCH_LINES]
        rows = []
        for row in _rows(lines, self._path):
            rows.append(row)
            if not len(rows) % _LINES_AT_ONCE:
                time.sleep(_BREATH_SECONDS)
        self._store.add_usage_rows(rows)
        with self._lock:
            self._imported += sum(len(line) + 1 for line in lines)
            self._waiting_records -= sum(1 for line in lines if line)

    def _import_refusals(self) -> None:
        with self._lock:
            counts = dict(self._refusals)
            self._refusals_changed = False
        if not counts:
            return
        try:
            self._store.add_usage((), [Refusal(self._source, *key, count) for key, count in counts.items()])
        except StoreUnavailable:
            self._refusals_changed = True
            raise
        past = time.time_ns() // 1_000_000 - 2 * _MINUTE_MS
        with self._lock:
            for key, count in counts.items():
                if key[0] < past and self._refusals.get(key) == count:
                    del self._refusals[key]


def recover(store: Store, folder: Path) -> int:
    """Carry the journals of dead workers into the store; how many records there were.

    Raises ``StoreUnavailable``; what was not imported stays. Journals of living workers are theirs to import.
    """
    return sum(recover_one(store, path) or 0 for path in sorted(folder.glob("worker_*.jsonl")))


def recover_one(store: Store, path: Path) -> int | None:
    """Carry one journal into the store; how many records it held. None: its worker lives, or somebody is at it.

    Raises ``StoreUnavailable``.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # another process has imported it
        return 0
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if not path.exists():  # imported by another process between our opening and our locking it
            return 0
        with os.fdopen(os.dup(fd), "rb") as journal:
            lines = journal.read().split(b"\n")
        rows = list(_rows(lines, path))
        for begin in range(0, len(rows), _BATCH_LINES):
            store.add_usage_rows(rows[begin : begin + _BATCH_LINES])
        path.unlink(missing_ok=True)
        return len(rows)
    finally:
        os.close(fd)


def _rows(lines: list[bytes], path: Path) -> Iterator[UsageRow]:
    """The rows of a journal's lines. A torn last line is a request whose answer never ended: passed over."""
    for line in lines:
        if not line:
            continue
        try:
            yield parse_row(line)
        except (ValueError, TypeError, KeyError) as error:
            log.warning("passed over a damaged line of %s: %s", path, error)
