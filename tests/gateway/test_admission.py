"""Every limit of a caller, asked for through the gateway: who is let through, and what the others are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inferxgate.accounts.callers import OPERATOR, Caller
from inferxgate.canonical.usage import Usage
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.openai_sizes import IMAGE_BYTES, MESSAGE_BYTES
from inferxgate.errors import GatewayError
from inferxgate.gateway import setup as routing
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.pipeline import CLIENT_GONE, Gateway, StreamReply, WholeReply
from inferxgate.gateway.routing import Alias, AliasTarget, Router
from inferxgate.gateway.setup import Policy
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS
from inferxgate.store.records import UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.upstream.echo import EchoUpstream
from inferxgate.upstream.http import HttpUpstream
from inferxgate.workers.limits import Scope
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.reasoning import NoReasoning, Thoughts
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from tests.support.provider import HANG, FakeProvider, Reply, Wait, json_reply, sse_reply
from tests.support.stores import EVER
from tests.workers.counting import new_scope

TEXT = "x" * 84
ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 50}
RESERVED = (len(TEXT) + MESSAGE_BYTES) * 2_000 + 50 * 10_000
"""Nano-dollars: 100 tokens at 2 dollars a million, 50 at 10."""
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
USED = 7 * 2_000 + 2 * 10_000


TWO = (AliasTarget("openai/gpt-4o"), AliasTarget("openai/gpt-4o-mini"))
ALIASES = {
    "two": Alias(TWO),
    "strict": Alias(TWO, fallback_on=frozenset({"content_filter"})),
    "short": Alias((AliasTarget("openai/gpt-4o", params={"max_tokens": 50}),)),
}


@dataclass
class Setup:
    gateway: Gateway
    provider: FakeProvider
    limits: SharedLimits
    ledger: Ledger
    store: SQLiteStore

    async def ask(self, *scopes: Scope, **more: Any) -> str | None:
        """Ask, and read the answer to its end; the code of the refusal, if there is one."""
        caller: Caller = replace(OPERATOR, kind="key", key_id=scopes[0].id, role="user", scopes=scopes)
        try:
            reply = await self.gateway.chat(caller, parse_request({**ASKED, **more}), request_id="req-1")
        except GatewayError as error:
            return error.code
        if isinstance(reply, StreamReply):
            async for _ in reply.events:
                pass
            await reply.close("client_closed")
        else:
            assert isinstance(reply, WholeReply)
        return None

    async def refusal(self, *scopes: Scope, **more: Any) -> GatewayError:
        caller = replace(OPERATOR, kind="key", key_id=scopes[0].id, role="user", scopes=scopes)
        with pytest.raises(GatewayError) as error:
            await self.gateway.chat(caller, parse_request({**ASKED, **more}), request_id="req-1")
        return error.value

    def spent(self, scope: Scope) -> int:
        return self.limits.spent(scope.kind, scope.id, time.time_ns() // 1_000_000)["total"]


@pytest.fixture
def policy() -> Policy:
    return Policy(reserve_output_tokens=1_000, retries=0)


@pytest.fixture
async def setup(tmp_path: Path, policy: Policy) -> AsyncIterator[Setup]:
    store = SQLiteStore.open(tmp_path / "inferxgate.db")
    metrics = Metrics()
    ledger = Ledger(store, tmp_path / "journal")
    ledger.start()
    shared = SharedMemory.open(tmp_path / "workers")
    limits = SharedLimits(shared, ledger.name, alerts=(0.5,))
    catalog = Catalog({"openai/*": {"input_tokens": 2, "output_tokens": 10}})
    upstream = HttpUpstream()
    with FakeProvider() as fake:
        fake.usage = USAGE
        fake.handler = lambda request: Reply((Wait(0.2), *fake.answer(request).steps))
        provider = Provider(name="openai", row=ROW, base_url=fake.base_url, api_key="sk-canary-2f1c")
        unpriced = replace(provider, name="unpriced")
        yield Setup(
            Gateway(
                routing.Setup(
                    Router([provider, unpriced], ALIASES, catalog),
                    catalog,
                    {"openai": upstream, "unpriced": upstream, "echo": EchoUpstream()},
                    policy=policy,
                ),
                limits=limits,
                ledger=ledger,
                metrics=metrics,
                reasoning=NoReasoning(),
            ),
            fake,
            limits,
            ledger,
            store,
        )
    await upstream.close()
    ledger.close()
    shared.close()
    store.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_of_fifty_at_once_as_many_pass_as_the_budget_holds(setup: Setup, stream: bool) -> None:
    key = new_scope(budget_nanos=3 * RESERVED)
    codes = await asyncio.gather(*(setup.ask(key, stream=stream) for _ in range(50)))
    assert sorted(map(str, codes)) == ["None"] * 3 + ["budget_exceeded"] * 47
    assert len(setup.provider.requests) == 3
    assert setup.spent(key) == 3 * USED
    assert setup.limits.reserved() == {}


async def test_a_budget_that_is_used_up_is_told_in_dollars_and_not_to_be_tried_again(setup: Setup) -> None:
    error = await setup.refusal(new_scope(budget_nanos=RESERVED - 1, budget_period="month"))
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "budget_exceeded")
    assert error.message == (
        "The budget of 0.000699999 dollars a month for this key does not cover this request: 0 are spent or reserved"
        " for requests under way, and this one may cost 0.0007."
    )
    assert error.headers == {"x-should-retry": "false"}
    assert setup.provider.requests == []


async def test_each_target_that_may_charge_for_content_it_refuses_is_reserved(setup: Setup) -> None:
    filtered = {"index": 0, "finish_reason": "content_filter", "message": {"role": "assistant", "content": None}}
    answer = json_reply({"id": "x", "model": "m", "choices": [filtered], "usage": USAGE})
    setup.provider.handler = lambda _: answer
    enough = new_scope(budget_nanos=2 * RESERVED)
    assert await setup.ask(new_scope(budget_nanos=2 * RESERVED - 1), model="strict") == "budget_exceeded"
    assert await setup.ask(enough, model="strict") is None
    assert setup.spent(enough) == 2 * USED
    assert len(setup.provider.requests) == 2
    assert await setup.ask(new_scope(budget_nanos=RESERVED), model="two") is None


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_targets_own_maximum_takes_the_place_of_the_clients_under_either_name(setup: Setup, name: str) -> None:
    asked = {"max_tokens": None, name: 5_000}
    assert await setup.ask(new_scope(budget_nanos=RESERVED), model="short", **asked) is None
    body = setup.provider.last.json()
    assert (body["max_tokens"], "max_completion_tokens" in body) == (50, False)


async def test_images_and_the_models_own_maximum_are_reserved(setup: Setup) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [{"type": "text", "text": TEXT}, picture]
    asked = {"messages": [{"role": "user", "content": content}], "max_tokens": None}
    most = setup.gateway.setup.catalog.abilities("openai/gpt-4o", "openai", "gpt-4o").max_output_tokens or 1_000
    needed = (len(TEXT) + MESSAGE_BYTES + IMAGE_BYTES) * 2_000 + most * 10_000
    assert (await setup.refusal(new_scope(budget_nanos=needed - 1), **asked)).code == "budget_exceeded"
    assert await setup.ask(new_scope(budget_nanos=needed), **asked) is None


async def test_a_users_budget_holds_for_all_of_their_keys(setup: Setup) -> None:
    user = Scope("user", "user_1", budget_nanos=2 * RESERVED)
    codes = await asyncio.gather(*(setup.ask(new_scope(), user) for _ in range(4)))
    assert sorted(map(str, codes)) == ["None"] * 2 + ["budget_exceeded"] * 2
    assert "for this user" in (await setup.refusal(new_scope(), replace(user, budget_nanos=1))).message


async def test_without_a_price_there_is_no_budget(setup: Setup) -> None:
    error = await setup.refusal(new_scope(budget_nanos=10**12), model="unpriced/nobody-knows")
    assert (error.status, error.code, error.param) == (400, "price_unknown", "model")
    assert '[pricing."unpriced/nobody-knows"]' in error.message
    assert await setup.ask(new_scope(), model="unpriced/nobody-knows") is None
    assert await setup.ask(new_scope(budget_nanos=1), model="echo") is None, "free is a price"


@pytest.mark.parametrize("policy", [Policy(allow_unpriced=True, retries=0)])
async def test_where_it_is_allowed_what_has_no_price_is_not_counted(setup: Setup) -> None:
    key = new_scope(budget_nanos=1)
    assert await setup.ask(key, model="unpriced/nobody-knows") is None
    assert setup.spent(key) == 0


async def test_what_failed_costs_nothing_and_frees_its_place(setup: Setup) -> None:
    setup.provider.reply_json({"error": {"message": "no"}}, status=500)
    key = new_scope(budget_nanos=RESERVED, parallel_requests=1, tokens_per_minute=75)
    assert await setup.ask(key) == "upstream_error"
    assert setup.limits.reserved() == {}
    assert await setup.ask(key) is None


async def test_a_client_that_leaves_frees_its_place(setup: Setup) -> None:
    key = new_scope(budget_nanos=RESERVED, parallel_requests=1)
    asking = asyncio.create_task(setup.ask(key))
    await asyncio.to_thread(setup.provider.wait_for_requests, 1)
    assert await setup.ask(key) == "too_many_parallel_requests"
    asking.cancel("client gone")
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert setup.limits.reserved() == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_claimed_at_once_and_settled_with_the_count(setup: Setup, stream: bool) -> None:
    claimed = 25 + 50
    key = new_scope(tokens_per_minute=2 * claimed)
    codes = await asyncio.gather(*(setup.ask(key, stream=stream) for _ in range(5)))
    assert sorted(map(str, codes)) == ["None"] * 2 + ["token_limit_exceeded"] * 3
    assert await setup.ask(key, stream=stream) is None, "the two used 9 each"
    error = await setup.refusal(key, stream=stream, max_tokens=100)
    assert (error.status, error.type) == (429, "rate_limit_error")
    assert error.retry_after_seconds == pytest.approx(60, abs=9)
    assert error.message.startswith(
        "The limit of 150 tokens a minute for this key leaves 123, and this request may use 125. Ask for fewer"
        " max_tokens, or try again in "
    )


async def test_more_than_a_minute_allows_is_not_a_matter_of_waiting(setup: Setup) -> None:
    key = new_scope(tokens_per_minute=100)
    error = await setup.refusal(key, max_tokens=500)
    assert (error.code, error.headers) == ("token_limit_exceeded", {"x-should-retry": "false"})
    assert error.message == (
        "This request may use 525 tokens, more than this key may use in a minute (100). Ask for fewer max_tokens, or"
        " send less."
    )
    assert await setup.ask(key, max_tokens=None) is None, "who names no maximum may use what the minute has"
    assert await setup.ask(key, max_tokens=None) is None, "or what is left of it"
    codes = await asyncio.gather(*(setup.ask(key, max_tokens=None) for _ in range(3)))
    assert sorted(map(str, codes)) == ["None", "token_limit_exceeded", "token_limit_exceeded"], "one at a time"


async def test_no_number_of_tokens_is_too_large_to_be_counted(setup: Setup) -> None:
    largest = 2**64 - 1
    assert (await setup.refusal(new_scope(tokens_per_minute=10**9), max_tokens=largest)).code == "token_limit_exceeded"
    error = await setup.refusal(new_scope(budget_nanos=10**15, requests_per_minute=60), max_tokens=largest, n=largest)
    assert error.code == "budget_exceeded"
    key = new_scope(requests_per_minute=60)
    codes = await asyncio.gather(*(setup.ask(key, max_tokens=largest) for _ in range(10)))
    assert codes == [None] * 10
    assert setup.limits.reserved() == {}


class _Damaged(NoReasoning):
    """A memory of thoughts in which something is written that cannot be read."""

    def recall(self, tenant: str, call_id: str) -> Thoughts | None:
        raise ValueError(call_id)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_before_the_provider_is_asked_frees_what_was_reserved(setup: Setup, stream: bool) -> None:
    provider = Provider(
        name="openai", row=ROWS["anthropic"], base_url=setup.provider.base_url, api_key="sk-canary-2f1c"
    )
    gateway = Gateway(
        replace(setup.gateway.setup, router=Router([provider], {}, setup.gateway.setup.catalog)),
        limits=setup.limits,
        ledger=setup.ledger,
        metrics=setup.gateway.metrics,
        reasoning=_Damaged(),
    )
    key = new_scope(budget_nanos=10**15)
    caller = replace(OPERATOR, kind="key", key_id=key.id, role="user", scopes=(key,))
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {**ASKED, "messages": [{"role": "assistant", "tool_calls": [call]}], "stream": stream}
    with pytest.raises(ValueError, match="call_1"):
        await gateway.chat(caller, parse_request(asked), request_id="req-1")
    assert setup.limits.reserved() == {}
    setup.ledger.flush()
    (record,) = setup.store.recent_usage(EVER, limit=10)
    assert (record.status, record.error_code, record.cost_nanos) == ("gateway_error", "internal_error", 0)


async def test_requests_at_once(setup: Setup) -> None:
    key = new_scope(parallel_requests=2)
    codes = await asyncio.gather(*(setup.ask(key) for _ in range(5)))
    assert sorted(map(str, codes)) == ["None"] * 2 + ["too_many_parallel_requests"] * 3
    asking = [asyncio.create_task(setup.ask(key)) for _ in range(2)]
    await asyncio.to_thread(setup.provider.wait_for_requests, 4)
    error = await setup.refusal(key)
    assert (error.status, error.type, error.retry_after_seconds) == (429, "rate_limit_error", 1.0)
    assert error.message == "2 requests of this key are under way, as many as may be at once."
    await asyncio.gather(*asking)


async def test_what_is_known_at_its_admission_stands_in_the_claim(setup: Setup) -> None:
    caller = replace(OPERATOR, kind="key", key_id="key_1", user_id="user_1", role="user", scopes=(new_scope(),))
    setup.provider.reply(HANG)
    asked = parse_request({**ASKED, "model": "two", "stream": True, "user": "end"})
    task = asyncio.create_task(setup.gateway.chat(caller, asked, request_id="req-1"))
    await setup.provider.until(lambda fake: len(fake.requests) == 1)
    ((claim,),) = (setup.limits.claims_of(owner) for owner in setup.limits.owners())
    assert claim == UsageRecord(
        id=claim.id,
        request_id="req-1",
        started_at_ms=claim.started_at_ms,
        status="gateway_error",
        http_status=0,
        error_code="worker_lost",
        key_id="key_1",
        user_id="user_1",
        end_user="end",
        model_asked="two",
        model="gpt-4o",
        provider="openai",
        stream=True,
        usage=Usage(input_tokens=len(TEXT) // 4),
        usage_source="estimated",
        cost_nanos=len(TEXT) // 4 * 2_000,
        price_version=claim.price_version,
        first_token_ms=None,
        duration_ms=0,
    )
    task.cancel(CLIENT_GONE)
    with pytest.raises(asyncio.CancelledError):
        await task
    setup.ledger.flush()
    (record,) = setup.store.recent_usage(EVER, limit=9)
    known = ("id", "started_at_ms", "model", "provider", "price_version", "usage", "cost_nanos")
    assert [getattr(record, name) for name in known] == [getattr(claim, name) for name in known]


async def test_a_stream_under_way_is_noted(setup: Setup) -> None:
    caller = replace(OPERATOR, kind="key", key_id="k", role="user", scopes=(new_scope(),))
    event = {"id": "c", "choices": [{"index": 0, "delta": {"content": "y" * 40}, "finish_reason": None}]}
    setup.provider.reply(Reply((*sse_reply([event]).steps[:2], HANG)))
    reply = await setup.gateway.chat(caller, parse_request({**ASKED, "stream": True}), request_id="req-1")
    assert isinstance(reply, StreamReply)
    async for _ in reply.events:
        break
    setup.gateway.note()
    ((claim,),) = (setup.limits.claims_of(owner) for owner in setup.limits.owners())
    assert (claim.usage.output_tokens, claim.error_code, claim.cost_nanos) == (10, "worker_lost", 21 * 2_000 + 100_000)
    await reply.close("client_closed")
    assert setup.limits.owners() == set()
    setup.ledger.flush()
    (record,) = setup.store.recent_usage(EVER, limit=9)
    assert (record.id, record.status) == (claim.id, "client_closed")
