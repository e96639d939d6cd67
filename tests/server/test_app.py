"""What every answer has, and what every failure becomes, against a running gateway and on the wire."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from inferxgate.accounts.tokens import Tokens
from inferxgate.config import load_settings
from inferxgate.config_sections import LimitSettings
from inferxgate.errors import INVALID_VALUE, GatewayError, StoreUnavailable
from inferxgate.runtime import open_runtime
from inferxgate.server.addresses import Addresses
from inferxgate.server.app import Door, build_app
from inferxgate.server.endpoints import Draining, Parts
from inferxgate.server.identity import Identity
from inferxgate.server.threads import Threads
from inferxgate.server.throttle import SignIns
from tests.server.conftest import CHAT, World, bearer, opened
from tests.server.serving import exchange, served

RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


# --- request ids


@pytest.mark.parametrize("sent", ["abc", "A.b_c-9", "x" * 128])
def test_a_proper_request_id_comes_back(world: World, sent: str) -> None:
    assert world.client.get("/health", headers={"X-Request-Id": sent}).headers["X-Request-Id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a/b", "a;b", "é".encode("latin-1").decode("latin-1"), "a\tb"])
def test_any_other_is_replaced(world: World, sent: str) -> None:
    answer = world.client.get("/health", headers=[(b"X-Request-Id", sent.encode("latin-1"))])
    assert re.fullmatch(r"req_[0-9a-z]{26}", answer.headers["X-Request-Id"])


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere"), ("PUT", "/health"), ("GET", "/metrics"), ("OPTIONS", "/v1/models")]
)
def test_refusals_have_one_too(world: World, method: str, path: str) -> None:
    answer = world.client.request(method, path, headers={"X-Request-Id": "mine"})
    assert answer.headers["X-Request-Id"] == "mine"


# --- rate limit headers


def test_a_known_caller_sees_the_limit_on_every_answer(world: World) -> None:
    secret = world.secret(rpm=3)
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/health"),
        ("GET", "/nowhere"),
        ("PUT", "/health"),
        ("OPTIONS", "/health"),
        ("GET", "/metrics"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/auth/login"),
    ):
        answer = world.client.request(method, path, headers=bearer(secret))
        assert [answer.headers[name] for name in RATE_HEADERS[:2]] == ["3", "3"], path
    sent_at = time.time()
    for remaining in ("2", "1", "0"):
        answer = world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret))
        assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (200, remaining)
    for body in (CHAT, CHAT | {"stream": True}):
        answer = world.client.post("/v1/chat/completions", json=body, headers=bearer(secret))
        assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (429, "0")
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert 0 < int(answer.headers["Retry-After"]) <= 60
        assert math.floor(sent_at) + 60 <= int(answer.headers["X-RateLimit-Reset"]) <= math.ceil(time.time()) + 60


def test_streams_have_them(world: World) -> None:
    answer = world.client.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=bearer(world.secret()))
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert [answer.headers[name] for name in RATE_HEADERS[:2]] == ["60", "59"]
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_stranger_sees_none(world: World) -> None:
    for path in ("/health", "/v1/models"):
        assert not set(RATE_HEADERS) & set(world.client.get(path).headers)


# --- routes that are not there


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/chat/completions", "Did you mean /v1/chat/completions? An OpenAI client's base URL has to end with /v1."),
        ("/models", "Did you mean /v1/models?"),
        ("/v1/v1/chat/completions", "Did you mean /v1/chat/completions?"),
        ("/v1/chat/completion", "Did you mean /v1/chat/completions"),
        ("/health/", "Did you mean /health, without the slash at its end?"),
        ("/auth/logn", "/auth/login"),
        ("/", "GET /openapi.json"),
        ("//v1/models", "Did you mean"),
        ("/" + "x" * 5_000, "..."),
        ("/%0d%0aX-Evil:%201", "There is no route"),
    ],
)
def test_an_unknown_route_names_what_is_near(world: World, path: str, says: str) -> None:
    answer = world.client.get(path)
    error = answer.json()["error"]
    assert answer.status_code in (401, 404)
    assert says in error["message"]
    if answer.status_code == 404:
        assert (error["type"], error["code"]) == ("not_found_error", "route_not_found")
    assert "X-Evil" not in answer.headers


# --- bodies on the wire


def chat_head(secret: str, *headers: str) -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {secret}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


JSON_LINE = "Content-Type: application/json"


async def test_a_body_above_the_limit_is_refused_and_the_client_can_read_so(tmp_path: Path) -> None:
    with opened(tmp_path, "[server]\nmax_body_mb = 1\n") as gateway:
        secret, port = gateway.secret(rpm=0), gateway.process.port
        big = b'{"model": "' + b"x" * 3_000_000 + b'"}'
        answer = gateway.client.post(
            "/v1/chat/completions", content=big, headers=bearer(secret) | {"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        # The connection goes on: what was still to come has been read.
        assert gateway.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret)).status_code == 200
        # Without a length.
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        said = await exchange(
            port,
            chat_head(secret, JSON_LINE, "Transfer-Encoding: chunked", "Connection: close"),
            chunk * 40,
            b"0\r\n\r\n",
        )
        assert said.startswith(b"HTTP/1.1 413 ")
        # One that asks first need not send it at all.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(chat_head(secret, JSON_LINE, "Content-Length: 52428800", "Expect: 100-continue"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        # Exactly the limit is taken: it fails for what it says, not for its size.
        exact = b'{"model": "' + b"x" * (1024 * 1024 - 13) + b'"}'
        assert len(exact) == 1024 * 1024
        answer = gateway.client.post(
            "/v1/chat/completions", content=exact, headers=bearer(secret) | {"Content-Type": "application/json"}
        )
        assert answer.status_code == 400


async def test_fifty_megabytes_are_refused_and_others_are_answered_meanwhile(world: World) -> None:
    secret = world.secret(rpm=0)
    async with httpx.AsyncClient(base_url=world.url, timeout=60) as client:
        big = asyncio.create_task(
            client.post(
                "/v1/chat/completions",
                content=b"[" + b" " * 50_000_000 + b"]",
                headers=bearer(secret) | {"Content-Type": "application/json"},
            )
        )
        while not big.done():
            assert (await client.get("/health")).status_code == 200
        assert big.result().status_code == 413


async def test_a_refused_stranger_with_a_body_can_read_the_answer(world: World) -> None:
    head = b"POST /auth/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\nConnection: close\r\n\r\n"
    said = await exchange(world.process.port, head, *[b"x" * 500_000] * 10)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_api_key"


async def test_an_admin_body_is_small(world: World) -> None:
    body = b'{"email": "' + b"x" * 2_000_000 + b'", "password": "12345678"}'
    answer = world.client.post("/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"model": NaN}', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b'{"model": "\\ud800"}', "invalid_json"),
        (b"[" * 10_000 + b"]" * 10_000, "invalid_json"),
    ],
)
def test_bad_json_is_told_so_everywhere(world: World, body: bytes, code: str) -> None:
    someone = world.person()
    for path in ("/v1/chat/completions", "/auth/login", "/auth/register", "/auth/keys"):
        answer = world.client.post(path, content=body, headers=someone.headers | {"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), path


def test_of_two_connections_one_cannot_upset_the_other(world: World) -> None:
    """Two requests in one write are answered in order."""
    health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    said = asyncio.run(exchange(world.process.port, health % b"" + health % b"Connection: close\r\n"))
    assert said.count(b"HTTP/1.1 200 OK") == 2


# --- CORS


PAGE = "https://app.example.com"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-stainless-os",
}


def test_without_origins_there_is_no_cors(world: World) -> None:
    for answer in (
        world.client.options("/v1/chat/completions", headers=PREFLIGHT),
        world.client.get("/health", headers={"Origin": PAGE}),
    ):
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_with_origins_their_pages_may_call(tmp_path: Path) -> None:
    with opened(tmp_path, f'[server]\ncors_origins = ["{PAGE}"]\n') as gateway:
        answer = gateway.client.options("/v1/chat/completions", headers=PREFLIGHT)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "x-stainless-os" in answer.headers["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        secret = gateway.secret()
        for path, status in (("/v1/models", 200), ("/nowhere", 404), ("/metrics", 403)):
            answer = gateway.client.get(path, headers=bearer(secret) | {"Origin": PAGE})
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (status, PAGE)
            exposed = answer.headers["Access-Control-Expose-Headers"].lower()
            for name in (*RATE_HEADERS, "X-Request-Id", "X-InferXgate-Model", "X-InferXgate-Cost", "Retry-After"):
                assert name.lower() in exposed
        refused = gateway.client.options("/v1/models", headers=PREFLIGHT | {"Origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
        assert "Access-Control-Allow-Origin" not in refused.headers
        other = gateway.client.get("/health", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers


# --- faults of ours, in an application that has them


@pytest.fixture
async def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    monkeypatch.setenv("INFERXGATE_DATA_DIR", str(tmp_path / "data"))
    config = tmp_path / "config.toml"
    config.write_text("")
    loaded = load_settings(config_path=config, flags={})
    async with open_runtime(loaded) as runtime:
        tokens = Tokens("x" * 48, 3600)
        identity, threads = Identity(runtime.store, tokens, defaults=LimitSettings().of_keys), Threads()
        yield Parts(
            runtime=runtime,
            identity=identity,
            tokens=tokens,
            addresses=Addresses([]),
            sign_ins=SignIns(runtime.attempts),
            threads=threads,
            draining=Draining(),
            listens_on_loopback=True,
        )
        threads.close()
        await identity.stop()


GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n"


@pytest.fixture
def errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.ERROR, "inferxgate.server"):
        yield caplog


@pytest.mark.parametrize(("missing", "status"), [(0, "healthy"), (2, "degraded")])
async def test_health_tells_of_workers_that_do_not_serve(parts: Parts, missing: int, status: str) -> None:
    parts = replace(parts, missing_workers=lambda: missing)
    async with served(build_app(parts)) as port:
        said = await exchange(port, GET.replace(b"/x", b"/health"))
    assert said.startswith(b"HTTP/1.1 200 ")
    content = json.loads(said.partition(b"\r\n\r\n")[2])
    assert content["status"] == status
    assert (content.get("reason") == "Workers that do not serve at this moment: 2.") is bool(missing)


async def test_a_crash_is_told_without_its_reason_and_logged_with_it(
    parts: Parts, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def crash(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ZeroDivisionError("the innermost secret")

    async with served(Door(parts, crash)) as port:
        said = await exchange(port, GET)
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"x-request-id: mine" in said
    error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "internal_error", None)
    assert "mine" in error["message"]
    assert b"secret" not in said
    assert b"ZeroDivision" not in said
    [record] = errors_logged.records
    assert "mine" in record.getMessage()
    assert record.exc_info is not None
    assert "the innermost secret" in str(record.exc_info[1])


async def test_a_crash_in_the_midst_of_an_answer_cuts_it_short(
    parts: Parts, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def crash(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    async with served(Door(parts, crash)) as port:
        said = await exchange(port, GET)
    assert b"half" in said
    assert not said.endswith(b"0\r\n\r\n"), "the client must see that this is not the whole answer"
    assert [record.name for record in errors_logged.records].count("inferxgate.server") == 1


async def test_a_store_that_is_away_is_503(parts: Parts) -> None:
    async def away(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise StoreUnavailable("the database /secret/place cannot be used: it is locked by another process")

    async with served(Door(parts, away)) as port:
        said = await exchange(port, GET)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"store_unavailable" in said
    assert b"\r\nretry-after: " in said
    assert b"/secret/place" not in said


async def test_nothing_in_a_message_becomes_a_header(parts: Parts) -> None:
    async def refuse(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise GatewayError(INVALID_VALUE, "x\r\nX-Evil: 1", headers={"X-Shown": "a\r\nX-Evil: 1"})

    async with served(Door(parts, refuse)) as port:
        said = await exchange(port, GET)
    head = said.partition(b"\r\n\r\n")[0]
    assert said.startswith(b"HTTP/1.1 400 ")
    assert not any(line.lower().startswith(b"x-evil") for line in head.split(b"\r\n"))


async def test_while_draining_only_health_is_answered(parts: Parts) -> None:
    async def fine(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    parts.draining.started = True
    async with served(Door(parts, fine)) as port:
        refused = await exchange(port, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        health = await exchange(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"draining"' in refused
    assert b"\r\nretry-after: " in refused
    assert b"\r\nconnection: close" in refused
    assert health.startswith(b"HTTP/1.1 200 ")
