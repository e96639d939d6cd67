"""Where published prices come from: the package that is installed with the gateway, or a file that replaces its data.

The file is the package's own data as its makers publish it (``data.json``: a list of providers with their models). It
is checked whole before anything uses it, because an amount that is wrong by a factor is worse than none; and where it
cannot be used nothing else quietly takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.metadata import version
from pathlib import Path

import orjson
from genai_prices import types
from genai_prices.data import providers as package_providers
from pydantic import ConfigDict, TypeAdapter, ValidationError

from inferxgate.errors import StartError

FILE_NAME = "prices.json"
"""In the data folder."""
PACKAGE_VERSION = f"genai-prices {version('genai-prices')}"

_LARGEST_BYTES = 64 * 1024 * 1024
_DEAREST = Decimal(1_000_000)
"""Dollars for any unit that a file counts in. What costs more is a mistake of the file."""
_CHECKED = ConfigDict(arbitrary_types_allowed=True, defer_build=True)
_MODELS = TypeAdapter(list[types.ModelInfo], config=_CHECKED)
_CONDITIONALS = TypeAdapter(list[types.ConditionalPrice], config=_CHECKED)


@dataclass(frozen=True, slots=True)
class PriceList:
    """Providers with their models and prices."""

    providers: Sequence[types.Provider]
    version: str
    """Kept with every cost that comes of it."""


PACKAGED = PriceList(package_providers, PACKAGE_VERSION)


class BadPriceFile(ValueError):
    """Says what is wrong with a price file, and where in it."""


def read_price_list(path: Path) -> PriceList:
    """The list that is installed at ``path``, or the package's where there is none.

    Raises ``StartError`` for a file that cannot be used: prices must not change because a file was damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return PACKAGED
    except OSError as error:
        raise StartError(f"cannot read the price file {path}: {error.strerror}; {_MENDING}") from error
    try:
        return parse_price_list(data)
    except BadPriceFile as problem:
        raise StartError(f"the price file {path} cannot be used: {problem}; {_MENDING}") from None


_MENDING = (
    "'inferxgate models prices --update-from FILE' replaces it, --reset in its place goes back to the package's prices"
)


def install_price_list(path: Path, data: bytes) -> PriceList:
    """Check ``data`` and put it at ``path``, whole or not at all. Its folder must be there.

    Raises ``BadPriceFile``, and ``OSError`` where it cannot be written.
    """
    checked = parse_price_list(data)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner only
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has its own name by now, or something failed
            os.unlink(name)
    return checked


def parse_price_list(data: bytes) -> PriceList:
    """Prices from a file's bytes, every one of them checked. Raises ``BadPriceFile``."""
    if len(data) > _LARGEST_BYTES:
        raise BadPriceFile(f"it has more than {_LARGEST_BYTES // 1024 // 1024} MiB")
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadPriceFile(f"it is not JSON: {error.msg} in line {error.lineno}") from None
    if not isinstance(raw, list) or not raw:
        raise BadPriceFile("it is not a list of providers, as genai-prices publishes in data.json (version 2)")
    providers: dict[str, types.Provider] = {}
    for number, each in enumerate(raw, 1):
        provider = _provider(each, f"provider {number}")
        if provider.id in providers:
            raise BadPriceFile(f"provider {provider.id!r} is there twice")
        providers[provider.id] = provider
    if not any(map(_priced, (model for provider in providers.values() for model in provider.models))):
        raise BadPriceFile("it has no model with prices for input and output")
    return PriceList([*providers.values()], f"{FILE_NAME} {hashlib.sha256(data).hexdigest()[:8]}")


def _priced(model: types.ModelInfo) -> bool:
    return any({"input_mtok", "output_mtok"} <= vars(prices).keys() for _, prices in prices_of(model))


def prices_of(model: types.ModelInfo) -> Iterator[tuple[object, types.ModelPrice]]:
    """All prices of a model, each with when it holds."""
    if isinstance(model.prices, types.ModelPrice):
        yield None, model.prices
    else:
        for each in model.prices:
            yield each.constraint, each.prices


