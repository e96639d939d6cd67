"""``inferxgate models``: what can be asked for, and where each name goes. Opens no network."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed
from inferxgate.cli.health import circuits_now, credentials_in_words, health_of, targets_in_words, unwell
from inferxgate.cli.options import Command, ConfigOption, JsonOption
from inferxgate.cli.output import Column, count, note, print_json, print_line, print_table, right
from inferxgate.cli.prices import prices
from inferxgate.cli.refresh import refresh
from inferxgate.cli.traits import legend, price_of, tokens, traits
from inferxgate.config_sources import dotted
from inferxgate.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferxgate.catalog.catalog import Catalog
    from inferxgate.config import Loaded
    from inferxgate.gateway.routing import ModelEntry, Plan, Router
    from inferxgate.workers.health import CircuitKey, CircuitState

_FLAGS = "Flags"

app = options.new_app("List models with their prices; show where a name goes.")
app.command("prices", cls=Command)(prices)
app.command("refresh", cls=Command)(refresh)


@app.command("list", cls=Command)
def list_models(
    *,
    provider: Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Only this provider's.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the models of the configured providers, with prices in dollars per million tokens."""
    from inferxgate.accounts.callers import OPERATOR

    loaded = options.load(config)
    router, _ = _router(loaded)
    names = [each.name for each in router.providers]
    if provider is not None and provider not in names:
        raise CommandFailed(f"There is no provider '{provider}' in the configuration; there are {', '.join(names)}")
    entries = [entry for entry in router.models(OPERATOR) if provider in (None, entry.provider)]
    states = {state.key: state for state in circuits_now(loaded)}
    plans = [router.plan(entry.id) for entry in entries]
    if as_json:
        print_json([_as_json(entry, plan, states) for entry, plan in zip(entries, plans, strict=True)])
        return
    if not entries:
        section = dotted(("providers", str(provider)))
        note(f"{provider} lists no models; name them in {section}.models. Any can be asked for by name.")
        note(f"What it lists itself: set {section}.discover = true, then 'inferxgate models refresh'.")
        return
    left_out = _print_models(entries, [targets_in_words(plan.targets, states) for plan in plans])
    aliases = [plan for plan in plans if len(plan.targets) > 1 or plan.name in loaded.settings.models]
    aliases += _patterns(loaded, router, provider)
    if aliases:
        print_line()
        _print_aliases(aliases, states)
    if _FLAGS not in left_out:
        for line in legend(entry.abilities for entry in entries):
            note(line)
    if left_out:
        note(f"No room for: {', '.join(left_out)}; --json has all.")
    if discovered := sum(entry.discovered for entry in entries):
        note(
            f"Known from their providers' own lists alone: {count(discovered)}; 'inferxgate models refresh' asks anew."
        )


def _print_models(entries: Sequence[ModelEntry], health: Sequence[str]) -> list[str]:
    """Returns the columns for which a terminal has no room."""
    columns = [
        Column("Model", wraps=False),
        Column("Provider", wraps=False, given_up=1),
        right("Context", given_up=3),
        right("Max output", given_up=2),
        right("Input"),
        right("Output"),
        Column(_FLAGS, wraps=False, given_up=4),
    ]
    rows = [
        [
            entry.id,
            entry.provider,
            tokens(entry.context_window),
            tokens(entry.abilities.max_output_tokens),
            price_of(entry.price, "input_tokens"),
            price_of(entry.price, "output_tokens"),
            "".join(trait.flag for trait in traits(entry.abilities)),
        ]
        for entry in entries
    ]
    if any(health):  # where all is well it would take room from what there is to say
        columns.append(Column("State"))
        rows = [[*row, state] for row, state in zip(rows, health, strict=True)]
    return print_table(columns, rows)


def _patterns(loaded: Loaded, router: Router, provider: str | None) -> list[Plan]:
    """What aliases with a ``*`` in their names lead to, which no list of names can tell."""
    found = []
    for name in loaded.settings.models:
        if "*" in name:
            with contextlib.suppress(GatewayError):  # it leads nowhere, as those without a * that are not listed
                found.append(router.plan(name))
    return [plan for plan in found if provider in (None, plan.targets[0].provider.name)]


def _print_aliases(plans: Sequence[Plan], states: Mapping[CircuitKey, CircuitState]) -> None:
    """A line for each target of each alias."""
    rows = [
        [
            plan.name if number == 0 else "",
            plan.strategy if number == 0 and len(plan.targets) > 1 else "",
            f"{target.name} (weight {target.weight})" if plan.strategy == "weighted" else target.name,
            credentials_in_words(health_of(target, states)),
        ]
        for plan in plans
        for number, target in enumerate(plan.targets)
    ]
    columns = [Column("Alias", wraps=False), Column("Strategy", wraps=False), Column("Target", wraps=False)]
    if any(row[-1] for row in rows):
        columns.append(Column("State"))
    print_table(columns, [row[: len(columns)] for row in rows])


@app.command(cls=Command)
def show(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As a client would ask for it.", show_default=False)],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show where a name goes, and what is known of the model there."""
    from inferxgate.accounts.callers import OPERATOR

    loaded = options.load(config)
    router, catalog = _router(loaded)
    entry, plan = router.entry(OPERATOR, name), router.plan(name)
    # It loads what requests go by, which a list does without.
    from inferxgate.cli.explain import surroundings_of
    from inferxgate.cli.model_page import details, print_page

    around = surroundings_of(loaded)
    if as_json:
        states = {state.key: state for state in around.states}
        print_json(_as_json(entry, plan, states) | details(plan, catalog, around))
    else:
        print_page(entry, plan, catalog, around, loaded.settings)


def _router(loaded: Loaded) -> tuple[Router, Catalog]:
    """The names that are served, and what is known of the models behind them."""
    # Imported when the models are asked for: a help text needs none of it.
    from inferxgate.runtime_models import build_catalog, build_router, read_model_lists

    catalog = build_catalog(loaded.settings, loaded.data_dir)
    return build_router(loaded.settings, catalog, lists=read_model_lists(loaded)), catalog


def _as_json(entry: ModelEntry, plan: Plan, states: Mapping[CircuitKey, CircuitState]) -> dict[str, Any]:
    return {
        "id": entry.id,
        "owned_by": entry.owned_by,
        "provider": entry.provider,
        "target": entry.target,
        "targets": list(entry.targets),
        "strategy": entry.strategy,
        "discovered": entry.discovered,
        "context_window": entry.context_window,
        "max_output_tokens": entry.abilities.max_output_tokens,
        "input_price": entry.price.dollars_per_million("input_tokens") if entry.price else None,
        "output_price": entry.price.dollars_per_million("output_tokens") if entry.price else None,
        "abilities": {name: value for name, value in asdict(entry.abilities).items() if name != "max_output_tokens"},
        "health": unwell(plan.targets, states),
    }
