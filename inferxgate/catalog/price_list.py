"""Where published prices come from: the table that comes with the gateway, or a file that takes its place.

The table is made from the ``genai-prices`` package when a version is prepared (``.ci/price_table.py``), so that nothing
has to be loaded, checked or kept of the package when the gateway runs.

The file is that package's data as its makers publish it (``data.json``: a list of providers with their models). It is
checked whole before anything uses it, because an amount that is wrong by a factor is worse than none; and where it
cannot be used nothing else quietly takes its place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson

from inferxgate.catalog.listed import LEAST, ListedProvider, parse_condition
from inferxgate.errors import StartError
from inferxgate.values import dataclass

FILE_NAME = "prices.json"
"""In the data folder."""
_LARGEST_BYTES = 64 * 1024 * 1024
_DEAREST = Decimal(1_000_000)
"""Dollars for any unit that a file counts in. What costs more is a mistake of the file."""
_RULES = ("starts_with", "ends_with", "contains", "regex", "equals")
_TABLE = Path(__file__).with_name("prices.jsonl")


@dataclass(frozen=True, slots=True)
class PriceList:
    """Providers with their models and prices."""

    providers: Mapping[str, ListedProvider]
    """By their ids."""
    version: str
    """Kept with every cost that comes of it."""


@cache
def packaged() -> PriceList:
    """The table that comes with the gateway.

    Its first line says where it is from and which providers it has; each other one has the models of one of these.
    """
    first, *lines = _TABLE.read_bytes().splitlines()
    head = orjson.loads(first)
    providers = (
        ListedProvider(each["id"], each["others"], partial(orjson.loads, line))
        for each, line in zip(head["providers"], lines, strict=True)
    )
    return PriceList({provider.id: provider for provider in providers}, head["version"])


class BadPriceFile(ValueError):
    """Says what is wrong with a price file, and where in it."""


def read_price_list(path: Path) -> PriceList:
    """The list that is installed at ``path``, or the gateway's own where there is none.

    Raises ``StartError`` for a file that cannot be used: prices must not change because a file was damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return packaged()
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
    providers: dict[str, ListedProvider] = {}
    for number, each in enumerate(raw, 1):
        provider = _checked_provider(each, f"provider {number}")
        if provider.id in providers:
            raise BadPriceFile(f"provider {provider.id!r} is there twice")
        providers[provider.id] = provider
    if not any(_has_price(provider) for provider in providers.values()):
        raise BadPriceFile("it has no model with prices for input and output")
    return PriceList(providers, f"{FILE_NAME} {hashlib.sha256(data).hexdigest()[:8]}")


def _has_price(provider: ListedProvider) -> bool:
    return any(prices.dollars.keys() >= set(LEAST) for model in provider.models for prices in model.prices)


def _checked_provider(raw: object, where: str) -> ListedProvider:
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
    checked = [_checked_model(each, f"{where}, model {number}") for number, each in enumerate(models, 1)]
    return ListedProvider(raw["id"], others, lambda: checked)


def _checked_model(raw: object, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not raw["id"]:
        raise BadPriceFile(f"{where} has no id")
    where = f"{where.rpartition(' ')[0]} {raw['id']!r}"
    window, deprecated = raw.get("context_window"), raw.get("deprecated")
    try:
        if window is not None and (type(window) is not int or window < 0):
            raise BadPriceFile("context_window: it has to be a number of tokens")
        if deprecated is not None and not isinstance(deprecated, bool):
            raise BadPriceFile("deprecated: it has to be true or false")
        match, prices = _checked_match(raw.get("match")), _checked_prices(raw.get("prices"))
    except BadPriceFile as problem:
        raise BadPriceFile(f"{where}: {problem}") from None
    return {"id": raw["id"], "match": match, "prices": prices, "context_window": window, "deprecated": deprecated}


def _checked_match(raw: object) -> Mapping[str, Any]:
    """How a model is told by its name. A pattern that cannot be compiled would fail at the first request."""
    if not isinstance(raw, dict) or len(raw) != 1:
        raise BadPriceFile("match has to have one rule")
    [(rule, value)] = raw.items()
    if rule in ("or", "and"):
        if not isinstance(value, list):
            raise BadPriceFile(f"match.{rule} has to be a list of rules")
        return {rule: [_checked_match(each) for each in value]}
    if rule not in _RULES:
        raise BadPriceFile(f"match has the unknown rule {rule!r}")
    if not isinstance(value, str):
        raise BadPriceFile(f"match.{rule} has to be text")
    if rule == "regex":
        try:
            re.compile(value)
        except re.error:
            raise BadPriceFile("match has a regular expression that is none") from None
    return raw


def _checked_prices(raw: object) -> object:
    if isinstance(raw, dict):
        _check_amounts(raw)
        return raw
    if not isinstance(raw, list) or not raw:
        raise BadPriceFile("prices are missing")
    for each in raw:
        if not isinstance(each, dict) or not isinstance(each.get("prices"), dict):
            raise BadPriceFile("prices are missing")
        try:
            parse_condition(each.get("constraint"))
        except ValueError as problem:
            raise BadPriceFile(f"constraint: {problem}") from None
        _check_amounts(each["prices"])
    return raw


def _check_amounts(prices: Mapping[str, object]) -> None:
    for name, value in prices.items():
        if isinstance(value, dict):
            _check_tiers(name, value)
        elif value is not None:
            _check_amount(name, value)


def _check_tiers(name: str, raw: Mapping[str, object]) -> None:
    tiers = raw.get("tiers")
    if not isinstance(tiers, list) or not all(isinstance(tier, dict) for tier in tiers):
        raise BadPriceFile(f"{name} has no tiers")
    for tier in tiers:
        start = tier.get("start")
        if type(start) is not int or start < 0:
            raise BadPriceFile(f"{name} has a tier that does not start at a number of tokens")
        _check_amount(name, tier.get("price"))
    _check_amount(name, raw.get("base"))


def _check_amount(name: str, raw: object) -> None:
    """Dollars, as they are written."""
    amount = None
    if isinstance(raw, (int, float, str)) and not isinstance(raw, bool):
        with contextlib.suppress(InvalidOperation):
            amount = Decimal(str(raw))
    if amount is None or not amount.is_finite() or not 0 <= amount <= _DEAREST:
        raise BadPriceFile(f"{name} has to be an amount of dollars, from 0 to {_DEAREST:,}")
