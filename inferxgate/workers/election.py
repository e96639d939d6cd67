"""One of all workers does what only one may do; when it ends, however it ends, another one takes its place."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Election:
    """This worker's candidacy for one office, whose name is that of a file in a folder that all workers share."""

    def __init__(self, path: Path) -> None:
        """Raises ``OSError``."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._won = False

    def won(self) -> bool:
        """Whether this worker holds the office: from the first time that it was free when asked, until it is closed."""
        if not self._won:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._won = True
        return True

    def close(self) -> None:
        os.close(self._fd)
