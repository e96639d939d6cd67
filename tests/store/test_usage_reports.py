"""How a span is put together: every moment counts once, from the coarsest sums that have it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferxgate.store.periods import DAY_MS, HOUR_MS
from inferxgate.store.usage_reports import plan

MOMENTS = st.builds(
    lambda day, hour, rest: day * DAY_MS + hour * HOUR_MS + rest,
    st.integers(0, 9),
    st.integers(0, 23),
    st.one_of(st.just(0), st.integers(0, HOUR_MS - 1)),
)


@given(since=MOMENTS, until=MOMENTS, kept=st.tuples(st.integers(0, 9), st.integers(0, 9 * 24)))
def test_every_moment_counts_once(since: int, until: int, kept: tuple[int, int]) -> None:
    hours_since, records_since = kept[0] * DAY_MS, max(kept[1] * HOUR_MS, kept[0] * DAY_MS)
    found = plan(since, until, records_since_ms=records_since, hours_since_ms=hours_since)
    pieces = sorted([*found.edges, *((window.since_ms, window.until_ms) for window in found.windows)])
    if until <= since:
        assert pieces == []
        return
    assert [begin for begin, _ in pieces] == [found.since_ms, *(end for _, end in pieces[:-1])]
    assert pieces[-1][1] == found.until_ms
    assert all(begin < end for begin, end in pieces)
    for begin, end in found.edges:
        assert begin // HOUR_MS == (end - 1) // HOUR_MS, "single records are read of one hour at most"
        assert begin // HOUR_MS * HOUR_MS >= records_since
    for window in found.windows:
        assert window.since_ms % window.span_ms == window.until_ms % window.span_ms == 0
        assert window.span_ms == DAY_MS or window.since_ms >= hours_since
        assert window.span_ms == DAY_MS or window.until_ms - window.since_ms < 2 * DAY_MS


@given(since=MOMENTS, until=MOMENTS, kept=st.tuples(st.integers(0, 9), st.integers(0, 9 * 24)))
def test_a_span_grows_only_where_something_is_no_longer_kept(since: int, until: int, kept: tuple[int, int]) -> None:
    hours_since, records_since = kept[0] * DAY_MS, max(kept[1] * HOUR_MS, kept[0] * DAY_MS)
    found = plan(since, until, records_since_ms=records_since, hours_since_ms=hours_since)
    for asked, given_back in ((since, found.since_ms), (until, found.until_ms)):
        if asked >= records_since or asked % DAY_MS == 0 or until <= since:
            assert given_back == asked
        elif asked >= hours_since:
            assert abs(given_back - asked) < HOUR_MS
        else:
            assert abs(given_back - asked) < DAY_MS
    assert found.since_ms <= since
    assert found.until_ms >= until or until <= since
