"""``inferxgate chat --explain``: what would become of a request, for people and for programs.

People see long texts and data shortened; ``--json`` has all of it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from inferxgate import reports
from inferxgate.accounts.callers import OPERATOR
from inferxgate.catalog.pricing import NANOS_PER_DOLLAR
from inferxgate.cli.failures import visible
from inferxgate.cli.health import circuits_now, credentials_in_words
from inferxgate.cli.output import count, dollars, plural, print_coloured_json, print_fields, print_json, print_line
from inferxgate.dialects import openai_chat
from inferxgate.gateway.explain import LIKELY_OUTPUT_TOKENS, Explanation, Surroundings, explain
from inferxgate.gateway.setup import Setup
from inferxgate.runtime import build_bounds, build_policy
from inferxgate.runtime_models import build_catalog, build_router, read_model_lists
from inferxgate.storage_health import build_health_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferxgate.config import Loaded
    from inferxgate.gateway.explain import TargetExplanation, TargetFacts
    from inferxgate.gateway.routing import Plan, Strategy, Target
    from inferxgate.providers.http import HttpRequest, Timeouts

STRATEGIES: Mapping[Strategy, str] = {
    "ordered": "in the order of the configuration",
    "weighted": "by chance, by their weights",
    "least_busy": "the fewest requests under way first",
    "lowest_latency": "the shortest time to the first token lately first",
    "cheapest": "the lowest price of this very request first",
}
_ORDERS = {
    "chance": "Each request draws its own order; this is the likeliest.",
    "load": "The order depends on how a running gateway finds them; this is the one of the configuration.",
}
_MOST_CHARACTERS = 300
"""Of a text within a request that people see."""
_INDENT = "   "
_FIELD = 14


def explain_chat(loaded: Loaded, body: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what ``chat`` would do with a request. Raises ``GatewayError`` and ``StartError``."""
    explanation = explanation_of(loaded, body)
    if as_json:
        print_json(_as_json(explanation))
        return
    _print_head(explanation)
    for number, target in enumerate(explanation.targets, 1):
        print_line()
        _print_target(number, target, explanation)
    print_line()
    _print_limits(explanation)


def explanation_of(loaded: Loaded, body: Mapping[str, Any]) -> Explanation:
    """What would become of the operator's request. Opens nothing, and writes nothing."""
    settings = loaded.settings
    catalog = build_catalog(settings, loaded.data_dir)
    router = build_router(settings, catalog, lists=read_model_lists(loaded))
    setup = Setup(router, catalog, {}, policy=build_policy(settings))
    return explain(setup, OPERATOR, openai_chat.parse_request(body), surroundings_of(loaded))


def surroundings_of(loaded: Loaded) -> Surroundings:
    """What holds around requests now."""
    settings = loaded.settings
    return Surroundings(
        circuits_now(loaded), build_bounds(settings), build_health_policy(settings), settings.media.fetch_urls
    )


# --- for people


def _print_head(explanation: Explanation) -> None:
    plan, size = explanation.plan, explanation.size
    likely, most = count(size.likely_tokens), count(size.most_tokens)
    fields = [
        ("Model", plan.name),
        ("Answer", "streamed" if explanation.stream else "whole"),
        ("Prompt", f"about {likely} tokens, {most} at most"),
    ]
    if len(plan.targets) > 1:
        fields.append(("Targets", f"{len(plan.targets)}, {plan.strategy}: {STRATEGIES[plan.strategy]}"))
    print_fields(fields, wraps=True)
    if explanation.order_by in _ORDERS:
        print_line(_ORDERS[explanation.order_by])


def _print_target(number: int, target: TargetExplanation, explanation: Explanation) -> None:
    facts = target.facts
    print_line(f"{number}. {visible(facts.target.name)}")
    fields = [*target_fields(facts.target, explanation.plan), *health_fields(facts)]
    if target.refusal is None:
        fields += [
            ("Answer", f"{count(target.output_tokens)} tokens at most{_window(target, explanation)}"),
            ("Cost", _cost(target)),
            ("Price from", facts.price.version if facts.price else "nowhere; 'inferxgate models show' says why"),
            ("Left out", ", ".join(target.dropped)),
            ("Tools renamed", ", ".join(f"{name} to {here}" for here, name in target.tool_names.items())),
            ("Fetched first", ", ".join(target.fetched)),
        ]
    else:
        fields.append(("Not asked", f"{target.refusal.status} {target.refusal.code}: {target.refusal.message}"))
    _print_fields([(name, value) for name, value in fields if value])
    if target.request is not None:
        _print_request(target.request)


