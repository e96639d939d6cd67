"""What would become of a request is what becomes of it: the same order, the same bytes, the same refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.accounts.callers import OPERATOR
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects import openai_sizes
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.errors import GatewayError
from inferxgate.gateway.admission import offers_of
from inferxgate.gateway.exchange import Exchange, laid_over
from inferxgate.gateway.explain import (
    FETCHED,
    LIKELY_OUTPUT_TOKENS,
    MASK,
    Explanation,
    Surroundings,
    explain,
)
from inferxgate.gateway.routing import Alias, AliasTarget, Router, Strategy
from inferxgate.gateway.setup import Policy, Setup
from inferxgate.providers import anthropic, azure, gemini, openai
from inferxgate.providers.provider import Provider
from inferxgate.workers.health import CircuitKey, CircuitState
from inferxgate.workers.limits import Scope

SECRETS = ("sk-canary-first-01", "sk-canary-other-02", "canary-header-03")
ASK: dict[str, Any] = {"model": "smart", "messages": [{"role": "user", "content": "Hello"}]}
TARGETS = ("gpt/gpt-4o", "claude/claude-sonnet-4-5", "google/gemini-2.5-flash")


def setup(
    strategy: Strategy = "ordered",
    targets: Sequence[AliasTarget] = tuple(map(AliasTarget, TARGETS)),
    policy: Policy | None = None,
) -> Setup:
    gpt = Provider(
        name="gpt",
        row=openai.ROW,
        base_url="https://gpt.example.com/v1",
        api_key=SECRETS[0],
        other_keys=(SECRETS[1],),
        headers={"X-Own": SECRETS[2], "X-Short": "abc"},
    )
    claude = Provider(name="claude", row=anthropic.ROW, base_url="https://claude.example.com", api_key=SECRETS[0])
    google = Provider(name="google", row=gemini.ROW, base_url="https://google.example.com", api_key=SECRETS[0])
    blue = Provider(
        name="blue", row=azure.ROW, base_url="https://r.openai.azure.com", api_key=SECRETS[0], api_version="2024-10-21"
    )
    catalog = Catalog(
        {
            "gpt/*": {"input_tokens": 2, "output_tokens": 8},
            "claude/*": {"input_tokens": 1, "output_tokens": 4},
            "google/*": {"input_tokens": 3, "output_tokens": 9},
        }
    )
    router = Router([gpt, claude, google, blue], {"smart": Alias(tuple(targets), strategy)}, catalog)
    return Setup(router, catalog, {}, policy=policy or Policy())


def explained(made: Setup | None = None, surroundings: Surroundings | None = None, **more: object) -> Explanation:
    return explain(made or setup(), OPERATOR, parse_request({**ASK, **more}), surroundings or Surroundings())


def names(explanation: Explanation) -> list[str]:
    return [each.facts.target.name for each in explanation.targets]


@pytest.mark.parametrize(
    ("strategy", "first", "by"),
    [
        ("ordered", "gpt/gpt-4o", "rule"),
        ("cheapest", "claude/claude-sonnet-4-5", "rule"),
        ("weighted", "google/gemini-2.5-flash", "chance"),
        ("least_busy", "gpt/gpt-4o", "load"),
        ("lowest_latency", "gpt/gpt-4o", "load"),
    ],
)
def test_the_order_is_that_of_the_strategy_as_far_as_it_can_be_known(strategy: Strategy, first: str, by: str) -> None:
    weighted = [AliasTarget(name, weight=weight) for name, weight in zip(TARGETS, (2, 1, 5), strict=True)]
    explanation = explained(setup(strategy, weighted))
    assert (names(explanation)[0], explanation.order_by) == (first, by)
    assert sorted(names(explanation)) == sorted(TARGETS)


def test_one_target_needs_neither_chance_nor_load() -> None:
    assert explained(setup("weighted", [AliasTarget("gpt/gpt-4o")])).order_by == "rule"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("target", [*TARGETS, "blue/gpt-4o"])
def test_the_request_is_the_one_that_is_sent_but_for_its_secrets(target: str, stream: bool) -> None:
    made = setup(targets=[AliasTarget(target, params={"temperature": 0.25})])
    request = parse_request({**ASK, "stream": stream, "max_tokens": 9, "seed": 4})
    [shown] = explain(made, OPERATOR, request, Surroundings()).targets
    offer = _first_offer(made)
    exchange = Exchange(laid_over(request, offer.target), offer.target, offer.abilities, strict=False)
    sent = exchange.http_request()
    assert shown.request is not None
    assert replace(shown.request, headers={}) == replace(sent, headers={})
    assert shown.request.headers.keys() == sent.headers.keys()
    assert shown.dropped == exchange.dropped
    assert b"0.25" in shown.request.body
    headers = str(dict(shown.request.headers))
    assert not any(secret in headers for secret in SECRETS)
    assert MASK in headers
    assert "abc" not in headers, "a header of the operator's own may hold a secret of any length"


def _first_offer(made: Setup) -> Any:
    request = parse_request(ASK)
    plan = made.router.plan("smart")
    return offers_of(made, OPERATOR, request, plan, openai_sizes.measure(request.source.body))[0]


def test_what_a_target_does_not_take_is_named_for_it_alone() -> None:
    found = {each.facts.target.provider.name: each for each in explained(seed=3, logit_bias={"1": 1}).targets}
    assert set(found["claude"].dropped) == {"seed", "logit_bias"}
    assert found["google"].dropped == ("logit_bias",)
    assert found["gpt"].dropped == ()


def test_what_a_target_cannot_be_asked_is_its_refusal_and_the_others_stand() -> None:
    found = {each.facts.target.provider.name: each for each in explained(n=2).targets}
    refusal = found["claude"].refusal
    assert refusal is not None
    assert (refusal.status, refusal.param) == (400, "n")
    assert "claude" in refusal.message
    assert found["claude"].request is None
    assert found["gpt"].request is not None
    assert found["gpt"].refusal is None


def test_strictness_refuses_what_would_be_dropped() -> None:
    found = {
        each.facts.target.provider.name: each for each in explained(setup(policy=Policy(strict=True)), seed=3).targets
    }
    assert found["claude"].refusal is not None
    assert found["google"].refusal is None


def test_tools_that_go_by_another_name_are_told() -> None:
    tool = {"type": "function", "function": {"name": "files.read", "parameters": {"type": "object"}}}
    found = {each.facts.target.provider.name: each for each in explained(tools=[tool]).targets}
    [(here, name)] = found["claude"].tool_names.items()
    assert name == "files.read"
    request = found["claude"].request
    assert request is not None
    assert here in request.body.decode()


def test_media_that_would_be_fetched_are_named_and_never_fetched() -> None:
    url = "https://pictures.invalid/a.png"
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    [refused] = explained(setup(targets=[AliasTarget("google/gemini-2.5-flash")]), messages=messages).targets
    assert refused.refusal is not None
    assert refused.refusal.status == 400
    fetching = Surroundings(fetches_media=True)
    [shown] = explained(setup(targets=[AliasTarget("google/gemini-2.5-flash")]), fetching, messages=messages).targets
    assert shown.refusal is None
    assert shown.fetched == (url,)
    assert shown.request is not None
    assert FETCHED in shown.request.body.decode()


def test_costs_are_those_that_budgets_reserve_and_a_likely_one() -> None:
    [shown] = explained(setup(targets=[AliasTarget("gpt/gpt-4o")]), max_tokens=10_000).targets
    likely_tokens = explained().size.likely_tokens
    assert shown.likely_nanos == likely_tokens * 2_000 + LIKELY_OUTPUT_TOKENS * 8_000
    assert shown.worst_nanos == _first_offer(setup()).price.worst_case_nanos(explained().size.most_text_tokens, 10_000)
    [short] = explained(setup(targets=[AliasTarget("gpt/gpt-4o")]), max_tokens=7).targets
    assert short.likely_nanos == likely_tokens * 2_000 + 7 * 8_000
    [unpriced] = explained(setup(targets=[AliasTarget("blue/gpt-4o")])).targets
    assert (unpriced.likely_nanos, unpriced.worst_nanos) == (None, None)


def test_each_credential_has_its_own_health_and_a_refused_one_says_so_first() -> None:
    [gpt] = setup().router.plan("gpt/gpt-4o").targets
    first, other = (each.provider.credential for each in gpt.with_each_key())

    def state(model: str, credential: str, name: Any) -> CircuitState:
        return CircuitState(CircuitKey("gpt", model, credential), name, 1.0, 1, 1, "code", 0.0)

    states = [
        state("gpt-4o", first, "open"),
        state("", first, "set_aside"),
        state("gpt-4o", other, "closed"),
        state("gpt-3", other, "open"),
    ]
    surroundings = Surroundings(states, bounds={"gpt": 7, "": 9})
    [shown] = explained(setup(targets=[AliasTarget("gpt/gpt-4o")]), surroundings).targets
    found = [(each.credential, each.state and each.state.state) for each in shown.facts.credentials]
    assert found == [(first, "set_aside"), (other, None)]
    assert shown.facts.most_at_once == 7


def test_callers_have_only_what_they_may_use() -> None:
    someone = replace(OPERATOR, kind="key", allowed_models=("claude/*",))
    explanation = explain(setup(), someone, parse_request(ASK), Surroundings())
    assert names(explanation) == ["claude/claude-sonnet-4-5"]
    with pytest.raises(GatewayError) as refused:
        explain(setup(), replace(someone, allowed_models=("echo",)), parse_request(ASK), Surroundings())
    assert refused.value.status == 403
    budgeted = replace(OPERATOR, kind="key", scopes=(Scope("key", "k", budget_nanos=1),))
    with pytest.raises(GatewayError) as unpriced:
        explain(setup(targets=[AliasTarget("blue/gpt-4o")]), budgeted, parse_request(ASK), Surroundings())
    assert unpriced.value.code == "price_unknown"


@given(weights=st.lists(st.integers(1, 1_000_000), min_size=3, max_size=3))
def test_by_weights_none_comes_before_a_heavier_one(weights: list[int]) -> None:
    targets = [AliasTarget(name, weight=weight) for name, weight in zip(TARGETS, weights, strict=True)]
    shown = [each.facts.target.weight for each in explained(setup("weighted", targets)).targets]
    assert shown == sorted(weights, reverse=True)


def test_nothing_of_the_setup_is_changed() -> None:
    made, body = setup(), orjson.dumps(ASK)
    request = parse_request(orjson.loads(body))
    before: Mapping[str, Any] = dict(request.source.body)
    explain(made, OPERATOR, request, Surroundings())
    assert request.source.body == before
    assert made.router.plan("smart").targets[0].provider.api_key == SECRETS[0]
