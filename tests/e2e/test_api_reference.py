"""The curl lines of the API reference, with base URL and model replaced, run by curl itself."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.support.process import GatewayProcess

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")


def curl(*arguments: str) -> str:
    done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def token(gateway: GatewayProcess) -> str:
    body = json.dumps({"email": "ann@example.com", "password": "correct horse battery"})
    answer = json.loads(curl(f"{gateway.url}/auth/register", "-H", "Content-Type: application/json", "-d", body))
    return str(answer["token"])


def test_each_way_to_authenticate(gateway: GatewayProcess, key: str, token: str) -> None:
    for header in (f"Authorization: Bearer {token}", f"Authorization: Bearer {key}", f"X-API-Key: {key}"):
        text = curl(
            f"{gateway.base_url}/chat/completions",
            "-H", header,
            "-H", "Content-Type: application/json",
            "-d", json.dumps(CHAT),
        )  # fmt: skip
        answer = json.loads(text)
        assert answer["object"] == "chat.completion"
        assert answer["id"].startswith("chatcmpl-")
        assert isinstance(answer["created"], int)
        [choice] = answer["choices"]
        assert (choice["index"], choice["finish_reason"]) == (0, "stop")
        assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "Hello")
        assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_the_streaming_example(gateway: GatewayProcess, key: str) -> None:
    text = curl(
        "-N", f"{gateway.base_url}/chat/completions",
        "-H", f"Authorization: Bearer {key}",
        "-H", "Content-Type: application/json",
        "-d", json.dumps({**CHAT, "stream": True}),
    )  # fmt: skip
    events = text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:-2]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello"


def test_rate_limit_headers_are_on_every_answer(gateway: GatewayProcess) -> None:
    key = gateway.create_key()
    head = curl("-D", "-", "-o", "/dev/null", f"{gateway.base_url}/models", "-H", f"X-API-Key: {key}")
    assert "x-ratelimit-limit: 60" in head.lower()
    assert "x-ratelimit-remaining: 60" in head.lower()
    head = curl(
        "-D", "-", "-o", "/dev/null", f"{gateway.base_url}/chat/completions",
        "-H", f"X-API-Key: {key}",
        "-H", "Content-Type: application/json",
        "-d", json.dumps({**CHAT, "stream": True}),
    )  # fmt: skip
    assert "x-ratelimit-remaining: 59" in head.lower()
    assert "x-ratelimit-reset: " in head.lower()


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics", "/stats", "/auth/keys", "/openapi.json"])
def test_every_read_route_of_the_reference_answers(gateway: GatewayProcess, token: str, path: str) -> None:
    head = curl("-o", "/dev/null", "-w", "%{http_code}", gateway.url + path, "-H", f"Authorization: Bearer {token}")
    assert head == "200"


def test_a_key_made_over_http_works_at_once(gateway: GatewayProcess, token: str) -> None:
    made = curl(
        f"{gateway.url}/auth/keys",
        "-H", f"Authorization: Bearer {token}",
        "-H", "Content-Type: application/json",
        "-d", '{"name": "from curl"}',
    )  # fmt: skip
    secret = json.loads(made)["key"]
    assert secret.startswith("ix-api-key-")
    text = curl(
        f"{gateway.base_url}/chat/completions",
        "-H", f"Authorization: Bearer {secret}",
        "-H", "Content-Type: application/json",
        "-d", json.dumps(CHAT),
    )  # fmt: skip
    assert json.loads(text)["choices"][0]["message"]["content"] == "Hello"


def test_a_wrong_key_is_told_as_the_reference_says(gateway: GatewayProcess) -> None:
    text = curl(f"{gateway.base_url}/models", "-H", "Authorization: Bearer ix-api-key-wrong")
    error = json.loads(text)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert error["message"].startswith("Invalid API key provided")
