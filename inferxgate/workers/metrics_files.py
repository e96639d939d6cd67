"""Where several workers count together: a folder with files that each worker maps into its memory.

A worker counts in files of its own number, so no two processes write to the same one, and whoever is asked for metrics
adds up all of them. A worker's replacement goes on counting in its predecessor's files: what was counted stays, however
the worker ended, and there are never more files than workers. Only what is true of living workers (requests under way)
goes with its worker.

The folder belongs to one run of the gateway, which holds a lock on it as long as any of its processes lives. The next
run removes those whose lock nobody holds any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector

from inferxgate.errors import StartError
from inferxgate.ids import new_id
from inferxgate.store.files import locked_folder, make_private_folder
from inferxgate.values import dataclass

_FOLDER = "metrics"
_LIVING = ("gauge_livesum", "gauge_livemax")
_KINDS = ("counter", "histogram", *_LIVING)
_SIZES = (256 * 1024, 1024 * 1024, 64 * 1024, 64 * 1024)
"""Bytes that the files begin with; they double when they are full."""
_ROOM = 48 * 1024
"""Bytes that must be free in each file before new series are begun: several times what one model's take."""


@dataclass(frozen=True, slots=True)
class MetricsFiles:
    """One worker's files, and the folder with those of all workers."""

    folder: Path
    worker: int

    def begin(self) -> None:
        """From now on this process's metrics are made in the files. Raises ``StartError`` where there is no room."""
        try:
            for path, size in zip(self._paths(), _SIZES, strict=True):
                _allocate(path, size)
        except OSError as error:
            raise StartError(f"cannot write the metrics in {self.folder}: {error.strerror}") from error
        # The package has one kind of value per process, and finds the folder in the environment.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder)
        make = values.MultiProcessValue
        values.ValueClass = make(lambda: self.worker)  # type: ignore[no-untyped-call]  # the package has not annotated it

    def have_room(self) -> bool:
        """Whether new series can be begun.

        The disk space of the files is allocated before it is needed: to write into a mapped hole on a full disk would
        not raise an exception but end the process.
        """
        try:
            for path in self._paths():
                size = path.stat().st_size
                with path.open("rb") as file:
                    used = int.from_bytes(file.read(4), "little")
                if size - used < _ROOM:
                    _allocate(path, 2 * size)
        except OSError:
            return False
        return True

    def registry(self) -> CollectorRegistry:
        """What all workers have counted, as of now."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self.folder))  # type: ignore[no-untyped-call]  # the package has not annotated it
        return registry

    def _paths(self) -> list[Path]:
        return [_path(self.folder, kind, self.worker) for kind in _KINDS]


def own_values() -> None:
    """From now on this process's metrics are its own, whatever the environment says."""
    values.ValueClass = values.MutexValue


def forget_living(folder: Path, worker: int) -> None:
    """A worker has ended: what was true of it while it lived is no more.

    The files stay, so that its replacement needs no room on a disk that may be full by now.
    """
    for kind in _LIVING:
        with contextlib.suppress(FileNotFoundError), _path(folder, kind, worker).open("r+b") as file:
            file.write(bytes(4))  # how much of it is used


def _path(folder: Path, kind: str, worker: int) -> Path:
    return folder / f"{kind}_{worker}.db"


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            if sys.platform == "darwin":  # which has no such call
                os.ftruncate(descriptor, size)
            else:
                os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def metrics_folder(data_dir: Path) -> Iterator[Path]:
    """A new folder for one run, removed at its end. Raises ``StartError``."""
    make_private_folder(data_dir)
    parent = data_dir / _FOLDER
    make_private_folder(parent)
    folder = parent / new_id("run_")
    descriptor = -1
    try:
        try:
            with locked_folder(parent):  # else another run could take the folder for a dead one's before it is locked
                _remove_dead(parent)
                folder.mkdir(mode=0o700)
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(f"cannot make the folder {folder}: {error.strerror}; make it writable") from error
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)


def remove_dead(data_dir: Path) -> None:
    """Remove what runs left that were killed. Raises ``StartError`` where others keep the folder locked for long."""
    parent = data_dir / _FOLDER
    if parent.is_dir():
        with locked_folder(parent):
            _remove_dead(parent)


def _remove_dead(parent: Path) -> None:
    for folder in parent.glob("run_*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its run is alive
            pass
        finally:
            os.close(descriptor)
