"""Providers' own lists in running gateways: from the file at once, never asked for at the start, the same for all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferxgate.accounts.callers import OPERATOR
from inferxgate.config import load_settings
from inferxgate.gateway.discovery import Pace
from inferxgate.runtime import Runtime, open_runtime
from tests.support.clients import until
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider

SECRET = "sk-canary-1f4d9b7c2e"
WORKERS = 3


@pytest.fixture
def host() -> Iterator[FakeProvider]:
    with FakeProvider(api_key=SECRET) as running:
        running.models = ("llama-9",)
        yield running


@pytest.fixture
def other() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


def prepared(folder: Path, host: FakeProvider, other: FakeProvider, *arguments: str) -> GatewayProcess:
    """A gateway that is not started yet, whose one provider is to be discovered and whose other one is not."""
    sections = provider_section("local", host.base_url, discover=True) + provider_section("other", other.base_url)
    return GatewayProcess(folder, config=sections, arguments=arguments)


class Asker:
    """A client whose every request may reach another worker."""

    def __init__(self, gateway: GatewayProcess, *arguments: str) -> None:
        self._gateway = gateway
        self._key = gateway.create_key("--rpm", "0", *arguments)

    def models(self) -> list[str]:
        answer = self._ask("GET", "/models")
        return [model["id"] for model in answer.json()["data"]]

    def chat(self, model: str) -> httpx.Response:
        return self._ask("POST", "/chat/completions", {"model": model, "messages": [{"role": "user", "content": "Hi"}]})

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._key}", "connection": "close"}
        return httpx.request(method, self._gateway.base_url + path, headers=headers, json=body)


def test_the_start_serves_what_is_kept_and_asks_nobody(tmp_path: Path, host: FakeProvider, other: FakeProvider) -> None:
    gateway = prepared(tmp_path, host, other)
    assert gateway.run("models", "refresh").stdout == "local: 1 model\n"
    assert [request.target for request in host.requests] == ["/v1/models"]
    with gateway:
        asker = Asker(gateway)
        assert asker.models() == ["echo", "local/llama-9"]
        assert len(host.requests) == 1
        answer = asker.chat("llama-9")
        assert (answer.status_code, answer.headers["x-inferxgate-model"]) == (200, "local/llama-9")
        assert asker.chat("llama-10").status_code == 404
        assert "Did you mean local/llama-9?" in asker.chat("llama-10").json()["error"]["message"]
        assert Asker(gateway, "--models", "other/*,echo").models() == ["echo"]
        assert Asker(gateway, "--models", "llama-*").models() == ["local/llama-9"]
        assert gateway.stop() == 0
    assert [request.target for request in host.requests] == ["/v1/models", "/v1/chat/completions"]
    assert other.connections == 0
    assert SECRET not in gateway.log


def test_a_list_that_is_refreshed_reaches_every_worker(tmp_path: Path, host: FakeProvider, other: FakeProvider) -> None:
    with prepared(tmp_path, host, other, "--workers", str(WORKERS)) as gateway:
        asker = Asker(gateway)
        assert asker.models() == ["echo"]
        assert asker.chat("llama-9").status_code == 404
        gateway.run("models", "refresh")
        until(lambda: all(asker.chat("llama-9").status_code == 200 for _ in range(4 * WORKERS)))
        assert all(asker.models() == ["echo", "local/llama-9"] for _ in range(4 * WORKERS))
        host.models = ("llama-10",)
        gateway.run("models", "refresh")
        until(lambda: all(asker.models() == ["echo", "local/llama-10"] for _ in range(4 * WORKERS)))
        assert [request.target for request in host.requests].count("/v1/models") == 2, "no worker asked by itself"
        answered = {int(number) for number in re.findall(r"access\[(\d+)\]", gateway.log)}
        assert len(answered) > 1, "one worker alone proves little"


async def test_a_serving_gateway_asks_by_itself(tmp_path: Path, host: FakeProvider, other: FakeProvider) -> None:
    gateway = prepared(tmp_path, host, other)
    loaded = load_settings(config_path=None, flags={}, environ=gateway.environment)
    at_once = Pace(first=0, look=0.02)

    def known(runtime: Runtime) -> list[str]:
        return [name for name, _ in runtime.gateway.models(OPERATOR)]

    async with open_runtime(loaded, serving=False, pace=at_once) as runtime:
        await asyncio.sleep(0.2)
        assert known(runtime) == ["echo"]
    assert host.connections == 0, "a command asks nobody"
    async with open_runtime(loaded, pace=at_once) as runtime:
        await asyncio.to_thread(until, lambda: known(runtime) == ["echo", "local/llama-9"])
        assert runtime.router.plan("llama-9").targets[0].name == "local/llama-9"
        await asyncio.sleep(0.2)
    assert [request.target for request in host.requests] == ["/v1/models"], "it is not old yet"
    assert other.connections == 0
    async with open_runtime(loaded, serving=False) as runtime:
        assert known(runtime) == ["echo", "local/llama-9"]


def test_a_damaged_file_stops_no_start(tmp_path: Path, host: FakeProvider, other: FakeProvider) -> None:
    gateway = prepared(tmp_path, host, other)
    gateway.data_dir.mkdir(mode=0o700)
    file = gateway.data_dir / "models.json"
    file.write_bytes(b'{"version":1,"providers":{"local":')
    with gateway:
        asker = Asker(gateway)
        assert asker.models() == ["echo"]
        assert asker.chat("local/llama-9").status_code == 200
        assert [request.target for request in host.requests] == ["/v1/chat/completions"], "the start asks nobody"
        until(lambda: f"{file} is ignored: it is damaged" in gateway.log)
        gateway.run("models", "refresh")
        until(lambda: asker.models() == ["echo", "local/llama-9"])
        assert gateway.log.count("is ignored") == 1
