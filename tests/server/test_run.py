"""The server as a process: how it starts, and how it ends without losing anything."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from inferxgate.store.records import UsageFilter
from tests.server.conftest import CHAT, World, bearer, opened
from tests.support.certificates import AUTHORITY, SERVER
from tests.support.process import GatewayProcess, program, provider_section, without_rights
from tests.support.provider import FakeProvider, Reply, Wait

STREAM = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "hello"}], "stream": True}
EVERYTHING = UsageFilter(0, 2**53)


def slow_stream(seconds: float) -> Reply:
    """A stream with a pause in its midst."""

    def event(content: object) -> bytes:
        return b"data: " + json.dumps(content).encode() + b"\n\n"

    def delta(**fields: object) -> dict[str, object]:
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": [fields]}

    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    return Reply(
        (
            head + event(delta(index=0, delta={"role": "assistant", "content": "one"}, finish_reason=None)),
            Wait(seconds),
            event(delta(index=0, delta={"content": "two"}, finish_reason=None))
            + event(delta(index=0, delta={}, finish_reason="stop"))
            + b"data: [DONE]\n\n",
        )
    )


class Running:
    """A stream that has begun and is not finished."""

    def __init__(self, world: World, secret: str) -> None:
        self._client = httpx.Client(base_url=world.url, timeout=60)
        self._context = self._client.stream("POST", "/v1/chat/completions", json=STREAM, headers=bearer(secret))
        self.response = self._context.__enter__()
        assert self.response.status_code == 200
        self._pieces = self.response.iter_text()
        self.text = next(self._pieces)

    def rest(self) -> str:
        """All of it, once it has ended."""
        for piece in self._pieces:
            self.text += piece
        self._context.__exit__(None, None, None)
        self._client.close()
        return self.text


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_with_exit_code_0(tmp_path: Path, number: int) -> None:
    with opened(tmp_path) as gateway:
        assert gateway.client.get("/health").status_code == 200  # this connection stays open
        assert gateway.process.signal(number) == 0
        assert "Traceback" not in gateway.process.log


def test_what_runs_is_finished_and_what_is_new_is_refused(tmp_path: Path, provider: FakeProvider) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url)) as gateway:
        secret = gateway.secret(rpm=0)
        provider.reply(slow_stream(2))
        running = Running(gateway, secret)
        assert gateway.client.get("/v1/models", headers=bearer(secret)).status_code == 200  # a connection to keep
        process = gateway.process.process
        assert process is not None
        os.killpg(process.pid, signal.SIGTERM)  # as a service manager does: to the whole group
        while True:
            answer = gateway.client.get("/v1/models", headers=bearer(secret))
            if answer.status_code != 200:
                break
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert answer.headers["Connection"] == "close"
        assert "Retry-After" in answer.headers
        with pytest.raises(httpx.ConnectError):
            httpx.get(gateway.url + "/health")
        text = running.rest()
        assert "two" in text
        assert text.endswith("data: [DONE]\n\n")
        assert gateway.process.wait() == 0
        [record] = gateway.store.recent_usage(EVERYTHING, limit=10)
        assert (record.status, record.http_status) == ("ok", 200)


def test_health_says_that_it_is_draining(tmp_path: Path, provider: FakeProvider) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url)) as gateway:
        secret = gateway.secret(rpm=0)
        provider.reply(slow_stream(2))
        running = Running(gateway, secret)
        with socket.create_connection(("127.0.0.1", gateway.process.port)) as kept:
            kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while b"alive" not in said:
                said += kept.recv(4096)
            assert gateway.process.process is not None
            gateway.process.process.send_signal(signal.SIGTERM)
            while "stopping" not in gateway.process.log:
                time.sleep(0.01)
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while received := kept.recv(4096):  # until it closes the connection
                said += received
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b'"unhealthy"' in said
            assert b"draining" in said
        running.rest()
        assert gateway.process.wait() == 0


def test_what_does_not_finish_in_time_is_ended_and_recorded(tmp_path: Path, provider: FakeProvider) -> None:
    config = "[server]\nshutdown_seconds = 0.5\n" + provider_section("openai", provider.base_url)
    with opened(tmp_path, config) as gateway:
        provider.reply(slow_stream(60))
        running = Running(gateway, gateway.secret(rpm=0))
        assert gateway.process.stop() == 0
        assert '"code":"draining"' in running.rest()
        [record] = gateway.store.recent_usage(EVERYTHING, limit=10)
        assert record.status == "gateway_error"


def test_a_whole_answer_that_does_not_come_in_time_is_a_503(tmp_path: Path, provider: FakeProvider) -> None:
    config = "[server]\nshutdown_seconds = 0.5\n" + provider_section("openai", provider.base_url)
    with opened(tmp_path, config) as gateway, concurrent.futures.ThreadPoolExecutor(1) as pool:
        secret = gateway.secret(rpm=0)
        provider.reply(Reply((b"HTTP/1.1 200 OK\r\n", Wait(60))))
        asked = pool.submit(
            gateway.client.post, "/v1/chat/completions", json=STREAM | {"stream": False}, headers=bearer(secret)
        )
        while not provider.requests:
            time.sleep(0.01)
        assert gateway.process.stop() == 0
        assert (asked.result().status_code, asked.result().json()["error"]["code"]) == (503, "draining")


def test_a_second_signal_ends_what_runs(tmp_path: Path, provider: FakeProvider) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url)) as gateway:
        provider.reply(slow_stream(60))
        running = Running(gateway, gateway.secret(rpm=0))
        assert gateway.process.process is not None
        gateway.process.process.send_signal(signal.SIGINT)
        gateway.process.process.send_signal(signal.SIGINT)  # the same one, delivered twice
        time.sleep(1.2)
        assert gateway.process.process.poll() is None
        assert gateway.process.signal(signal.SIGINT) == 0
        assert '"code":"draining"' in running.rest()
        assert len(gateway.store.recent_usage(EVERYTHING, limit=10)) == 1


def test_two_signals_at_once_are_one(tmp_path: Path, provider: FakeProvider) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url)) as gateway:
        provider.reply(slow_stream(1))
        running = Running(gateway, gateway.secret(rpm=0))
        assert gateway.process.process is not None
        os.killpg(gateway.process.process.pid, signal.SIGINT)
        gateway.process.process.send_signal(signal.SIGTERM)
        assert running.rest().endswith("data: [DONE]\n\n")
        assert gateway.process.wait() == 0


# --- starting


def start(
    folder: Path, *arguments: str, config: str = "", prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run serve where it cannot start."""
    process = GatewayProcess(folder, config=config)
    return subprocess.run(
        [*prefix, *program(), "serve", *arguments],
        env=process.environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which it did not start."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refused(start(tmp_path, "--port", port))
    assert f"port {port}" in line
    assert "in use" in line
    assert not (tmp_path / "data" / "inferxgate.db").exists(), "it is told before anything is made"


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "not a host", "x" * 300])
def test_a_host_that_is_not_ours(tmp_path: Path, host: str) -> None:
    assert "host" in refused(start(tmp_path, "--host", host, "--port", "0"))


