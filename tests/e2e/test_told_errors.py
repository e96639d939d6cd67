"""What a client, and the log, are told of a provider's failure: statuses, waits, and an address that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

SECRET = "canary-key-0123456789"
CONFIG = """
[routing]  # each failure is told as it comes, and none leaves the provider alone
retries = 0
min_failures = 1000000
[providers.openai]
api_key = "{secret}"
base_url = "{url}/v1"

[providers.anthropic]
api_key = "{secret}"
base_url = "{url}"

[providers.gemini]
api_key = "{secret}"
base_url = "{url}"
"""
MODELS = {"openai": "openai/gpt-4o", "anthropic": "anthropic/claude-sonnet-4-5", "gemini": "gemini/gemini-2.5-flash"}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = CONFIG.format(url=provider.url, secret=SECRET)
    with GatewayProcess(tmp_path_factory.mktemp("errors"), config=config) as process:
        yield process


@pytest.fixture(scope="module")
def key(gateway: GatewayProcess) -> str:
    return gateway.create_key("--rpm", "0")


def ask(gateway: GatewayProcess, key: str, name: str, *, stream: bool = False) -> httpx.Response:
    return httpx.post(
        gateway.base_url + "/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": MODELS[name], "messages": [{"role": "user", "content": "Hello"}], "stream": stream},
        timeout=30,
    )


def test_a_wrong_address_is_told_and_its_words_are_in_the_log_alone(tmp_path: Path, provider: FakeProvider) -> None:
    with GatewayProcess(tmp_path, config=CONFIG.format(url=provider.url, secret=SECRET)) as own:
        own_key, requests = own.create_key(), {}
        for name in MODELS:
            for stream in (False, True):
                mark = f"nothing for {name} {stream}"
                provider.reply_body(f"<h1>{mark} and {SECRET}</h1>".encode() + b" end" * 2000, status=404)
                answer = ask(own, own_key, name, stream=stream)
                error = answer.json()["error"]
                assert (answer.status_code, error["type"], error["code"]) == (404, "not_found_error", "route_not_found")
                assert error["message"].startswith(f"The provider {name} ")
                assert "base_url may be wrong" in error["message"]
                assert mark not in answer.text
                assert answer.headers["x-inferxgate-upstream-status"] == "404"
                requests[mark] = answer.headers["x-request-id"]
        assert own.stop() == 0
        for mark, request_id in requests.items():
            [line] = [line for line in own.lines if mark in line]
            assert f"<h1>{mark} and ****</h1>" in line
            assert request_id in line
            assert len(line) < 1500
        assert SECRET not in own.log


def test_the_status_that_is_told_is_the_one_that_came(
    gateway: GatewayProcess, key: str, provider: FakeProvider
) -> None:
    provider.reply_json({"error": {"code": 400, "message": "API key not valid.", "status": "X"}}, status=400)
    answer = ask(gateway, key, "gemini")
    assert (answer.status_code, answer.headers["x-inferxgate-upstream-status"]) == (502, "400")
    assert "(status 400)" in answer.json()["error"]["message"]


def test_an_error_in_an_answer_has_no_status_of_its_own(
    gateway: GatewayProcess, key: str, provider: FakeProvider
) -> None:
    provider.reply_json({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    answer = ask(gateway, key, "anthropic")
    assert answer.status_code == 503
    assert "x-inferxgate-upstream-status" not in answer.headers
    assert answer.json()["error"]["message"] == "The provider anthropic is overloaded: Overloaded"


@pytest.mark.parametrize(
    ("headers", "seconds", "milliseconds"),
    [({"retry-after-ms": "1500"}, "2", "1500"), ({"retry-after": "7"}, "7", "7000")],
)
def test_how_long_to_wait_is_told_in_seconds_and_in_milliseconds(
    gateway: GatewayProcess,
    key: str,
    provider: FakeProvider,
    headers: dict[str, str],
    seconds: str,
    milliseconds: str,
) -> None:
    provider.reply_json({"error": {"message": "full"}}, status=503, headers=headers)
    answer = ask(gateway, key, "openai")
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == (seconds, milliseconds)


def test_where_a_provider_asks_for_no_pause_the_gateways_own_is_told(
    gateway: GatewayProcess, key: str, provider: FakeProvider
) -> None:
    provider.reply_json({"error": {"message": "full"}}, status=503, headers={"retry-after": "0"})
    answer = ask(gateway, key, "openai")
    assert answer.headers["retry-after"] == "1"
    assert 0 < int(answer.headers["retry-after-ms"]) <= 250
