"""In which order targets are asked, by each strategy, and what their ends say of them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from inferxgate import errors
from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects import openai_sizes
from inferxgate.errors import GatewayError, Kind
from inferxgate.gateway.admission import Admitted, Offer
from inferxgate.gateway.routing import Plan, Strategy, Target
from inferxgate.gateway.selection import Selection, circuit_of, credential_of
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.workers.health import HealthPolicy, LocalHealth

CATALOG = Catalog(
    {
        "dear/*": {"input_tokens": 10, "output_tokens": 10},
        "cheap/*": {"input_tokens": 1, "output_tokens": 1},
        "talker/*": {"input_tokens": 0.1, "output_tokens": 5},
    }
)


def offer(name: str, *, weight: int = 1, output: int = 100, keys: tuple[str, ...] = ("k0",)) -> Offer:
    provider = Provider(name=name, row=ROW, base_url="http://p", api_key=keys[0], other_keys=keys[1:])
    target = Target(provider, "m", weight)
    return Offer(target, Abilities(), CATALOG.price(target.name, None, "m"), output, 0)


def admitted(strategy: Strategy, *offers: Offer, prompt: str = "x" * 400) -> Admitted:
    plan = Plan("smart", tuple(each.target for each in offers), strategy)
    size = openai_sizes.measure({"messages": [{"role": "user", "content": prompt}]})
    return Admitted("use_1", 0, plan, offers, size)


def selection(chance: Callable[[], float] = random.random) -> Selection:
    return Selection(LocalHealth(HealthPolicy(min_failures=1, set_aside_seconds=60)), chance=chance)


def order(chosen: Selection, request: Admitted, *, stream: bool = True) -> list[str]:
    return [each.target.provider.name for each in chosen.order(request, stream=stream)]


def test_in_the_order_of_the_configuration_with_all_keys_of_each() -> None:
    found = selection().order(admitted("ordered", offer("a", keys=("k0", "k1")), offer("b")), stream=True)
    assert [(each.target.provider.name, each.target.provider.api_key) for each in found] == [
        ("a", "k0"),
        ("a", "k1"),
        ("b", "k0"),
    ]


def test_by_weights_each_is_first_as_often_as_its_weight_says() -> None:
    chosen = selection(random.Random(7).random)
    request = admitted("weighted", offer("a", weight=1), offer("b", weight=3), offer("c", weight=6))
    orders = [tuple(order(chosen, request)) for _ in range(4_000)]
    first = Counter(each[0] for each in orders)
    for name, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)):
        assert abs(first[name] / 4_000 - share) < 0.03
    # The second is drawn by the weights of those that are left.
    after_c = Counter(each[1] for each in orders if each[0] == "c")
    assert abs(after_c["b"] / after_c.total() - 0.75) < 0.04


def test_the_least_busy_first() -> None:
    chosen = selection()
    request = admitted("least_busy", offer("a"), offer("b"))
    one, other = request.offers
    assert chosen.enter(one)
    assert order(chosen, request) == ["b", "a"]
    assert chosen.enter(other)
    assert chosen.enter(other)
    assert order(chosen, request) == ["a", "b"]
    for each in (one, other, other):
        chosen.left(each)
    assert order(chosen, request) == ["a", "b"]


def test_the_fastest_first_and_the_unknown_before_it() -> None:
    chosen = selection()
    request = admitted("lowest_latency", offer("a"), offer("b"), offer("c"))
    for _ in range(3):
        chosen.succeeded(request.offers[0], begun=0.0, seconds=2.0, stream=True)
        chosen.succeeded(request.offers[1], begun=0.0, seconds=1.0, stream=True)
    assert order(chosen, request) == ["c", "b", "a"]
    assert order(chosen, request, stream=False) == ["a", "b", "c"]


def test_the_cheapest_for_this_request_first_and_the_unpriced_last() -> None:
    offers = (offer("unpriced"), offer("dear"), offer("talker"), offer("cheap"))
    assert order(selection(), admitted("cheapest", *offers, prompt="x")) == ["cheap", "talker", "dear", "unpriced"]
    long = admitted("cheapest", *offers, prompt="x" * 8_000)
    assert order(selection(), long) == ["talker", "cheap", "dear", "unpriced"]


@pytest.mark.parametrize(
    ("kind", "circuit", "aside"),
    [
        (errors.UPSTREAM_ERROR, True, False),
        (errors.UPSTREAM_OVERLOADED, True, False),
        (errors.UPSTREAM_TIMEOUT, True, False),
        (errors.UPSTREAM_INVALID_RESPONSE, True, False),
        (errors.UPSTREAM_RATE_LIMITED, True, False),
        (errors.UPSTREAM_AUTH_ERROR, False, True),
        (errors.UPSTREAM_QUOTA_EXCEEDED, False, True),
        (errors.UPSTREAM_NOT_FOUND, False, False),
        (errors.MODEL_NOT_FOUND, False, False),
        (errors.INVALID_VALUE, False, False),
    ],
)
def test_a_failure_is_put_down_to_the_target_to_its_credential_or_to_nobody(
    kind: Kind, circuit: bool, aside: bool
) -> None:
    chosen, here = selection(), offer("a", keys=("k0", "k1"))
    assert chosen.enter(here)
    chosen.failed(here, GatewayError(kind, "no", upstream_status=500), begun=time.monotonic())
    assert (chosen.ready_in(here) > 0) is circuit
    assert chosen.is_aside(here) is aside
    other = chosen.order(admitted("ordered", here), stream=True)[1]
    assert not chosen.is_aside(other)
    assert chosen.ready_in(other) == 0


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("k0", "k1"), ["it is set aside, and 1 of 2 can be used", "it is set aside, and so are all others"]),
        (("k0",), ["it is the only one"]),
    ],
)
def test_whoever_runs_the_gateway_is_told_once_what_a_refused_key_means(
    caplog: pytest.LogCaptureFixture, keys: tuple[str, ...], told: list[str]
) -> None:
    chosen, here = selection(), offer("a", keys=keys)
    for _ in range(2):
        for each in chosen.order(admitted("ordered", here), stream=True):
            refused = GatewayError(errors.UPSTREAM_AUTH_ERROR, "no", upstream_status=401)
            chosen.failed(each, refused, begun=time.monotonic())
    assert len(caplog.messages) == len(told)
    for message, words in zip(caplog.messages, told, strict=True):
        assert words in message
        assert not any(key in message for key in keys)


def test_how_long_a_provider_asks_to_be_left_alone_is_how_long_it_is() -> None:
    chosen, here = selection(), offer("a")
    error = GatewayError(errors.UPSTREAM_RATE_LIMITED, "no", retry_after_seconds=40.0, upstream_status=429)
    chosen.failed(here, error, begun=0.0)
    assert 39 < chosen.ready_in(here) <= 40
    assert chosen.health.wait_seconds(circuit_of(here.target)) > 0
    assert chosen.health.wait_seconds(credential_of(here.target)) == 0


def test_a_model_that_a_credential_may_not_use_says_nothing_of_its_other_models() -> None:
    chosen, here, elsewhere = selection(), offer("a"), offer("a")
    elsewhere = replace(elsewhere, target=replace(elsewhere.target, model="other"))
    assert chosen.enter(here)
    chosen.failed(here, GatewayError(errors.UPSTREAM_AUTH_ERROR, "no", upstream_status=403), begun=time.monotonic())
    assert chosen.is_aside(here)
    assert not chosen.is_aside(elsewhere)
    assert chosen.enter(here), "the last one may be asked all the same"
    chosen.failed(here, GatewayError(errors.UPSTREAM_AUTH_ERROR, "no", upstream_status=401), begun=time.monotonic())
    assert chosen.is_aside(elsewhere), "no model can be asked with a credential that is not one"
