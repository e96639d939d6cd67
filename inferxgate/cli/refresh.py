"""``inferxgate models refresh``: asks providers now which models they have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, one_line
from inferxgate.cli.options import ConfigOption, JsonOption
from inferxgate.cli.output import plural, print_json, print_line
from inferxgate.config_sources import dotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inferxgate.config import Loaded
    from inferxgate.gateway.discovery import Answer


def refresh(
    *,
    provider: Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Only this provider.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Ask providers now which models they list themselves."""
    loaded = options.load(config)
    wanted = _wanted(loaded, provider)
    answers = asyncio.run(_answers(loaded, wanted))
    if as_json:
        print_json(
            [
                {
                    "provider": each.provider.name,
                    "models": len(each.models) if each.models is not None else None,
                    "error": each.problem or None,
                }
                for each in answers
            ]
        )
    else:
        for each in answers:
            said = plural(len(each.models), "model") if each.models is not None else one_line(each.problem)
            print_line(f"{each.provider.name}: {said}")
    failed = [each.provider.name for each in answers if each.models is None]
    if failed:
        raise CommandFailed(
            f"Not refreshed: {', '.join(failed)}; what they listed before stays. Mend what the output says and try"
            f" again, or set {dotted(('providers', failed[0], 'discover'))} = false"
        )


def _wanted(loaded: Loaded, name: str | None) -> list[str]:
    """The names of the providers to ask. Raises ``CommandFailed``."""
    providers = loaded.settings.providers
    discovering = [each for each, section in providers.items() if section.discover]
    if name is None:
        if not discovering:
            raise CommandFailed("No provider is to be asked: set 'discover = true' in its section of the configuration")
        return discovering
    if name not in providers:
        raise CommandFailed(
            f"There is no provider '{name}' in the configuration; there are {', '.join(providers) or 'none'}"
        )
    if name not in discovering:
        raise CommandFailed(
            f"{dotted(('providers', name, 'discover'))} is false, so its list is not used: set it to true first"
        )
    return [name]


async def _answers(loaded: Loaded, names: Sequence[str]) -> Sequence[Answer]:
    # Imported when it is asked for: the HTTP client is dear.
    from inferxgate.runtime import open_discovery

    async with open_discovery(loaded) as discovery:
        return await discovery.refresh([each for each in discovery.providers if each.name in names])
