"""Requests that several targets may serve: who is asked, what is told, and what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inferxgate.accounts.callers import OPERATOR
from inferxgate.canonical.chat import collect
from inferxgate.canonical.usage import Usage
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.errors import GatewayError
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.pipeline import CLIENT_GONE, Gateway, StreamReply
from inferxgate.gateway.routing import Alias, AliasTarget, Router
from inferxgate.gateway.setup import Policy, Setup
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.store.records import UsageFilter, UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.upstream.echo import EchoUpstream
from inferxgate.upstream.http import HttpUpstream
from inferxgate.workers.health import HealthPolicy, LocalHealth
from inferxgate.workers.limits import NoLimits
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.reasoning import NoReasoning
from tests.support.provider import HANG, FakeProvider, error_body, json_reply, sse_reply

WHOLE_AND_STREAMED = pytest.mark.parametrize("stream", [False, True])
CALLER = replace(OPERATOR, kind="key", key_id="k1", role="user")
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
DELTA = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello!"}, "finish_reason": None}]}


def finish(reason: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def whole(reason: str | None, text: str = "Hello!") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    return {"id": "c", "choices": [choice], "usage": USAGE}


@dataclass
class World:
    gateway: Gateway
    one: FakeProvider
    two: FakeProvider
    ledger: Ledger
    store: SQLiteStore

    async def read(self, model: str, *, stream: bool, **more: Any) -> str:
        """The text of the answer."""
        asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": stream, **more}
        reply = await self.gateway.chat(CALLER, parse_request(asked), request_id="req-1")
        if not isinstance(reply, StreamReply):
            return collect(reply.chunks).choices[0].text
        try:
            return collect([c async for batch in reply.events for e in batch for c in e.chunks]).choices[0].text
        finally:
            await reply.close("client_closed")

    async def error(self, model: str, *, stream: bool, **more: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.read(model, stream=stream, **more)
        return caught.value

    def record(self) -> UsageRecord:
        self.ledger.flush()
        [record] = self.store.recent_usage(UsageFilter(since_ms=0, until_ms=2**53), limit=100)
        return record

    @property
    def seen(self) -> tuple[int, int]:
        return len(self.one.requests), len(self.two.requests)


ALIASES = {
    "both": Alias.of("one/m", "two/m"),
    "any": replace(Alias.of("one/m", "two/m"), fallback_on=frozenset({"context_length", "content_filter"})),
    "dear": Alias.of("one/dear", "two/m"),
    "low": Alias((AliasTarget("one/m", params={"reasoning_effort": "low", "temperature": 0.5}), AliasTarget("two/m"))),
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    catalog = Catalog(
        {
            "one/*": {"input_tokens": 1, "output_tokens": 10},
            "two/*": {"input_tokens": 2, "output_tokens": 20},
        }
    )
    upstream = HttpUpstream()
    with FakeProvider() as one, FakeProvider() as two:
        one.text, two.text = "I am one.", "I am two."
        providers = [
            Provider(name="one", row=ROW, base_url=one.base_url, api_key="sk-one-11111111"),
            Provider(
                name="two",
                row=ROW,
                base_url=two.base_url,
                api_key="sk-two-22222222",
                other_keys=("sk-two-33333333",),
            ),
        ]
        gateway = Gateway(
            Setup(
                Router(providers, ALIASES, catalog),
                catalog,
                {"one": upstream, "two": upstream, "echo": EchoUpstream()},
                policy=Policy(max_wait_seconds=5, queue_seconds=5),
            ),
            limits=NoLimits(),
            ledger=ledger,
            metrics=Metrics(),
            reasoning=NoReasoning(),
            health=LocalHealth(HealthPolicy(min_failures=1000)),
        )
        yield World(gateway, one, two, ledger, store)
        assert gateway.slots.in_use() == {}, "whoever was asked is let go in the end"
        assert not gateway.selection._busy
    await upstream.close()
    ledger.close()
    store.close()


@WHOLE_AND_STREAMED
async def test_the_next_target_answers_where_the_first_one_fails(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("down"), status=500)
    assert await world.read("both", stream=stream) == "I am two."
    record = world.record()
    assert (record.status, record.http_status, record.error_code) == ("ok", 200, None)
    assert (record.model_asked, record.provider, record.model, record.attempts) == ("both", "two", "m", 2)
    assert world.seen == (1, 1)


@WHOLE_AND_STREAMED
async def test_a_single_target_is_tried_again(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("busy"), status=529)
    world.one.reply_json(error_body("busy"), status=503)
    assert await world.read("one/m", stream=stream) == "I am one."
    assert world.seen == (3, 0)


@WHOLE_AND_STREAMED
async def test_what_failed_to_the_end_is_told_once_and_not_to_be_tried_again(world: World, stream: bool) -> None:
    for _ in range(3):
        world.one.reply_json(error_body("busy"), status=503, headers={"retry-after": "0"})
    error = await world.error("one/m", stream=stream)
    assert (error.status, error.code, error.headers) == (503, "upstream_overloaded", {"x-should-retry": "false"})
    assert world.seen == (3, 0)
    assert (world.record().status, world.record().error_code) == ("provider_error", "upstream_overloaded")


@WHOLE_AND_STREAMED
async def test_the_callers_fault_is_told_at_once(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("bad temperature"), status=400)
    error = await world.error("both", stream=stream)
    assert (error.status, error.message) == (400, "bad temperature")
    assert "x-should-retry" not in error.headers
    assert world.seen == (1, 0)


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter"])
async def test_what_the_alias_names_goes_on_and_else_does_not(world: World, code: str, stream: bool) -> None:
    world.one.reply_json(error_body("no", code=code), status=400)
    assert await world.read("any", stream=stream) == "I am two."
    world.one.reply_json(error_body("no", code=code), status=400)
    assert (await world.error("both", stream=stream)).code == code
    assert world.seen == (2, 1)


@WHOLE_AND_STREAMED
async def test_an_answer_that_was_filtered_goes_on_where_the_alias_says_so(world: World, stream: bool) -> None:
    def filtered() -> Any:
        return (
            sse_reply([finish("content_filter"), "[DONE]"]) if stream else json_reply(whole("content_filter", text=""))
        )

    world.one.reply(filtered())
    assert await world.read("any", stream=stream) == "I am two."
    assert world.record().provider == "two"
    world.one.reply(filtered())
    assert await world.read("both", stream=stream) == "", "the answer as it is"
    world.one.reply(filtered())
    world.two.reply(filtered())
    assert await world.read("any", stream=stream) == "", "and the last one's is told as it is"
    assert world.seen == (3, 2)


async def test_what_a_failed_try_has_used_is_paid_for_too(world: World) -> None:
    world.one.reply_json(whole(None))
    world.two.reply_json(whole("stop"))
    assert await world.read("both", stream=False) == "Hello!"
    record = world.record()
    assert record.usage == Usage(input_tokens=14, output_tokens=4)
    assert record.cost_nanos == (7 * 1_000 + 2 * 10_000) + (7 * 2_000 + 2 * 20_000)


async def test_what_a_failed_try_has_used_at_an_unknown_price_is_not_paid_by_another(world: World) -> None:
    world.one.reply_json(whole(None))
    world.two.reply_json(whole("stop"))
    unpriced = replace(world.gateway.setup, catalog=Catalog({"two/*": {"input_tokens": 2, "output_tokens": 20}}))
    world.gateway.setup = unpriced
    assert await world.read("both", stream=False) == "Hello!"
    record = world.record()
    assert record.usage == Usage(input_tokens=14, output_tokens=4)
    assert record.cost_nanos is None


@WHOLE_AND_STREAMED
async def test_a_request_that_is_lost_at_its_second_target_is_noted_there(world: World, stream: bool) -> None:
    world.one.reply_json(whole(None))
    world.two.reply(HANG)
    task = asyncio.create_task(world.read("both", stream=stream))
    await world.two.until(lambda fake: len(fake.requests) == 1)
    (meter,) = world.gateway._under_way
    noted = meter.so_far()
    assert noted is not None
    assert (noted.provider, noted.attempts, noted.status, noted.error_code) == (
        "two",
        2,
        "gateway_error",
        "worker_lost",
    )
    assert noted.usage_source == "estimated"
    before = Usage(input_tokens=7, output_tokens=2)
    assert noted.usage == Usage(input_tokens=1) + (Usage() if stream else before)
    assert noted.cost_nanos == 2_000 + (0 if stream else 7 * 1_000 + 2 * 10_000)
    assert meter.so_far() is None, "nothing has changed since"
    task.cancel(CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_first_thing_in_a_stream_goes_on_and_a_later_one_does_not(world: World) -> None:
    world.one.reply_sse([error_body("overloaded", kind="server_error"), "[DONE]"])
    assert await world.read("both", stream=True) == "I am two."
    world.one.reply_sse([DELTA, error_body("overloaded", kind="server_error")])
    error = await world.error("both", stream=True)
    assert error.status == 502
    assert world.seen == (2, 1)


@WHOLE_AND_STREAMED
async def test_a_target_has_its_own_parameters(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("down"), status=500)
    await world.read("low", stream=stream, temperature=1.0)
    assert world.one.requests[0].json()["reasoning_effort"] == "low"
    assert world.one.requests[0].json()["temperature"] == 0.5
    assert "reasoning_effort" not in world.two.requests[0].json()
    assert world.two.requests[0].json()["temperature"] == 1.0


@WHOLE_AND_STREAMED
async def test_a_dead_credential_is_set_aside_and_the_other_one_used_from_then_on(world: World, stream: bool) -> None:
    def refuse_the_first(request: Any) -> Any:
        if request.headers["authorization"].endswith("22222222"):
            return json_reply(error_body("bad key"), status=401)
        return world.two.answer(request)

    world.two.handler = refuse_the_first
    for _ in range(3):
        assert await world.read("two/m", stream=stream) == "I am two."
    keys = [request.headers["authorization"][-8:] for request in world.two.requests]
    assert keys == ["22222222", "33333333", "33333333", "33333333"]


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("answered", [403, 200])
async def test_a_caller_who_asks_for_a_forbidden_model_has_no_credential_set_aside(
    world: World, answered: int, stream: bool
) -> None:
    forbidden = error_body("You may not use this model.", kind="permission_error")
    world.one.handler = lambda request: (
        json_reply(forbidden, status=answered) if request.json()["model"] == "dear" else world.one.answer(request)
    )
    assert (await world.error("one/dear", stream=stream)).code == "upstream_auth_error"
    assert await world.read("both", stream=stream) == "I am one.", "everybody else's requests go where they went"
    assert await world.read("dear", stream=stream) == "I am two."
    assert world.seen == (2, 1), "for this model it is set aside"


@WHOLE_AND_STREAMED
async def test_where_every_credential_is_refused_the_last_refusal_is_told(world: World, stream: bool) -> None:
    world.two.handler = lambda _: json_reply(error_body("bad key"), status=401)
    for _ in range(2):
        error = await world.error("two/m", stream=stream)
        assert (error.status, error.code) == (502, "upstream_auth_error")


@WHOLE_AND_STREAMED
async def test_a_model_that_one_target_does_not_have_is_asked_of_the_next(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("no such model", code="model_not_found"), status=404)
    assert await world.read("both", stream=stream) == "I am two."
    world.one.reply_json(error_body("no such model", code="model_not_found"), status=404)
    error = await world.error("one/m", stream=stream)
    assert (error.status, error.code) == (404, "model_not_found")


@WHOLE_AND_STREAMED
async def test_a_full_provider_is_passed_over_or_waited_for(world: World, stream: bool) -> None:
    world.gateway.slots.configure({"one": 1})
    world.one.reply(HANG)
    holds = asyncio.create_task(world.read("one/m", stream=stream))
    await world.one.until(lambda fake: len(fake.requests) == 1)
    assert await world.read("both", stream=stream) == "I am two."
    waits = asyncio.create_task(world.read("one/m", stream=stream))
    await asyncio.sleep(0.05)
    assert world.seen == (1, 1)
    holds.cancel(CLIENT_GONE)
    assert await waits == "I am one."
    with pytest.raises(asyncio.CancelledError):
        await holds


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("name", ["one", ""])
async def test_where_there_is_no_room_a_request_is_told_so_once(world: World, name: str, stream: bool) -> None:
    setup = world.gateway.setup
    world.gateway.setup = replace(setup, policy=replace(setup.policy, queue_seconds=0, max_wait_seconds=30))
    world.gateway.slots.configure({name: 1})
    world.one.reply(HANG)
    holds = asyncio.create_task(world.read("one/m", stream=stream))
    await world.one.until(lambda fake: len(fake.requests) == 1)
    error = await world.error("one/m" if name else "both", stream=stream)
    assert (error.status, error.code) == (503, "no_target_available")
    assert error.retry_after_seconds
    assert error.headers == {}, "nobody was asked, so that another attempt may well succeed"
    assert world.seen == (1, 0)
    holds.cancel(CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await holds


@WHOLE_AND_STREAMED
@pytest.mark.parametrize("bound", ["one", ""], ids=["provider", "gateway"])
async def test_who_has_waited_for_a_turn_long_enough_does_not_begin_anew(
    world: World, bound: str, stream: bool
) -> None:
    world.gateway.slots.configure({bound: 1})
    world.gateway.queue.most_waiting = 0
    world.one.reply(HANG)
    holds = asyncio.create_task(world.read("one/m", stream=stream))
    await world.one.until(lambda fake: len(fake.requests) == 1)
    refused = asyncio.create_task(world.error("one/m", stream=stream))
    await asyncio.sleep(0.05)
    holds.cancel(CLIENT_GONE)
    error = await refused
    assert (error.status, error.code) == (503, "no_target_available")
    assert "as may be at once (1)" in error.message
    assert error.retry_after_seconds is not None
    assert "x-should-retry" not in error.headers
    with pytest.raises(asyncio.CancelledError):
        await holds


@WHOLE_AND_STREAMED
async def test_a_client_that_leaves_while_its_request_waits_is_recorded(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("later"), status=429, headers={"retry-after": "4"})
    task = asyncio.create_task(world.read("one/m", stream=stream))
    await world.one.until(lambda fake: len(fake.requests) == 1)
    await asyncio.sleep(0.1)
    task.cancel(CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await task
    record = world.record()
    assert (record.status, record.http_status, record.cost_nanos) == ("client_closed", 499, 0)
    assert world.seen == (1, 0)


@WHOLE_AND_STREAMED
async def test_where_all_targets_are_left_alone_the_client_is_told_when_to_come_back(
    world: World, stream: bool
) -> None:
    world.one.reply_json(error_body("later"), status=429, headers={"retry-after": "70"})
    world.two.handler = lambda _: json_reply(error_body("later"), status=429, headers={"retry-after": "50"})
    first = await world.error("both", stream=stream)
    assert (first.status, first.code) == (429, "upstream_rate_limited")
    assert 49 < (first.retry_after_seconds or 0) <= 50, "the first of the two to be ready again"
    second = await world.error("both", stream=stream)
    assert (second.status, second.code) == (503, "no_target_available")
    assert 49 < (second.retry_after_seconds or 0) <= 50
    assert "one/m and two/m" in second.message
    assert world.seen == (1, 2), "the second try of two is its other credential's"


@WHOLE_AND_STREAMED
async def test_a_refused_credential_whose_target_is_left_alone_is_not_asked(world: World, stream: bool) -> None:
    world.one.reply_json(error_body("later"), status=429, headers={"retry-after": "70"})
    await world.error("one/m", stream=stream)
    world.one.reply_json(error_body("bad key"), status=401)
    await world.error("one/n", stream=stream)
    error = await world.error("one/m", stream=stream)
    assert (error.status, error.code) == (503, "no_target_available")
    assert 60 < (error.retry_after_seconds or 0) <= 70
    assert world.seen == (2, 0)
