"""Which target is asked next and when: order, retries, waits, and the bounds of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate import errors
from inferxgate.catalog.abilities import Abilities
from inferxgate.errors import GatewayError, Kind
from inferxgate.gateway.admission import Offer
from inferxgate.gateway.routing import Target
from inferxgate.gateway.setup import Policy
from inferxgate.gateway.tries import GiveUp, Go, Tries, Wait, fallback_reason, goes_on
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider

ANY = frozenset({"context_length", "content_filter"})
RETRYABLE = (
    errors.UPSTREAM_ERROR,
    errors.UPSTREAM_UNREACHABLE,
    errors.UPSTREAM_INVALID_RESPONSE,
    errors.UPSTREAM_OVERLOADED,
    errors.UPSTREAM_RATE_LIMITED,
    errors.UPSTREAM_TIMEOUT,
)


def offers(*names: str, keys: int = 1) -> list[Offer]:
    made = []
    for name in names:
        provider = Provider(name=name, row=ROW, base_url="http://p", api_key="k0")
        provider = Provider(
            name=name, row=ROW, base_url="http://p", api_key="k0", other_keys=tuple(f"k{i}" for i in range(1, keys))
        )
        made += [Offer(target, Abilities(), None, 1, 0) for target in Target(provider, "m").with_each_key()]
    return made


def failure(kind: Kind = errors.UPSTREAM_ERROR, *, after: float | None = None, answered: int = 500) -> GatewayError:
    return GatewayError(kind, "no", retry_after_seconds=after, upstream_status=answered)


@dataclass
class World:
    """One request, with a clock of its own and targets that may be left alone or set aside."""

    offers: list[Offer]
    policy: Policy = field(default_factory=Policy)
    now: float = 100.0
    alone: dict[str, float] = field(default_factory=dict)
    """Until when, by the provider's name."""
    aside: set[str] = field(default_factory=set)
    """Credentials, as ``provider:key``."""
    asked: list[str] = field(default_factory=list)
    waited: float = 0.0

    def __post_init__(self) -> None:
        self.tries = Tries(
            self.offers,
            self.policy,
            began=self.now,
            ready_in=lambda offer: max(0.0, self.alone.get(offer.target.provider.name, 0.0) - self.now),
            is_aside=lambda offer: _key(offer) in self.aside,
            random=lambda: 1.0,
        )

    def ask(self) -> Offer | GiveUp:
        """The next target, after all waits."""
        while True:
            match self.tries.next(self.now):
                case Go(offer):
                    self.asked.append(_key(offer))
                    return offer
                case Wait(seconds):
                    assert seconds > 0
                    self.waited += seconds
                    self.now += seconds
                case GiveUp() as end:
                    return end

    def run(self, *failures: GatewayError) -> GiveUp | None:
        """Ask and fail so, one after the other; how it ended, if it did before the failures were used up."""
        for error in failures:
            offer = self.ask()
            if isinstance(offer, GiveUp):
                return offer
            self.tries.failed(offer, error, self.now)
        return None


def _key(offer: Offer) -> str:
    return f"{offer.target.provider.name}:{offer.target.provider.api_key}"


@pytest.mark.parametrize("kind", RETRYABLE)
def test_another_healthy_target_is_asked_at_once(kind: Kind) -> None:
    world = World(offers("a", "b", "c"))
    world.run(failure(kind, after=5.0), failure(kind, after=5.0))
    assert isinstance(world.ask(), Offer)
    assert (world.asked, world.waited) == (["a:k0", "b:k0", "c:k0"], 0.0)


def test_a_single_target_is_tried_again_after_pauses_that_grow_and_then_no_more() -> None:
    world = World(offers("a"), Policy(retries=3))
    end = world.run(*[failure()] * 9)
    assert world.asked == ["a:k0"] * 4
    assert world.waited == pytest.approx((0.25 + 0.5 + 1.0) * 1.05)
    assert isinstance(end, GiveUp)
    assert end.ready_seconds == pytest.approx(2.0), "when the next try would be due"


@pytest.mark.parametrize("spelt", [0.0, 3.0, 30.0])
def test_a_retry_never_comes_before_the_providers_own_word(spelt: float) -> None:
    world = World(offers("a"))
    world.run(failure(errors.UPSTREAM_RATE_LIMITED, after=spelt), failure())
    assert world.asked == ["a:k0"] * 2
    assert max(spelt, 0.25) <= world.waited <= max(spelt, 0.25) + 0.25


