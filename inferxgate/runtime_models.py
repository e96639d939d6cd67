"""The models of a configuration: its providers as values, what is known of their models, and which names lead where.

Kept apart from the rest of ``runtime`` for the commands that show models, which need no way out to any provider.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inferxgate.catalog.catalog import Catalog
from inferxgate.catalog.price_list import FILE_NAME, read_price_list
from inferxgate.config import Loaded, Settings
from inferxgate.config_sections import AliasSettings, PriceSettings, ProviderSettings, TargetSettings
from inferxgate.gateway.routing import Alias, AliasTarget, Router
from inferxgate.providers.addresses import has_vendors_models, settled
from inferxgate.providers.http import Timeouts
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS
from inferxgate.storage import model_lists_file
from inferxgate.workers.model_lists import ModelLists


def build_catalog(settings: Settings, data_dir: Path | None = None) -> Catalog:
    """The catalogue with the configuration's prices and facts, and the price file of the data folder if there is one.

    Raises ``StartError`` for a price file that cannot be used.
    """
    return Catalog(
        {pattern: _by_bucket(price) for pattern, price in settings.pricing.items()},
        {pattern: facts.model_dump(exclude_none=True) for pattern, facts in settings.catalog.items()},
        read_price_list(data_dir / FILE_NAME) if data_dir else None,
    )


_BUCKETS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "audio_input": "audio_input_tokens",
    "image_input": "image_input_tokens",
    "reasoning": "reasoning_tokens",
    "audio_output": "audio_output_tokens",
    "image_output": "image_output_tokens",
}
"""By the names of their settings; ``request`` and ``discount`` keep theirs."""


def _by_bucket(price: PriceSettings) -> dict[str, float]:
    return {_BUCKETS.get(name, name): said for name, said in price.model_dump(exclude_none=True).items()}


def read_model_lists(loaded: Loaded) -> ModelLists:
    """What providers said last of the models that they have. Asks nobody."""
    lists = ModelLists(model_lists_file(loaded))
    lists.look()
    return lists


def build_router(
    settings: Settings,
    catalog: Catalog,
    providers: list[Provider] | None = None,
    lists: ModelLists | None = None,
) -> Router:
    """The names that this configuration serves; ``lists``: with those that providers list themselves."""
    if providers is None:
        providers = [build_provider(name, section) for name, section in settings.providers.items()]
    aliases = {name: _alias(section) for name, section in settings.models.items()}
    return Router(providers, aliases, catalog, lists.models) if lists else Router(providers, aliases, catalog)


def _alias(section: AliasSettings) -> Alias:
    return Alias(tuple(map(_alias_target, section.targets)), section.strategy, frozenset(section.fallback_on))


def _alias_target(section: TargetSettings) -> AliasTarget:
    timeouts = {
        "total_seconds": section.timeout_seconds,
        "connect_seconds": section.connect_timeout_seconds,
        "first_byte_seconds": section.first_byte_timeout_seconds,
        "idle_seconds": section.idle_timeout_seconds,
    }
    said = {name: seconds for name, seconds in timeouts.items() if seconds is not None}
    return AliasTarget(section.model, section.weight, said, section.params)


def build_provider(name: str, section: ProviderSettings) -> Provider:
    """One configured provider as a value."""
    row = ROWS[section.type or name]
    keys = [key.get_secret_value() for key in (section.api_key, *section.api_keys) if key is not None]
    base_url = settled(row, section.base_url)
    version = section.api_version or row.api_version
    vendors = has_vendors_models(row, name, section.base_url, said=section.vendor_models)
    quirks = row.versioned(base_url, version) if row.versioned and version else row.quirks
    return Provider(
        name=name,
        row=row,
        base_url=base_url,
        api_key=keys[0] if keys else None,
        other_keys=tuple(keys[1:]),
        headers={header: value.get_secret_value() for header, value in section.headers.items()},
        timeouts=Timeouts(
            connect_seconds=section.connect_timeout_seconds,
            first_byte_seconds=section.first_byte_timeout_seconds,
            idle_seconds=section.idle_timeout_seconds,
        ),
        total_seconds=section.timeout_seconds,
        quirks=replace(quirks, stream_usage=quirks.stream_usage and section.stream_usage),
        api_version=version,
        models=(*section.models, *section.deployments),
        discover=section.discover,
        price_id=row.price_id if vendors else None,
        deployments=section.deployments,
        bearer=section.auth == "bearer",
    )
