"""What is known of models without asking anyone: who makes them, how much they read, what they cost.

The figures come from the ``genai-prices`` package, which is installed with the gateway, so nothing is fetched at
start; its version is kept with every cost. Prices of the configuration come first. What neither knows stays unknown.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version

from genai_prices import types
from genai_prices.data import providers as package_providers

from inferxgate.catalog.abilities import Abilities, abilities_of
from inferxgate.catalog.pricing import FREE, NANOS_PER_DOLLAR, Price, Rates, rates_of

PACKAGE_VERSION = f"genai-prices {version('genai-prices')}"
CONFIGURED_VERSION = "configuration"

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

_VENDOR_NAMES = {"openai": "openai", "anthropic": "anthropic", "google": "gemini"}
"""Our provider types by the package's ids, for vendors whose models have names of their own."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as people list it."""

    id: str
    context_window: int | None
    """Tokens; None where unknown."""
    price: Price | None


class Catalog:
    """Looks models up by a provider's id in the price package and the model's name."""

    def __init__(self, overrides: Mapping[str, Mapping[str, float]] | None = None) -> None:
        """``overrides``: prices in dollars per million tokens by bucket, under ``provider/model`` patterns."""
        self._overrides = [
            (pattern, Price((rates_of(prices),), CONFIGURED_VERSION)) for pattern, prices in (overrides or {}).items()
        ]
        self._packages = {provider.id: provider for provider in package_providers}
        self._found: dict[tuple[str, str], types.ModelInfo | None] = {}

    def vendor_of(self, model: str) -> str | None:
        """The provider type whose own model this is, or None."""
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

    def price(self, provider: str, package_id: str | None, model: str, *, at: datetime | None = None) -> Price | None:
        """The price of ``model`` at the configured ``provider``; None: unknown."""
        name = f"{provider}/{model}"
        for pattern, price in self._overrides:
            if fnmatch.fnmatchcase(name, pattern):
                return price
        if package_id == NO_COST:
            return FREE
        found = self._find(package_id, model) if package_id else None
        return _price_of(found, at or datetime.now(UTC)) if found else None

    def facts(self, provider: str, package_id: str | None, model: str) -> ModelFacts:
        """What is known of one model, which may be nothing but its name."""
        found = self._find(package_id, model) if package_id else None
        return ModelFacts(model, found.context_window if found else None, self.price(provider, package_id, model))

    def abilities(self, vendor: str, model: str) -> Abilities:
        """What a model of a provider of type ``vendor`` takes and gives."""
        return abilities_of(vendor, model)

    def chat_models(self, package_id: str | None) -> Iterator[str]:
        """Names of the chat models that the package lists for a provider, leaving out retired ones."""
        package = self._packages.get(package_id or "")
        for model in package.models if package else ():
            if not model.deprecated and model.is_match(model.id) and _is_chat(model):
                yield model.id

    def _find(self, package_id: str, model: str) -> types.ModelInfo | None:
        key = (package_id, model)
        if key not in self._found:
            if len(self._found) >= _MAX_CACHED:  # names come from callers, so the cache must not grow without end
                self._found.clear()
            package = self._packages.get(package_id)
            name = model.lower()
            self._found[key] = package.find_model(name, all_providers=package_providers) if package else None
        return self._found[key]


_NOT_CHAT = (
    "embed", "audio", "realtime", "transcribe", "tts", "image", "moderation", "search", "whisper", "dall-e",
    "instruct", "text-", "ada", "babbage", "curie", "davinci", "computer-use", "codex", "deep-research",
)  # fmt: skip
"""Words in the names of models that do something else, or are reached by another API than chat completions."""


def _is_chat(model: types.ModelInfo) -> bool:
    if any(word in model.id for word in _NOT_CHAT) or model.id.endswith("-") or ":" in model.id:
        return False  # the last two are patterns of the package, such as ``ft:gpt-4o-``
    prices = vars(model.get_prices(datetime.now(UTC)))
    return prices.get("input_mtok") is not None and prices.get("output_mtok") is not None


def _price_of(model: types.ModelInfo, at: datetime) -> Price | None:
    # The package's price objects answer an unknown name by loading its registry of units; plain attributes do not.
    prices = vars(model.get_prices(at))
    by_bucket = {bucket: prices.get(field) for bucket, field in _BUCKET_FIELDS.items()}
    if by_bucket["input_tokens"] is None or by_bucket["output_tokens"] is None:
        return None
    starts = {-1}
    for price in by_bucket.values():
        if isinstance(price, types.TieredPrices):
            starts.update(tier.start for tier in price.tiers)
    return Price(
        tuple(_rates_from(by_bucket, start) for start in sorted(starts)),
        PACKAGE_VERSION,
        request_nanos=int(prices.get("requests_kcount", 0) * NANOS_PER_DOLLAR) // 1000,
    )


def _rates_from(by_bucket: Mapping[str, Decimal | types.TieredPrices | None], start: int) -> Rates:
    dollars: dict[str, Decimal] = {}
    for bucket, price in by_bucket.items():
        if isinstance(price, types.TieredPrices):
            reached = [tier.price for tier in price.tiers if tier.start <= start]
            dollars[bucket] = reached[-1] if reached else price.base
        elif price is not None:
            dollars[bucket] = price
    return rates_of(dollars, above_prompt_tokens=start)
