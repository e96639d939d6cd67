"""Where names are, and that no connection is left behind, whatever ends what it was made for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket

import pytest

from inferxgate.errors import UPSTREAM_UNREACHABLE, GatewayError
from inferxgate.upstream.connections import Connections, Place, SystemNames
from inferxgate.upstream.http import HttpUpstream
from inferxgate.upstream.wire import Connection
from tests.support.certificates import AUTHORITY, server_context
from tests.support.provider import CLOSE, HANG, RESET, FakeProvider, Framing, Reply, SeenRequest, body_reply
from tests.upstream.exchanges import engine, request


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


def left_behind() -> list[Connection]:
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Connection)]


class Fate:
    """What becomes of requests, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._numbers = random.Random(seed)

    def answer(self, seen: SeenRequest) -> Reply:
        """Whole, broken, silent, or followed by nonsense; its headers say what its body has to be."""
        numbers = self._numbers
        body = numbers.randbytes(numbers.choice([5, 500, 500_000]))
        framings: list[Framing] = ["chunked", "length"]
        whole = body_reply(
            body,
            framing=numbers.choice(framings),
            cuts=numbers.randrange(100),
            delay_seconds=numbers.choice([0.0, 0.001]),
            headers={"x-sum": str(sum(body)), "x-asked": seen.headers["x-asked"]},
        )
        ends = [whole] * 5 + [
            whole.cut_short(RESET, keep=numbers.randrange(1, 4)),
            whole.cut_short(CLOSE, keep=numbers.randrange(1, 4)),
            whole.then(b"HTTP/1.1 200 OK\r\n"),
            Reply((HANG,)),
        ]
        return numbers.choice(ends)

    async def ask(self, upstream: HttpUpstream, provider: FakeProvider, number: int) -> bool:
        """Whether an answer came, which then was the right one."""
        numbers = self._numbers
        what = request(
            provider,
            headers={"x-asked": str(number)},
            body=numbers.randbytes(numbers.choice([5, 400_000])),
            first_byte=numbers.choice([0.1, 0.5]),
            idle=0.5,
        )
        patience = numbers.choice([0.02, 0.2, 9.0, 9.0])
        with contextlib.suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(patience):
                response = await upstream.send(what)
                try:
                    data = await response.read(limit=10**6)
                finally:
                    await response.close()
            assert response.headers["x-asked"] == str(number)
            assert response.headers["x-sum"] == str(sum(data))
            return True
        return False


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("tls", [False, True])
async def test_whatever_happens_answers_are_right_and_nothing_is_left(*, tls: bool, seed: int) -> None:
    fate = Fate(seed)
    of_others = left_behind()  # what an exception of an earlier test in this process still holds
    with FakeProvider(fate.answer, tls=server_context() if tls else None) as provider:
        async with engine(ca_file=str(AUTHORITY)) as upstream:

            async def ask_on(first: int) -> int:
                return sum([await fate.ask(upstream, provider, first + number) for number in range(10)])

            came = sum(await asyncio.gather(*(ask_on(first) for first in range(0, 100, 10))))
            assert came
        await provider.until(lambda provider: provider.open_connections == 0)
    assert [each for each in left_behind() if each not in of_others] == []
