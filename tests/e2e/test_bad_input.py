"""Bad input and bad circumstances: a clear error, and nothing lost."""

from __future__ import annotations

import json
import resource
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.process import GatewayProcess, program, provider_section
from tests.support.provider import FakeProvider

HELLO = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'


def post(gateway: GatewayProcess, key: str, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        gateway.base_url + "/chat/completions",
        content=content,
        headers={"authorization": f"Bearer {key}", "content-type": "application/json", **headers},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "invalid_json", "no body"),
        (b"{", "invalid_json", "not valid JSON"),
        (b'{"model": "\xff"}', "invalid_json", "UTF-8"),
        (b'{"model": NaN}', "invalid_json", "not valid JSON"),
        (b'{"model": Infinity}', "invalid_json", "not valid JSON"),
        (b'{"model": "\\ud800"}', "invalid_json", "not valid JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "invalid_json", "not valid JSON"),
        (HELLO.replace(b"}]}", b'}], "x": ' + b"[" * 400 + b"]" * 400 + b"}"), "invalid_json", "nested too deeply"),
        (b"[]", "invalid_value", "must be a JSON object"),
        (b'{"messages": [{"role": "user"}]}', "missing_required_parameter", "'model'"),
        (b'{"model": "gpt-4o", "messages": "Hello"}', "invalid_value", "list of messages"),
        (HELLO[:-1] + b', "stream": "yes"}', "invalid_value", "true or false"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(
    gateway: GatewayProcess, provider: FakeProvider, key: str, content: bytes, code: str, says: str
) -> None:
    before = len(provider.requests)
    answer = post(gateway, key, content)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (400, "invalid_request_error", code)
    assert says in error["message"]
    assert len(provider.requests) == before


def test_of_duplicate_keys_the_last_wins_and_only_it_is_forwarded(
    gateway: GatewayProcess, provider: FakeProvider, key: str
) -> None:
    body = HELLO[:-1] + b', "seed": 1, "model": "openai/gpt-4o-mini", "seed": 2}'
    assert post(gateway, key, body).status_code == 200
    sent = provider.last.body
    assert sent.count(b'"seed"') == sent.count(b'"model"') == 1
    assert json.loads(sent)["seed"] == 2
    assert json.loads(sent)["model"] == "gpt-4o-mini"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_gets_its_413(gateway: GatewayProcess, key: str, chunked: bool) -> None:
    big = b'{"x": "' + b"x" * (50 * 1024 * 1024) + b'"}'
    pieces = (big[i : i + 1_000_000] for i in range(0, len(big), 1_000_000))
    answer = httpx.post(
        gateway.base_url + "/chat/completions",
        content=pieces if chunked else big,
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert "32 MB" in answer.json()["error"]["message"]


def test_a_large_prompt_within_the_limit_goes_through(
    gateway: GatewayProcess, provider: FakeProvider, key: str
) -> None:
    text = "é" * 5_000_000
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode()
    assert post(gateway, key, body).status_code == 200
    assert provider.last.json()["messages"][0]["content"] == text


def test_a_refused_caller_is_not_read_to_the_end(gateway: GatewayProcess) -> None:
    answer = httpx.post(gateway.base_url + "/chat/completions", content=b"x" * 1_000_000, timeout=60)
    assert answer.status_code == 401


# --- the store


def lock(gateway: GatewayProcess) -> sqlite3.Connection:
    [database] = gateway.data_dir.glob("*.db")
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def wait_for_health(gateway: GatewayProcess, status: str) -> dict[str, Any]:
    for _ in range(300):
        health: dict[str, Any] = httpx.get(gateway.url + "/health").json()
        if health["status"] == status:
            return health
        time.sleep(0.1)
    raise AssertionError(f"never {status}: {health}")


def count_of_records(gateway: GatewayProcess) -> int:
    return int(json.loads(gateway.run("stats", "--json").stdout)["totals"]["requests"])


@pytest.fixture
def own(tmp_path: Path, provider: FakeProvider) -> Iterator[GatewayProcess]:
    """A gateway for one test, which may break it."""
    with GatewayProcess(tmp_path, config=provider_section("openai", provider.base_url)) as process:
        yield process


def test_a_locked_store_never_makes_a_good_key_bad(own: GatewayProcess) -> None:
    key = own.create_key("--rpm", "0")
    assert post(own, key, HELLO).status_code == 200
    held = lock(own)
    for _ in range(5):
        assert post(own, key, HELLO).status_code == 200
    assert wait_for_health(own, "degraded")["reason"]
    held.close()
    wait_for_health(own, "healthy")
    assert own.stop() == 0
    assert count_of_records(own) == 6


def test_a_full_disk_under_the_store_loses_nothing(own: GatewayProcess) -> None:
    """A limit on the size of files stands in for the disk: it stops the database first, as its files are the larger."""
    key = own.create_key("--rpm", "0")
    assert post(own, key, HELLO).status_code == 200
    time.sleep(1)  # so that the store has taken it, and the journal is empty
    assert own.process is not None
    sizes = [file.stat().st_size for file in own.data_dir.glob("*.db*") if file.suffix != ".db-shm"]
    limits = resource.prlimit(own.process.pid, resource.RLIMIT_FSIZE, (max(sizes) - 1, resource.RLIM_INFINITY))
    for _ in range(5):
        assert post(own, key, HELLO).status_code == 200
    assert wait_for_health(own, "degraded")["reason"]
    resource.prlimit(own.process.pid, resource.RLIMIT_FSIZE, limits)
    wait_for_health(own, "healthy")
    assert own.stop() == 0
    assert count_of_records(own) == 6


def test_a_killed_gateway_loses_no_record(own: GatewayProcess) -> None:
    key = own.create_key("--rpm", "0")
    for _ in range(20):
        assert post(own, key, HELLO).status_code == 200
    own.kill()
    assert count_of_records(own) == 20


# --- starting


def serve(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*program(), "serve", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.strip().splitlines()
    assert "Traceback" not in line
    return line


def test_a_port_in_use_is_told_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = one_line(serve(GatewayProcess(tmp_path).environment, "--port", port))
    assert port in line
    assert "in use" in line


def test_a_corrupt_database_is_told_of_and_left_alone(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    gateway.data_dir.mkdir()
    database = gateway.data_dir / "inferxgate.db"
    database.write_bytes(b"this is no database at all\n" * 500)
    before = database.read_bytes()
    line = one_line(serve(gateway.environment, "--port", "0"))
    assert str(database) in line
    assert database.read_bytes() == before


def test_a_configuration_that_is_a_folder_is_told_in_a_line(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path)
    assert str(tmp_path) in one_line(serve({**gateway.environment, "INFERXGATE_CONFIG": str(tmp_path)}, "--port", "0"))
