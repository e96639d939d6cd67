"""Identifiers of our own: sortable by time, safe in URLs and shells, unguessable enough to be unique anywhere."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that read like digits
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS = range(120, -1, -10)


def new_id(prefix: str) -> str:
    """``prefix`` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return prefix + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
