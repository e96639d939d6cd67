"""One record for every admitted request, whatever its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inferxgate.accounts.callers import OPERATOR, Caller
from inferxgate.canonical.chat import collect
from inferxgate.canonical.conversation import Bytes
from inferxgate.canonical.usage import Usage
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import MediaNeeded
from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError
from inferxgate.gateway import setup as routing
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.pipeline import CLIENT_GONE, Gateway, StreamReply, Told, WholeReply
from inferxgate.gateway.routing import Router
from inferxgate.providers import anthropic, gemini
from inferxgate.providers.http import Timeouts
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.store.records import UsageFilter, UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.upstream.echo import EchoUpstream
from inferxgate.upstream.http import HttpUpstream
from inferxgate.upstream.media import MediaFetcher
from inferxgate.workers.limits import Scope
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.reasoning import NoReasoning
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from tests.support.provider import HANG, RESET, FakeProvider, Reply, Wait, head, json_reply, sse_body, sse_reply

SECRET = "sk-canary-7d1e5a90"
CALLER = replace(OPERATOR, kind="key", role="user", scopes=(Scope("key", "k1", requests_per_minute=3),))
HELLO: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "user": "ann"}
ONCE = routing.Policy(retries=0)
DELTA = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hello!"}, "finish_reason": None}]}
FINISH = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}


@dataclass
class Setup:
    gateway: Gateway
    provider: FakeProvider
    ledger: Ledger
    store: SQLiteStore
    metrics: Metrics

    async def chat(self, *, stream: bool = False, caller: Caller = CALLER, **more: Any) -> WholeReply | StreamReply:
        told = Told()
        request = parse_request({**HELLO, "stream": stream, **more})
        reply = await self.gateway.chat(caller, request, request_id="req-1", told=told)
        told.status = 200  # as the server does when the first bytes go out
        return reply

    async def read(self, *, stream: bool, **more: Any) -> str:
        reply = await self.chat(stream=stream, **more)
        if isinstance(reply, WholeReply):
            return collect(reply.chunks).choices[0].text
        try:
            return collect([c async for batch in reply.events for e in batch for c in e.chunks]).choices[0].text
        finally:
            await reply.close("client_closed")

    def records(self) -> list[UsageRecord]:
        self.ledger.flush()
        return self.store.recent_usage(UsageFilter(since_ms=0, until_ms=2**53), limit=100)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    metrics = Metrics()
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    shared = SharedMemory.open(tmp_path / "workers")
    limits = SharedLimits(shared, ledger.name)
    catalog = Catalog({"openai/*": {"input_tokens": 2.5, "output_tokens": 10}})
    upstream = HttpUpstream()
    with FakeProvider() as fake:
        provider = Provider(name="openai", row=ROW, base_url=fake.base_url, api_key=SECRET)
        unpriced = replace(provider, name="unpriced", base_url=fake.base_url)
        claude = Provider(name="claude", row=anthropic.ROW, base_url=fake.url, api_key=SECRET)
        google = Provider(name="google", row=gemini.ROW, base_url=fake.url, api_key=SECRET)
        router = Router([provider, unpriced, claude, google], {}, catalog)
        engines = dict.fromkeys(["openai", "unpriced", "claude", "google"], upstream)
        gateway = Gateway(
            routing.Setup(router, catalog, {**engines, "echo": EchoUpstream()}, policy=ONCE),
            limits=limits,
            ledger=ledger,
            metrics=metrics,
            reasoning=NoReasoning(),
        )
        yield Setup(gateway, fake, ledger, store, metrics)
    await upstream.close()
    ledger.close()
    shared.close()
    store.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_recorded_with_the_providers_count(setup: Setup, stream: bool) -> None:
    if stream:
        setup.provider.reply_sse([DELTA, FINISH, USAGE, "[DONE]"], cuts=3)
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
        setup.provider.reply_json({"id": "c", "choices": [choice], "usage": USAGE["usage"]})
    assert await setup.read(stream=stream) == "Hello!"
    [record] = setup.records()
    assert (record.status, record.http_status, record.error_code) == ("ok", 200, None)
    assert (record.request_id, record.end_user, record.stream) == ("req-1", "ann", stream)
    assert (record.model_asked, record.model, record.provider) == ("gpt-4o", "gpt-4o", "openai")
    assert (record.usage, record.usage_source) == (Usage(input_tokens=7, output_tokens=2), "provider")
    assert (record.cost_nanos, (record.price_version or "")[:7]) == (7 * 2500 + 2 * 10_000, "config:")
    assert record.first_token_ms is not None


async def test_the_record_is_there_before_the_stream_ends(setup: Setup) -> None:
    setup.provider.reply_sse([DELTA, FINISH, USAGE, "[DONE]"])
    reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    async for _ in reply.events:
        pass
    in_store = setup.store.recent_usage(UsageFilter(since_ms=0, until_ms=2**53), limit=1)
    assert setup.ledger.waiting_bytes() > 0 or in_store, "it is written before whoever sends [DONE] gets to do so"
    await reply.close("client_closed")


async def test_without_a_count_tokens_are_estimated(setup: Setup) -> None:
    setup.provider.reply_sse([DELTA, FINISH, "[DONE]"])
    await setup.read(stream=True)
    [record] = setup.records()
    assert (record.usage, record.usage_source) == (Usage(input_tokens=2, output_tokens=2), "estimated")


async def test_an_unknown_price_stays_unknown(setup: Setup) -> None:
    await setup.read(stream=False, model="unpriced/x")
    [record] = setup.records()
    assert record.cost_nanos is None
    assert record.price_version is None
    assert record.usage.total_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_providers_error_is_recorded_and_costs_nothing(setup: Setup, stream: bool) -> None:
    setup.provider.reply_json({"error": {"message": f"do not show {SECRET}"}}, status=500)
    with pytest.raises(GatewayError) as caught:
        await setup.chat(stream=stream)
    assert "The provider openai failed" in caught.value.message
    assert SECRET not in caught.value.message
    [record] = setup.records()
    assert (record.status, record.http_status, record.error_code) == ("provider_error", 502, "upstream_error")
    assert (record.usage, record.usage_source, record.cost_nanos) == (Usage(), "none", 0)


async def test_a_stream_that_breaks_is_recorded_with_what_came(setup: Setup) -> None:
    first = head(200, {"content-type": "text/event-stream", "connection": "close"}) + b"".join(sse_body([DELTA]))
    setup.provider.reply(Reply((first, RESET)))
    with pytest.raises(GatewayError):
        await setup.read(stream=True)
    [record] = setup.records()
    assert (record.status, record.http_status) == ("provider_error", 200)
    assert (record.usage_source, record.usage.output_tokens) == ("estimated", 2)


@pytest.mark.parametrize("events", [[DELTA], [DELTA, "[DONE]"], [], ["[DONE]"], [USAGE, "[DONE]"]])
async def test_a_stream_without_a_finish_reason_is_an_error(setup: Setup, events: list[Any]) -> None:
    setup.provider.reply_sse(events)
    with pytest.raises(GatewayError, match="ended before the answer was finished"):
        await setup.read(stream=True)
    assert [record.status for record in setup.records()] == ["provider_error"]


async def test_a_stream_that_only_lacks_done_is_whole(setup: Setup) -> None:
    setup.provider.reply_sse([DELTA, FINISH, USAGE])
    assert await setup.read(stream=True) == "Hello!"
    assert [record.status for record in setup.records()] == ["ok"]


async def test_an_error_first_thing_in_a_stream_is_raised_before_anything_is_promised(setup: Setup) -> None:
    setup.provider.reply_sse([{"error": {"message": "busy", "code": 503}}])
    with pytest.raises(GatewayError) as caught:
        await setup.chat(stream=True)
    assert caught.value.status == 503


async def test_a_whole_answer_to_a_streaming_request_is_an_error(setup: Setup) -> None:
    setup.provider.reply_json({"choices": []})
    with pytest.raises(GatewayError, match="no stream"):
        await setup.chat(stream=True)
    setup.provider.reply_json({"error": {"message": "quota", "code": "insufficient_quota"}})
    with pytest.raises(GatewayError) as caught:
        await setup.chat(stream=True)
    assert caught.value.code == "upstream_quota_exceeded"


def message(**fields: Any) -> dict[str, Any]:
    """A whole answer of Anthropic's."""
    usage = {"input_tokens": 7, "output_tokens": 2}
    return {"content": [{"type": "text", "text": "Hello!"}], "stop_reason": "end_turn", "usage": usage} | fields