def _provider(raw: object, where: str) -> types.Provider:
    """One provider. How to read usage is left out: the gateway has dialects for that."""
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not raw["id"]:
        raise BadPriceFile(f"{where} has no id")
    where = f"provider {raw['id']!r}"
    models, others = raw.get("models", []), raw.get("fallback_model_providers") or []
    if (
        not isinstance(models, list)
        or not isinstance(others, list)
        or not all(isinstance(each, str) for each in others)
    ):
        raise BadPriceFile(f"{where}: models and fallback_model_providers have to be lists")
    return types.Provider(
        id=raw["id"],
        name=str(raw.get("name", raw["id"])),
        api_pattern="",
        fallback_model_providers=others,
        models=[_model(each, f"{where}, model {number}") for number, each in enumerate(models, 1)],
    )


def _model(raw: object, where: str) -> types.ModelInfo:
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not raw["id"]:
        raise BadPriceFile(f"{where} has no id")
    where = f"{where.rpartition(' ')[0]} {raw['id']!r}"
    known = {name: raw[name] for name in ("id", "name", "context_window", "deprecated") if name in raw}
    try:
        match, prices = _checked_match(raw.get("match")), _prices(raw.get("prices"))
        return _MODELS.validate_python([{**known, "match": match, "prices": prices}])[0]
    except BadPriceFile as problem:
        raise BadPriceFile(f"{where}: {problem}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        raise BadPriceFile(f"{where}: {place}: {first['msg']}") from None


def _checked_match(raw: object) -> object:
    """How a model is told by its name. A pattern that cannot be compiled would fail at the first request."""
    if not isinstance(raw, dict) or len(raw) != 1:
        raise BadPriceFile("match has to have one rule")
    [(rule, value)] = raw.items()
    if rule in ("or", "and"):
        return {rule: [_checked_match(each) for each in value] if isinstance(value, list) else value}
    if rule not in ("starts_with", "ends_with", "contains", "regex", "equals"):
        raise BadPriceFile(f"match has the unknown rule {rule!r}")
    if rule == "regex" and isinstance(value, str):
        try:
            re.compile(value)
        except re.error:
            raise BadPriceFile("match has a regular expression that is none") from None
    return raw


def _prices(raw: object) -> types.ModelPrice | list[types.ConditionalPrice]:
    if isinstance(raw, dict):
        return _model_price(raw)
    if not isinstance(raw, list) or not raw:
        raise BadPriceFile("prices are missing")
    conditional: list[object] = []
    for each in raw:
        if not isinstance(each, dict) or not isinstance(each.get("prices"), dict):
            raise BadPriceFile("prices are missing")
        conditional.append({"constraint": each.get("constraint"), "prices": _model_price(each["prices"])})
    return _CONDITIONALS.validate_python(conditional)


def _model_price(raw: Mapping[str, object]) -> types.ModelPrice:
    prices: dict[str, Decimal | types.TieredPrices | None] = {}
    for name, value in raw.items():
        if value is not None:
            prices[name] = _tiered(name, value) if isinstance(value, dict) else _amount(name, value)
    return types.ModelPrice(**prices)


def _tiered(name: str, raw: Mapping[str, object]) -> types.TieredPrices:
    tiers = raw.get("tiers")
    if not isinstance(tiers, list) or not all(isinstance(tier, dict) for tier in tiers):
        raise BadPriceFile(f"{name} has no tiers")
    made = []
    for tier in tiers:
        start = tier.get("start")
        if type(start) is not int or start < 0:
            raise BadPriceFile(f"{name} has a tier that does not start at a number of tokens")
        made.append(types.Tier(start, _amount(name, tier.get("price"))))
    return types.TieredPrices(_amount(name, raw.get("base")), made)


def _amount(name: str, raw: object) -> Decimal:
    """Dollars, as they are written."""
    amount = None
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        with contextlib.suppress(InvalidOperation):
            amount = Decimal(str(raw))
    if amount is None or not amount.is_finite() or not 0 <= amount <= _DEAREST:
        raise BadPriceFile(f"{name} has to be an amount of dollars, from 0 to {_DEAREST:,}")
    return amount
