"""Images by URL for a provider that takes only their bytes: refused by default, fetched where the operator says so.

A real process cannot fetch from a test's server, because that is on loopback. So the whole way is gone through by the
server's application in the test's own process, around a fetcher that takes loopback for public.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferxgate.accounts.keys import create_key
from inferxgate.accounts.tokens import Tokens
from inferxgate.config import load_settings
from inferxgate.config_sections import LimitSettings
from inferxgate.gateway.pipeline import Gateway
from inferxgate.runtime import Runtime, open_runtime
from inferxgate.server.addresses import Addresses
from inferxgate.server.app import build_app
from inferxgate.server.endpoints import Draining, Parts
from inferxgate.server.identity import Identity
from inferxgate.server.threads import Threads
from inferxgate.server.throttle import SignIns
from inferxgate.store.records import UsageFilter, UsageRecord
from inferxgate.upstream.media import FetchLimits, HttpsFetch, SocketAddress
from tests.server.serving import served, until
from tests.support.certificates import AUTHORITY, server_context
from tests.support.process import GatewayProcess
from tests.support.provider import HANG, FakeProvider, Reply, body_reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
URL = "https://provider.test/a.png?sig=hunter2"
MODELS = ("gemini/gemini-2.5-flash", "anthropic/claude-sonnet-4-5", "openai/gpt-4o")
CONFIG = """
[providers.gemini]
api_key = "canary-gemini-0000"
base_url = "{url}"
[providers.anthropic]
api_key = "sk-ant-canary-0000"
base_url = "{url}"
[providers.openai]
api_key = "sk-canary-0000-0000"
base_url = "{url}/v1"
[media]
fetch_urls = {fetch}
"""
ANSWER: dict[str, Any] = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "A cat."}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 260, "candidatesTokenCount": 3},
}
CLAUDE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "A cat."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "output_tokens": 5},
}


def body(*urls: str, model: str = MODELS[0], **more: Any) -> dict[str, Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "What is this?"}, *images]
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


@dataclass
class World:
    """A gateway in this process, a provider that speaks Gemini, and a web server with a picture."""

    runtime: Runtime
    provider: FakeProvider
    web: FakeProvider
    client: httpx.AsyncClient

    async def ask(self, *urls: str, **more: Any) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=body(*urls, **more))

    def records(self) -> list[UsageRecord]:
        self.runtime.ledger.flush()
        return self.runtime.store.recent_usage(UsageFilter(since_ms=0, until_ms=2**53), limit=100)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
async def world(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[World]:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(url=provider.url, fetch="true"))
    loaded = load_settings(config_path=config, flags={}, environ={"INFERXGATE_DATA_DIR": str(tmp_path / "data")})
    with FakeProvider(lambda _: body_reply(PNG, headers={"content-type": "image/png"}), tls=server_context()) as web:

        async def here(_: str, __: int) -> Sequence[SocketAddress]:
            return [("127.0.0.1", web.port)]

        fetcher = HttpsFetch(
            FetchLimits(seconds=30),
            resolve=here,
            allowed=lambda address: address == ip_address("127.0.0.1"),
            trust=ssl.create_default_context(cafile=AUTHORITY),
        )
        async with open_runtime(loaded) as opened:
            runtime = replace(opened, gateway=around(opened, fetcher))
            parts = parts_of(runtime)
            secret = create_key(
                opened.store,
                name="tests",
                user_id=None,
                rate_limit_rpm=0,
                allowed_models=None,
                expires_at_ms=None,
                keys_per_user=None,
            )[1]
            async with (
                served(build_app(parts)) as port,
                httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {secret}"}, timeout=30
                ) as client,
            ):
                yield World(runtime, provider, web, client)
            parts.threads.close()
            await parts.identity.stop()
        await fetcher.close()


def around(runtime: Runtime, fetcher: HttpsFetch) -> Gateway:
    """The runtime's gateway, but for its fetcher."""
    return Gateway(
        replace(runtime.gateway.setup, media=fetcher),
        limits=runtime.limits,
        ledger=runtime.ledger,
        metrics=runtime.metrics,
        reasoning=runtime.gateway.reasoning,
    )