def test_a_provider_that_asks_for_no_pause_gets_the_gateways_own() -> None:
    world = World(offers("a"), Policy(retries=3))
    world.run(*[failure(errors.UPSTREAM_RATE_LIMITED, after=0.0)] * 9)
    assert world.waited == pytest.approx((0.25 + 0.5 + 1.0) * 1.05)


@pytest.mark.parametrize(
    ("kind", "code", "asked"),
    [
        (errors.INVALID_VALUE, "context_length_exceeded", ["a:k0", "b:k0"]),
        (errors.INVALID_VALUE, "content_filter", ["a:k0", "b:k0"]),
        (errors.UPSTREAM_NOT_FOUND, None, ["a:k0", "b:k0"]),
        (errors.MODEL_NOT_FOUND, None, ["a:k0", "a:k1", "b:k0", "b:k1"]),
    ],
)
def test_what_no_other_credential_mends_is_asked_of_one_alone(kind: Kind, code: str | None, asked: list[str]) -> None:
    world = World(offers("a", "b", keys=2))
    error = GatewayError(kind, "no", code=code, upstream_status=400)
    assert world.run(*[error] * 9) == GiveUp(None)
    assert world.asked == asked


def test_who_got_no_turn_waits_no_more_for_that_provider() -> None:
    world = World(offers("a", "b", keys=2))
    first = world.ask()
    assert isinstance(first, Offer)
    world.tries.no_room("a")
    world.tries.failed(first, failure(errors.NO_TARGET_AVAILABLE, after=1.0), world.now)
    world.run(failure())
    assert world.asked == ["a:k0", "b:k0"]
    assert world.tries.count == 1, "the first was never asked"
    second = world.ask()
    assert isinstance(second, Offer)
    world.tries.no_room("")
    world.tries.failed(second, failure(errors.NO_TARGET_AVAILABLE, after=1.0), world.now)
    assert world.ask() == GiveUp(None)
    assert world.tries.count == 1


def test_another_credential_of_the_same_target_is_no_other_target() -> None:
    alone = World(offers("a", keys=2))
    assert not alone.tries.has_other("a/m")
    two = World(offers("a", "b", keys=2))
    assert two.tries.has_other("a/m")


def test_a_retry_after_beyond_the_bound_is_told_instead_of_waited_for() -> None:
    world = World(offers("a"), Policy(max_wait_seconds=30))
    world.run(failure(errors.UPSTREAM_RATE_LIMITED, after=40.0))
    assert world.ask() == GiveUp(40.0)
    assert world.waited == 0.0


def test_the_last_target_left_is_waited_for_and_not_the_longest() -> None:
    world = World(offers("a", "b"))
    world.run(failure(after=20.0), failure(after=5.0))
    assert isinstance(world.ask(), Offer)
    assert world.asked == ["a:k0", "b:k0", "b:k0"]


def test_a_request_that_is_old_is_not_tried_again_but_goes_on() -> None:
    world = World(offers("a", "b"), Policy(retry_within_seconds=60))
    offer = world.ask()
    assert isinstance(offer, Offer)
    world.now += 600
    world.tries.failed(offer, failure(errors.UPSTREAM_TIMEOUT), world.now)
    world.run(failure(errors.UPSTREAM_TIMEOUT))
    assert world.asked == ["a:k0", "b:k0"]
    assert isinstance(world.ask(), GiveUp)


def test_targets_that_are_left_alone_are_passed_over_and_waited_for_in_the_end() -> None:
    world = World(offers("a", "b"), alone={"a": 104.0})
    world.run(failure(errors.UPSTREAM_NOT_FOUND, answered=404))
    assert isinstance(world.ask(), Offer)
    assert world.asked == ["b:k0", "a:k0"]
    assert 4.0 <= world.waited <= 4.25


def test_where_all_are_left_alone_too_long_the_first_to_come_back_is_told() -> None:
    world = World(offers("a", "b"), alone={"a": 160.0, "b": 145.0})
    assert world.ask() == GiveUp(45.0)
    assert world.asked == []


@pytest.mark.parametrize(
    "kind", [errors.UPSTREAM_RATE_LIMITED, errors.UPSTREAM_AUTH_ERROR, errors.UPSTREAM_QUOTA_EXCEEDED]
)
def test_another_key_takes_the_place_of_one_that_is_limited_or_refused(kind: Kind) -> None:
    world = World(offers("a", "b", keys=2))
    world.run(failure(kind, answered=429))
    assert isinstance(world.ask(), Offer)
    assert world.asked == ["a:k0", "a:k1"]


