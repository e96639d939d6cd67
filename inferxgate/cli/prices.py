"""``inferxgate models prices``: what each kind of token costs, whence that is known, and newer prices from a file."""

from __future__ import annotations

import csv
import fnmatch
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, WrongUsage
from inferxgate.cli.options import ConfigOption, JsonOption
from inferxgate.cli.output import Column, count, note, plural, print_fields, print_json, print_line, print_table, right
from inferxgate.cli.output import warn as warn_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inferxgate.catalog.price_list import PriceList
    from inferxgate.catalog.pricing import Price
    from inferxgate.config import Loaded
    from inferxgate.gateway.routing import ModelEntry

_BUCKETS = (
    ("input", "input_tokens", "Input", "Input", None),
    ("cache_read", "cache_read_tokens", "Read", "Cache read", None),
    ("cache_write", "cache_write_5m_tokens", "Write", "Cache write, 5 min", None),
    ("cache_write_1h", "cache_write_1h_tokens", "Write 1h", "Cache write, 1 h", 8),
    ("output", "output_tokens", "Output", "Output", None),
    ("reasoning", "reasoning_tokens", "Reasoning", "Reasoning", 6),
    ("audio_input", "audio_input_tokens", "Audio in", "Audio input", 3),
    ("audio_output", "audio_output_tokens", "Audio out", "Audio output", 4),
    ("image_input", "image_input_tokens", "Image in", "Image input", 1),
    ("image_output", "image_output_tokens", "Image out", "Image output", 2),
)
"""Setting, bucket, column, words, and when a narrow terminal gives the column up."""

_PATTERN = re.compile(r"[*?\[]")


