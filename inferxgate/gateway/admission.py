"""May this caller do this now? Allowed model, then every limit at once; what is refused is counted and leaves no trace.

An admitted request has claimed what it may use at most, in every scope of its caller: see ``workers/limits.py``.
"""

from __future__ import annotations

import logging
import math
import time

from inferxgate import errors
from inferxgate.accounts.callers import Caller
from inferxgate.canonical.chat import ChatRequest
from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.pricing import Price, plain_dollars
from inferxgate.dialects import openai_sizes
from inferxgate.dialects.openai_sizes import PromptSize
from inferxgate.errors import GatewayError
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.routing import Plan, Target
from inferxgate.gateway.setup import Policy, Setup
from inferxgate.ids import new_id
from inferxgate.store.lines import RecordValues
from inferxgate.values import dataclass
from inferxgate.workers.limits import Claim, Limits, Refused
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.shared import SharedUnavailable

LOST = "worker_lost"
"""The error code of requests whose worker was killed before they ended."""
_RETRY_AFTER_SECONDS = 1.0
_NO_RETRY = {"x-should-retry": "false"}
_MOST_TOKENS = 10**12
_MOST_NANOS = 2 * 10**15
# Clients may ask for any number of tokens. More than this is above every limit and every budget that can be set, and
# the sums of what thousands of requests claim still fit where they are kept.

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """One of the targets that may serve a request, and what is known of it."""

    target: Target
    abilities: Abilities
    price: Price | None
    output_tokens: int
    """What the answer may have at most."""
    worst_nanos: int
    """What the request may cost there at most; 0 where the price is unknown."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may go on to its providers, and what was found out about it on the way."""

    record_id: str
    """Of its claim, and of the usage record that it will have."""
    started_at_ms: int
    plan: Plan
    offers: tuple[Offer, ...]
    """The targets of the plan that its caller may use, in the plan's order; at least one."""
    size: PromptSize


