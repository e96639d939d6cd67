"""Who has a shared file open, and whether what an earlier boot of the machine left of it can be used.

The file is not synced while it is used: after a crash of the machine any part of it may be missing, and nothing in it
tells. So whoever opens it alone, after another boot, removes it, unless the last one to close it synced it and wrote
down that it is whole. Each user holds a shared lock on that note for as long as the file is open, and one who gets it
exclusively is alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_IN_USE = b"in use"
_WHOLE = b"whole"
_MOST_BYTES = 200


class Hold:
    """One process's part in a shared file, from before it is opened until after it is closed."""

    def __init__(self, note: Path, files: Sequence[Path], *, form: bytes, outlives_boot: bool) -> None:
        """Remove ``files`` where they cannot be used any more; ``outlives_boot``: they can, if they are known to be
        whole. ``form`` names that of their rows, without spaces: those of another one cannot. Raises ``OSError``."""
        self._form = form
        self._fd = os.open(note, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._alone() and not self._usable(outlives_boot=outlives_boot):
            for file in files:
                file.unlink(missing_ok=True)
            self._write(_IN_USE)
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        self._write(_IN_USE)

    def whole(self, sync: Callable[[], None]) -> None:
        """Sync the file and note that it is whole, if nobody else has it open. Raises what ``sync`` does."""
        if self._alone():
            sync()
            self._write(_WHOLE)

    def close(self) -> None:
        os.close(self._fd)

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _usable(self, *, outlives_boot: bool) -> bool:
        boot, form, state = _read(self._fd)
        return form == self._form and (boot == boot_id() or (outlives_boot and state == _WHOLE))

    def _write(self, state: bytes) -> None:
        note = b" ".join((boot_id(), self._form, state))
        if os.pread(self._fd, _MOST_BYTES, 0) != note:
            os.pwrite(self._fd, note, 0)
            os.ftruncate(self._fd, len(note))
            os.fsync(self._fd)  # before the file that it is about changes


@contextlib.contextmanager
def kept_as_it_is(note: Path, *, form: bytes) -> Iterator[bool]:
    """Whether there is a file of this boot and form, which nobody removes meanwhile. Writes nothing.

    One that cannot be used is not held for a moment: whoever opens it must find itself alone to remove it.
    Raises ``OSError``.
    """
    try:
        fd = os.open(note, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        usable = _read(fd)[:2] == (boot_id(), form)
        if usable:
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield usable
    finally:
        os.close(fd)


def _read(fd: int) -> tuple[bytes, bytes, bytes]:
    """Boot, form and state."""
    boot, _, rest = os.pread(fd, _MOST_BYTES, 0).partition(b" ")
    form, _, state = rest.partition(b" ")
    return boot, form, state


def boot_id() -> bytes:
    """The same from one start of the machine to the next."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:  # not Linux: when the clock started, to the minute, tells boots apart as well
        return b"%d" % round((time.time() - time.monotonic()) / 60)
