"""The terminal that a program was started from: when it is closed, the program is told so by SIGHUP.

The same signal is an operator's word to read the configuration again. What was meant is told apart by whether the
terminal has just gone. A program that was started under ``nohup`` was asked to outlive it, and one that was not told
(because its shell had disowned it) has outlived it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

_LATE_SECONDS = 5.0
"""The signal may come this long after the terminal has gone: shells pass it on."""


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Terminal:
    """Made before SIGHUP has a handler."""

    def __init__(
        self, *, is_there: Callable[[], bool] = _is_there, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``is_there``: whether this process has a terminal; ``clock``: seconds."""
        self._is_there = is_there
        self._clock = clock
        self._matters = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and is_there()
        self._gone_at: float | None = None

    def look(self) -> None:
        """See whether it is still there; to be called about once a second."""
        if self._matters and not self._is_there():
            if self._gone_at is None:
                self._gone_at = self._clock()
            self._matters = self._clock() - self._gone_at < _LATE_SECONDS

    def has_just_gone(self) -> bool:
        """Whether SIGHUP means that it was closed, so that this program is to end."""
        self.look()
        return self._matters and self._gone_at is not None