@pytest.mark.parametrize("kind", [errors.UPSTREAM_UNREACHABLE, errors.UPSTREAM_ERROR, errors.UPSTREAM_TIMEOUT])
def test_a_host_that_is_down_is_down_for_all_of_its_keys(kind: Kind) -> None:
    world = World(offers("a", "b", keys=2))
    world.run(failure(kind))
    assert isinstance(world.ask(), Offer)
    assert world.asked == ["a:k0", "b:k0"]


@pytest.mark.parametrize(
    "error",
    [
        GatewayError(errors.INVALID_VALUE, "", code="context_length_exceeded", upstream_status=400),
        GatewayError(errors.INVALID_VALUE, "", code="content_filter", upstream_status=200),
        GatewayError(errors.INVALID_VALUE, "its image could not be fetched"),
        failure(errors.UPSTREAM_NOT_FOUND, answered=404),
    ],
)
def test_what_every_credential_would_be_told_is_not_asked_with_each(error: GatewayError) -> None:
    world = World(offers("a", "b", keys=3))
    world.run(error)
    assert isinstance(world.ask(), Offer)
    assert world.asked == ["a:k0", "b:k0"]


def test_a_model_may_be_another_credentials() -> None:
    world = World(offers("a", keys=2))
    world.run(failure(errors.MODEL_NOT_FOUND, answered=404))
    assert isinstance(world.ask(), Offer)
    assert world.asked == ["a:k0", "a:k1"]


def test_who_waited_in_vain_for_a_place_does_not_wait_there_again() -> None:
    world = World(offers("a", "b", keys=2))
    error = GatewayError(errors.NO_TARGET_AVAILABLE, "full", retry_after_seconds=1.0)
    for name in ("a", "b"):
        offer = world.ask()
        assert isinstance(offer, Offer)
        world.tries.no_room(name)
        world.tries.failed(offer, error, world.now)
    assert world.ask() == GiveUp(None)
    assert (world.asked, world.waited, world.tries.count) == (["a:k0", "b:k0"], 0.0, 0)


def test_where_the_gateway_has_no_room_no_other_target_is_waited_for() -> None:
    world = World(offers("a", "b"))
    assert isinstance(world.ask(), Offer)
    world.tries.no_room("")
    assert world.ask() == GiveUp(None)


def test_another_credential_that_could_not_be_asked_again_waits_as_before() -> None:
    world = World(offers("a", keys=2), Policy(retries=1))
    world.run(failure(after=5.0))
    world.aside.add("a:k0")
    offer = world.ask()
    assert isinstance(offer, Offer)
    assert world.asked == ["a:k0", "a:k1"]
    world.tries.not_asked(offer)
    world.run(failure(after=5.0))
    assert isinstance(world.ask(), GiveUp), "it was a retry, and the only one"
    assert world.asked == ["a:k0", "a:k1", "a:k1"]


@pytest.mark.parametrize("kind", [errors.UPSTREAM_AUTH_ERROR, errors.UPSTREAM_QUOTA_EXCEEDED, errors.MODEL_NOT_FOUND])
def test_what_no_second_try_mends_is_not_tried_again(kind: Kind) -> None:
    world = World(offers("a"))
    world.run(failure(kind, answered=401))
    assert world.ask() == GiveUp(None)


def test_a_redirect_is_not_tried_again() -> None:
    world = World(offers("a"))
    world.run(failure(errors.UPSTREAM_INVALID_RESPONSE, answered=307))
    assert world.ask() == GiveUp(None)


def test_a_credential_that_is_set_aside_comes_last_and_is_tried_all_the_same() -> None:
    world = World(offers("a", keys=2), aside={"a:k0"})
    world.run(failure(errors.UPSTREAM_AUTH_ERROR, answered=401), failure(errors.UPSTREAM_AUTH_ERROR, answered=401))
    assert world.asked == ["a:k1", "a:k0"]
    assert world.ask() == GiveUp(None)


def test_the_only_credential_is_tried_although_it_is_set_aside() -> None:
    world = World(offers("a"), aside={"a:k0"})
    assert isinstance(world.ask(), Offer)


