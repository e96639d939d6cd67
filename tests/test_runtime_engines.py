"""Engines when the configuration changes: which go on, and when the others are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.config import Settings
from inferxgate.errors import StartError
from inferxgate.gateway.setup import Uses
from inferxgate.providers.http import HttpRequest
from inferxgate.runtime_engines import Engines, EnginesInUse, build_engines
from inferxgate.upstream.media import HttpsFetch, NoFetch
from tests.support.certificates import AUTHORITY
from tests.support.configuration import Folder
from tests.support.provider import FakeProvider

ONE = '[providers.one]\ntype = "openai"\nbase_url = "{url}"\n'
TWO = ONE.replace("one", "two")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def settings(folder: Folder, text: str, provider: FakeProvider, **more: str) -> Settings:
    return folder.load(text.format(url=provider.base_url, **more)).settings


async def ask(engines: Engines, provider: FakeProvider, name: str = "one") -> int:
    response = await engines.by_provider[name].send(HttpRequest("GET", f"{provider.base_url}/models", {}, b""))
    await response.read(limit=10_000)
    await response.close()
    return response.status


def test_providers_with_the_same_options_share_an_engine(folder: Folder, provider: FakeProvider) -> None:
    engines = build_engines(settings(folder, ONE + TWO + 'proxy = "http://127.0.0.1:1"\n', provider))
    assert engines.by_provider["one"] is not engines.by_provider["two"]
    engines = build_engines(settings(folder, ONE + TWO, provider))
    assert engines.by_provider["one"] is engines.by_provider["two"]


async def test_what_stays_the_same_keeps_its_connections(folder: Folder, provider: FakeProvider) -> None:
    in_use = EnginesInUse(build_engines(settings(folder, ONE, provider)))
    assert await ask(in_use.in_force, provider) == 200
    changed = settings(folder, ONE + 'api_key = "other"\n[media]\nfetch_urls = true\n', provider)
    in_use.replace(Uses(), build_engines(changed, in_use.in_force))
    assert isinstance(in_use.in_force.media, HttpsFetch)
    assert await ask(in_use.in_force, provider) == 200
    assert provider.connections == 1
    again = build_engines(settings(folder, TWO, provider), in_use.in_force)
    assert isinstance(again.media, NoFetch)
    assert await ask(again, provider, "two") == 200
    assert provider.connections == 1
    await in_use.close()
    await provider.until(lambda seen: seen.open_connections == 0)


async def test_what_is_gone_is_closed_when_its_last_request_has_ended(folder: Folder, provider: FakeProvider) -> None:
    proxied = ONE + 'ca_file = "{ca}"\n'
    first = settings(folder, proxied, provider, ca=str(AUTHORITY))
    in_use = EnginesInUse(build_engines(first))
    former, uses = in_use.in_force, Uses()
    uses.begin()
    uses.begin()
    assert await ask(former, provider) == 200
    in_use.replace(uses, build_engines(settings(folder, ONE, provider), in_use.in_force))
    uses.end()
    assert await ask(former, provider) == 200, "a request that began before may try again"
    assert provider.connections == 1
    uses.end()
    await provider.until(lambda seen: seen.open_connections == 0)
    assert await ask(in_use.in_force, provider) == 200
    await in_use.close()


async def test_an_engine_that_comes_back_while_it_is_in_use_outlives_that(
    folder: Folder, provider: FakeProvider
) -> None:
    """One configuration, another, and the first again: each closes what nobody has, and no more."""
    own = settings(folder, ONE + 'ca_file = "{ca}"\n', provider, ca=str(AUTHORITY))
    in_use = EnginesInUse(build_engines(own))
    first, busy = in_use.in_force, Uses()
    busy.begin()
    in_use.replace(busy, build_engines(own, first))
    assert in_use.in_force.by_provider["one"] is first.by_provider["one"]
    busy.end()
    await asyncio.sleep(0)
    assert await ask(in_use.in_force, provider) == 200
    await in_use.close()
    await provider.until(lambda seen: seen.open_connections == 0)


async def test_closing_cuts_what_former_requests_have(folder: Folder, provider: FakeProvider) -> None:
    in_use = EnginesInUse(build_engines(settings(folder, ONE + 'ca_file = "{ca}"\n', provider, ca=str(AUTHORITY))))
    busy = Uses()
    busy.begin()
    assert await ask(in_use.in_force, provider) == 200
    in_use.replace(busy, build_engines(settings(folder, TWO, provider), in_use.in_force))
    await in_use.close()
    await provider.until(lambda seen: seen.open_connections == 0)


def test_authorities_are_read_again_when_their_file_has_changed(folder: Folder, provider: FakeProvider) -> None:
    authorities = folder.path / "ca.pem"
    authorities.write_bytes(Path(AUTHORITY).read_bytes())
    configured = settings(folder, ONE + 'ca_file = "{ca}"\n', provider, ca=str(authorities))
    engines = build_engines(configured)
    assert build_engines(configured, engines).by_provider["one"] is engines.by_provider["one"]
    authorities.write_text("no certificate")
    with pytest.raises(StartError, match=r"ca\.pem"):
        build_engines(configured, engines)