def prices(
    *,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="As a client would ask for it, or a pattern such as 'openai/*'.", show_default=False
        ),
    ] = None,
    update_from: Annotated[
        Path | None,
        typer.Option("--update-from", metavar="FILE", help="Install the prices of a genai-prices data.json."),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the prices that came with the gateway.")] = False,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show what each kind of token costs, in dollars per million, and where that is from."""
    if as_json and as_csv:
        raise WrongUsage("--json and --csv exclude each other: give one")
    if update_from is not None or reset:
        if name is not None or as_json or as_csv or (update_from is not None and reset):
            raise WrongUsage("--update-from FILE and --reset are given alone")
        loaded = options.load(config)
        if update_from is not None:
            _update(loaded, update_from)
        else:
            _reset(loaded)
        return
    entries = _entries(options.load(config), name)
    if as_json:
        print_json([_as_json(entry) for entry in entries])
    elif as_csv:
        _print_csv(entries)
    elif name is not None and not _PATTERN.search(name):
        _print_page(entries[0])
    else:
        _print_table(entries)


def _entries(loaded: Loaded, name: str | None) -> list[ModelEntry]:
    from inferxgate.accounts.callers import OPERATOR
    from inferxgate.runtime_models import build_catalog, build_router, read_model_lists

    catalog = build_catalog(loaded.settings, loaded.data_dir)
    router = build_router(loaded.settings, catalog, lists=read_model_lists(loaded))
    if name is None:
        return router.models(OPERATOR)
    if not _PATTERN.search(name):
        return [router.entry(OPERATOR, name)]
    found = [
        entry
        for entry in router.models(OPERATOR)
        if fnmatch.fnmatchcase(entry.id, name) or fnmatch.fnmatchcase(entry.target, name)
    ]
    if not found:
        raise CommandFailed(f"No listed model is called like '{name}'; 'inferxgate models list' shows them")
    return found


# --- showing


def _print_page(entry: ModelEntry) -> None:
    price = entry.price
    fields = [("Name", entry.id), ("Goes to", entry.target)]
    if price is None:
        fields.append(("Price", "unknown; 'inferxgate models show' says why"))
    else:
        for _, bucket, _, words, _ in _BUCKETS:
            higher = "".join(
                f", {amount(price, bucket, tier=number)} where the prompt has more than {count(above)}"
                for number, above in _tiers(price)
                if number
            )
            fields.append((words, f"{amount(price, bucket)} per million tokens{higher}"))
        fields.append(("Each request", _money(price.dollars_per_request()) if price.request_nanos else "nothing"))
        fields.append(("Price from", price.version))
    print_fields(fields)


def _print_table(entries: Sequence[ModelEntry]) -> None:
    rows = [cells for entry in entries for cells in _rows(entry)]
    columns = [
        Column("Model", wraps=False),
        *(right(title, given_up=given_up) for _, _, title, _, given_up in _BUCKETS),
        right("Request", given_up=5),
        Column("Price from", wraps=False, given_up=7),
    ]
    left_out = print_table(columns, rows)
    if any(len(entry.price.tiers) > 1 for entry in entries if entry.price):
        note("A row that begins with 'above' holds for whole requests whose prompt has more tokens than that.")
    if left_out:
        note(f"No room for: {', '.join(left_out)}; --json and --csv have all.")


def _rows(entry: ModelEntry) -> Iterator[list[str]]:
    if entry.price is None:
        yield [entry.id, *("" for _ in _BUCKETS), "", "unknown"]
        return
    for number, above in _tiers(entry.price):
        yield [
            f"  above {count(above)}" if number else entry.id,
            *(amount(entry.price, bucket, tier=number) for _, bucket, _, _, _ in _BUCKETS),
            _money(entry.price.dollars_per_request()) if entry.price.request_nanos else "",
            entry.price.version,
        ]


def _tiers(price: Price) -> Iterator[tuple[int, int]]:
    """The place of each tier, and the size of prompt above which it holds; 0 for the first, which always does."""
    for number, tier in enumerate(price.tiers):
        yield number, max(0, tier.above_prompt_tokens)


def amount(price: Price, bucket: str, *, tier: int = 0) -> str:
    """A bucket's dollars per million tokens."""
    return _money(price.dollars_per_million(bucket, tier=tier))


def _money(dollars: float) -> str:
    """To the cent, and further where the price goes further."""
    whole, _, cents = f"{dollars:.6f}".rstrip("0").partition(".")
    return f"${whole}.{cents:0<2}"


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    price = entry.price
    known: dict[str, Any] = {"version": None, "request": None, "tiers": None}
    if price is not None:
        known = {
            "version": price.version,
            "request": price.dollars_per_request(),
            "tiers": [
                {
                    "above_prompt_tokens": above,
                    **{setting: price.dollars_per_million(bucket, tier=number) for setting, bucket, *_ in _BUCKETS},
                }
                for number, above in _tiers(price)
            ],
        }
    return {"id": entry.id, "provider": entry.provider, "target": entry.target, **known}


def _print_csv(entries: Sequence[ModelEntry]) -> None:
    names = [setting for setting, *_ in _BUCKETS]
    figures = ["above_prompt_tokens", *names, "request"]
    writer = csv.DictWriter(sys.stdout, ["id", "provider", "target", *figures, "version"], lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        shown = _as_json(entry)
        tiers, request = shown.pop("tiers"), shown.pop("request")
        for tier in tiers or [{}]:
            writer.writerow(shown | {name: _digits(value) for name, value in {**tier, "request": request}.items()})


def _digits(figure: float | None) -> str:
    """In digits alone, which any spreadsheet reads: never 2e-06."""
    return "" if figure is None else f"{figure:.12f}".rstrip("0").rstrip(".")


# --- updating


def _update(loaded: Loaded, source: Path) -> None:
    from inferxgate.catalog.price_list import FILE_NAME, BadPriceFile, install_price_list
    from inferxgate.store.files import make_private_folder

    try:
        data = source.read_bytes()
    except OSError as error:
        raise CommandFailed(f"cannot read {source}: {error.strerror}") from None
    before = _in_force(loaded)
    path = loaded.data_dir / FILE_NAME
    make_private_folder(loaded.data_dir)
    try:
        installed = install_price_list(path, data)
    except BadPriceFile as problem:
        raise CommandFailed(f"{source} is no price file: {problem}; nothing was changed") from None
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}; nothing was changed") from None
    models = sum(len(provider.models) for provider in installed.providers.values())
    what = f"{plural(len(installed.providers), 'provider')} with {plural(models, 'model')}"
    print_line(f"Installed {what} as {installed.version}")
    if before is not None:
        print_line(_differences(before, installed))
    _warn_of_lost_lists(loaded, installed)
    note("The commands use it from now on, 'inferxgate serve' from its next start; --reset takes it back.")


def _in_force(loaded: Loaded) -> PriceList | None:
    from inferxgate.catalog.price_list import FILE_NAME, read_price_list
    from inferxgate.errors import StartError

    try:
        return read_price_list(loaded.data_dir / FILE_NAME)
    except StartError:
        return None  # it is about to be replaced


def _differences(before: PriceList, after: PriceList) -> str:
    old, new = (
        {(provider.id, model.id): model.prices for provider in each.providers.values() for model in provider.models}
        for each in (before, after)
    )
    differ = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return (
        f"Against {before.version}: {plural(len(new.keys() - old.keys()), 'model')} more,"
        f" {len(old.keys() - new.keys()):,} gone, {differ:,} with another price"
    )


def _warn_of_lost_lists(loaded: Loaded, installed: PriceList) -> None:
    from inferxgate.providers.registry import ROWS

    for name, section in loaded.settings.providers.items():
        price_id = ROWS[section.type or name].price_id
        if price_id is not None and price_id not in installed.providers:
            warn_of(f"It has no prices of {price_id}: what {name} costs is unknown with it")


def _reset(loaded: Loaded) -> None:
    from inferxgate.catalog.price_list import FILE_NAME, packaged

    path = loaded.data_dir / FILE_NAME
    try:
        path.unlink()
    except FileNotFoundError:
        print_line(f"No price file is installed; prices are those of {packaged().version}")
        return
    except OSError as error:
        raise CommandFailed(f"cannot remove {path}: {error.strerror}") from None
    print_line(f"Prices are those of {packaged().version} again, for 'inferxgate serve' from its next start")
