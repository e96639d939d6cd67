"""Where names are, and what becomes of connections that are made while an engine closes."""

from __future__ import annotations

import asyncio
import socket

import pytest

from inferxgate.errors import UPSTREAM_UNREACHABLE, GatewayError
from inferxgate.upstream.connections import Connections, Place, SystemNames
from inferxgate.upstream.http import HttpUpstream
from tests.support.provider import FakeProvider
from tests.upstream.exchanges import request


async def test_who_asks_for_a_name_at_once_and_again_gets_one_answer() -> None:
    names = SystemNames()
    first, second = await asyncio.gather(names.look_up("localhost", 80), names.look_up("localhost", 80))
    assert first is second
    assert {place[:2] for *_, place in first} <= {("127.0.0.1", 80), ("::1", 80)}
    assert await names.look_up("localhost", 80) is first
    assert await names.look_up("localhost", 81) is not first
    names.forget("localhost", 80)
    assert await names.look_up("localhost", 80) is not first


@pytest.mark.parametrize("name", ["does-not-exist.invalid", "a" * 64, "a..b"])
async def test_a_name_that_leads_nowhere_is_asked_for_again(name: str) -> None:
    names = SystemNames()
    for _ in range(2):
        with pytest.raises((socket.gaierror, UnicodeError)):
            await names.look_up(name, 80)


async def test_whoever_stops_waiting_for_a_name_leaves_it_to_the_others() -> None:
    names = SystemNames()
    leaving = asyncio.create_task(names.look_up("localhost", 80))
    staying = asyncio.create_task(names.look_up("localhost", 80))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying
    assert leaving.cancelled()


async def test_a_connection_that_stands_when_the_engine_has_closed_is_not_used(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    sending = asyncio.create_task(upstream.send(request(provider)))
    await asyncio.sleep(0)
    await upstream.close()
    with pytest.raises(GatewayError, match="closing its connections") as caught:
        await sending
    assert caught.value.kind is UPSTREAM_UNREACHABLE
    await provider.until(lambda provider: provider.open_connections == 0)
    assert provider.requests == []


async def test_tls_without_trust_is_no_way(provider: FakeProvider) -> None:
    with pytest.raises(ValueError, match="without trust"):
        await Connections().make(Place("127.0.0.1", provider.port, tls=True), None)
    assert provider.connections == 0
