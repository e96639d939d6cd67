"""The store's place on disk: readable by its owner only, and never made anew over something that is there.

SQLite gives its ``-wal`` and ``-shm`` files the mode of the database, so a file that is private from its first moment,
whatever the umask says, keeps all three private.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from inferxgate.errors import StartError

LOCK_SECONDS = 30.0
"""How long to wait for another process that is setting up the same folder."""

_SMALLEST = 512
"""Bytes of the smallest database. SQLite takes a file of a single byte for an empty one and would write over it."""
_COMPANIONS = ("-wal", "-shm", "-journal")
_ELSEWHERE = "or name another place with storage.database_url or INFERXGATE_DATA_DIR"
_creating = threading.Lock()
# Closing any descriptor of a file drops the POSIX locks that this process holds on it, SQLite's included. So no other
# thread may open the database between its creation here and the closing of the descriptor that created it.


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that exists stays as it is. Raises ``StartError``."""
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)  # whatever the umask took away
    except FileExistsError as error:  # another process has just made it, or something else is in its place
        if not folder.is_dir():
            raise StartError(f"{error.filename} is not a folder; move it away {_ELSEWHERE}") from None
    except OSError as error:
        raise StartError(f"cannot make the folder {folder}: {error.strerror}; make it yourself {_ELSEWHERE}") from error


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes and threads that ask for the same out of a folder. Ends with the process, however it ends.

    The lock is on the folder itself, so no lock file is left behind. Raises ``StartError`` after ``LOCK_SECONDS``.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"cannot open the folder {folder}: {error.strerror}; make it readable {_ELSEWHERE}") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StartError(
                    f"another process has been setting up {folder} for {LOCK_SECONDS:.0f} seconds; end it and try again"
                ) from None
            time.sleep(0.01)
        except OSError as error:
            raise StartError(
                f"{folder} cannot be locked: {error.strerror}; put the data on a local disk {_ELSEWHERE}"
            ) from error
        else:
            return


def prepare(path: Path) -> None:
    """Make sure that a private file stands at ``path``, empty if there was none. Raises ``StartError``."""
    make_private_folder(path.parent)
    with _creating:
        try:
            if not _exists(path):
                _require_writable(path.parent, "the folder")
                with locked_folder(path.parent):
                    _create(path)
            _require_writable(path.parent, "the folder")
            _require_writable(path, "the database")
            _make_private(path)
        except OSError as error:
            raise StartError(f"cannot use the database {path}: {error.strerror}; mend that {_ELSEWHERE}") from error


def _exists(path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not a file"
        raise StartError(f"the database {path} is {kind}; move it away {_ELSEWHERE}")
    if 0 < found.st_size < _SMALLEST:
        raise damaged(path)
    return True


def damaged(path: Path) -> StartError:
    """What to say of a file that is no database, or no whole one."""
    return StartError(
        f"the database {path} is damaged or no database at all; restore it from a backup, or move it away to begin with"
        " an empty one"
    )


def _create(path: Path) -> None:
    """Create the file; the folder is locked, so whoever else wants to has done it or comes later."""
    if _exists(path):
        return
    left = path.with_name(path.name + "-wal")
    if left.exists() and left.stat().st_size:
        raise StartError(
            f"the database {path} is missing, but changes to it wait in {left.name}; put the database back,"
            f" or move {left.name} away to begin anew"
        )
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _require_writable(path: Path, what: str) -> None:
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StartError(f"{what} {path} cannot be written; make it writable for this user {_ELSEWHERE}")


def _make_private(path: Path) -> None:
    """Take the rights of others away from files of ours; a file of someone else's keeps the mode they chose."""
    for file in (path, *(path.with_name(path.name + suffix) for suffix in _COMPANIONS)):
        with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            if found.st_mode & 0o077 and found.st_uid == os.geteuid():
                file.chmod(0o600)
