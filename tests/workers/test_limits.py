"""Limits: never more than they allow in any window, never less where it is spread out, and exact whatever the order."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.store.records import UsageRecord
from inferxgate.workers.limits import EXACT_UP_TO, UNLIMITED, WINDOW_SECONDS, NoLimits, Refused, Scope, Settled
from inferxgate.workers.shared import SharedMemory
from tests.support.stores import DAY_MS, new_record
from tests.workers.counting import Clock, Counting, new_scope

STEPS = st.lists(st.floats(0, 90, allow_nan=False).map(lambda seconds: round(seconds, 3)), min_size=1, max_size=60)

# --- requests a minute


@settings(deadline=None)
@given(rpm=st.integers(1, 8), steps=STEPS)
def test_never_more_than_the_limit_in_any_minute(shared: SharedMemory, rpm: int, steps: list[float]) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=rpm)
    admitted: list[float] = []
    for step in steps:
        counting.clock.now += step
        now = counting.clock.now
        window = [time for time in admitted if time + WINDOW_SECONDS > now]
        asked = counting.ask(scope)
        assert isinstance(asked, UsageRecord) == (len(window) < rpm), "refused if and only if the window is full"
        if isinstance(asked, Refused):
            assert (asked.limit, asked.most, asked.used) == ("requests", rpm, rpm)
            assert asked.wait_seconds == pytest.approx(window[0] + WINDOW_SECONDS - now)
        else:
            admitted.append(now)
            window.append(now)
            counting.end(asked, scope)
        state = counting.state(scope)
        assert (state.limit, state.remaining) == (rpm, rpm - len(window))
        assert state.reset_at_s == math.ceil(round(counting.wall() + window[0] + WINDOW_SECONDS - now, 6))


@settings(deadline=None, max_examples=20)
@given(rpm=st.integers(1, 50))
def test_a_limit_spread_evenly_always_passes(shared: SharedMemory, rpm: int) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=rpm)
    for _ in range(3 * rpm):
        counting.admitted(scope)
        counting.clock.now += WINDOW_SECONDS / rpm + 1e-6


def test_the_next_request_passes_when_the_reset_has_come(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=60)
    for _ in range(60):
        counting.admitted(scope)
    wait = counting.refused(scope).wait_seconds
    assert wait == WINDOW_SECONDS
    counting.clock.now += wait - 0.001
    assert counting.refused(scope).limit == "requests"
    counting.clock.now += counting.state(scope).reset_at_s - counting.wall() + 1e-6
    counting.admitted(scope)


def test_no_limit_is_said_with_a_number_that_keeps_clients_going(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope()
    for _ in range(3):
        counting.admitted(scope)
    state = counting.state(scope)
    assert (state.limit, state.remaining, state.reset_at_s) == (UNLIMITED, UNLIMITED, math.ceil(counting.wall()))


def test_a_lowered_limit_waits_for_all_that_is_too_much(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=5)
    for _ in range(5):
        counting.admitted(scope)
        counting.clock.now += 1
    lowered = Scope("key", scope.id, requests_per_minute=2)
    refused = counting.refused(lowered)
    assert refused.wait_seconds == pytest.approx(WINDOW_SECONDS - 5 + 3), "until four of five have had their minute"
    assert counting.state(lowered).reset_at_s == math.ceil(round(counting.wall() + WINDOW_SECONDS - 5 + 3, 6))


def test_a_crowd_shares_seconds_and_errs_towards_refusing(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=EXACT_UP_TO + 3)
    for _ in range(EXACT_UP_TO + 3):
        counting.admitted(scope)
    counting.clock.now += WINDOW_SECONDS
    assert counting.state(scope).remaining == EXACT_UP_TO, "the last three count until their second is a minute old"
    counting.clock.now += 1
    assert counting.state(scope).remaining == EXACT_UP_TO + 3


def test_what_nobody_comes_back_for_is_forgotten(shared: SharedMemory) -> None:
    counting, gone = Counting(shared), [new_scope(requests_per_minute=9) for _ in range(7)]
    for scope in gone:
        counting.end(counting.admitted(scope), cost=5)
        counting.end(counting.admitted(scope), cost=5)
    counting.clock.now += WINDOW_SECONDS - 1
    stays = new_scope(requests_per_minute=9)
    counting.end(counting.admitted(stays))
    counting.clock.now += 1
    rounds = 1
    while counting.limits.forget_expired(most=3):
        rounds += 1
    assert rounds > len(gone) // 3
    windows = shared.database("windows")
    with shared.reading() as transaction:
        left = [name for name, _ in shared.rows(transaction, windows)]
    names = [f"{scope.kind}:{scope.id}\0".encode() for scope in (*gone, stays)]
    assert [sum(key.startswith(name) for key in left) for name in names] == [0] * len(gone) + [1]
    assert counting.state(stays).remaining == 8
    assert counting.limits.spent("key", gone[0].id, counting.now_ms)["total"] == 10


# --- tokens a minute


@settings(deadline=None)
@given(used=st.lists(st.integers(0, 60), min_size=1, max_size=12), claimed=st.integers(1, 100))
def test_the_wait_for_tokens_is_no_longer_than_it_has_to_be(
    shared: SharedMemory, used: list[int], claimed: int
) -> None:
    counting, scope, unlimited = Counting(shared), new_scope(tokens_per_minute=100), 10**9
    for tokens in used:
        counting.end(counting.admitted(replace(scope, tokens_per_minute=unlimited)), tokens=tokens)
        counting.clock.now += 1
    if sum(used) + claimed > 100:
        left_after = [sum(used[place + 1 :]) for place in range(len(used))]
        first = next(place for place, left in enumerate(left_after) if left + claimed <= 100)
        wait = counting.refused(scope, tokens=claimed).wait_seconds
        assert wait == pytest.approx(WINDOW_SECONDS - len(used) + first)


@settings(deadline=None)
@given(
    tpm=st.integers(10, 100),
    requests=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 60), st.integers(0, 90)), max_size=40),
)
def test_tokens_are_claimed_then_settled(
    shared: SharedMemory, tpm: int, requests: list[tuple[float, int, int]]
) -> None:
    counting, scope = Counting(shared), new_scope(tokens_per_minute=tpm)
    window: deque[tuple[float, int]] = deque()
    for step, claimed, used in requests:
        counting.clock.now += round(step, 3)
        now = counting.clock.now
        while window and window[0][0] + WINDOW_SECONDS <= now:
            window.popleft()
        total = sum(tokens for _, tokens in window)
        asked = counting.ask(scope, tokens=claimed)
        assert isinstance(asked, UsageRecord) == (total + claimed <= tpm)
        if isinstance(asked, Refused):
            assert (asked.limit, asked.most, asked.used) == ("tokens", tpm, total)
            if claimed > tpm:
                assert asked.wait_seconds is None, "no waiting helps"
            elif total <= tpm:
                assert asked.wait_seconds is not None
                before, counting.clock.now = counting.clock.now, now + asked.wait_seconds
                passes = counting.ask(scope, tokens=claimed)
                assert isinstance(passes, UsageRecord), "it passes when the wait is over"
                window.append((counting.clock.now, 0))
                counting.end(passes, tokens=0)
                assert before <= counting.clock.now
        else:
            counting.end(asked, tokens=used)
            window.append((now, used))


def test_requests_and_tokens_are_windows_of_their_own(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=3, tokens_per_minute=100)
    first = counting.admitted(scope, tokens=90)
    assert counting.refused(scope, tokens=20).limit == "tokens"
    counting.end(first, tokens=10)
    counting.admitted(scope, tokens=20)
    counting.admitted(scope, tokens=20)
    assert counting.refused(scope, tokens=1).limit == "requests"
    assert counting.state(scope).remaining == 0


def test_tokens_count_for_a_limit_from_when_it_is_set(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(requests_per_minute=9)
    limited = replace(scope, tokens_per_minute=100)
    before, lasting = counting.admitted(scope, tokens=500), counting.admitted(scope, tokens=500)
    counting.end(before, tokens=400)
    since = counting.admitted(limited, tokens=80)
    counting.end(lasting, tokens=400)
    assert counting.refused(limited, tokens=21).used == 80
    counting.admitted(scope, tokens=500)
    counting.end(since, scope, tokens=30)
    assert counting.refused(limited, tokens=71).used == 30
    assert counting.state(limited).remaining == 5, "requests counted all the time"
    counting.clock.now += WINDOW_SECONDS
    counting.admitted(limited, tokens=100)


def test_who_can_do_without_gets_what_is_left(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(tokens_per_minute=100)
    user = Scope("user", scope.id, tokens_per_minute=80)
    first = counting.admitted(scope, user, tokens=1_000, spare=990)
    assert counting.refused(scope, user, tokens=1_000, spare=990).used == 80, "the user's minute is the smaller one"
    counting.end(first, tokens=30)
    second = counting.admitted(scope, user, tokens=60, spare=50)
    assert counting.refused(scope, tokens=21).used == 80
    counting.end(second, tokens=0)
    refused = counting.refused(scope, user, tokens=1_000, spare=940)
    assert (refused.scope, refused.used) == (user, 30), "what it cannot do without must fit"
    counting.admitted(new_scope(), tokens=10, spare=10)


def test_what_ends_after_its_minute_leaves_the_window_alone(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(tokens_per_minute=100)
    slow = counting.admitted(scope, tokens=100)
    counting.clock.now += WINDOW_SECONDS
    counting.admitted(scope, tokens=100)
    counting.end(slow, tokens=10)
    assert counting.refused(scope, tokens=1).used == 100


# --- requests at once


def test_requests_at_once(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(parallel_requests=2)
    first, second = counting.admitted(scope), counting.admitted(scope)
    refused = counting.refused(scope)
    assert (refused.limit, refused.most, refused.used, refused.wait_seconds) == ("parallel", 2, 2, None)
    counting.clock.now += 1_000
    assert counting.refused(scope).limit == "parallel", "time frees no place"
    counting.end(first)
    third = counting.admitted(scope)
    for record in (second, third):
        counting.end(record)
    assert counting.limits.reserved().get(("key", scope.id)) is None


# --- budgets


def test_as_many_fit_as_were_reserved(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(budget_nanos=300)
    under_way = [counting.admitted(scope, cost=100) for _ in range(3)]
    refused = counting.refused(scope, cost=1)
    assert (refused.limit, refused.most, refused.used, refused.wait_seconds) == ("budget", 300, 300, None)
    counting.admitted(scope, cost=0)
    counting.end(under_way[0], cost=40)
    counting.admitted(scope, cost=60)
    assert counting.refused(scope, cost=1).used == 300
    assert counting.limits.spent("key", scope.id, counting.now_ms)["total"] == 40


@settings(deadline=None)
@given(
    budget=st.integers(1, 300),
    moves=st.lists(st.tuples(st.booleans(), st.integers(1, 120), st.floats(0, 1)), max_size=50),
)
def test_spend_never_exceeds_a_budget(shared: SharedMemory, budget: int, moves: list[tuple[bool, int, float]]) -> None:
    counting, scope = Counting(shared), new_scope(budget_nanos=budget)
    under_way: list[tuple[UsageRecord, int]] = []
    spent = 0
    for begins, cost, share in moves:
        reserved = sum(claimed for _, claimed in under_way)
        if begins or not under_way:
            asked = counting.ask(scope, cost=cost)
            assert isinstance(asked, UsageRecord) == (spent + reserved + cost <= budget)
            if isinstance(asked, UsageRecord):
                under_way.append((asked, cost))
        else:
            record, claimed = under_way.pop(cost % len(under_way))
            used = round(claimed * share)
            counting.end(record, cost=used)
            spent += used
        assert counting.limits.spent("key", scope.id, counting.now_ms)["total"] == spent <= budget
        expected = (len(under_way), sum(claimed for _, claimed in under_way))
        assert counting.limits.reserved().get(("key", scope.id), (0, 0)) == expected


def test_a_period_begins_with_nothing_spent(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(budget_nanos=100, budget_period="day")
    counting.end(counting.admitted(scope, cost=100), cost=100)
    assert counting.refused(scope, cost=1).limit == "budget"
    counting.clock.now += DAY_MS / 2000
    counting.admitted(scope, cost=100)
    spent = counting.limits.spent("key", scope.id, counting.now_ms)
    assert (spent["total"], spent["day"]) == (100, 0)


def test_money_counts_in_the_period_in_which_its_request_began(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(budget_nanos=100, budget_period="day")
    slow = counting.admitted(scope, cost=60)
    counting.clock.now += DAY_MS / 2000
    counting.end(slow, cost=50)
    spent = counting.limits.spent("key", scope.id, counting.now_ms)
    assert (spent["total"], spent["day"], spent["week"]) == (50, 0, 0), "noon was that of a Sunday"
    counting.admitted(scope, cost=100)


def test_a_budget_that_comes_later_knows_what_was_spent(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope()
    counting.end(counting.admitted(scope, cost=80), cost=70)
    budgeted = Scope("key", scope.id, budget_nanos=100, budget_period="month")
    assert counting.refused(budgeted, cost=31).used == 70
    counting.admitted(budgeted, cost=30)


def test_an_unknown_cost_frees_what_was_reserved(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(budget_nanos=100)
    counting.end(counting.admitted(scope, cost=100), cost=None)
    counting.admitted(scope, cost=100)


def test_thresholds_are_told_once(shared: SharedMemory) -> None:
    counting, scope = Counting(shared, alerts=(0.95, 0.5, 0.8)), new_scope(budget_nanos=100, budget_period="week")
    told = []
    for cost in (40, 20, 20, 0, 20):
        alerts = counting.end(counting.admitted(scope, cost=cost), cost=cost)
        assert alerts is not None
        told.append([(alert.threshold, alert.spent_nanos) for alert in alerts])
        assert all((a.kind, a.id, a.budget_nanos, a.period) == ("key", scope.id, 100, "week") for a in alerts)
    assert told == [[], [(0.5, 60)], [(0.8, 80)], [], [(0.95, 100)]]


def test_what_an_ended_period_spends_tells_of_no_other(shared: SharedMemory) -> None:
    counting = Counting(shared, alerts=(0.5,))
    day, total = new_scope(budget_nanos=100, budget_period="day"), new_scope(budget_nanos=100)
    lasting = counting.admitted(day, total, cost=50)
    counting.clock.now += DAY_MS / 1000
    counting.end(counting.admitted(day, cost=50), cost=50)
    alerts = counting.end(lasting, cost=50)
    assert alerts is not None
    assert [(alert.id, alert.spent_nanos) for alert in alerts] == [(total.id, 50)]


# --- scopes together


def test_every_scope_must_allow_it_or_none_counts_it(shared: SharedMemory) -> None:
    counting = Counting(shared)
    user = Scope("user", "user_1", requests_per_minute=2)
    one, other = new_scope(requests_per_minute=5), new_scope(requests_per_minute=5)
    first = counting.admitted(one, user)
    counting.admitted(other, user)
    refused = counting.refused(one, user)
    assert (refused.limit, refused.scope) == ("requests", user)
    assert counting.state(one).remaining == 4, "the key did not count what its user may not"
    assert counting.state(one, user).remaining == 0, "what is told is the limit that is nearest"
    assert counting.end(first, one, user) == []


def test_a_claim_is_settled_once(shared: SharedMemory) -> None:
    counting, scope = Counting(shared), new_scope(budget_nanos=100, parallel_requests=1)
    record = counting.admitted(scope, cost=50)
    assert counting.end(record, cost=20) == []
    assert counting.end(record, cost=20) is None
    assert counting.limits.spent("key", scope.id, counting.now_ms)["total"] == 20
    assert counting.end(new_record()) is None


@settings(deadline=None, max_examples=30)
@given(orders=st.permutations(range(6)))
def test_the_order_of_ends_does_not_matter(shared: SharedMemory, orders: list[int]) -> None:
    counting, scope = Counting(shared), new_scope(tokens_per_minute=1_000, budget_nanos=1_000, parallel_requests=6)
    records = [counting.admitted(scope, tokens=100, cost=100) for _ in orders]
    for place in orders:
        counting.end(records[place], tokens=10 * place, cost=place)
    assert counting.limits.spent("key", scope.id, counting.now_ms)["total"] == 15
    assert counting.refused(scope, tokens=851).used == 150
    assert ("key", scope.id) not in counting.limits.reserved()


# --- those without limits


def test_off_is_an_engine_too(shared: SharedMemory) -> None:
    limits = NoLimits()
    assert limits.peek(()).remaining == UNLIMITED
    assert limits.settle(new_record()) == Settled()
    limits.note([new_record()])


def test_the_clock_of_a_new_worker_is_the_same(shared: SharedMemory) -> None:
    clock = Clock()
    one, other = Counting(shared, clock=clock), Counting(shared, owner="worker_2", clock=clock)
    scope = new_scope(requests_per_minute=2)
    one.admitted(scope)
    other.admitted(scope)
    assert one.refused(scope).limit == other.refused(scope).limit == "requests"