def _print_request(request: HttpRequest) -> None:
    _print_fields([("Times out", timeouts_in_words(request.timeouts))])
    print_line()
    print_line(f"{_INDENT}{request.method} {visible(request.url)}")
    for name, value in request.headers.items():
        print_line(f"{_INDENT}{visible(name)}: {visible(value)}")
    print_line()
    print_coloured_json(_shortened(orjson.loads(request.body)), indent=_INDENT)


def _print_limits(explanation: Explanation) -> None:
    policy, health = explanation.policy, explanation.surroundings.health
    retries = f"{policy.retries} at targets that failed it, while it is younger than {policy.retry_within_seconds:g} s"
    left_alone = (
        f"a target for {health.cooldown_seconds:g} s, later up to {health.max_cooldown_seconds:g} s, after"
        f" {plural(health.min_failures, 'failure')} within {health.window_seconds:g} s that are"
        f" {health.failure_ratio:.0%} of its requests; a refused key for {health.set_aside_seconds:g} s"
    )
    print_line("Limits")
    fields = [
        ("Caller", "the operator, who has no limits of requests, tokens and money"),
        ("Goes on for", goes_on_for(explanation.plan.fallback_on)),
        ("Retries", f"{retries}; targets not tried yet come first"),
        ("Waits", f"{policy.max_wait_seconds:g} s in all, where no target can be asked"),
        ("Left alone", left_alone),
        ("At once", at_once(explanation.surroundings.bounds.get("", 0), "in the whole gateway")),
        ("Queue", f"{policy.queue_seconds:g} s for a place, {count(policy.max_queued)} requests in each worker"),
    ]
    _print_fields(fields)


def _print_fields(fields: Sequence[tuple[str, str]]) -> None:
    print_fields(fields, indent=_INDENT, width=_FIELD, wraps=True)


def goes_on_for(fallback_on: frozenset[str]) -> str:
    """Which failures lead to the next target."""
    more = {"context_length": "prompts that are too long", "content_filter": "refused content"}
    said = [words for name, words in more.items() if name in fallback_on]
    return " and ".join(["every failure of a provider", *said])


def at_once(most: int, where: str) -> str:
    """A bound on requests under way."""
    return f"{plural(most, 'request')} {where}" if most else f"any number of requests {where}"


def target_fields(target: Target, plan: Plan) -> list[tuple[str, str]]:
    """What its alias says of a target, as far as it counts there."""
    fields = []
    total = sum(each.weight for each in plan.targets)
    if plan.strategy == "weighted":
        fields.append(("Weight", f"{target.weight} of {total} ({target.weight / total:.0%})"))
    if target.params:
        fields.append(("Sets", orjson.dumps(dict(target.params)).decode()))
    return fields


def health_fields(facts: TargetFacts) -> list[tuple[str, str]]:
    """How a target and its credentials fare, and what bounds there are."""
    number, health = len(facts.credentials), credentials_in_words(facts.credentials)
    more = "; the next where the provider limits or refuses one" if number > 1 else ""
    fields = [("Keys", f"{number}{more}" if facts.credentials[0].credential else "none is sent")]
    if health:
        codes = dict.fromkeys(each.state.code for each in facts.credentials if each.state is not None)
        fields.append(("State", f"{health} ({', '.join(codes)})"))
    fields.append(("At once", at_once(facts.most_at_once, "at the provider")))
    return fields


def timeouts_in_words(timeouts: Timeouts) -> str:
    """How long what is waited for."""
    words = f"connecting {timeouts.connect_seconds:g} s, first byte {timeouts.first_byte_seconds:g} s"
    if timeouts.total_seconds is None:
        return f"{words}, silence {timeouts.idle_seconds:g} s"
    return f"{words}, all of it {timeouts.total_seconds:g} s"


