"""What would become of a request, without asking anyone: no network, no claim on a limit, no record.

It is made by what requests themselves go by (``offers_of``, ``Selection``, ``Exchange``), so that what is told is what
would be done. Two things only a gateway at work knows are left out: how busy and how fast its targets are, and thoughts
that it keeps for clients which leave them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from itertools import groupby
from typing import Literal

from inferxgate.accounts.callers import Caller
from inferxgate.canonical.chat import ChatRequest
from inferxgate.canonical.conversation import Bytes
from inferxgate.canonical.usage import Usage
from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.catalog import Catalog
from inferxgate.catalog.pricing import Price
from inferxgate.dialects import openai_sizes
from inferxgate.dialects.openai_sizes import PromptSize
from inferxgate.dialects.protocol import MediaNeeded, Wanted
from inferxgate.errors import GatewayError
from inferxgate.gateway.admission import Admitted, Offer, offers_of
from inferxgate.gateway.exchange import Exchange, laid_over
from inferxgate.gateway.routing import Plan, Strategy, Target
from inferxgate.gateway.selection import Selection, circuit_of, credential_of, permission_of
from inferxgate.gateway.setup import Policy, Setup
from inferxgate.providers.http import HttpRequest
from inferxgate.providers.provider import Provider
from inferxgate.values import dataclass
from inferxgate.workers.health import CircuitKey, CircuitState, HealthPolicy, LocalHealth

MASK = "****"
LIKELY_OUTPUT_TOKENS = 500
"""The length of the answer for which a likely cost is told: nobody knows it before."""
FETCHED = "(bytes that are fetched first)"
"""Stands in a request for the data of media that the gateway would fetch."""

OrderBy = Literal["rule", "chance", "load"]
"""What decides which target is asked first: nothing but configuration and request, a draw by weights, or how the
targets fare at the moment."""
_ORDERS: Mapping[Strategy, OrderBy] = {"weighted": "chance", "least_busy": "load", "lowest_latency": "load"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What holds for requests beside their setup."""

    states: Sequence[CircuitState] = ()
    """How targets and credentials fare."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """How many requests may be under way at once: by provider, and in all under the empty name; 0: unlimited."""
    health: HealthPolicy = field(default_factory=HealthPolicy)
    fetches_media: bool = False
    """Whether bytes are fetched for URLs of clients where a provider takes no URLs."""


@dataclass(frozen=True, slots=True)
class CredentialHealth:
    """How one credential of a target fares."""

    credential: str
    """A short digest; empty: none is sent."""
    state: CircuitState | None
    """Why it is not asked as usual, with this model or at all; None: it is."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What is known of a target without asking it."""

    target: Target
    context_window: int | None
    """Tokens; None where unknown."""
    price: Price | None
    abilities: Abilities
    credentials: tuple[CredentialHealth, ...]
    """At least one, the preferred one first."""
    most_at_once: int
    """Requests that its provider may have under way; 0: unlimited."""


@dataclass(frozen=True, slots=True)
class TargetExplanation:
    """What one target would be asked, and what that may cost."""

    facts: TargetFacts
    output_tokens: int
    """What the answer may have at most."""
    likely_nanos: int | None
    """What it costs if the answer has ``LIKELY_OUTPUT_TOKENS``, or as many as it may have; None: no price is known."""
    worst_nanos: int | None
    """What budgets would reserve."""
    request: HttpRequest | None = None
    """With ``MASK`` in the place of every secret; None where there is a ``refusal``."""
    dropped: tuple[str, ...] = ()
    """What the target does not take and would be left out, by its place in the request."""
    tool_names: Mapping[str, str] = field(default_factory=dict)
    """The client's name for each tool that goes by another one in the request."""
    fetched: tuple[str, ...] = ()
    """URLs of the client whose bytes would be fetched first; ``FETCHED`` stands in the request for them."""
    refusal: GatewayError | None = None
    """Why it could not be asked: its place would be passed over."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a request."""

    plan: Plan
    order_by: OrderBy
    targets: tuple[TargetExplanation, ...]
    """In the order in which they would be asked, as far as ``order_by`` lets anyone know; at least one."""
    stream: bool
    size: PromptSize
    policy: Policy
    surroundings: Surroundings


