"""Durations counted in buckets whose bounds grow by a fifth, so that percentiles of any sum of them can be told.

A histogram is one integer, with 40 bits for the count of each bucket: adding two of them is one addition of integers,
however many buckets there are, which is what makes summing up tens of thousands a matter of milliseconds. In the
database it is a blob of the buckets that are in use:

    one byte: the bytes a count, 1 to 5
    one byte: the first bucket
    the counts, little-endian

and nothing at all (an empty blob) where nothing was counted. ``register`` gives SQLite the functions that make and add
them: ``histogram(ms)`` and ``histogram_total(blob)`` over rows, and ``histogram_sum(blob, blob)``.

Blobs are in stores and in backups: neither the bounds nor the form may ever change.
"""

from __future__ import annotations

import math
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence

_COUNT_BYTES = 5
_COUNT_BITS = 8 * _COUNT_BYTES
_LONGEST_MS = 4 * 3_600_000


def _bounds() -> Iterator[int]:
    bound = 0
    while bound < _LONGEST_MS:
        yield bound
        bound = max(bound + 1, bound * 6 // 5)


BOUNDS: tuple[int, ...] = tuple(_bounds())
"""The smallest value of each bucket, in milliseconds. The last one takes everything beyond it."""

_ABOVE: tuple[int, ...] = tuple(
    sum(((1 << _COUNT_BITS) - (1 << 8 * width)) << _COUNT_BITS * bucket for bucket in range(len(BOUNDS)))
    for width in range(_COUNT_BYTES + 1)
)
"""For each number of bytes, the bits of all counts that do not fit into so many."""

_CARRIED: tuple[int, ...] = tuple(
    sum(1 << 8 * width * bucket for bucket in range(1, len(BOUNDS) + 1)) for width in range(_COUNT_BYTES + 1)
)
"""For each number of bytes, the bits that a count which outgrows them is carried into."""


def histogram_of(values: dict[int, int]) -> int:
    """The histogram of counts by value (milliseconds)."""
    return sum(count << _COUNT_BITS * _bucket(value) for value, count in values.items())


def percentiles(histogram: int, shares: Sequence[float]) -> list[float]:
    """For each share (0 to 1, rising) the value at or below which so many of the counted ones lie, within a tenth.

    Nothing where nothing was counted. Values below 10 ms are exact; those beyond four hours come out as four hours.
    """
    counts = list(_counts(histogram))
    total = sum(count for _, count in counts)
    found: list[float] = []
    below = 0
    for bucket, count in counts:
        below += count
        while len(found) < len(shares) and below >= shares[len(found)] * total:
            low = BOUNDS[bucket]
            high = BOUNDS[bucket + 1] - 1 if bucket + 1 < len(BOUNDS) else low
            found.append(math.sqrt(low * high))
    return found


def unpack(blob: bytes) -> int:
    """The histogram in a blob."""
    if not blob:
        return 0
    width = blob[0]
    wide = bytearray((len(blob) - 2) // width * _COUNT_BYTES)
    for place in range(width):
        wide[place::_COUNT_BYTES] = blob[2 + place :: width]
    return int.from_bytes(wide, "little") << _COUNT_BITS * blob[1]


def pack(histogram: int) -> bytes:
    """The smallest blob of a histogram."""
    if not histogram:
        return b""
    width = 1
    while histogram & _ABOVE[width]:
        width += 1
    first = ((histogram & -histogram).bit_length() - 1) // _COUNT_BITS
    histogram >>= _COUNT_BITS * first
    wide = histogram.to_bytes((histogram.bit_length() + _COUNT_BITS - 1) // _COUNT_BITS * _COUNT_BYTES, "little")
    counts = bytearray(len(wide) // _COUNT_BYTES * width)
    for place in range(width):
        counts[place::width] = wide[place::_COUNT_BYTES]
    return bytes((width, first)) + counts


def pack_values(values: Sequence[int]) -> bytes:
    """The smallest blob of some values (milliseconds)."""
    if not values:
        return b""
    if len(values) == 1:
        return bytes((1, _bucket(values[0]), 1))
    buckets = [_bucket(value) for value in values]
    first = min(buckets)
    counts = [0] * (max(buckets) - first + 1)
    for bucket in buckets:
        counts[bucket - first] += 1
    if max(counts) < 256:
        return bytes((1, first, *counts))
    return pack(sum(count << _COUNT_BITS * (first + place) for place, count in enumerate(counts)))


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL functions of this module. Raises ``sqlite3.Error``."""
    connection.create_aggregate("histogram", 1, _Counted)  # type: ignore[arg-type]  # its step takes a value or NULL
    connection.create_aggregate("histogram_total", 1, _Added)  # type: ignore[arg-type]  # its step takes a blob
    connection.create_function("histogram_sum", 2, _sum, deterministic=True)


class _Counted:
    """The histogram of the rows' values; NULL is none."""

    def __init__(self) -> None:
        self._values: dict[int, int] = {}

    def step(self, value: int | None) -> None:
        if value is not None:
            self._values[value] = self._values.get(value, 0) + 1

    def finalize(self) -> bytes:
        return pack(histogram_of(self._values))


class _Added:
    """The sum of the rows' histograms."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, blob: bytes) -> None:
        self._sum += unpack(blob)

    def finalize(self) -> bytes:
        return pack(self._sum)


def _sum(one: bytes, other: bytes) -> bytes:
    if not one or not other:
        return one or other
    width = max(one[0], other[0])
    first = min(one[1], other[1])
    bits = 8 * width
    a = _at_width(one, width) << bits * (one[1] - first)
    b = _at_width(other, width) << bits * (other[1] - first)
    added = a + b
    if (a ^ b ^ added) & _CARRIED[width]:  # a count has outgrown its bytes
        return pack(unpack(one) + unpack(other))
    return bytes((width, first)) + added.to_bytes((added.bit_length() + bits - 1) // bits * width, "little")


def _at_width(blob: bytes, width: int) -> int:
    """A blob's counts, from its first bucket on, with so many bytes for each."""
    own = blob[0]
    if own == width:
        return int.from_bytes(blob[2:], "little")
    wide = bytearray((len(blob) - 2) // own * width)
    for place in range(own):
        wide[place::width] = blob[2 + place :: own]
    return int.from_bytes(wide, "little")


def _bucket(value: int) -> int:
    return max(bisect_right(BOUNDS, value) - 1, 0)


def _counts(histogram: int) -> Iterator[tuple[int, int]]:
    """Each bucket that is in use with its count, smallest first."""
    mask = (1 << _COUNT_BITS) - 1
    bucket = 0
    while histogram:
        count = histogram & mask
        if count:
            yield bucket, count
        histogram >>= _COUNT_BITS
        bucket += 1
