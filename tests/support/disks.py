"""Disks of a size that a test can fill: real file systems in memory, which only root may mount."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1024 * 1024


@contextlib.contextmanager
def mounted(folder: Path, kind: str = "tmpfs", *, mib: int = 0) -> Iterator[Path]:
    """A file system of its own at ``folder``. Skips where it may not be mounted."""
    folder.mkdir()
    options = ["-o", f"size={mib}m"] if mib else []
    done = subprocess.run(
        ["mount", "-t", kind, *options, "test", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave_bytes: int = 0) -> Path:
    """Take all the room that is left, but for ``leave_bytes``, by a file; delete it to give the room back."""
    ballast = folder / f"ballast-{leave_bytes}"
    disk = os.statvfs(folder)
    wanted = disk.f_bavail * disk.f_frsize - leave_bytes
    fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.posix_fallocate(fd, 0, wanted)
        if leave_bytes == 0:
            with contextlib.suppress(OSError):  # whatever was given back meanwhile
                while True:
                    os.pwrite(fd, bytes(4096), os.fstat(fd).st_size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(fd)
    return ballast
