"""Circuits, by one worker: whichever engine keeps them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.workers.health import (
    KEEP_HALF_OPEN_SECONDS,
    KEEP_SECONDS,
    LOOK_AGAIN_SECONDS,
    MAX_CIRCUITS,
    MAX_COOL_SECONDS,
    PROBE_SECONDS,
    Circuit,
    CircuitKey,
    CircuitState,
    HealthPolicy,
    LocalHealth,
    Successes,
)
from inferxgate.workers.shared import SharedMemory
from tests.workers.circuits import MakeHealth, World, maker, new_key, state_of
from tests.workers.counting import Clock


@pytest.fixture(scope="module", params=["local", "shared"])
def make(request: pytest.FixtureRequest, shared: SharedMemory) -> MakeHealth:
    return maker(None if request.param == "local" else shared)


def test_what_never_failed_is_asked_and_not_told_of(make: MakeHealth) -> None:
    world = World(make)
    assert (world.wait(), world.enter()) == (0, 0)
    world.succeed(100)
    world.health.abandoned(world.key)
    world.health.sync()
    assert (world.wait(), world.enter()) == (0, 0)
    assert world.state() is None


# --- opening


def test_it_opens_with_enough_failures_of_enough_of_the_requests(make: MakeHealth) -> None:
    world = World(make)
    world.succeed(5)
    world.fail(4)
    assert world.wait() == 0, "too few"
    world.fail()
    assert world.wait() == 5, "five of ten"
    other = World(make)
    other.succeed(6)
    other.fail(5)
    assert other.wait() == 0, "five of eleven"
    other.fail()
    assert other.wait() == 5, "six of twelve"


def test_only_what_the_window_holds_counts(make: MakeHealth) -> None:
    world = World(make)
    world.fail(4)
    world.sleep(30)
    world.fail(4)
    assert world.wait() == 0
    state = world.state()
    assert state is not None
    assert state.failures == 4
    world.fail()
    assert world.wait() == 5


def test_successes_count_at_their_time(make: MakeHealth) -> None:
    world = World(make)
    world.succeed(100)
    world.sleep(29)
    world.fail(5)
    assert world.wait() == 0, "they were told with the first failure, and are in the window"
    world.sleep(2)
    world.fail()
    assert world.wait() == 5, "they are not any more"


def test_successes_are_counted_from_before_the_first_failure_and_after(make: MakeHealth) -> None:
    world = World(make)
    world.succeed(3)
    world.fail()
    world.succeed(2)
    state = world.state()
    assert state is not None
    assert (state.failures, state.requests) == (1, 6)
    world.health.sync()
    world.health.sync()
    assert world.state() == state, "once"


def test_keys_are_apart(make: MakeHealth) -> None:
    world = World(make)
    world.open()
    for name in ("provider", "model", "credential"):
        assert world.health.enter(world.key._replace(**{name: "another"})) == 0
    moved = CircuitKey(world.key.provider + world.key.model[0], world.key.model[1:], world.key.credential)
    assert world.health.enter(moved) == 0
    assert world.wait() == 5


# --- half-open


def test_after_the_cool_down_one_probe_goes(make: MakeHealth) -> None:
    world = World(make)
    world.open()
    assert world.enter() == 5
    world.sleep(4.5)
    assert (world.wait(), world.enter()) == (0.5, 0.5)
    world.sleep(0.5)
    assert world.wait() == 0, "to look claims nothing"
    assert world.enter() == 0
    assert (world.wait(), world.enter()) == (LOOK_AGAIN_SECONDS, LOOK_AGAIN_SECONDS)
    world.succeed()
    assert (world.wait(), world.enter(), world.enter()) == (0, 0, 0)


def test_a_success_of_the_probe_begins_the_counts_anew(make: MakeHealth) -> None:
    world = World(make)
    world.open()
    world.sleep(5)
    world.enter()
    world.succeed()
    assert world.state() is None
    world.fail(4)
    assert world.wait() == 0
    world.fail()
    assert world.wait() == 5, "and so does the cool-down"


def test_each_opening_in_a_row_doubles_the_cool_down(make: MakeHealth) -> None:
    world = World(make, cooldown_seconds=5, max_cooldown_seconds=30)
    world.open()
    for seconds in (5, 10, 20, 30, 30):
        assert world.wait() == seconds
        world.sleep(seconds)
        assert world.enter() == 0
        world.fail()
    for _ in range(100):
        world.sleep(30)
        world.enter()
        world.fail()
    assert world.wait() == 30


def test_a_probe_of_which_nothing_is_heard_expires(make: MakeHealth) -> None:
    world = World(make)
    world.open()
    world.sleep(5)
    world.enter()
    world.sleep(PROBE_SECONDS - 0.5)
    assert world.enter() == 0.5
    world.sleep(0.5)
    assert world.enter() == 0
    assert world.enter() == LOOK_AGAIN_SECONDS


def test_a_probe_that_says_nothing_is_given_back(make: MakeHealth) -> None:
    world = World(make)
    world.open()
    world.sleep(5)
    world.enter()
    world.health.abandoned(world.key)
    assert world.enter() == 0
    world.health.cool(world.key, "rate_limited", 3)
    assert world.enter() == 3
    world.sleep(3)
    assert world.enter() == 0
    assert world.enter() == LOOK_AGAIN_SECONDS


def test_late_news_of_older_attempts_changes_nothing(make: MakeHealth) -> None:
    world = World(make)
    older = world.clock()
    world.sleep(1)
    world.open()
    world.health.succeeded(world.key, begun=older)
    world.health.failed(world.key, "late", begun=older)
    assert world.wait() == 5
    world.sleep(5)
    begun = world.clock()
    assert world.enter() == 0
    world.health.succeeded(world.key, begun=older)
    world.health.abandoned(world.key, begun=older)
    world.health.failed(world.key, "late", begun=older)
    assert world.enter() == LOOK_AGAIN_SECONDS, "the probe is under way as before"
    world.health.succeeded(world.key, begun=begun)
    assert world.enter() == 0
    for _ in range(10):
        world.health.failed(world.key, "late", begun=older)
    assert world.enter() == 0, "what was before it opened says nothing of now"


def test_without_a_probe_success_and_failure_only_count(make: MakeHealth) -> None:
    world = World(make)
    world.open()
    world.succeed(100)
    world.fail()
    assert world.wait() == 5
    world.sleep(5)
    world.succeed(100)
    world.fail()
    assert world.wait() == 0, "half-open, and opened no second time"
    assert world.enter() == 0
    assert world.enter() > 0
    state = world.state()
    assert state is not None
    assert (state.failures, state.requests) == (7, 207)


def test_one_that_was_tried_all_the_same_closes_it(make: MakeHealth) -> None:
    """The last credential is asked even if it is set aside."""
    world = World(make)
    world.health.set_aside(world.key, "invalid_api_key")
    world.sleep(1)
    world.health.failed(world.key, "x", begun=world.clock())
    assert world.wait() == 599, "one that fails changes nothing"
    world.health.succeeded(world.key, begun=world.clock())
    assert world.enter() == 0


# --- deadlines


def test_cooling_says_nothing_about_health(make: MakeHealth) -> None:
    world = World(make)
    for _ in range(20):
        world.health.cool(world.key, "rate_limited", 10)
    assert world.wait() == 10
    world.sleep(10)
    assert (world.enter(), world.enter()) == (0, 0), "everybody may go"
    world.fail(4)
    assert world.wait() == 0


def test_a_failure_that_names_a_time_counts_and_cools(make: MakeHealth) -> None:
    world = World(make)
    for number in range(5):
        assert world.wait() == (20 if number else 0)
        world.health.failed(world.key, "overloaded", retry_after_seconds=20)
    state = world.state()
    assert state is not None
    assert state.state == "open"
    assert state.until == world.wall() + 20, "the later one of cool-down and deadline"
    world.sleep(20)
    assert world.enter() == 0
    assert world.enter() > 0


@pytest.mark.parametrize(
    ("said", "kept"), [(0, 0), (-5, 0), (math.nan, 0), (math.inf, MAX_COOL_SECONDS), (1e12, MAX_COOL_SECONDS)]
)
def test_deadlines_that_cannot_be_meant(make: MakeHealth, said: float, kept: float) -> None:
    world = World(make)
    world.health.cool(world.key, "rate_limited", said)
    assert world.wait() == kept


DEADLINES = st.lists(
    st.tuples(st.sampled_from(["cool", "failed", "plain", "set_aside"]), st.integers(0, 50), st.integers(0, 4)),
    min_size=1,
    max_size=12,
)


@given(DEADLINES, st.integers(1, 40))
def test_the_later_deadline_stands_in_any_order(
    make: MakeHealth, steps: list[tuple[str, int, int]], cooldown: int
) -> None:
    world = World(make, set_aside_seconds=17, min_failures=3, cooldown_seconds=cooldown)
    latest, failures, opened = 0.0, 0, False
    for step, seconds, pause in steps:
        world.sleep(pause)
        now = world.clock()
        if step == "cool":
            world.health.cool(world.key, "x", seconds)
            latest = max(latest, now + seconds)
        elif step == "set_aside":
            world.health.set_aside(world.key, "x")
            latest, opened = max(latest, now + 17), True
        else:
            failures += 1
            after = seconds if step == "failed" else None
            world.health.failed(world.key, "x", retry_after_seconds=after)
            latest = max(latest, now + (after or 0))
            if failures >= 3 and not opened:
                latest, opened = max(latest, now + cooldown), True
        assert world.wait() == max(0.0, latest - now)


def test_to_set_aside_ends_no_longer_cool_down(make: MakeHealth) -> None:
    world = World(make, cooldown_seconds=60, set_aside_seconds=20)
    world.open()
    world.health.set_aside(world.key, "invalid_api_key")
    assert world.wait() == 60


def test_a_refused_credential_is_set_aside(make: MakeHealth) -> None:
    world = World(make)
    whole = world.key._replace(model="")
    world.health.set_aside(whole, "invalid_api_key")
    assert world.health.enter(whole) == 600
    world.sleep(300)
    world.health.set_aside(whole, "insufficient_quota")
    assert world.health.enter(whole) == 600
    world.sleep(600)
    assert world.health.enter(whole) == 0
    assert world.health.enter(whole) == LOOK_AGAIN_SECONDS
    world.health.set_aside(whole, "invalid_api_key")
    assert world.health.enter(whole) == 600, "by its probe, without asking the ratio"
    world.sleep(600)
    world.health.enter(whole)
    world.health.succeeded(whole)
    assert world.health.enter(whole) == 0


# --- what is shown


def test_states(make: MakeHealth) -> None:
    world = World(make)
    opened_at = world.wall()
    key = world.key
    world.succeed(2)
    world.fail(2, "overloaded")
    assert world.state() == CircuitState(key, "closed", None, 2, 4, "overloaded", opened_at)
    world.sleep(2)
    world.fail(3, "timeout")
    assert world.state() == CircuitState(key, "open", opened_at + 7, 5, 7, "timeout", opened_at + 2)
    world.sleep(6)
    assert world.state() == CircuitState(key, "half_open", None, 5, 7, "timeout", opened_at + 7)
    world.enter()
    assert world.state() == CircuitState(
        key, "half_open", opened_at + 8 + PROBE_SECONDS, 5, 7, "timeout", opened_at + 7
    )
    world.health.cool(key, "rate_limited", 4)
    assert world.state() == CircuitState(key, "cooling", opened_at + 12, 5, 7, "rate_limited", opened_at + 8)
    world.sleep(4)
    world.enter()
    world.succeed()
    assert world.state() is None, "plainly healthy"
    world.health.cool(key, "rate_limited", 4)
    assert world.state() == CircuitState(key, "cooling", opened_at + 16, 0, 0, "rate_limited", opened_at + 12)
    world.health.set_aside(key, "invalid_api_key")
    assert world.state() == CircuitState(key, "set_aside", opened_at + 612, 0, 0, "invalid_api_key", opened_at + 12)


def test_states_come_in_the_order_of_their_keys(make: MakeHealth) -> None:
    world = World(make)
    keys = [world.key._replace(model=model) for model in ("b", "a", "")]
    for key in keys:
        world.health.failed(key, "x")
    shown = [state.key for state in world.health.states() if state.key.provider == world.key.provider]
    assert shown == sorted(keys)


def test_another_policy_holds_from_then_on(make: MakeHealth) -> None:
    world = World(make)
    world.fail(4)
    world.health.configure(HealthPolicy(min_failures=2, cooldown_seconds=60, window_seconds=3600))
    world.sleep(100)
    world.fail()
    assert world.wait() == 60


@pytest.mark.parametrize("window_seconds", [0.1, 1, 61, 86_400])
def test_windows_of_any_length(make: MakeHealth, window_seconds: float) -> None:
    world = World(make, window_seconds=window_seconds, min_failures=2, set_aside_seconds=1)
    world.clock.now = 86_399.9
    world.fail(2)
    assert world.wait() == pytest.approx(5)
    world.sleep(5)
    world.enter()
    world.succeed()
    world.fail()
    world.sleep(max(window_seconds, 1))
    world.fail()
    assert world.wait() == 0


# --- bounds


def test_what_is_over_is_forgotten(make: MakeHealth) -> None:
    world = World(make)
    opened, cooled = new_key(), new_key()
    world.fail()
    world.health.cool(cooled, "x", KEEP_SECONDS + 60)
    for _ in range(5):
        world.health.failed(opened, "x")
    world.sleep(KEEP_SECONDS - 1)
    world.health.sync()
    assert world.health.enter(opened) == 0
    assert world.health.enter(opened) == LOOK_AGAIN_SECONDS, "half-open, however long ago"
    world.sleep(1)
    world.health.sync()
    assert world.health.wait_seconds(cooled) == 60
    world.sleep(KEEP_HALF_OPEN_SECONDS)
    world.health.sync()
    assert (world.health.enter(opened), world.health.enter(opened)) == (0, 0), "an hour without anybody asking"


def test_a_flood_of_names_pushes_out_no_open_circuit(make: MakeHealth) -> None:
    world = World(make, max_circuits=40)
    world.open()
    seen = new_key()
    for number in range(500):
        key = seen._replace(model=f"model {number}")
        world.health.succeeded(key)
        world.health.failed(key, "x")
    shown = [state for state in world.health.states() if state.key.provider == seen.provider]
    assert 30 <= len(shown) <= 40
    assert {f"model {number}" for number in range(470, 500)} <= {state.key.model for state in shown}
    assert world.wait() == 5


def test_too_many_open_circuits_are_bounded_too(make: MakeHealth) -> None:
    world = World(make, max_circuits=40)
    keys = [new_key() for _ in range(100)]
    for key in keys:
        world.health.set_aside(key, "x")
    held = [key for key in keys if world.health.wait_seconds(key)]
    assert 30 <= len(held) <= 40
    assert held == keys[-len(held) :], "the longest untouched went first"


def test_what_is_kept_of_successes_is_bounded() -> None:
    policy, successes = HealthPolicy(), Successes()
    keys = [CircuitKey("provider", str(number)) for number in range(2 * MAX_CIRCUITS)]
    for number, key in enumerate(keys):
        successes.first(key, 1_000.0 + number, HealthPolicy(window_seconds=1e6))
        assert len(successes.fresh) <= MAX_CIRCUITS
    successes.settle(9_000.0, HealthPolicy(window_seconds=1e6))
    kept = [key for key in keys if successes.of(key, 9_000.0, policy)]
    assert kept == keys[-MAX_CIRCUITS:], "the latest"
    for second in range(9_000, 9_500):
        successes.first(keys[-1], second, policy)
        successes.settle(second, policy)
    assert [key for key in keys if successes.of(key, 9_500, policy)] == [keys[-1]]
    assert 30 <= len(successes.of(keys[-1], 9_500, policy)) < 70


def test_what_is_kept_of_a_circuit_is_bounded() -> None:
    circuit = Circuit(CircuitKey("provider"), 0.0)
    for second in range(500):
        circuit.count(second, 0, 1)
        assert len(circuit.buckets) < 70
    assert circuit.counts(499, HealthPolicy()) == (0, 30)


@pytest.mark.parametrize("model", ["m" * 10_000, "lone \ud800"])
def test_nothing_is_kept_of_names_that_no_model_has(make: MakeHealth, model: str) -> None:
    world = World(make)
    world.key = world.key._replace(model=model)
    world.fail(20)
    world.succeed()
    world.health.cool(world.key, "x", 5)
    world.health.set_aside(world.key, "x")
    world.health.abandoned(world.key)
    assert (world.wait(), world.enter()) == (0, 0)
    assert world.state() is None


def test_names_and_codes_of_any_kind(make: MakeHealth) -> None:
    world = World(make)
    world.key = CircuitKey(world.key.provider, 'a/b:"c"\0\n ü🙂', "")
    world.fail(5, "lone \ud800 " + "x" * 1_000)
    state = world.state() if make is LocalHealth else state_of(world.worker(), world.key)
    assert state is not None
    assert state.code.startswith("lone ? xxx")
    assert len(state.code) == 100


# --- against a simple account of the same

STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["succeed", "fail"]), st.integers(1, 3)),
        st.tuples(st.sampled_from(["wait", "cool", "retry"]), st.integers(1, 12)),
        st.tuples(st.sampled_from(["enter", "abandon", "sync", "set_aside"]), st.just(0)),
    ),
    max_size=40,
)


class Account:
    """Every outcome in a list, and each rule in a line."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.outcomes: list[tuple[float, bool]] = []
        self.tripped = self.probing = False
        self.until = self.cool_until = self.probe_until = 0.0
        self.openings = 0

    def wait(self) -> float:
        now = self.clock()
        until = max(self.until if self.tripped else 0.0, self.cool_until)
        if until > now:
            return until - now
        if self.tripped and self.probing and self.probe_until > now:
            return min(1.0, self.probe_until - now)
        return 0.0

    def enter(self) -> float:
        wait = self.wait()
        if self.tripped and not wait:
            self.probing, self.probe_until = True, self.clock() + 60
        return wait

    def succeed(self) -> None:
        self.outcomes.append((self.clock(), True))
        if self.probing:
            self.outcomes.clear()
            self.tripped = self.probing = False
            self.openings = 0

    def fail(self) -> None:
        now = self.clock()
        self.outcomes.append((now, False))
        young = [well for at, well in self.outcomes if math.floor(at) > now - 10]
        bad = young.count(False)
        if self.probing or (not self.tripped and bad >= 3 and bad * 2 >= len(young)):
            self.trip(now + min(4 * 2**self.openings, 20))
            self.openings += 1

    def trip(self, until: float) -> None:
        self.until = max(self.until, until) if self.tripped else until
        self.tripped, self.probing = True, False


@given(STEPS)
def test_it_does_what_a_simple_account_does(make: MakeHealth, steps: list[tuple[str, int]]) -> None:
    world = World(
        make, window_seconds=10, min_failures=3, cooldown_seconds=4, max_cooldown_seconds=20, set_aside_seconds=9
    )
    account = Account(world.clock)
    for step, number in steps:
        match step:
            case "succeed" | "fail":
                for _ in range(number):
                    getattr(world, step)()
                    getattr(account, step)()
            case "wait":
                world.sleep(number)
            case "cool":
                world.health.cool(world.key, "x", number)
                account.cool_until = max(account.cool_until, world.clock() + number)
                account.probing = False
            case "retry":
                world.health.failed(world.key, "x", retry_after_seconds=number)
                account.fail()
                account.cool_until = max(account.cool_until, world.clock() + number)
            case "enter":
                assert world.enter() == account.enter()
            case "abandon":
                world.health.abandoned(world.key)
                account.probing = False
            case "set_aside":
                world.health.set_aside(world.key, "x")
                account.trip(world.clock() + 9)
            case _:
                world.health.sync()
        assert world.wait() == account.wait()
