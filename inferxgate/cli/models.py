"""``inferxgate models``: what can be asked for, and where each name goes. Opens no network."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed
from inferxgate.cli.options import Command, ConfigOption, JsonOption
from inferxgate.cli.output import Column, count, note, print_fields, print_json, print_table, right
from inferxgate.cli.prices import amount, prices
from inferxgate.cli.refresh import refresh
from inferxgate.config_sources import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inferxgate.catalog.abilities import Abilities
    from inferxgate.catalog.pricing import Price
    from inferxgate.config import Loaded, Settings
    from inferxgate.gateway.routing import ModelEntry, Router

_FLAGS = "Flags"
_THINKS_BY = {"budget": "budget", "adaptive": "effort", "both": "effort or budget", "level": "level"}


@dataclass(frozen=True, slots=True)
class _Trait:
    """What sets a model apart from one that takes everything and does not think."""

    flag: str
    """One letter, for the list."""
    words: str
    can: bool
    """Whether it can do more than others, and not less."""


_THINKS = _Trait("t", "thinks", can=True)
_ALWAYS_THINKS = _Trait("T", "always thinks", can=True)
_MAKES_IMAGES = _Trait("i", "makes images", can=True)
_NO_SAMPLING = _Trait("s", "temperature, top_p, top_k", can=False)
_ONE_SAMPLING = _Trait("b", "temperature together with top_p", can=False)
_NO_PREFILL = _Trait("p", "prefill", can=False)
_NO_FORCED_TOOLS = _Trait("f", "forced tool calls", can=False)
_NO_SCHEMA = _Trait("j", "JSON Schema", can=False)
_TRAITS = (
    _THINKS,
    _ALWAYS_THINKS,
    _MAKES_IMAGES,
    _NO_SAMPLING,
    _ONE_SAMPLING,
    _NO_PREFILL,
    _NO_FORCED_TOOLS,
    _NO_SCHEMA,
)

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

    router, _ = _router(options.load(config))
    names = [each.name for each in router.providers]
    if provider is not None and provider not in names:
        raise CommandFailed(f"There is no provider '{provider}' in the configuration; there are {', '.join(names)}")
    entries = [entry for entry in router.models(OPERATOR) if provider in (None, entry.provider)]
    if as_json:
        print_json([_as_json(entry) for entry in entries])
        return
    if not entries:
        section = dotted(("providers", str(provider)))
        note(f"{provider} lists no models; name them in {section}.models. Any can be asked for by name.")
        note(f"What it lists itself: set {section}.discover = true, then 'inferxgate models refresh'.")
        return
    left_out = print_table(
        [
            Column("Model", wraps=False),
            Column("Provider", wraps=False, given_up=1),
            right("Context", given_up=3),
            right("Max output", given_up=2),
            right("Input"),
            right("Output"),
            Column(_FLAGS, wraps=False, given_up=4),
        ],
        [
            [
                entry.id,
                entry.provider,
                _tokens(entry.context_window),
                _tokens(entry.abilities.max_output_tokens),
                _dollars(entry.price, "input_tokens"),
                _dollars(entry.price, "output_tokens"),
                "".join(trait.flag for trait in _traits(entry.abilities)),
            ]
            for entry in entries
        ],
    )
    if _FLAGS not in left_out:
        for line in _legend(entries):
            note(line)
    if left_out:
        note(f"No room for: {', '.join(left_out)}; --json has all.")
    if discovered := sum(entry.discovered for entry in entries):
        note(
            f"Known from their providers' own lists alone: {count(discovered)}; 'inferxgate models refresh' asks anew."
        )


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
    router, prices_from = _router(loaded)
    entry = router.entry(OPERATOR, name)
    if as_json:
        print_json(_as_json(entry))
        return
    print_fields(
        [
            ("Name", entry.id),
            ("Goes to", entry.target),
            ("Provider", entry.provider),
            ("Context window", _token_words(entry.context_window)),
            ("Maximum output", _token_words(entry.abilities.max_output_tokens)),
            ("Abilities", _abilities(entry.abilities) or "nothing out of the ordinary is known"),
            ("Not taken", _in_words(entry.abilities, can=False) or "nothing, as far as is known"),
            ("Input", _price_words(entry.price, "input_tokens")),
            ("Cached input", _price_words(entry.price, "cache_read_tokens")),
            ("Output", _price_words(entry.price, "output_tokens")),
            (
                "Price from",
                entry.price.version if entry.price else _why_unknown(entry, router, loaded.settings, prices_from),
            ),
        ]
    )


def _router(loaded: Loaded) -> tuple[Router, str]:
    """The names that are served, and the version of the price list behind them."""
    # Imported when the models are asked for: the price package is dear.
    from inferxgate.runtime import build_catalog, build_router, read_model_lists

    catalog = build_catalog(loaded.settings, loaded.data_dir)
    return build_router(loaded.settings, catalog, lists=read_model_lists(loaded)), catalog.price_version


def _why_unknown(entry: ModelEntry, router: Router, settings: Settings, prices_from: str) -> str:
    """Why a price is unknown, and what to write for it to be known."""
    from inferxgate.providers.addresses import other_vendor

    provider = next(each for each in router.providers if each.name == entry.provider)
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
    model = entry.target.partition("/")[2]
    if provider.vendor_model(model) is None:
        return f"nowhere: {section}.deployments does not say which model '{model}' is"
    return f"nowhere: {prices_from} has none; set [{dotted(('pricing', entry.target))}]"


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "owned_by": entry.owned_by,
        "provider": entry.provider,
        "target": entry.target,
        "discovered": entry.discovered,
        "context_window": entry.context_window,
        "max_output_tokens": entry.abilities.max_output_tokens,
        "input_price": entry.price.dollars_per_million("input_tokens") if entry.price else None,
        "output_price": entry.price.dollars_per_million("output_tokens") if entry.price else None,
        "abilities": {name: value for name, value in asdict(entry.abilities).items() if name != "max_output_tokens"},
    }


def _tokens(number: int | None) -> str:
    return count(number) if number else ""


def _token_words(number: int | None) -> str:
    return f"{_tokens(number)} tokens" if number else "unknown"


def _traits(abilities: Abilities) -> list[_Trait]:
    holds = {
        _THINKS: abilities.thinking != "none" and abilities.thinking_off,
        _ALWAYS_THINKS: not abilities.thinking_off,
        _MAKES_IMAGES: abilities.image_output,
        _NO_SAMPLING: not abilities.sampling,
        _ONE_SAMPLING: abilities.sampling and not abilities.temperature_with_top_p,
        _NO_PREFILL: not abilities.prefill,
        _NO_FORCED_TOOLS: not abilities.forced_tools,
        _NO_SCHEMA: not abilities.json_schema,
    }
    return [trait for trait in _TRAITS if holds[trait]]


def _in_words(abilities: Abilities, *, can: bool) -> str:
    return "; ".join(trait.words for trait in _traits(abilities) if trait.can is can)


def _abilities(abilities: Abilities) -> str:
    by = _THINKS_BY.get(abilities.thinking)
    return _in_words(abilities, can=True) + (f" (asked for by {by})" if by else "")


def _legend(entries: list[ModelEntry]) -> Iterator[str]:
    """What the letters in the list mean, of those that it has."""
    found = {trait for entry in entries for trait in _traits(entry.abilities)}
    for heading, can in (("Flags:", True), ("Not taken:", False)):
        meanings = [f"{trait.flag} {trait.words}" for trait in _TRAITS if trait in found and trait.can is can]
        if meanings:
            yield from textwrap.wrap(f"{heading} {'; '.join(meanings)}", shutil.get_terminal_size().columns)


def _dollars(price: Price | None, bucket: str) -> str:
    return amount(price, bucket) if price else ""


def _price_words(price: Price | None, bucket: str) -> str:
    return f"{_dollars(price, bucket)} per million tokens" if price else "unknown"