def test_a_port_that_needs_rights(tmp_path: Path) -> None:
    assert "permission" in refused(start(tmp_path, "--port", "80", prefix=without_rights()))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (f'tls_cert = "{SERVER}"', "tls_key"),
        (f'tls_cert = "/nowhere/cert.pem"\ntls_key = "{SERVER}"', "/nowhere/cert.pem"),
        (f'tls_cert = "{AUTHORITY}"\ntls_key = "{AUTHORITY}"', "cannot be used"),
        ('trusted_proxies = ["proxy.local"]', "trusted_proxies"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: str, says: str) -> None:
    assert says in refused(start(tmp_path, "--port", "0", config=f"[server]\n{settings}\n"))


def test_a_key_that_asks_for_a_password_is_refused_without_asking(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "genrsa", "-aes256", "-passout", "pass:secret", "-out", str(key), "2048"],
        check=True,
        capture_output=True,
    )
    settings = f'[server]\ntls_cert = "{SERVER}"\ntls_key = "{key}"\n'
    assert "cannot be used" in refused(start(tmp_path / "gateway", "--port", "0", config=settings))


# --- listening


def test_tls(tmp_path: Path) -> None:
    settings = f'[server]\ntls_cert = "{SERVER}"\ntls_key = "{SERVER}"\n'
    with opened(tmp_path, settings) as gateway:
        url = f"https://127.0.0.1:{gateway.process.port}"
        assert url in gateway.process.log
        with httpx.Client(verify=ssl.create_default_context(cafile=str(AUTHORITY))) as client:
            assert client.get(f"{url}/health").status_code == 200
            answer = client.post(
                f"{url}/v1/chat/completions", json=CHAT | {"stream": True}, headers=bearer(gateway.secret())
            )
            assert answer.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")  # nobody trusts that authority
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():  # it is out of date, which is the point
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            pytest.raises((ssl.SSLError, OSError)),
            socket.create_connection(("127.0.0.1", gateway.process.port)) as raw,
        ):
            old.wrap_socket(raw)
        assert gateway.process.stop() == 0


