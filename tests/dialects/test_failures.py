"""What every dialect reads of a provider's failure and counts in the same way."""

from __future__ import annotations

import pytest

from inferxgate.dialects.failures import plain_integer


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        ("007", 7),
        (0, 0),
        (-1, 0),
        ("-1", 0),
        (True, 0),
        (None, 0),
        ([7], 0),
        ("", 0),
        ("seven", 0),
        (float("nan"), 0),
        (float("inf"), 0),
        (10**9, 10**9),
        (10**9 + 1, 0),
        (10**15, 0),
        ("1" * 16, 0),
        ("1" * 5_000, 0),
        ("²", 0),
        ("٣", 0),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_count_is_read_as_it_may_be_written_and_nonsense_is_none(written: object, count: int) -> None:
    assert plain_integer(written) == count
