"""Identifiers of our own: sortable by time, safe in URLs and shells, unguessable enough to be unique anywhere."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that read like digits


def new_id(prefix: str) -> str:
    """``prefix`` and 26 characters: 48 bits of milliseconds, then 80 random bits."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    characters = []
    for _ in range(26):
        characters.append(_ALPHABET[number & 31])
        number >>= 5
    return prefix + "".join(reversed(characters))