def test_a_credential_that_is_set_aside_waits_too_while_its_target_is_left_alone() -> None:
    world = World(offers("a"), aside={"a:k0"}, alone={"a": 104.0})
    assert isinstance(world.ask(), Offer)
    assert 4.0 <= world.waited <= 4.25
    world = World(offers("a"), aside={"a:k0"}, alone={"a": 170.0})
    assert world.ask() == GiveUp(70.0)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.booleans()), min_size=3, max_size=3),
    st.integers(1, 2),
    st.lists(st.tuples(st.sampled_from(["fails", "taken", "full", "no room"]), st.floats(0, 5)), max_size=40),
)
def test_a_request_asks_or_lets_time_pass_or_ends(
    targets: list[tuple[float, bool]], keys: int, ends: list[tuple[str, float]]
) -> None:
    """Else one that may not ask what it was told to ask would be told so again at once, for ever."""
    world = World(offers("a", "b", "c", keys=keys))
    for name, (seconds, aside) in zip("abc", targets, strict=True):
        world.alone[name] = world.now + seconds
        world.aside |= {f"{name}:k0"} if aside else set()
    last, for_nothing = world.now, 0
    for end, seconds in ends:
        offer = world.ask()
        if isinstance(offer, GiveUp):
            return
        name = offer.target.provider.name
        assert world.alone[name] <= world.now, "what is left alone is not asked"
        for_nothing = for_nothing + 1 if world.now == last else 0
        last = world.now
        if end == "taken":  # somebody else has the probe now
            world.tries.not_asked(offer)
            world.alone[name] = world.now + 0.001 + seconds
        elif end == "no room" and not world.tries.postpone(offer):
            world.tries.no_room(name)
        elif end == "full" and world.tries.postpone(offer):
            pass
        else:
            for_nothing = 0
            world.tries.failed(offer, failure(after=seconds), world.now)
        assert for_nothing <= 3 * 3 * keys
        assert 0 <= world.tries.count <= 3 * keys + Policy().retries


def test_what_was_not_asked_after_all_is_no_try() -> None:
    world = World(offers("a"), Policy(retries=1))
    for _ in range(5):
        offer = world.ask()
        assert isinstance(offer, Offer)
        world.tries.not_asked(offer)
    assert world.tries.count == 0
    world.run(failure())
    for _ in range(5):
        offer = world.ask()
        assert isinstance(offer, Offer)
        world.tries.not_asked(offer)
    assert isinstance(world.run(failure(), failure()), GiveUp)
    assert world.tries.count == 2


@given(
    st.lists(st.tuples(st.sampled_from(RETRYABLE), st.none() | st.floats(0, 90)), min_size=40, max_size=40),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 5),
    st.floats(0, 60),
)
def test_every_request_ends_within_its_bounds(
    ends: list[tuple[Kind, float | None]], targets: int, keys: int, retries: int, max_wait: float
) -> None:
    policy = Policy(retries=retries, max_wait_seconds=max_wait)
    world = World(offers(*"abcd"[:targets], keys=keys), policy)
    end = world.run(*(failure(kind, after=after) for kind, after in ends))
    assert isinstance(end, GiveUp)
    assert len(world.asked) <= targets * keys + retries
    assert world.waited <= max_wait + 0.25 * (retries + targets)
    assert {key.partition(":")[0] for key in world.asked} == set("abcd"[:targets]), "each target has its chance"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GatewayError(errors.INVALID_VALUE, "", code="context_length_exceeded", upstream_status=400), "context_length"),
        (GatewayError(errors.REQUEST_TOO_LARGE, "", upstream_status=413), "context_length"),
        (GatewayError(errors.INVALID_VALUE, "", code="content_filter", upstream_status=400), "content_filter"),
        (GatewayError(errors.INVALID_VALUE, "", upstream_status=400), None),
        (GatewayError(errors.INVALID_VALUE, "", upstream_status=422), None),
    ],
)
def test_what_the_caller_caused_goes_on_only_where_the_alias_says_so(error: GatewayError, reason: str | None) -> None:
    assert fallback_reason(error) == reason
    assert not goes_on(error, frozenset())
    assert goes_on(error, ANY) is (reason is not None)  # type: ignore[arg-type]  # all there are


@pytest.mark.parametrize(
    "error",
    [
        failure(errors.UPSTREAM_AUTH_ERROR, answered=401),
        failure(errors.UPSTREAM_NOT_FOUND, answered=404),
        failure(errors.MODEL_NOT_FOUND, answered=404),
        failure(errors.UPSTREAM_OVERLOADED, answered=200),
        GatewayError(errors.UNSUPPORTED_PARAMETER, "this target cannot be asked for it"),
        GatewayError(errors.UPSTREAM_UNREACHABLE, "nothing was sent"),
    ],
)
def test_what_this_target_alone_cannot_do_goes_on(error: GatewayError) -> None:
    assert goes_on(error, frozenset())