def test_it_listens_for_this_machine_only_and_says_otherwise_loudly(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as gateway:
        assert "WARNING" not in gateway.process.log
        gateway.process.stop()
        assert "WARNING" not in gateway.process.log
    with opened(tmp_path / "b", "", "--host", "0.0.0.0") as gateway:
        gateway.process.stop()
        assert "WARNING: 0.0.0.0 is not a loopback address" in gateway.process.log


def test_the_port_can_be_used_again_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as gateway:
        assert gateway.client.get("/health").status_code == 200
        port = gateway.process.port
        assert gateway.process.stop() == 0
        gateway.process.start()
        assert gateway.process.port == port
        assert gateway.client.get("/health").status_code == 200


def test_what_it_makes_is_its_owners_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as gateway:
        folder = gateway.process.data_dir
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in ("inferxgate.db", "jwt_secret"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


# --- the access log


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_every_request_has_its_line_without_secrets(tmp_path: Path, log_format: str) -> None:
    with opened(tmp_path, "", "--log-format", log_format) as gateway:
        admin = gateway.person("admin", password=True)
        key, secret = gateway.key(rpm=0)
        headers = bearer(secret) | {"X-Request-Id": "line-1"}
        gateway.client.post("/v1/chat/completions?api_key=sk-canary-000000", json=CHAT, headers=headers)
        gateway.client.get(f"/v1/models/{secret}", headers=bearer(admin.token))
        gateway.client.get("/x%0aforged%20line%1b[31m")
        gateway.client.post("/auth/login", json={"email": admin.user.email, "password": "wrong password"})
        assert gateway.process.stop() == 0
        log = gateway.process.log
        for canary in (secret, secret[len("ix-api-key-") :], admin.token, "sk-canary", "wrong password", "hello"):
            assert canary not in log
        [line] = [line for line in gateway.process.lines if "line-1" in line]
        assert key.id in line
        if log_format == "json":
            said = json.loads(line)
            assert (said["method"], said["path"], said["status"]) == ("POST", "/v1/chat/completions", 200)
            assert all(json.loads(each) for each in gateway.process.lines)
        else:
            assert "method=POST path=/v1/chat/completions status=200" in line
        assert not any(each.startswith("forged") for each in gateway.process.lines)
        assert "\x1b" not in log


def test_the_client_in_the_log_is_the_one_that_a_trusted_proxy_names(tmp_path: Path) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7"}
    for trusted, client in (("[]", "127.0.0.1"), ('["127.0.0.1"]', "198.51.100.7")):
        with opened(tmp_path / client, f"[server]\ntrusted_proxies = {trusted}\n") as gateway:
            gateway.client.get("/health", headers=headers)
            assert gateway.process.stop() == 0
            assert f"client={client} " in gateway.process.log
