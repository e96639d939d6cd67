"""Identifiers of our own: sortable by time, safe in URLs and shells, unguessable enough to be unique anywhere."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that read like digits
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_SHIFTS = range(120, -1, -10)
_RANDOM_BYTES = 10
_pool: list[bytes] = []
"""Random bytes that nobody has used yet. To ask the kernel for those of each identifier took longer than the rest."""


def new_id(prefix: str) -> str:
    """``prefix`` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    try:
        chance = _pool.pop()
    except IndexError:
        chance = _fresh()
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(chance)
    return prefix + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def _fresh() -> bytes:
    """Fill the pool; what would be its last, for who is in need."""
    data = os.urandom(100 * _RANDOM_BYTES)
    pieces = [data[begin : begin + _RANDOM_BYTES] for begin in range(0, len(data), _RANDOM_BYTES)]
    last = pieces.pop()
    _pool.extend(pieces)
    return last


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.clear)  # else a child would use the same ones as its parent
