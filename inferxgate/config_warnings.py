"""What may be configured of providers and targets and is yet seldom meant; ``config check`` and ``serve`` say it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from inferxgate.config import Loaded, Settings
from inferxgate.config_mistakes import near
from inferxgate.config_sections import ProviderSettings
from inferxgate.config_sources import dotted
from inferxgate.providers.addresses import default_path, has_vendors_models, settled
from inferxgate.providers.provider import Row
from inferxgate.providers.registry import ALL_ROWS, ROWS

_BUILT_IN = ALL_ROWS.keys() - ROWS.keys()
_OPERATIONS = ("/chat/completions", "/completions", "/responses", "/messages", "/models")
"""What stands at the end of an address that was copied from an example of one request."""


def provider_warnings(loaded: Loaded, environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each provider of which only a part is configured, or that cannot answer as it is."""
    for name, section in loaded.settings.providers.items():
        row = ROWS[section.type or name]
        yield from _key_warnings(loaded, name, section, row, environ)
        if section.base_url is not None:
            yield from _address_warnings(name, section.base_url, row)
    types = {section.type or name for name, section in loaded.settings.providers.items()}
    for row in ROWS.values():
        variable = next((name for name in row.key_variables if environ.get(name)), None)
        if variable is not None and row.base_url is None and row.type not in types:
            yield f"{variable} is set and {_or(row.url_variables)} is not: without it there is no provider {row.type}"


def _key_warnings(
    loaded: Loaded, name: str, section: ProviderSettings, row: Row, environ: Mapping[str, str]
) -> Iterator[str]:
    if section.api_key is None and not section.api_keys and not section.headers and _needs_key(name, section, row):
        variable = f" ({_or(row.key_variables)} gives it one)" if name == row.type else ""
        yield f"{dotted(('providers', name))} has no api_key{variable}: it is asked without a credential"
    taken = loaded.origins[dotted(("providers", name, "api_key"))].removeprefix("environment ")
    for other in row.key_variables:
        if taken in row.key_variables and environ.get(other, environ[taken]) not in ("", environ[taken]):
            yield f"{taken} and {other} are both set, to different keys: {taken} is taken"


def _needs_key(name: str, section: ProviderSettings, row: Row) -> bool:
    if row.self_hosted:
        return False
    # Other servers that speak a vendor's API may be open to whoever reaches them.
    return has_vendors_models(row, name, section.base_url, said=section.vendor_models)


def _address_warnings(name: str, base_url: str, row: Row) -> Iterator[str]:
    setting = dotted(("providers", name, "base_url"))
    path = urlsplit(settled(row, base_url)).path
    usual = default_path(row)
    operation = next((each for each in _OPERATIONS if path.endswith(each)), None)
    if operation is not None and not (row.own_names and operation == "/models"):
        yield f"{setting} ends with {operation}, which the gateway adds itself where it belongs: leave it out"
    elif usual and not path:
        yield f"{setting} has no path: {row.type} has its API under {usual}, so write {base_url}{usual} if it does here"
    elif row.self_hosted and not path.endswith(usual):
        yield f"{setting} does not end with {usual}, under which {row.type} speaks OpenAI's API"


def target_warnings(settings: Settings) -> Iterator[str]:
    """A line for each target of an alias whose provider there is not."""
    for name, alias in settings.models.items():
        for target in alias.targets:
            host, slash, _ = target.model.partition("/")
            if slash and host not in settings.providers and host not in _BUILT_IN:
                yield f"{dotted(('models', name))}.targets names {target.model}, and there is no provider {host}"


def pattern_warnings(settings: Settings) -> Iterator[str]:
    """A line for each pattern of ``pricing`` and ``catalog`` that no ``provider/model`` can match."""
    names = [*settings.providers, *_BUILT_IN]
    for section in ("pricing", "catalog"):
        for pattern in getattr(settings, section):
            head, slash, rest = pattern.partition("/")
            fixed = re.split(r"[*?[]", head, maxsplit=1)[0]
            if _begins(fixed, names) if fixed != head else slash and head in names:
                continue
            where = f"{dotted((section, pattern))} matches nothing"
            if slash:
                meant = near(head, {name: dotted((section, f"{name}/{rest}")) for name in names})
                yield f"{where}: there is no provider {head}{meant}"
            else:
                yield f"{where}: it has to be provider/model, as in {dotted((section, f'{names[0]}/{pattern}'))}"


def _begins(text: str, names: Iterable[str]) -> bool:
    """Whether a target of one of these providers can begin with this."""
    return any(f"{name}/".startswith(text) for name in names)


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(names)
