"""What is known of models without asking anyone: who makes them, how much they read, what they cost.

The figures come from a price list: that of the ``genai-prices`` package, of which the gateway has a table, or a newer
one from a file. Nothing is fetched, and the list's version is kept with every cost. Prices of the configuration
come first. What neither knows stays unknown.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.listed import LEAST, ListedModel, ListedPrices, Tiered, find_model
from inferxgate.catalog.models import abilities_of, window_of
from inferxgate.catalog.price_list import PriceList, packaged
from inferxgate.catalog.pricing import FREE, Dollars, Override, Price, Published
from inferxgate.values import dataclass

log = logging.getLogger(__name__)

NO_COST = "none"
"""In place of a provider's id in the package: everything there is free."""

_MAX_CACHED = 4_096

_BUCKET_FIELDS: Mapping[str, str] = {
    "input_tokens": "input_mtok",
    "cache_read_tokens": "cache_read_mtok",
    "cache_write_5m_tokens": "cache_write_mtok",
    "cache_write_1h_tokens": "cache_write_1h_mtok",
    "audio_input_tokens": "input_audio_mtok",
    "image_input_tokens": "input_image_mtok",
    "output_tokens": "output_mtok",
    "reasoning_tokens": "output_reasoning_mtok",
    "audio_output_tokens": "output_audio_mtok",
    "image_output_tokens": "output_image_mtok",
}
"""Our buckets by the package's names for their prices, dollars per million tokens."""

_VENDOR_PREFIXES = (
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "gemini"),
)

_OPENAI = "openai"
_GOOGLE = "google"
_GOOGLE_FOLDER = "models/"
"""Before a model's name in Google's own lists."""
_VENDOR_NAMES = {_OPENAI: "openai", "anthropic": "anthropic", _GOOGLE: "gemini"}
"""Our provider types by the package's ids, for vendors whose models have names of their own."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as people list it."""

    context_window: int | None
    """Tokens; None where unknown."""
    price: Price | None
    abilities: Abilities


