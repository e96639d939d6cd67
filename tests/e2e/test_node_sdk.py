"""The official OpenAI package for Node.js and a running gateway: tests/sdk_node/drive.mjs speaks, this judges."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from inferxgate.errors import MODEL_NOT_ALLOWED, RATE_LIMIT_EXCEEDED
from tests.support.process import GatewayProcess
from tests.support.provider import HANG, FakeProvider, error_body, sse_reply

FOLDER = Path(__file__).resolve().parent.parent / "sdk_node"
NODE = shutil.which("node")

OLDEST_NODE = 18
"""The first with fetch, which the package needs."""


def node_version() -> int:
    """The major version of this machine's Node.js; 0 where there is none."""
    if NODE is None:
        return 0
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.removeprefix("v").partition(".")[0])


pytestmark = [
    pytest.mark.skipif(node_version() < OLDEST_NODE, reason=f"there is no Node.js {OLDEST_NODE} or newer here"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules" / "openai").is_dir(),
        reason="the openai package for Node.js is not there; npm ci --prefix tests/sdk_node installs it",
    ),
]

Drive = Callable[..., Any]


@pytest.fixture
def drive(gateway: GatewayProcess, key: str) -> Drive:
    """Run one scenario; what the package's user saw, or ``error`` with the package's exception."""

    def run(scenario: str, model: str, *, with_key: str = key, more: Mapping[str, str] | None = None) -> Any:
        assert NODE is not None
        environment = {"GATEWAY_BASE_URL": gateway.base_url, "GATEWAY_KEY": with_key, **(more or {})}
        done = subprocess.run(
            [NODE, "drive.mjs", scenario, model],
            cwd=FOLDER,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o", "echo"])
def test_a_whole_answer(drive: Drive, model: str) -> None:
    seen = drive("whole", model)
    assert seen["text"]
    assert seen["reason"] == "stop"
    assert seen["usage"]["total_tokens"] == seen["usage"]["prompt_tokens"] + seen["usage"]["completion_tokens"] > 0
    assert seen["requestId"]
    assert seen["servedBy"].endswith(model.removeprefix("openai/"))
    assert int(seen["remaining"]) > 0


@pytest.mark.parametrize("model", ["gpt-4o", "echo"])
def test_a_stream(drive: Drive, model: str) -> None:
    seen = drive("stream", model)
    assert seen["text"] == drive("whole", model)["text"]
    assert seen["roles"][0] == "assistant"
    assert seen["reasons"][-1] == "stop"
    assert set(seen["reasons"][:-1]) <= {None}
    assert (seen["usages"], seen["emptyChoices"]) == ([], 0)


@pytest.mark.parametrize("model", ["gpt-4o", "echo"])
def test_a_stream_with_usage(drive: Drive, model: str) -> None:
    seen = drive("streamWithUsage", model)
    assert len(seen["usages"]) == seen["emptyChoices"] == 1


def test_the_streaming_helper(drive: Drive) -> None:
    seen = drive("helper", "gpt-4o")
    assert seen["deltas"] == seen["text"] != ""
    assert seen["reason"] == "stop"


def test_tool_calls_whole_streamed_and_answered(drive: Drive) -> None:
    seen = drive("tools", "gpt-4o")
    whole, streamed = seen["calls"]
    assert whole == streamed
    assert whole["reason"] == "tool_calls"
    assert [call["name"] for call in whole["calls"]] == ["get_weather"]
    assert seen["after"]


def test_models_are_listed_and_found(drive: Drive) -> None:
    seen = drive("models", "smart")
    assert {"echo", "smart"} <= set(seen["ids"])
    assert seen["found"]["id"] == "smart"


@pytest.mark.parametrize(
    ("status", "exception", "told"),
    [
        (400, "BadRequestError", 400),
        (401, "InternalServerError", 502),
        (404, "NotFoundError", 404),
        (422, "UnprocessableEntityError", 422),
        (429, "RateLimitError", 429),
        (500, "InternalServerError", 502),
        (503, "InternalServerError", 503),
    ],
)
@pytest.mark.parametrize("scenario", ["whole", "stream"])
def test_a_providers_errors_become_the_packages_exceptions(
    drive: Drive, provider: FakeProvider, scenario: str, status: int, exception: str, told: int
) -> None:
    provider.reply_json(error_body("the provider's words"), status=status)
    error = drive(scenario, "gpt-4o")["error"]
    assert (error["name"], error["status"]) == (exception, told)
    assert error["requestId"]
    assert status == 401 or "the provider's words" in error["message"]


def test_an_error_within_a_stream_is_an_exception(drive: Drive, provider: FakeProvider) -> None:
    first = {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]}
    provider.reply_sse([first, error_body("overloaded in the middle")])
    error = drive("stream", "gpt-4o")["error"]
    assert error["isApiError"]
    assert "overloaded in the middle" in error["message"]


def test_our_own_refusals_are_the_packages_exceptions(gateway: GatewayProcess, drive: Drive) -> None:
    unknown = drive("models", "echo", with_key="sk-nope")["error"]
    assert (unknown["name"], unknown["code"]) == ("AuthenticationError", "invalid_api_key")
    narrow = drive("whole", "echo", with_key=gateway.create_key("--models", "gpt-*"))["error"]
    assert (narrow["name"], narrow["code"]) == ("PermissionDeniedError", MODEL_NOT_ALLOWED.code)
    once = gateway.create_key("--rpm", "1")
    assert drive("whole", "echo", with_key=once)["text"]
    refused = drive("whole", "echo", with_key=once)["error"]
    assert (refused["name"], refused["code"]) == ("RateLimitError", RATE_LIMIT_EXCEEDED.code)
    assert 0 < int(refused["retryAfter"]) <= 60


def test_the_package_tries_again_as_it_does_with_openai(drive: Drive, provider: FakeProvider) -> None:
    provider.reply_json(error_body("a moment, please"), status=503, headers={"retry-after": "0"})
    assert drive("whole", "gpt-4o", more={"GATEWAY_RETRIES": "1"})["text"]


def test_leaving_a_stream_ends_it_at_the_provider(drive: Drive, provider: FakeProvider) -> None:
    before = len(provider.ended_early)
    first = {"id": "c", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}}]}
    provider.reply(sse_reply([first]).cut_short(HANG, keep=2))
    assert drive("leave", "gpt-4o")["first"]["content"] == "Hel"
    provider.wait_closed_early(count=before + 1)
