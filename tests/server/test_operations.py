"""/health, /metrics, /stats and /v1/models, against a running gateway."""

from __future__ import annotations

import re
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferxgate import __version__
from tests.server.conftest import CHAT, World, bearer, opened


def chat(world: World, secret: str, **more: Any) -> httpx.Response:
    answer = world.client.post("/v1/chat/completions", json=CHAT | more, headers=bearer(secret))
    assert answer.status_code == 200
    return answer


# --- /health


def test_healthy(world: World) -> None:
    answer = world.client.get("/health")
    content = answer.json()
    assert (answer.status_code, content["status"], content["version"]) == (200, "healthy", __version__)
    assert abs(datetime.fromisoformat(content["timestamp"]).timestamp() - datetime.now(UTC).timestamp()) < 60
    assert world.client.get("/health/live").json() == {"status": "alive"}


def test_a_record_that_cannot_be_written_makes_it_unhealthy(tmp_path: Path) -> None:
    """The journal's file system fills up: nothing can be accounted for, so nothing is admitted."""
    with opened(tmp_path) as gateway:
        secret = gateway.secret(rpm=0)
        chat(gateway, secret)
        assert gateway.process.process is not None
        limit_file_size(gateway.process.process.pid)
        for _ in range(3):
            gateway.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret))
        answer = gateway.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        health = gateway.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert health.json()["reason"]
        assert health.json()["error"]["code"] == "store_unavailable"
        assert "Retry-After" in health.headers
        assert gateway.client.get("/health/live").status_code == 200


def test_a_locked_store_stops_changes_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path) as gateway:
        someone, secret = gateway.person(), gateway.secret(rpm=0)
        chat(gateway, secret)
        lock = sqlite3.connect(gateway.process.data_dir / "inferxgate.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        try:
            answer = gateway.client.post("/auth/keys", json={}, headers=someone.headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert "Retry-After" in answer.headers
            chat(gateway, secret)
            for _ in range(200):
                health = gateway.client.get("/health")
                assert health.status_code == 200
                if health.json()["status"] == "degraded":
                    break
                time.sleep(0.1)
            assert "locked" in health.json()["reason"]
        finally:
            lock.close()
        assert gateway.client.post("/auth/keys", json={}, headers=someone.headers).status_code == 201
        assert until_counted(gateway, secret, 2)["totals"]["requests"] == 2


def limit_file_size(pid: int) -> None:
    """No file of the process may grow from now on, as on a full disk."""
    import resource

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


# --- /metrics


def test_metrics_count_what_happens(world: World) -> None:
    admin = world.person("admin")
    chat(world, world.secret(rpm=0))
    world.client.get("/nowhere/at/all")
    world.client.request("PROPFIND", "/health")
    answer = world.get("/metrics", admin.token)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    text = answer.text
    assert re.search(r'\nllm_gateway_requests_total\{model="echo",provider="echo",status="ok"\} [1-9]', text)
    assert re.search(r'\nllm_gateway_http_requests_total\{method="GET",route="other",status="404"\} ', text)
    assert re.search(r'\nllm_gateway_http_requests_total\{method="other",route="/health",status="405"\} ', text)
    assert "/nowhere" not in text


def test_metrics_count_limits_that_were_hit(world: World) -> None:
    admin, secret = world.person("admin"), world.secret(rpm=1)
    chat(world, secret)
    for _ in range(2):
        refused = world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret))
        assert refused.status_code == 429
    text = world.get("/metrics", admin.token).text
    assert 'llm_gateway_refusals_total{reason="rate_limit_exceeded"} 2.0' in text
    assert 'llm_gateway_limits_hit_total{limit="requests",scope="key"} 2.0' in text


def test_what_strangers_ask_for_makes_no_new_series(world: World) -> None:
    admin = world.person("admin")

    def series() -> set[str]:
        text = world.get("/metrics", admin.token).text
        return {line.rpartition(" ")[0] for line in text.splitlines() if "http_request" in line}

    for path in ("/a", "/auth/keys/a", "/v1/models/a"):
        world.client.get(path)
    series()  # the first time that /metrics is asked makes its own
    before = series()
    for number in range(50):
        for path in (f"/b{number}", f"/auth/keys/b{number}", f"/v1/models/b{number}"):
            world.client.get(path)
    assert series() == before