class Catalog:
    """Looks models up.

    A model has two names: the *target*, ``provider/model``, by which the configuration's own figures go; and the
    vendor's name for it, which is None where nobody knows what stands behind the target.
    """

    def __init__(
        self,
        prices: Mapping[str, Mapping[str, Dollars]] | None = None,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        price_list: PriceList | None = None,
    ) -> None:
        """What the configuration says, under patterns of targets; the first that fits a target holds.

        ``prices``: dollars per million tokens by bucket, dollars for each ``request``, and a ``discount`` from 0 to 1.
        ``facts``: fields of ``Abilities``, and ``context_window``.
        ``price_list``: the gateway's own where none is given.
        """
        self._overrides = [(pattern, _override(said)) for pattern, said in (prices or {}).items()]
        self._overridden: dict[str, Override | None] = {}
        self._facts = [*(facts or {}).items()]
        self._abilities: dict[tuple[str, str, str | None], Abilities] = {}
        self._list = price_list or packaged()
        self._found: dict[tuple[str, str], ListedModel | None] = {}
        self._priced: dict[tuple[int, int], Price | None] = {}
        """By the identities of the list's prices and of the override, which both live as long as this does."""

    @property
    def price_version(self) -> str:
        """The price list's."""
        return self._list.version

    def vendor_of(self, model: str) -> str | None:
        """The provider type whose own model this is, or None. No vendor's own names have slashes."""
        if "/" in model.removeprefix(_GOOGLE_FOLDER):
            return None
        for package_id, vendor in _VENDOR_NAMES.items():
            if self._find(package_id, model) is not None:
                return vendor
        for prefix, vendor in _VENDOR_PREFIXES:
            if model.startswith(prefix):
                return vendor
        return "openai" if model[:1] == "o" and model[1:2].isdigit() else None

    def knows(self, package_id: str | None, model: str) -> bool:
        """Whether the package lists this model for this provider."""
        return package_id is not None and self._find(package_id, model) is not None

    def price(
        self, target: str, package_id: str | None, model: str | None, *, at: datetime | None = None
    ) -> Price | None:
        """The price of a target, whose vendor's name is ``model``; None: unknown.

        ``package_id``: the provider's id in the price package, where its prices are those of the package.
        """
        override = self._override_of(target)
        if package_id == NO_COST and (override is None or not override.whole):
            return FREE
        found = self._find(package_id, model) if package_id and model else None
        # A model's prices may change with the day and the hour, and each of them is a value of its own in the list.
        listed = found.prices_at(at or datetime.now(UTC)) if found else None
        key = (id(listed), id(override))
        if key not in self._priced:
            if len(self._priced) >= _MAX_CACHED:
                self._priced.clear()
            published = _published(listed) if listed is not None else None
            self._priced[key] = self._price(published, override)
        return self._priced[key]

    def _override_of(self, target: str) -> Override | None:
        if not self._overrides:
            return None
        if target not in self._overridden:
            if len(self._overridden) >= _MAX_CACHED:
                self._overridden.clear()
            fitting = (each for pattern, each in self._overrides if fnmatch.fnmatchcase(target, pattern))
            self._overridden[target] = next(fitting, None)
        return self._overridden[target]

    def _price(self, published: Published | None, override: Override | None) -> Price | None:
        if override is not None:
            return override.applied(published, self._list.version)
        return published.priced(self._list.version) if published else None

    def facts(
        self, target: str, vendor: str, package_id: str | None, model: str | None, *, priced: bool = True
    ) -> ModelFacts:
        """What is known of one target; ``vendor`` is the type of its provider.

        Not ``priced``: the package's price does not hold there, and the rest does.
        """
        found = self._find(package_id, model) if package_id and model else None
        window = self._configured(target).get("context_window") or (found.context_window if found else None)
        if window is None and model is not None:
            window = window_of(model)
        price = self.price(target, package_id if priced else None, model)
        return ModelFacts(window, price, self.abilities(target, vendor, model))

    def abilities(self, target: str, vendor: str, model: str | None) -> Abilities:
        """What a target takes and gives."""
        key = (target, vendor, model)
        if key not in self._abilities:
            if len(self._abilities) >= _MAX_CACHED:
                self._abilities.clear()
            known = abilities_of(vendor, model) if model else Abilities()
            said = {name: value for name, value in self._configured(target).items() if name != "context_window"}
            self._abilities[key] = replace(known, **said)
        return self._abilities[key]

    def _configured(self, target: str) -> Mapping[str, Any]:
        return next((facts for pattern, facts in self._facts if fnmatch.fnmatchcase(target, pattern)), {})

    def chat_models(self, package_id: str | None) -> Iterator[str]:
        """Names of the chat models that the package lists for a provider, leaving out retired ones."""
        package = self._list.providers.get(package_id or "")
        if package is None:
            return
        for model in package.models:
            if not model.deprecated and model.goes_by(model.id.lower()) and _is_chat(model, package.id):
                yield model.id

    @staticmethod
    def may_chat(package_id: str | None, model: str) -> bool:
        """Whether a model that a provider lists can be one for chats, as far as its name tells.

        Lists of vendors say seldom what a model is for; a server of one's own is taken at its word.
        """
        if package_id is None:
            return True
        if package_id == _GOOGLE:
            return not _NOT_CHAT_AT_GOOGLE.search(model)
        if _NOT_CHAT.search(model):
            return False
        base = model.split(":")[1] if model.startswith(_TUNED) else model
        return package_id != _OPENAI or not _NOT_CHAT_LISTED_BY_OPENAI.search(base)

    def _find(self, package_id: str, model: str) -> ListedModel | None:
        key = (package_id, model)
        if key not in self._found:
            if len(self._found) >= _MAX_CACHED:  # names come from callers, so the cache must not grow without end
                self._found.clear()
            name = model.lower().removeprefix(_GOOGLE_FOLDER)
            elsewhere = package_id == _GOOGLE and not _GOOGLE_NAMES.match(name)
            self._found[key] = None if elsewhere else find_model(self._list.providers, package_id, name)
        return self._found[key]


