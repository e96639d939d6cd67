"""A page on which the supervisor writes what all workers are to know, the latest only.

It is memory that they share from their birth on, so that it holds secrets without a file. A worker may read while the
supervisor writes: a checksum tells it, and it is told to look again when the writing is done.
"""

from __future__ import annotations

import mmap
import struct
import zlib

_HEAD = struct.Struct("=II")
_PAGE_BYTES = 16 * 1024 * 1024
"""Memory is taken only for what is written."""
LONGEST = _PAGE_BYTES - _HEAD.size
"""Bytes of one piece of news."""


class NewsPage:
    """Made by the supervisor before its first fork."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE_BYTES)

    def write(self, news: bytes) -> None:
        """Raises ValueError for news that is too long."""
        if len(news) > LONGEST:
            raise ValueError(f"{len(news)} bytes are more than workers can be told at once")
        self._page[_HEAD.size : _HEAD.size + len(news)] = news
        _HEAD.pack_into(self._page, 0, len(news), zlib.crc32(news))

    def read(self) -> bytes | None:
        """The latest news; None where there is none, or where it is just being written."""
        length, checksum = _HEAD.unpack_from(self._page, 0)
        news = self._page[_HEAD.size : _HEAD.size + length]
        return news if news and zlib.crc32(news) == checksum else None
