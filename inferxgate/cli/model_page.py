"""``inferxgate models show``: all that is known of where one name goes, without asking anyone."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from inferxgate.cli.explain import (
    STRATEGIES,
    at_once,
    facts_json,
    goes_on_for,
    health_fields,
    target_fields,
    timeouts_in_words,
)
from inferxgate.cli.failures import visible
from inferxgate.cli.output import print_fields, print_line
from inferxgate.cli.traits import abilities_in_words, in_words, price_in_words, tokens_in_words
from inferxgate.config_sources import dotted
from inferxgate.gateway.explain import facts_of
from inferxgate.providers.addresses import other_vendor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferxgate.catalog.catalog import Catalog
    from inferxgate.config import Settings
    from inferxgate.gateway.explain import Surroundings, TargetFacts
    from inferxgate.gateway.routing import ModelEntry, Plan, Target

Fields = list[tuple[str, str]]


def details(plan: Plan, catalog: Catalog, around: Surroundings) -> dict[str, Any]:
    """What the page says beyond the list, for programs."""
    return {
        "fallback_on": sorted(plan.fallback_on),
        "max_parallel_requests": around.bounds.get("", 0),
        "details": [
            facts_json(facts)
            | {
                "input_price": facts.price.dollars_per_million("input_tokens") if facts.price else None,
                "output_price": facts.price.dollars_per_million("output_tokens") if facts.price else None,
                "price_version": facts.price.version if facts.price else None,
                "abilities": asdict(facts.abilities),
            }
            for facts in _facts(plan, catalog, around)
        ],
    }


def print_page(entry: ModelEntry, plan: Plan, catalog: Catalog, around: Surroundings, settings: Settings) -> None:
    """The page for people: one list of fields, or one for each target where there are several."""
    facts = _facts(plan, catalog, around)
    where = f"'inferxgate chat --explain -m {shlex.quote(plan.name)} PROMPT' shows it"
    in_all: Fields = [("In all at once", at_once(around.bounds.get("", 0), "in the whole gateway")), ("Request", where)]
    if len(facts) == 1:
        head: Fields = [("Name", entry.id), ("Goes to", entry.target), ("Provider", entry.provider)]
        print_fields([*head, *_fields(facts[0], plan, catalog, settings), *in_all])
        return
    head = [
        ("Name", entry.id),
        ("Goes to", f"{len(facts)} targets"),
        ("Strategy", f"{plan.strategy}: {STRATEGIES[plan.strategy]}"),
        ("Goes on for", goes_on_for(plan.fallback_on)),
    ]
    print_fields([*head, *in_all], wraps=True)
    for number, each in enumerate(facts, 1):
        print_line()
        print_line(f"{number}. {visible(each.target.name)}")
        print_fields(_fields(each, plan, catalog, settings), indent="   ", wraps=True)


def _facts(plan: Plan, catalog: Catalog, around: Surroundings) -> Sequence[TargetFacts]:
    states = {state.key: state for state in around.states}
    return [facts_of(catalog, target, states, around.bounds) for target in plan.targets]


def _fields(facts: TargetFacts, plan: Plan, catalog: Catalog, settings: Settings) -> Fields:
    abilities, price, provider = facts.abilities, facts.price, facts.target.provider
    whole = f"whole answers {provider.total_seconds:g} s"
    return [
        *target_fields(facts.target, plan),
        ("Context window", tokens_in_words(facts.context_window)),
        ("Maximum output", tokens_in_words(abilities.max_output_tokens)),
        ("Abilities", abilities_in_words(abilities) or "nothing out of the ordinary is known"),
        ("Not taken", in_words(abilities, can=False) or "nothing, as far as is known"),
        ("Input", price_in_words(price, "input_tokens")),
        ("Cached input", price_in_words(price, "cache_read_tokens")),
        ("Output", price_in_words(price, "output_tokens")),
        ("Price from", price.version if price else _why_unknown(facts.target, settings, catalog.price_version)),
        *health_fields(facts),
        ("Times out", f"{timeouts_in_words(provider.timeouts)}; {whole}"),
    ]


def _why_unknown(target: Target, settings: Settings, prices_from: str) -> str:
    """Why a price is unknown, and what to write for it to be known."""
    provider = target.provider
    kind, section = provider.row.type, dotted(("providers", provider.name))
    price = f"set [{dotted(('pricing', f'{provider.name}/*'))}]"
    if provider.row.self_hosted:
        return f"nowhere: {kind} is a server of your own; {price}, with input = 0 and output = 0 where it is free"
    if provider.row.price_id is None:
        return f"nowhere: {kind} has no price list of its own; {price}"
    if provider.price_id is None:
        if settings.providers[provider.name].vendor_models is False:
            return f"nowhere: {section}.vendor_models is false; {price}"
        other = other_vendor(provider.row, provider.base_url)
        if other is not None:
            return f'nowhere: base_url is not of {kind} but of {other}; set {section}.type = "{other}", or {price}'
        return f"nowhere: base_url is not {kind}'s; {price}, or {section}.vendor_models = true if its prices hold there"
    if target.vendor_model is None:
        return f"nowhere: {section}.deployments does not say which model '{target.model}' is"
    return f"nowhere: {prices_from} has none; set [{dotted(('pricing', target.name))}]"
