"""Histograms: they add up, they fit into little, and what they say of a percentile is nearly true."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.store.histograms import BOUNDS, histogram_of, pack, pack_values, percentiles, register, unpack

SHARES = (0.01, 0.5, 0.9, 0.95, 0.99, 1.0)
VALUES = st.one_of(st.integers(0, 30), st.integers(0, 5_000), st.integers(0, BOUNDS[-1]))
COUNTS = st.dictionaries(
    VALUES, st.one_of(st.integers(1, 300), st.integers(65_000, 66_000), st.integers(1, 2**34)), max_size=20
)


def of(values: Sequence[int]) -> int:
    return histogram_of(Counter(values))


def test_the_bounds_are_what_stored_blobs_were_made_with() -> None:
    assert BOUNDS[:16] == (*range(11), 12, 14, 16, 19, 22)
    assert (len(BOUNDS), BOUNDS[-1]) == (89, 12_108_972)


@pytest.mark.parametrize(
    ("values", "blob"),
    [
        ([], b""),
        ([0], b"\x01\x00\x01"),
        ([5, 5, 7], b"\x01\x05\x02\x00\x01"),
        ([3] * 300, b"\x02\x03\x2c\x01"),
        ([10**12], b"\x01\x58\x01"),
        ([-5], b"\x01\x00\x01"),
    ],
)
def test_the_form_is_what_stored_blobs_have(values: list[int], blob: bytes) -> None:
    assert pack(of(values)) == pack_values(values) == blob
    assert unpack(blob) == of(values)


@given(counts=COUNTS)
def test_a_blob_comes_back_as_it_went(counts: dict[int, int]) -> None:
    assert unpack(pack(histogram_of(counts))) == histogram_of(counts)


@given(values=st.lists(VALUES, min_size=1, max_size=60))
def test_percentiles_are_within_a_tenth(values: list[int]) -> None:
    ranked = sorted(values)
    found = percentiles(of(values), SHARES)
    assert len(found) == len(SHARES)
    for share, value in zip(SHARES, found, strict=True):
        true = ranked[max(-(-round(share * 100) * len(ranked) // 100), 1) - 1]
        assert abs(value - true) <= 0.1 * true, share
        assert true >= 10 or value == true, "the first ones are exact"


def test_nothing_has_no_percentiles() -> None:
    assert percentiles(0, SHARES) == []


def test_what_is_longer_than_anything_comes_out_as_the_last_bound() -> None:
    assert percentiles(of([10**12]), (0.5,)) == [BOUNDS[-1]]


@given(parts=st.lists(st.lists(st.one_of(st.none(), VALUES), min_size=1, max_size=8), min_size=1, max_size=6))
def test_sqlite_counts_and_adds_alike(parts: list[list[int | None]]) -> None:
    """However the values are spread over rows and sums, the histogram is that of all of them."""
    connection = sqlite3.connect(":memory:")
    register(connection)
    connection.execute("CREATE TABLE parts (part INTEGER, ms INTEGER)")
    rows = [(number, value) for number, part in enumerate(parts) for value in part]
    connection.executemany("INSERT INTO parts VALUES (?, ?)", rows)
    whole = pack(of([value for _, value in rows if value is not None]))
    assert connection.execute("SELECT histogram(ms) FROM parts").fetchone() == (whole,)
    added = "SELECT histogram_total(part) FROM (SELECT histogram(ms) AS part FROM parts GROUP BY parts.part)"
    assert connection.execute(added).fetchone() == (whole,)
    one = b""
    for (part,) in connection.execute("SELECT histogram(ms) FROM parts GROUP BY part").fetchall():
        (one,) = connection.execute("SELECT histogram_sum(?, ?)", (one, part)).fetchone()
    assert one == whole
    connection.close()


@given(counts=COUNTS, more=COUNTS)
def test_counts_that_outgrow_their_bytes_add_up(counts: dict[int, int], more: dict[int, int]) -> None:
    connection = sqlite3.connect(":memory:")
    register(connection)
    one, other = histogram_of(counts), histogram_of(more)
    assert connection.execute("SELECT histogram_sum(?, ?)", (pack(one), pack(other))).fetchone() == (pack(one + other),)
    connection.close()