def explain(setup: Setup, caller: Caller, request: ChatRequest, surroundings: Surroundings) -> Explanation:
    """What would become of ``request``.

    Raises ``GatewayError`` as admission does, but for limits: 404 ``model_not_found``, 403 ``model_not_allowed``, 400
    ``price_unknown``.
    """
    plan = setup.router.plan(request.model)
    size = openai_sizes.measure(request.source.body)
    admitted = Admitted("", 0, plan, offers_of(setup, caller, request, plan, size), size)
    # With the same draw for all of them the heaviest comes first; nothing is under way, and nothing was measured.
    selection = Selection(LocalHealth(), chance=lambda: 0.5)
    ordered = selection.order(admitted, stream=request.stream)
    states = {state.key: state for state in surroundings.states}
    return Explanation(
        plan,
        _ORDERS.get(plan.strategy, "rule") if len(admitted.offers) > 1 else "rule",
        tuple(
            _explained(setup, list(offers), request, size, states, surroundings)
            for _, offers in groupby(ordered, key=lambda offer: offer.target.name)
        ),
        request.stream,
        size,
        setup.policy,
        surroundings,
    )


def facts_of(
    catalog: Catalog,
    target: Target,
    states: Mapping[CircuitKey, CircuitState],
    bounds: Mapping[str, int],
) -> TargetFacts:
    """What is known of one target, with all credentials of its provider."""
    provider = target.provider
    facts = catalog.facts(
        target.name,
        provider.row.type,
        provider.row.price_id,
        target.vendor_model,
        priced=provider.price_id is not None,
    )
    return TargetFacts(
        target,
        facts.context_window,
        facts.price,
        facts.abilities,
        tuple(credential_health(each, states) for each in target.with_each_key()),
        bounds.get(provider.name, 0),
    )


def credential_health(target: Target, states: Mapping[CircuitKey, CircuitState]) -> CredentialHealth:
    """How a target fares with the credential that it has."""
    found = (states.get(key(target)) for key in (credential_of, permission_of, circuit_of))
    state = next((each for each in found if each is not None and each.state != "closed"), None)
    return CredentialHealth(target.provider.credential, state)


def _explained(
    setup: Setup,
    offers: Sequence[Offer],
    request: ChatRequest,
    size: PromptSize,
    states: Mapping[CircuitKey, CircuitState],
    surroundings: Surroundings,
) -> TargetExplanation:
    """One target, whose ``offers`` differ in their credentials alone."""
    offer = offers[0]
    likely = Usage(input_tokens=size.likely_tokens, output_tokens=min(offer.output_tokens, LIKELY_OUTPUT_TOKENS))
    explanation = TargetExplanation(
        facts_of(setup.catalog, offer.target, states, surroundings.bounds),
        offer.output_tokens,
        None if offer.price is None else offer.price.cost_nanos(likely),
        None if offer.price is None else offer.worst_nanos,
    )
    return _with_request(explanation, setup, offer, request, fetches=surroundings.fetches_media)


def _with_request(
    explanation: TargetExplanation, setup: Setup, offer: Offer, request: ChatRequest, *, fetches: bool
) -> TargetExplanation:
    target = replace(offer.target, provider=_masked(offer.target.provider))
    exchange = Exchange(laid_over(request, target), target, offer.abilities, strict=setup.policy.strict)
    fetched: tuple[str, ...] = ()
    try:
        try:
            http_request = exchange.http_request()
        except MediaNeeded as needed:
            if not fetches:
                raise
            fetched = tuple(dict.fromkeys(each.url for each in needed.wanted))
            http_request = exchange.http_request(_stand_ins(needed.wanted))
    except GatewayError as error:
        exchange.name(error)
        return replace(explanation, refusal=error)
    return replace(
        explanation,
        request=http_request,
        dropped=exchange.dropped,
        tool_names=exchange.tool_names,
        fetched=fetched,
    )


def _stand_ins(wanted: Iterable[Wanted]) -> Mapping[str, Bytes]:
    """Something in the place of the bytes of each URL, of a type that the target takes."""
    return {each.url: Bytes(min(each.accepts), FETCHED) for each in wanted}


def _masked(provider: Provider) -> Provider:
    """The same provider with a mask for each secret. Which headers hold one, only who configured them knows: all."""
    return replace(
        provider,
        api_key=MASK if provider.api_key else None,
        other_keys=(),
        headers=dict.fromkeys(provider.headers, MASK),
    )