_NOT_CHAT = re.compile("embed|audio|realtime|transcribe|tts|image|moderation|search|whisper|dall-e|ocr")
_OTHER_APIS_OF_OPENAI = "instruct|text-|ada|babbage|curie|davinci|computer-use|codex|deep-research"
_NOT_CHAT_AT_OPENAI = re.compile(f"{_OTHER_APIS_OF_OPENAI}|:|-$")
"""Models of other OpenAI APIs, and two patterns of the package that are no names, such as ``ft:gpt-4o-``."""
_NOT_CHAT_LISTED_BY_OPENAI = re.compile(f"{_OTHER_APIS_OF_OPENAI}|sora")
_TUNED = "ft:"
"""Before the name of a tuned model: ``ft:gpt-4o-mini:organisation::id``."""
_GOOGLE_NAMES = re.compile("gemini|gemma|learnlm")
"""The package knows Claude and others under Google as well, whose cloud has them; the Gemini API has not."""
_OF_GOOGLE = re.compile(r"gem(ini|ma)-\d(?!.*(embed|audio|live|tts|omni|robotics))")
"""Google's chat models, of which some make images."""
_NOT_CHAT_AT_GOOGLE = re.compile("embed|audio|live|tts|omni|robotics|computer-use")


def _is_chat(model: ListedModel, package_id: str) -> bool:
    if package_id == _GOOGLE:
        named = _OF_GOOGLE.match(model.id) is not None
    else:
        named = not _NOT_CHAT.search(model.id)
        named = named and not (package_id == _OPENAI and _NOT_CHAT_AT_OPENAI.search(model.id))
    return named and model.prices_at(datetime.now(UTC)).dollars.keys() >= set(LEAST)


def _override(said: Mapping[str, Dollars]) -> Override:
    dollars = dict(said)
    request, discount = dollars.pop("request", None), dollars.pop("discount", 0)
    return Override(dollars, request, discount)


def _published(listed: ListedPrices) -> Published | None:
    prices = listed.dollars
    by_bucket = {bucket: prices.get(field) for bucket, field in _BUCKET_FIELDS.items()}
    if by_bucket["input_tokens"] is None or by_bucket["output_tokens"] is None:
        return None
    starts = {-1}
    for price in by_bucket.values():
        if isinstance(price, Tiered):
            starts.update(tier.start for tier in price.tiers)
    return Published(
        {start: _reached(by_bucket, start) for start in starts}, _fixed(prices.get("requests_kcount")) / 1000
    )


def _fixed(price: Decimal | Tiered | None) -> Decimal:
    """A price that is no matter of tokens, and so has no tiers in earnest."""
    return price.base if isinstance(price, Tiered) else price or Decimal(0)


def _reached(by_bucket: Mapping[str, Decimal | Tiered | None], start: int) -> dict[str, Dollars]:
    dollars: dict[str, Dollars] = {}
    for bucket, price in by_bucket.items():
        if isinstance(price, Tiered):
            reached = [tier.price for tier in price.tiers if tier.start <= start]
            dollars[bucket] = reached[-1] if reached else price.base
        elif price is not None:
            dollars[bucket] = price
    return dollars


class UnpricedWarnings:
    """Says once for each target that it has no price, so that its cost is unknown."""

    def __init__(self) -> None:
        self._named: set[str] = set()

    def note(self, target: str, price: Price | None) -> None:
        """Warn where ``price`` is None and nothing has been said of ``target`` yet."""
        if price is not None or target in self._named or len(self._named) > _MAX_NAMED:
            return
        self._named.add(target)
        if len(self._named) > _MAX_NAMED:  # names come from callers, so they must fill neither memory nor log
            log.warning("Of further targets without a price nothing is said; llm_gateway_unpriced_requests counts them")
            return
        log.warning(
            "%s has no price: what it costs is unknown, and is recorded as unknown; 'inferxgate models show' says why",
            target,
        )


_MAX_NAMED = 1_000
