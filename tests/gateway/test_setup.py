"""Who has a setup, and what is done when nobody has it any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferxgate.gateway.setup import Uses


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 30))
def test_what_follows_is_done_once_and_not_before_the_last_request_has_ended(steps: list[bool], over_at: int) -> None:
    uses, count, done = Uses(), 0, 0

    def follow() -> None:
        nonlocal done
        done += 1
        assert count == 0

    is_over = False
    for number, begins in enumerate([*steps, *[False] * 30]):
        if number == over_at:
            is_over = True
            uses.when_over(follow)
        if begins and not is_over:  # nobody takes a setup that another one has replaced
            count += 1
            uses.begin()
        elif count:
            count -= 1
            uses.end()
        assert done == (is_over and not count)
