"""One worker's journal: a file that lines are appended to, and the space on the disk that is set aside for them.

Space is set aside ahead of the file's end, so that a disk that fills up is met while there is still room: from then on
the journal serves what it has, and says that it cannot be written when only enough is left for the requests that are
under way. Those that were admitted are recorded; nobody new is admitted.

Where space cannot be set aside (a file system that cannot do it, or no Linux), a full disk is met by the write that
fails.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from inferxgate.errors import StoreCause

AHEAD_BYTES = 8 * 1024 * 1024
"""What is set aside: some ten thousand records."""
LEAST_BYTES = 1024 * 1024
"""What is kept for requests under way: more than a thousand records."""

_USED_UP_BYTES = 1024 * 1024
"""How much of it is used before more is set aside."""
_RETRY_SECONDS = 1.0
_FULL = "the disk is full"
_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT}
_FALLOC_FL_KEEP_SIZE = 1

log = logging.getLogger(__name__)


class Journal:
    """An open journal, locked as long as its process lives. The caller sees to it that one thread has it at a time.

    ``read`` alone may be called beside another method.
    """

    def __init__(self, path: Path, *, on_error: Callable[[StoreCause], None] = lambda _: None) -> None:
        """Make it; ``on_error`` is told of every attempt that fails. Raises ``OSError``."""
        self.path = path
        self._on_error = on_error
        # Made under a name that nobody imports, and renamed once it is locked: a process that starts at the same
        # moment must not take the new journal for a dead worker's.
        beginning = path.with_suffix(".starting")
        self._fd = os.open(beginning, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        beginning.rename(path)
        self.size = 0
        """Bytes of complete lines."""
        self._set_aside_to = 0
        self._disk_full = False
        self._next_try = 0.0
        self._write_error: str | None = None
        self.set_aside()

    @property
    def error(self) -> str | None:
        """Why nobody who wants to write lines may be admitted, or None."""
        if self._write_error is not None:
            return self._write_error
        return _FULL if self._disk_full and self._left() < LEAST_BYTES else None

    @property
    def disk_full(self) -> bool:
        """Whether the disk has no room, so that only what was set aside is left."""
        return self._disk_full

    def append(self, line: bytes) -> bool:
        """Write one line with one call of the system; on failure leave the file as it was, and return False."""
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            self._failed(error.strerror or str(error), "full" if error.errno in _FULL_ERRORS else "other")
            return False
        if written != len(line):  # the disk filled up within the line: take the torn piece back
            os.ftruncate(self._fd, self.size)
            self._set_aside_to = min(self._set_aside_to, self.size)
            self._failed(_FULL, "full")
            return False
        self.size += written
        self._write_error = None
        if self._left() < LEAST_BYTES:
            self.set_aside()
        return True

    def read(self, begin: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``begin``."""
        return os.pread(self._fd, count, begin)

    def empty(self) -> None:
        """Cut it back to nothing, and set space aside anew."""
        os.ftruncate(self._fd, 0)
        self.size = self._set_aside_to = 0
        self._next_try = 0.0  # at once: what was just given back shall not go to somebody else
        self.set_aside()

    def set_aside(self) -> None:
        """Take space for what comes, where it is due. Never raises: a disk that is full is told of by ``disk_full``."""
        if _fallocate is None or self._left() > AHEAD_BYTES - _USED_UP_BYTES or time.monotonic() < self._next_try:
            return
        failed = full = False
        length = AHEAD_BYTES
        while length >= LEAST_BYTES:
            number = _fallocate(self._fd, self.size, length)
            if number == 0:
                self._set_aside_to = max(self._set_aside_to, self.size + length)
                break
            failed = True
            if number not in _FULL_ERRORS:  # it cannot be done here, or not now: the writes themselves will tell
                break
            full = True
            length //= 2
        self._next_try = time.monotonic() + _RETRY_SECONDS if failed else 0.0
        if full:
            self._on_error("full")
        self._tell(full=full)

    def close(self, *, remove: bool) -> None:
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)

    def _left(self) -> int:
        return self._set_aside_to - self.size

    def _failed(self, why: str, cause: StoreCause) -> None:
        if self._write_error is None:
            log.error("cannot write the journal %s: %s; no request is accepted until it can be written", self.path, why)
        self._write_error = why
        self._on_error(cause)

    def _tell(self, *, full: bool) -> None:
        if full and not self._disk_full:
            log.warning("the disk is full; the journal %s has room for %d KiB", self.path, max(0, self._left()) // 1024)
        if self._disk_full and not full:
            log.warning("the disk has room again for the journal %s", self.path)
        self._disk_full = full


def _find_fallocate() -> Callable[[int, int, int], int] | None:
    """``fallocate(2)`` that leaves the file's length as it is, which Python has no name for; None elsewhere."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        call = getattr(library, "fallocate64", None) or library.fallocate  # where there is one, it is of 64 bits
    except (AttributeError, OSError):  # a C library without it
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

    def fallocate(fd: int, begin: int, length: int) -> int:
        """0, or the number of the error."""
        return 0 if call(fd, _FALLOC_FL_KEEP_SIZE, begin, length) == 0 else ctypes.get_errno()

    return fallocate


_fallocate = _find_fallocate()