def parts_of(runtime: Runtime) -> Parts:
    tokens = Tokens("x" * 48, 3600)
    return Parts(
        runtime=runtime,
        identity=Identity(runtime.store, tokens, defaults=LimitSettings().of_keys),
        tokens=tokens,
        addresses=Addresses([]),
        sign_ins=SignIns(runtime.attempts),
        threads=Threads(),
        draining=Draining(),
        listens_on_loopback=True,
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_an_image_goes_to_the_provider_as_its_bytes(world: World, *, stream: bool) -> None:
    if stream:
        world.provider.reply_sse([ANSWER])
    else:
        world.provider.reply_json(ANSWER)
    answer = await world.ask(URL, URL, stream=stream)
    assert answer.status_code == 200, answer.text
    assert "A cat." in answer.text
    picture = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}}
    assert world.provider.last.json()["contents"][0]["parts"] == [{"text": "What is this?"}, picture, picture]
    [asked] = world.web.requests
    assert (asked.target, asked.headers["host"]) == ("/a.png?sig=hunter2", "provider.test")
    assert not {"authorization", "x-goog-api-key", "x-request-id", "cookie", "content-type"} & asked.headers.keys()
    assert "canary" not in str(asked.headers)
    assert [(record.status, record.usage.input_tokens) for record in world.records()] == [("ok", 260)]


async def test_what_cannot_be_fetched_is_the_clients_400(world: World) -> None:
    world.web.reply(body_reply(b"", status=404))
    answer = await world.ask(URL)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_value",
        "messages.0.content.1",
    )
    assert "could not be fetched" in error["message"]
    assert "hunter2" not in answer.text
    assert world.provider.requests == []
    [record] = world.records()
    assert (record.http_status, record.usage.total_tokens, record.cost_nanos) == (400, 0, 0)


async def test_nothing_is_fetched_for_a_provider_that_takes_urls(world: World) -> None:
    world.provider.reply_json(CLAUDE)
    for model in MODELS[1:]:
        assert (await world.ask(URL, model=model)).status_code == 200
        assert URL in json.dumps(world.provider.last.json())
    assert world.web.requests == []


async def test_nothing_is_fetched_for_a_request_that_is_wrong_in_another_way(world: World) -> None:
    answer = await world.ask(URL, web_search_options={})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "web_search_options")
    assert world.web.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_fetch(world: World, *, stream: bool) -> None:
    world.web.reply(Reply((HANG,)))
    asking = asyncio.create_task(world.ask(URL, stream=stream))
    await world.web.until(lambda web: len(web.requests) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await world.web.until_closed_early()
    await until(world.records)
    [record] = world.records()
    assert (record.status, record.http_status, record.usage_source) == ("client_closed", 499, "none")
    assert record.cost_nanos == 0
    assert world.provider.requests == []


@pytest.mark.parametrize("fetch", ["false", "true"])
def test_the_setting_turns_it_on(provider: FakeProvider, tmp_path: Path, fetch: str) -> None:
    """Whether a name is looked up, or the client is told to send the data at once; neither reaches the provider."""
    with GatewayProcess(tmp_path, config=CONFIG.format(url=provider.url, fetch=fetch)) as gateway:
        key = gateway.create_key()
        answers = [
            httpx.post(
                gateway.base_url + "/chat/completions",
                headers={"authorization": f"Bearer {key}"},
                json=body(url),
                timeout=30,
            )
            for url in ("https://localhost/a.png?sig=hunter2", "https://[::1]/a.png")
        ]
        assert gateway.stop() == 0
    assert [answer.status_code for answer in answers] == [400, 400]
    assert {answer.json()["error"]["param"] for answer in answers} == {"messages.0.content.1"}
    said = [answer.json()["error"]["message"] for answer in answers]
    assert all("data URL" in words for words in said)
    if fetch == "true":
        assert "could not be fetched" in said[0]
        assert "addresses in numbers are not taken" in said[1]
        assert "https://localhost/a.png could not be fetched: localhost is at " in gateway.log
    else:
        assert all("cannot be given" in words for words in said)
        assert "localhost" not in gateway.log
    assert "hunter2" not in gateway.log
    assert provider.requests == []