def test_metrics_may_be_public(tmp_path: Path) -> None:
    with opened(tmp_path, "[server]\npublic_metrics = true\n") as gateway:
        assert gateway.client.get("/metrics").status_code == 200
        assert gateway.get("/metrics", gateway.secret()).status_code == 200


# --- /stats


def until_counted(world: World, credential: str, requests: int, query: str = "") -> dict[str, Any]:
    """The figures once so many requests are in them: records reach the store a moment after the answer."""
    for _ in range(200):
        content: dict[str, Any] = world.get(f"/stats{query}", credential).json()
        if content["totals"]["requests"] >= requests:
            return content
        time.sleep(0.05)
    raise AssertionError(content["totals"])


def test_everyone_sees_their_own_figures(world: World) -> None:
    someone, other, admin = world.person(), world.person(), world.person("admin")
    first, second = world.secret(someone.user, rpm=0), world.secret(someone.user, rpm=0)
    nobodys = world.secret(rpm=0)
    for secret in (first, second, second, world.secret(other.user), nobodys):
        chat(world, secret, user="end-user")
    for credential in (someone.token, first, second):
        content = until_counted(world, credential, 3)
        assert content["totals"]["requests"] == 3
        assert {each["user_id"] for each in content["recent"]} == {someone.user.id}
        assert len(content["by_key"]) == 2
    assert until_counted(world, nobodys, 1)["totals"]["requests"] == 1
    seen = until_counted(world, admin.token, 5)
    assert {someone.user.id, other.user.id} <= {each["user_id"] for each in seen["by_user"]}
    assert until_counted(world, world.secret(admin.user), 5)["totals"]["requests"] >= 5


def test_a_record_has_the_answers_request_id(world: World) -> None:
    secret = world.secret()
    answer = world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret) | {"X-Request-Id": "find-me"})
    assert answer.headers["X-InferXgate-Model"] == "echo/echo"
    [recent] = until_counted(world, secret, 1)["recent"]
    assert (recent["request_id"], recent["status"], recent["http_status"]) == ("find-me", "ok", 200)


def test_since(world: World) -> None:
    secret = world.secret()
    chat(world, secret)
    until_counted(world, secret, 1, "?since=1h")
    assert world.get("/stats?since=2999-01-01", secret).status_code in (200, 400)
    for nonsense in ("soon", "-7d", "%ff"):
        answer = world.get(f"/stats?since={nonsense}", secret)
        assert answer.status_code == 400, nonsense
    assert world.get("/stats?since=soon", secret).json()["error"]["param"] == "since"


# --- /v1/models


def test_models_in_openais_shape(tmp_path: Path) -> None:
    config = '[providers.openai]\napi_key = "sk-x"\n[models.smart]\ntargets = ["openai/gpt-4o"]\n'
    with opened(tmp_path, config) as gateway:
        listed = gateway.get("/v1/models", gateway.secret()).json()
        assert listed["object"] == "list"
        assert all(set(each) == {"id", "object", "created", "owned_by"} for each in listed["data"])
        assert {"echo", "smart", "gpt-4o"} <= {each["id"] for each in listed["data"]}
        narrow = gateway.key(models=("gpt-4o*", "echo"))[1]
        ids = {each["id"] for each in gateway.get("/v1/models", narrow).json()["data"]}
        assert {"gpt-4o", "echo"} <= ids
        assert all(each.startswith(("gpt-4o", "echo", "smart")) for each in ids)
        for name in ("gpt-4o", "openai/gpt-4o", "openai%2Fgpt-4o"):
            shown = gateway.get(f"/v1/models/{name}", narrow)
            assert (shown.status_code, shown.json()["object"]) == (200, "model")
        answer = gateway.get("/v1/models/gpt-3.5-turbo", narrow)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("name", ["nothing-like-it", "echoo", "x" * 3_000, "%00", "..%2f..%2fetc"])
def test_an_unknown_model_is_404(world: World, name: str) -> None:
    answer = world.get(f"/v1/models/{name}", world.secret())
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
