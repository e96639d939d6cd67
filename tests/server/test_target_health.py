"""How targets fare, as a running gateway tells it: /stats, /metrics, the log, and the command line beside it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.server.schemas import CircuitAnswer
from tests.server.conftest import CHAT, World, bearer, opened
from tests.support.health import digest
from tests.support.process import provider_section
from tests.support.provider import FakeProvider, error_body
from tests.support.terminal import without_colour

SECRET = "sk-canary-10b2c3d4"


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture(params=[1, 2])
def ill(tmp_path: Path, provider: FakeProvider, request: pytest.FixtureRequest) -> Iterator[World]:
    """A gateway with an alias whose first target is what a test makes of it, and whose second one is well."""
    config = (
        "[routing]\nmin_failures = 1\nretries = 0\ncooldown_seconds = 600\nmax_cooldown_seconds = 600\n"
        + provider_section("first", provider.base_url, api_key=SECRET)
        + '[models.smart]\ntargets = ["first/m", "echo"]\n'
    )
    with opened(tmp_path, config, "--workers", str(request.param)) as world:
        yield world


def ask(world: World, secret: str) -> str:
    answer = world.client.post(
        "/v1/chat/completions", json=CHAT | {"model": "smart"}, headers=bearer(secret) | {"X-Request-Id": "find-me"}
    )
    assert answer.status_code == 200
    return answer.headers["X-InferXgate-Model"]


def test_a_circuit_is_told_to_admins_and_to_the_operator(ill: World, provider: FakeProvider) -> None:
    admin, secret = ill.person("admin"), ill.secret(rpm=0)
    assert ill.get("/stats", admin.token).json()["targets"] == []
    provider.reply_json(error_body("no"), status=500)
    assert ask(ill, secret) == "echo/echo"
    [circuit] = ill.get("/stats", admin.token).json()["targets"]
    CircuitAnswer.model_validate(circuit, strict=True)
    assert (circuit["provider"], circuit["model"], circuit["credential"]) == ("first", "m", digest(SECRET))
    assert (circuit["state"], circuit["code"], circuit["failures"], circuit["requests"]) == (
        "open",
        "upstream_error",
        1,
        1,
    )
    assert circuit["until"] > circuit["since"]
    for credential in (secret, ill.person().token):
        assert ill.get("/stats", credential).json()["targets"] == [], "an operator's affair"
    table = without_colour(ill.process.run("models", "list").stdout)
    assert re.search(r"^ +first/m +open 10 min$|^smart +ordered +first/m +open 10 min$", table, re.MULTILINE)
    assert "first/m  " in ill.process.run("stats").stdout.partition("Targets that are left alone now:")[2]
    assert ask(ill, secret) == "echo/echo"
    assert len(provider.requests) == 1, "whatever the worker, it is left alone"


def test_metrics_count_it_once_over_all_workers(ill: World, provider: FakeProvider) -> None:
    admin, secret = ill.person("admin"), ill.secret(rpm=0)
    provider.reply_json(error_body("no"), status=500)
    ask(ill, secret)
    wanted = 'llm_gateway_targets_unavailable{provider="first",state="open"} 1.0\n'
    for _ in range(300):
        text = ill.get("/metrics", admin.token).text
        if wanted in text:
            break
        time.sleep(0.05)
    assert wanted in text
    time.sleep(1.5)  # by now each worker has told of it
    text = ill.get("/metrics", admin.token).text
    assert wanted in text
    assert 'llm_gateway_attempt_failures_total{code="upstream_error",provider="first"} 1.0\n' in text
    assert 'llm_gateway_retries_total{provider="echo"} 1.0\n' in text


def test_the_log_says_what_failed_and_what_followed_without_the_credential(ill: World, provider: FakeProvider) -> None:
    provider.reply_json({"error": {"message": f"{SECRET} was revoked"}}, status=401)
    assert ask(ill, ill.secret(rpm=0)) == "echo/echo"
    assert ill.process.stop() == 0
    [line] = [line for line in ill.process.log.splitlines() if "request find-me to first/m failed" in line]
    assert "failed with upstream_auth_error (status 401): echo/echo is asked next. It said: " in line
    assert "**" in line
    assert SECRET not in ill.process.log


def test_models_of_aliases_have_openais_shape_and_nothing_more(ill: World) -> None:
    found = {each["id"]: each for each in ill.get("/v1/models", ill.secret()).json()["data"]}
    assert found["smart"] == {"id": "smart", "object": "model", "created": 0, "owned_by": "openai"}
    narrow = ill.key(models=("echo/*",))[1]
    shown = ill.get("/v1/models/smart", narrow).json()
    assert shown["owned_by"] == "inferxgate", "the owner of the first target that the caller may use"