@pytest.mark.parametrize("lost", [{"stop_reason": None}, {"stop_reason": None, "content": []}])
async def test_a_whole_answer_without_a_finish_reason_is_an_error_and_is_paid_for(
    setup: Setup, lost: dict[str, Any]
) -> None:
    setup.provider.reply_json(message())
    assert await setup.read(stream=False, model="claude/c") == "Hello!"
    setup.provider.reply_json(message(**lost))
    with pytest.raises(GatewayError, match="no finish reason"):
        await setup.read(stream=False, model="claude/c")
    failed, fine = setup.records()
    assert (fine.status, failed.status, failed.error_code) == ("ok", "provider_error", "upstream_invalid_response")
    assert (failed.usage, failed.usage_source) == (Usage(input_tokens=7, output_tokens=2), "provider")


@pytest.mark.parametrize("reason", [None, ""])
async def test_one_that_is_forwarded_is_an_error_too(setup: Setup, reason: str | None) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": reason}
    setup.provider.reply_json({"id": "c", "choices": [choice], "usage": USAGE["usage"]})
    with pytest.raises(GatewayError, match="no finish reason"):
        await setup.read(stream=False)
    [failed] = setup.records()
    assert (failed.status, failed.error_code, failed.http_status) == (
        "provider_error",
        "upstream_invalid_response",
        502,
    )
    assert (failed.usage.total_tokens, failed.usage_source) == (9, "provider")


