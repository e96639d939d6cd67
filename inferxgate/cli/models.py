"""``inferxgate models``: what can be asked for, and where each name goes. Opens no network."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed
from inferxgate.cli.options import Command, ConfigOption, JsonOption
from inferxgate.cli.output import count, note, print_fields, print_json, print_table, right

if TYPE_CHECKING:
    from pathlib import Path

    from inferxgate.catalog.abilities import Abilities
    from inferxgate.catalog.pricing import Price
    from inferxgate.gateway.routing import ModelEntry, Router

_THINKS_BY = {"budget": "budget", "adaptive": "effort", "both": "effort or budget", "level": "level"}

app = options.new_app("List models with their prices; show where a name goes.")


@app.command("list", cls=Command)
def list_models(
    *,
    provider: Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Only this provider's.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the models of the configured providers, with prices in dollars per million tokens."""
    from inferxgate.accounts.callers import OPERATOR

    router = _router(config)
    names = [each.name for each in router.providers]
    if provider is not None and provider not in names:
        raise CommandFailed(f"There is no provider '{provider}' in the configuration; there are {', '.join(names)}")
    entries = [entry for entry in router.models(OPERATOR) if provider in (None, entry.provider)]
    if as_json:
        print_json([_as_json(entry) for entry in entries])
        return
    if not entries:
        note(f"{provider} lists no models; name them in providers.{provider}.models. Any can be asked for by name.")
        return
    print_table(
        [
            "Model",
            "Provider",
            right("Context"),
            right("Max output"),
            right("Input"),
            right("Output"),
            "Abilities",
        ],
        [
            [
                entry.id,
                entry.provider,
                _tokens(entry.context_window),
                _tokens(entry.abilities.max_output_tokens),
                _dollars(entry.price, "input_tokens"),
                _dollars(entry.price, "output_tokens"),
                ", ".join(_words(entry.abilities)),
            ]
            for entry in entries
        ],
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

    entry = _router(config).entry(OPERATOR, name)
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
            ("Abilities", ", ".join(_words(entry.abilities)) or "nothing out of the ordinary is known"),
            ("Input", _price_words(entry.price, "input_tokens")),
            ("Cached input", _price_words(entry.price, "cache_read_tokens")),
            ("Output", _price_words(entry.price, "output_tokens")),
            ("Price from", entry.price.version if entry.price else "nowhere; set [pricing] to have costs"),
        ]
    )


def _router(config: Path | None) -> Router:
    # Imported when the models are asked for: the price package is dear.
    from inferxgate.runtime import build_catalog, build_router

    settings = options.load(config).settings
    return build_router(settings, build_catalog(settings))


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "owned_by": entry.owned_by,
        "provider": entry.provider,
        "target": entry.target,
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


def _words(abilities: Abilities) -> list[str]:
    """What sets a model apart from one that takes everything and does not think."""
    words = {
        "thinks by " + _THINKS_BY.get(abilities.thinking, ""): abilities.thinking != "none",
        "always thinks": not abilities.thinking_off,
        "no sampling": not abilities.sampling,
        "temperature or top_p": abilities.sampling and not abilities.temperature_with_top_p,
        "no prefill": not abilities.prefill,
        "no forced tools": not abilities.forced_tools,
        "no JSON schema": not abilities.json_schema,
        "makes images": abilities.image_output,
    }
    return [word for word, holds in words.items() if holds]


def _dollars(price: Price | None, bucket: str) -> str:
    """To the cent, and further where the price goes further."""
    if price is None:
        return ""
    amount = f"{price.dollars_per_million(bucket):.6f}".rstrip("0")
    whole, _, cents = amount.partition(".")
    return f"${whole}.{cents:0<2}"


def _price_words(price: Price | None, bucket: str) -> str:
    return f"{_dollars(price, bucket)} per million tokens" if price else "unknown"
