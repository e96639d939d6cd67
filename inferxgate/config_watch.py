"""Where the settings come from while a server runs, and whether that has changed.

Files are looked at, about twice a second, rather than listened to: that works on every file system, through symbolic
links that are turned to another folder, and for editors that put a new file in the old one's place. A file is read once
it has stood still between two looks, so that one which is being written is not met halfway.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from inferxgate.config import Loaded
from inferxgate.values import dataclass

Stamp = tuple[int, int, int, int]
"""Device, inode, time of the last change in nanoseconds, and size: what changes when a file does."""


def stamp_of(path: Path) -> Stamp | None:
    """What a file is now; None where there is none, or none that this process may see."""
    try:
        seen = os.stat(path)
    except (OSError, ValueError):
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size


class Watch:
    """Whether some files have changed since they were last dealt with: first, when this was made."""

    def __init__(self, *paths: Path) -> None:
        self._paths = list(paths)
        self._seen = self._dealt_with = self._look()

    def also(self, path: Path) -> None:
        """Watch another file, from now on."""
        self._paths.append(path)
        now = stamp_of(path)
        self._seen, self._dealt_with = (*self._seen, now), (*self._dealt_with, now)

    def has_changed(self) -> bool:
        """Look again: whether a file has changed and stands still. True until it is dealt with."""
        before, self._seen = self._seen, self._look()
        return before == self._seen != self._dealt_with

    @property
    def seen(self) -> tuple[Stamp | None, ...]:
        """What the files were at the last look."""
        return self._seen

    def dealt_with(self) -> None:
        """What was last seen has been read, or told to be wrong."""
        self._dealt_with = self._seen

    def _look(self) -> tuple[Stamp | None, ...]:
        return tuple(map(stamp_of, self._paths))


@dataclass(frozen=True, slots=True)
class Source:
    """The configuration file with the environment and the flags around it, to be read again and again."""

    path: Path
    """The place of the file, which need not be there."""
    read: Callable[[], Loaded]
    """Raises ``StartError``."""
    watch: Watch
    """Of the file, since before it was first read."""
