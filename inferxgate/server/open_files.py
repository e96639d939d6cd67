"""How many files this process may have open: a request under way has two, its client's connection and its provider's.

Shells and service managers start programs with a soft limit of 1,024, for the sake of old ones that use ``select``. The
hard limit is what the machine's owner allows.
"""

from __future__ import annotations

import contextlib
import logging
import sys

if sys.platform != "win32":
    import resource

MOST = 1_048_576
"""No more is asked for, even where there is no limit."""
_MACOS_MOST = 10_240
"""What macOS takes where it says that there is no limit."""
_ENOUGH = 8_192
_OF_ONE_REQUEST = 2
_OTHERS = 64
"""The store, the journal, what listens, connections that wait for their next request."""

log = logging.getLogger("inferxgate.server")


def raise_open_files() -> None:
    """Raise the soft limit as far as is allowed and of use. Where the platform has no such limit, nothing happens."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (MOST, _MACOS_MOST):
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= allowed:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            return


def warn_of_few_open_files() -> None:
    """Tell the operator where the limit, after ``raise_open_files``, is one that a busy gateway comes to."""
    if sys.platform == "win32":
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _ENOUGH:
        log.warning(
            "a worker may have %d files open, which is enough for about %d requests at once: raise the hard limit"
            " (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker)",
            *(soft, max(0, soft - _OTHERS) // _OF_ONE_REQUEST),
        )