class Admission:
    """Decides whether a request may go on to a provider."""

    def __init__(self, limits: Limits, ledger: Ledger, metrics: Metrics) -> None:
        self._limits = limits
        self._ledger = ledger
        self._metrics = metrics

    def admit(self, setup: Setup, caller: Caller, request: ChatRequest, request_id: str) -> Admitted:
        """The targets of an admitted request, which now counts against its caller's limits.

        Raises ``GatewayError``: 404 ``model_not_found``, 403 ``model_not_allowed``, 400 ``price_unknown``, 429
        ``rate_limit_exceeded``, ``token_limit_exceeded``, ``too_many_parallel_requests`` and ``budget_exceeded``, 503
        ``store_unavailable`` where the request could not be counted or recorded.
        """
        try:
            return self._admit(setup, caller, request, request_id)
        except GatewayError as error:
            reason = error.kind.code
            self._metrics.refusals.labels(reason).inc()
            self._ledger.refused(caller.key_id, caller.user_id, reason)
            raise

    def _admit(self, setup: Setup, caller: Caller, request: ChatRequest, request_id: str) -> Admitted:
        plan = setup.router.plan(request.model)
        size = openai_sizes.measure(request.source.body)
        offers = offers_of(setup, caller, request, plan, size)
        self._ledger.require_writable()
        admitted = Admitted(new_id("use_"), time.time_ns() // 1_000_000, plan, offers, size)
        claim = claim_of(caller, request, request_id, admitted)
        try:
            refused = self._limits.admit(caller.scopes, claim)
        except SharedUnavailable as error:
            log.error("no request can be counted: %s", error)
            raise GatewayError(
                errors.STORE_UNAVAILABLE,
                "Requests cannot be counted now, so none is accepted; the operator sees the reason in the log.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error
        if refused is not None:
            self._metrics.limit_hit(refused.scope.kind, refused.limit)
            raise _refusal(refused, claim)
        return admitted


def offers_of(setup: Setup, caller: Caller, request: ChatRequest, plan: Plan, size: PromptSize) -> tuple[Offer, ...]:
    """The targets that this caller may use for this request, in the plan's order.

    Raises ``GatewayError``: 403 ``model_not_allowed``, 400 ``price_unknown``.
    """
    targets = setup.router.permitted(caller, plan)
    if not targets:
        raise GatewayError(
            errors.MODEL_NOT_ALLOWED, f"This credential may not use the model '{request.model}'.", param="model"
        )
    offers = tuple([_offer(setup, target, request, size) for target in targets])
    if setup.policy.allow_unpriced or all(scope.budget_nanos is None for scope in caller.scopes):
        return offers
    priced = tuple(offer for offer in offers if offer.price is not None)
    if not priced:
        name = targets[0].name
        raise GatewayError(
            errors.PRICE_UNKNOWN,
            f"The price of '{name}' is not known, and this credential has a budget. Use another model, or"
            f' ask the operator of this gateway for a price ([pricing."{name}"]).',
            param="model",
        )
    return priced


def _offer(setup: Setup, target: Target, request: ChatRequest, size: PromptSize) -> Offer:
    provider, catalog = target.provider, setup.catalog
    vendor_model, worst_nanos = target.vendor_model, 0
    abilities = catalog.abilities(target.name, provider.row.type, vendor_model)
    price = catalog.price(target.name, provider.price_id, vendor_model)
    output = _output_tokens(setup.policy, target, abilities, request)
    if price is not None:
        worst_nanos = price.worst_case_nanos(
            size.most_text_tokens, output, image_tokens=size.image_tokens, audio_tokens=size.audio_tokens
        )
    return Offer(target, abilities, price, output, worst_nanos)


def _output_tokens(policy: Policy, target: Target, abilities: Abilities, request: ChatRequest) -> int:
    """What the answer of one target may have at most."""
    body = target.laid_over(request.source.body) if target.params else request.source.body
    said = openai_sizes.most_output_tokens(body)
    if said is not None:
        return said
    most = abilities.max_output_tokens or policy.reserve_output_tokens
    return most * openai_sizes.choices(body)


def claim_of(caller: Caller, request: ChatRequest, request_id: str, admitted: Admitted) -> Claim:
    """What the request may use at most, wherever it ends up, as far as any limit of its caller asks."""
    prompt, offers = admitted.size.likely_tokens, admitted.offers
    costs = [offer.worst_nanos for offer in offers]
    # Targets that refuse the content charge for it all the same, each one that such a request goes on from.
    cost_nanos = sum(costs) if "content_filter" in admitted.plan.fallback_on else max(costs)
    tokens = min(prompt + max([offer.output_tokens for offer in offers]), _MOST_TOKENS)
    # Nobody asked for that much: what the minute has left will do, where it is enough for the prompt.
    spare = tokens - prompt if openai_sizes.most_output_tokens(request.source.body) is None else 0
    return Claim(
        id=admitted.record_id,
        at_ms=admitted.started_at_ms,
        tokens=tokens,
        cost_nanos=min(cost_nanos, _MOST_NANOS),
        lost=_lost(caller, request, request_id, admitted),
        spare_tokens=spare,
    )


def _lost(caller: Caller, request: ChatRequest, request_id: str, admitted: Admitted) -> RecordValues:
    """The record of a request of which nothing more is known than that it was sent.

    Only its values: hardly any is ever read, and making records takes longer than deciding on the request.
    """
    first, tokens = admitted.offers[0], admitted.size.text_tokens
    price, target = first.price, first.target
    return (
        admitted.record_id,
        request_id,
        admitted.started_at_ms,
        "gateway_error",
        0,
        LOST,
        caller.key_id,
        caller.user_id,
        request.end_user,
        request.model,
        target.model,
        target.provider.name,
        request.stream,
        (tokens,),  # of input; what was answered is not known
        "estimated",
        None if price is None else price.input_nanos(tokens),
        None if price is None else price.version,
        None,  # no first token
        0,  # milliseconds
        1,  # attempt
    )


def _refusal(refused: Refused, claim: Claim) -> GatewayError:
    whose = "this key" if refused.scope.kind == "key" else "this user"
    wait = refused.wait_seconds
    soon = "" if wait is None else f" Try again in {math.ceil(wait)} s."
    match refused.limit:
        case "requests":
            message = f"The limit of {refused.most} requests a minute for {whose} is reached.{soon}"
            return GatewayError(errors.RATE_LIMIT_EXCEEDED, message, retry_after_seconds=wait)
        case "tokens":
            needed = claim.tokens - claim.spare_tokens
            if wait is None:
                message = (
                    f"This request may use {needed} tokens, more than {whose} may use in a minute"
                    f" ({refused.most}). Ask for fewer max_tokens, or send less."
                )
                return GatewayError(errors.TOKEN_LIMIT_EXCEEDED, message, headers=_NO_RETRY)
            message = (
                f"The limit of {refused.most} tokens a minute for {whose} leaves {max(0, refused.most - refused.used)},"
                f" and this request may use {needed}. Ask for fewer max_tokens, or try again in"
                f" {math.ceil(wait)} s."
            )
            return GatewayError(errors.TOKEN_LIMIT_EXCEEDED, message, retry_after_seconds=wait)
        case "parallel":
            message = f"{refused.most} requests of {whose} are under way, as many as may be at once."
            return GatewayError(errors.TOO_MANY_PARALLEL_REQUESTS, message, retry_after_seconds=_RETRY_AFTER_SECONDS)
        case "budget":
            period = refused.scope.budget_period
            message = (
                f"The budget of {plain_dollars(refused.most)} dollars{'' if period == 'total' else f' a {period}'} for"
                f" {whose} does not cover this request: {plain_dollars(refused.used)} are spent or reserved for"
                f" requests under way, and this one may cost {plain_dollars(claim.cost_nanos)}."
            )
            return GatewayError(errors.BUDGET_EXCEEDED, message, headers=_NO_RETRY)