async def test_the_same_call_in_two_answers_is_two_calls(setup: Setup) -> None:
    call = {"content": {"parts": [{"functionCall": {"name": "f", "args": {}}}]}, "finishReason": "STOP"}
    ids = set()
    for _ in range(2):
        setup.provider.reply_json({"candidates": [call]})
        reply = await setup.chat(model="google/gemini-2.5-flash")
        assert isinstance(reply, WholeReply)
        ids.add(collect(reply.chunks).choices[0].tool_calls[0].id)
    assert len(ids) == 2


async def test_no_count_of_nothing_is_believed(setup: Setup) -> None:
    setup.provider.reply_json(message(usage={"input_tokens": -7, "output_tokens": 10**12}))
    assert await setup.read(stream=False, model="claude/c") == "Hello!"
    setup.provider.reply_json(message(content=[], usage={"input_tokens": 0, "output_tokens": 0}))
    assert await setup.read(stream=False, model="claude/c") == ""
    nothing, absurd = setup.records()
    assert (absurd.usage, absurd.usage_source) == (Usage(input_tokens=2, output_tokens=2), "estimated")
    assert (nothing.usage, nothing.usage_source) == (Usage(), "provider")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_recorded_and_the_provider_let_go(setup: Setup, stream: bool) -> None:
    setup.provider.reply(HANG)
    task = asyncio.create_task(setup.read(stream=stream))
    await setup.provider.until(lambda fake: len(fake.requests) == 1)
    task.cancel(CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await task
    await setup.provider.until_closed_early()
    [record] = setup.records()
    assert (record.status, record.http_status) == ("client_closed", 499)
    assert record.usage_source == "estimated"
    assert record.usage.input_tokens == 2


async def test_a_client_that_leaves_within_a_stream_pays_for_what_came(setup: Setup) -> None:
    first = head(200, {"content-type": "text/event-stream", "connection": "close"}) + b"".join(sse_body([DELTA]))
    setup.provider.reply(Reply((first, HANG)))
    reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    assert len(await anext(reply.events)) == 1
    await reply.close("client_closed")
    await setup.provider.until_closed_early()
    [record] = setup.records()
    assert (record.status, record.http_status, record.usage.output_tokens) == ("client_closed", 200, 2)


async def test_a_relay_that_fails_is_not_the_clients_leaving(setup: Setup) -> None:
    reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    await anext(reply.events)
    await reply.close("gateway_error")
    assert [(record.status, record.error_code) for record in setup.records()] == [("gateway_error", "internal_error")]


async def test_an_event_that_cannot_be_written_is_the_providers_failure(setup: Setup) -> None:
    reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    await anext(reply.events)
    error = GatewayError(UPSTREAM_INVALID_RESPONSE, f"The provider's answer is {SECRET}")
    await reply.close(error)
    assert error.message == "The provider openai's answer is ****"
    [record] = setup.records()
    assert (record.status, record.error_code) == ("provider_error", "upstream_invalid_response")


async def test_a_failure_of_the_stream_itself_is_recorded_once(setup: Setup) -> None:
    setup.provider.reply_sse([DELTA])
    reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    with pytest.raises(GatewayError) as caught:
        async for _ in reply.events:
            pass
    await reply.close(caught.value)
    assert [record.error_code for record in setup.records()] == ["upstream_error"]


async def test_a_finished_answer_whose_connection_breaks_is_whole(setup: Setup) -> None:
    events = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
    data = b"".join(sse_body([DELTA, FINISH]))
    setup.provider.reply(Reply((events, b"%x\r\n%b\r\n" % (len(data), data), RESET)))
    assert await setup.read(stream=True) == "Hello!"
    assert [record.status for record in setup.records()] == ["ok"]


async def test_what_breaks_off_in_silence_has_an_unknown_cost(setup: Setup) -> None:
    setup.provider.reply(RESET)
    with pytest.raises(GatewayError):
        await setup.chat()
    [record] = setup.records()
    assert (record.status, record.cost_nanos) == ("provider_error", None)


@pytest.mark.parametrize("field", ["message", "type", "code", "param"])
async def test_no_field_of_an_error_holds_a_secret(setup: Setup, field: str) -> None:
    said = {"message": "m", "type": "t", "code": "c", "param": "p"} | {field: f"bad {SECRET} here"}
    setup.provider.reply_json({"error": said}, status=400)
    with pytest.raises(GatewayError) as caught:
        await setup.chat()
    error = caught.value
    assert SECRET not in f"{error.message} {error.type} {error.code} {error.param} {error.args}"
    assert SECRET not in str(setup.records())


async def test_absurd_counts_are_recorded_as_none(setup: Setup) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    setup.provider.reply_json({"choices": [choice], "usage": {"prompt_tokens": 1e300, "completion_tokens": 2}})
    assert await setup.read(stream=False) == "Hi"
    assert [record.usage for record in setup.records()] == [Usage(output_tokens=2)]
    assert 'llm_gateway_active_requests{provider="openai"} 0.0' in setup.metrics.render().decode()


async def test_a_provider_that_ends_the_connection_is_named_with_its_port(setup: Setup) -> None:
    setup.provider.reply(Reply((RESET,)))
    with pytest.raises(GatewayError) as caught:
        await setup.chat()
    whose = f"The provider openai at 127.0.0.1:{setup.provider.port}"
    assert caught.value.message.startswith(f"{whose} ended the connection without an answer")


async def test_refusals_leave_no_record_but_a_count(setup: Setup) -> None:
    for _ in range(3):
        await setup.read(stream=False)
    for _ in range(2):
        with pytest.raises(GatewayError, match="limit of 3 requests a minute"):
            await setup.chat()
    with pytest.raises(GatewayError, match="no model"):
        await setup.chat(model="nothing")
    with pytest.raises(GatewayError, match="may not use"):
        await setup.chat(caller=replace(CALLER, allowed_models=("echo",)))
    assert len(setup.records()) == 3
    assert len(setup.provider.requests) == 3
    counts = setup.store.refusals_by_reason(UsageFilter(since_ms=0, until_ms=2**53))
    assert counts == {"rate_limit_exceeded": 2, "model_not_found": 1, "model_not_allowed": 1}


async def test_the_connection_of_a_finished_stream_is_used_again(setup: Setup) -> None:
    for _ in range(3):
        await setup.read(stream=True)
    assert len({request.connection for request in setup.provider.requests}) == 1


async def test_metrics_count_each_end(setup: Setup) -> None:
    await setup.read(stream=False)
    setup.provider.reply_json({}, status=500)
    with pytest.raises(GatewayError):
        await setup.chat()
    text = setup.metrics.render().decode()
    assert 'llm_gateway_requests_total{model="gpt-4o",provider="openai",status="ok"} 1.0' in text
    assert 'llm_gateway_requests_total{model="gpt-4o",provider="openai",status="provider_error"} 1.0' in text
    assert 'llm_gateway_active_requests{provider="openai"} 0.0' in text
    assert SECRET not in text


class SlowFetch(MediaFetcher):
    """A caller's own server that takes its time."""

    async def fetch(self, needed: MediaNeeded, *, request_id: str) -> Mapping[str, Bytes]:
        await asyncio.sleep(0.5)
        return {each.url: Bytes("image/png", "iVBORw0KGgo=") for each in needed.wanted}

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_callers_url_takes_is_not_the_providers_time(setup: Setup, stream: bool) -> None:
    before = setup.gateway.setup
    google = next(each for each in before.router.providers if each.name == "google")
    quick = replace(google, timeouts=Timeouts(connect_seconds=0.1, first_byte_seconds=0.3))
    router = Router([quick], {}, before.catalog)
    setup.gateway.setup = replace(before, router=router, media=SlowFetch())
    said = {"candidates": [{"content": {"parts": [{"text": "A dot."}]}, "finishReason": "STOP"}]}
    answer, *rest = (sse_reply([said]) if stream else json_reply(said)).steps
    setup.provider.reply(Reply((answer, Wait(0.05), *rest)))
    image = {"type": "image_url", "image_url": {"url": "https://example.org/dot.png"}}
    asked = {"model": "google/g", "messages": [{"role": "user", "content": [image]}]}
    assert await setup.read(stream=stream, **asked) == "A dot."
    assert setup.gateway.selection.health.states() == [], "and nobody is kept from the provider for it"


@pytest.mark.parametrize("end", ["client_closed", "gateway_error", GatewayError(UPSTREAM_INVALID_RESPONSE, "no")])
async def test_a_stream_of_which_nothing_was_read_is_recorded_too(setup: Setup, end: Any) -> None:
    reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    await reply.close(end)
    [record] = setup.records()
    assert record.status == ("provider_error" if isinstance(end, GatewayError) else end)
    assert setup.gateway.slots.in_use() == {}
    assert not setup.gateway.selection._busy


async def test_openings_without_end_are_not_collected(setup: Setup) -> None:
    setup.provider.reply(Reply((*sse_reply([USAGE] * 1_200).steps[:-1], HANG)))
    async with asyncio.timeout(20):
        reply = await setup.chat(stream=True)
    assert isinstance(reply, StreamReply)
    await reply.close("client_closed")
    [record] = setup.records()
    assert record.status == "client_closed"