def _window(target: TargetExplanation, explanation: Explanation) -> str:
    window = target.facts.context_window
    if window is None:
        return ""
    if explanation.size.likely_tokens > window:
        return f"; the prompt does not fit into its window of {count(window)}"
    return f", of a window of {count(window)}"


def _cost(target: TargetExplanation) -> str:
    if target.likely_nanos is None or target.worst_nanos is None:
        return "unknown"
    likely, worst = (dollars(nanos / NANOS_PER_DOLLAR) for nanos in (target.likely_nanos, target.worst_nanos))
    length = min(LIKELY_OUTPUT_TOKENS, target.output_tokens)
    return f"about {likely} with an answer of {plural(length, 'token')}, {worst} at most"


def _shortened(value: Any) -> Any:
    """The same JSON with long texts cut, each with what it was."""
    match value:
        case str() if len(value) > _MOST_CHARACTERS:
            kept = 60 if value.startswith("data:") else _MOST_CHARACTERS
            return f"{value[:kept]}... ({count(len(value))} characters)"
        case dict():
            return {name: _shortened(each) for name, each in value.items()}
        case list():
            return [_shortened(each) for each in value]
        case _:
            return value


# --- for programs


def _as_json(explanation: Explanation) -> dict[str, Any]:
    plan, size, policy = explanation.plan, explanation.size, explanation.policy
    surroundings = explanation.surroundings
    return {
        "model": plan.name,
        "stream": explanation.stream,
        "strategy": plan.strategy,
        "order_by": explanation.order_by,
        "fallback_on": sorted(plan.fallback_on),
        "prompt": {"likely_tokens": size.likely_tokens, "most_tokens": size.most_tokens, **asdict(size)},
        "targets": [_target_json(target) for target in explanation.targets],
        "limits": {
            "key": None,
            "strict": policy.strict,
            "retries": policy.retries,
            "retry_within_seconds": policy.retry_within_seconds,
            "max_wait_seconds": policy.max_wait_seconds,
            "max_parallel_requests": surroundings.bounds.get("", 0),
            "queue_seconds": policy.queue_seconds,
            "max_queued_requests": policy.max_queued,
            "health": asdict(surroundings.health),
        },
    }


def _target_json(target: TargetExplanation) -> dict[str, Any]:
    request, refusal = target.request, target.refusal
    return {
        **facts_json(target.facts),
        "output_tokens": target.output_tokens,
        "likely_output_tokens": min(LIKELY_OUTPUT_TOKENS, target.output_tokens),
        "likely_cost": _dollars(target.likely_nanos),
        "worst_cost": _dollars(target.worst_nanos),
        "price_version": target.facts.price.version if target.facts.price else None,
        "dropped": list(target.dropped),
        "tool_names": {name: here for here, name in target.tool_names.items()},
        "fetched": list(target.fetched),
        "request": None
        if request is None
        else {
            "method": request.method,
            "url": request.url,
            "headers": dict(request.headers),
            "body": orjson.loads(request.body),
            "timeouts": asdict(request.timeouts),
        },
        "refusal": None
        if refusal is None
        else {
            "status": refusal.status,
            "type": refusal.type,
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
        },
    }


def facts_json(facts: TargetFacts) -> dict[str, Any]:
    """What is known of a target without a request."""
    target, provider = facts.target, facts.target.provider
    return {
        "target": target.name,
        "provider": provider.name,
        "model": target.model,
        "weight": target.weight,
        "params": dict(target.params),
        "timeouts": asdict(provider.timeouts) | {"total_seconds": provider.total_seconds},
        "context_window": facts.context_window,
        "max_output_tokens": facts.abilities.max_output_tokens,
        "max_parallel_requests": facts.most_at_once,
        "credentials": [
            {
                "credential": each.credential or None,
                "health": None if each.state is None else reports.circuits([each.state])[0],
            }
            for each in facts.credentials
        ],
    }


def _dollars(nanos: int | None) -> float | None:
    return None if nanos is None else nanos / NANOS_PER_DOLLAR
