"""What a configuration sends with: an engine for each way to providers, and what fetches media.

When the configuration changes, engines whose options stay the same go on, and with them their connections. The others
are closed when the last request that began with them has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from inferxgate.config import Settings
from inferxgate.config_watch import Stamp, stamp_of
from inferxgate.gateway.setup import Uses
from inferxgate.providers.echo import ECHO
from inferxgate.upstream.echo import EchoUpstream
from inferxgate.upstream.http import HttpOptions, HttpUpstream
from inferxgate.upstream.media import HttpsFetch, MediaFetcher, NoFetch
from inferxgate.upstream.protocol import Upstream
from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class _Way:
    """What an engine was made with."""

    options: HttpOptions
    authorities: Stamp | None
    """The file of them, which is read when the engine is made."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Those of one configuration. Providers with the same options share one, and with it their connections."""

    by_way: Mapping[_Way, HttpUpstream]
    by_provider: Mapping[str, Upstream]
    media: MediaFetcher

    def all(self) -> list[HttpUpstream | MediaFetcher]:
        return [*self.by_way.values(), self.media]


def build_engines(settings: Settings, before: Engines | None = None) -> Engines:
    """New ones, but for those that ``before`` has already. Opens no connection. Raises ``StartError``."""
    by_way: dict[_Way, HttpUpstream] = {}
    by_provider: dict[str, Upstream] = {ECHO.name: EchoUpstream()}
    known = before.by_way if before is not None else {}
    for name, section in settings.providers.items():
        options = HttpOptions(ca_file=str(section.ca_file) if section.ca_file else None, proxy=section.proxy)
        way = _Way(options, stamp_of(Path(section.ca_file)) if section.ca_file else None)
        if way not in by_way:
            by_way[way] = known.get(way) or HttpUpstream(options)
        by_provider[name] = by_way[way]
    fetching = HttpsFetch if settings.media.fetch_urls else NoFetch
    media = before.media if before is not None and type(before.media) is fetching else fetching()
    return Engines(by_way, by_provider, media)


class EnginesInUse:
    """Closes engines when neither the configuration in force nor a request has them any more. For one loop."""

    def __init__(self, engines: Engines) -> None:
        self.in_force = engines
        self._former: list[Engines] = []
        self._loop = asyncio.get_running_loop()
        self._closing: set[asyncio.Task[None]] = set()

    def replace(self, uses: Uses, engines: Engines) -> None:
        """These take the place of those in force, which the setup with ``uses`` has to the end."""
        former, self.in_force = self.in_force, engines
        self._former.append(former)
        uses.when_over(lambda: self._let_go(former))

    async def close(self) -> None:
        """Close everything; what is under way is cut."""
        for closing in list(self._closing):
            await closing
        await _close({id(each): each for engines in (self.in_force, *self._former) for each in engines.all()}.values())

    def _let_go(self, former: Engines) -> None:
        self._former.remove(former)
        kept = {id(each) for engines in (self.in_force, *self._former) for each in engines.all()}
        unused = [each for each in former.all() if id(each) not in kept]
        if unused:
            closing = self._loop.create_task(_close(unused), name="engines")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _close(engines: Iterable[HttpUpstream | MediaFetcher]) -> None:
    for engine in engines:
        await engine.close()
