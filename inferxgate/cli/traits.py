"""What is known of models, in words and in letters."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

from inferxgate.cli.output import count
from inferxgate.cli.prices import amount
from inferxgate.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from inferxgate.catalog.abilities import Abilities
    from inferxgate.catalog.pricing import Price

_THINKS_BY = {"budget": "budget", "adaptive": "effort", "both": "effort or budget", "level": "level"}


@dataclass(frozen=True, slots=True)
class Trait:
    """What sets a model apart from one that takes everything and does not think."""

    flag: str
    """One letter, for the list."""
    words: str
    can: bool
    """Whether it can do more than others, and not less."""


_THINKS = Trait("t", "thinks", can=True)
_ALWAYS_THINKS = Trait("T", "always thinks", can=True)
_MAKES_IMAGES = Trait("i", "makes images", can=True)
_NO_SAMPLING = Trait("s", "temperature, top_p, top_k", can=False)
_ONE_SAMPLING = Trait("b", "temperature together with top_p", can=False)
_NO_PREFILL = Trait("p", "prefill", can=False)
_NO_FORCED_TOOLS = Trait("f", "forced tool calls", can=False)
_NO_SCHEMA = Trait("j", "JSON Schema", can=False)
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


def traits(abilities: Abilities) -> list[Trait]:
    """What sets a model of these abilities apart."""
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


def in_words(abilities: Abilities, *, can: bool) -> str:
    """What it can do beyond others, or what it does not take; empty where there is nothing."""
    return "; ".join(trait.words for trait in traits(abilities) if trait.can is can)


def abilities_in_words(abilities: Abilities) -> str:
    """What it can do, and how its thinking is asked for."""
    by = _THINKS_BY.get(abilities.thinking)
    return in_words(abilities, can=True) + (f" (asked for by {by})" if by else "")


def legend(models: Iterable[Abilities]) -> Iterator[str]:
    """What the letters in the list mean, of those that it has."""
    found = {trait for abilities in models for trait in traits(abilities)}
    for heading, can in (("Flags:", True), ("Not taken:", False)):
        meanings = [f"{trait.flag} {trait.words}" for trait in _TRAITS if trait in found and trait.can is can]
        if meanings:
            yield from textwrap.wrap(f"{heading} {'; '.join(meanings)}", shutil.get_terminal_size().columns)


def tokens(number: int | None) -> str:
    """For a table: empty where it is unknown."""
    return count(number) if number else ""


def tokens_in_words(number: int | None) -> str:
    """For a page."""
    return f"{tokens(number)} tokens" if number else "unknown"


def price_of(price: Price | None, bucket: str) -> str:
    """For a table: dollars for a million tokens, empty where they are unknown."""
    return amount(price, bucket) if price else ""


def price_in_words(price: Price | None, bucket: str) -> str:
    """For a page."""
    return f"{price_of(price, bucket)} per million tokens" if price else "unknown"
