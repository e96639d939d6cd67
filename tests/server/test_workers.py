"""Several workers as one server: they share the work, replace each other, count together and end together."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from inferxgate.store.records import UsageFilter
from tests.server.conftest import CHAT, World, bearer, opened
from tests.server.test_run import Running, slow_stream, start
from tests.support.certificates import AUTHORITY, SERVER
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider

FOUR = ("--workers", "4")
EVERYTHING = UsageFilter(0, 2**53)


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for something to become true, and fail when it does not."""
    for _ in range(2_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(what or "it did not come about")


def workers(process: GatewayProcess) -> dict[int, int]:
    """The process of each worker, as the log has it."""
    return {int(number): int(pid) for number, pid in re.findall(r"worker (\d+) is process (\d+)", process.log)}


def births(process: GatewayProcess) -> int:
    return process.log.count(" is process ")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def parent(process: GatewayProcess) -> int:
    assert process.process is not None
    return process.process.pid


def fetch(world: World, method: str, path: str, credential: str, body: object = None) -> str:
    """What a new connection is answered, which must be 200."""
    connection = http.client.HTTPConnection("127.0.0.1", world.process.port, timeout=60)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, bearer(credential) | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text
    finally:
        connection.close()


def chat(world: World, credential: str) -> None:
    fetch(world, "POST", "/v1/chat/completions", credential, CHAT)


def healthy(world: World) -> bool:
    return bool(json.loads(fetch(world, "GET", "/health", ""))["status"] == "healthy")


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


# --- serving


def test_they_share_the_connections_and_the_log(tmp_path: Path) -> None:
    with opened(tmp_path, "", *FOUR, "--log-format", "json") as gateway, ExitStack() as clients:
        assert set(workers(gateway.process)) == {1, 2, 3, 4}
        address = ("127.0.0.1", gateway.process.port)
        pool = [clients.enter_context(socket.create_connection(address, timeout=60)) for _ in range(64)]
        for connection in pool:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for connection in pool:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert gateway.process.stop() == 0
        lines = [json.loads(line) for line in gateway.process.lines]  # none of them is torn or mixed with another
        served = Counter(line["worker"] for line in lines if line["message"] == "request")
        assert served.total() == 64
        assert set(served) == {1, 2, 3, 4}
        assert min(served.values()) >= 4, "none is starved"
        assert sum("listens on" in line["message"] for line in lines) == 1
        assert sum("There is no key yet" in line["message"] for line in lines) <= 1


def test_tls(tmp_path: Path) -> None:
    settings = f'[server]\ntls_cert = "{SERVER}"\ntls_key = "{SERVER}"\n'
    with opened(tmp_path, settings, "--workers", "2") as gateway:
        address = ("127.0.0.1", gateway.process.port)
        trusted = ssl.create_default_context(cafile=str(AUTHORITY))
        for _ in range(6):
            with socket.create_connection(address, timeout=60) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")  # no TLS: it is let go of
                assert not plain.recv(4096).startswith(b"HTTP")
            connection = http.client.HTTPSConnection(*address, context=trusted, timeout=60)
            connection.request("GET", "/health/live")
            assert connection.getresponse().status == 200
            connection.close()
        assert gateway.process.stop() == 0
        assert "Traceback" not in gateway.process.log
        assert "client=127.0.0.1" in gateway.process.log


def test_workers_that_are_stuck_keep_nobody_waiting(tmp_path: Path) -> None:
    """The one that is left has more connections than the others, and takes more all the same."""
    with opened(tmp_path, "", *FOUR) as gateway, ExitStack() as clients:
        stuck = [pid for number, pid in workers(gateway.process).items() if number != 2]
        for pid in stuck:
            os.kill(pid, signal.SIGSTOP)
        address = ("127.0.0.1", gateway.process.port)
        for _ in range(40):
            connection = clients.enter_context(socket.create_connection(address, timeout=60))
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        for pid in stuck:
            os.kill(pid, signal.SIGCONT)
        assert gateway.process.stop() == 0
        assert gateway.process.log.count("access[2]") == 40


def test_one_worker_has_no_supervisor(tmp_path: Path) -> None:
    with opened(tmp_path, "[server]\nworkers = 1\n") as gateway:
        assert not workers(gateway.process)
        stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
        assert str(parent(gateway.process)) not in {fields[1] for fields in stats}, "it has children"
        assert not (gateway.process.data_dir / "metrics").exists()


# --- dying and being replaced


def test_a_killed_worker_is_replaced_and_no_later_request_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, "", *FOUR) as gateway:
        secret = gateway.secret(rpm=0)
        victim = workers(gateway.process)[2]
        os.kill(victim, signal.SIGKILL)
        until(lambda: f"worker 2 (process {victim}) was ended by SIGKILL; another one starts" in gateway.process.log)
        for _ in range(60):
            chat(gateway, secret)
        until(lambda: births(gateway.process) == 5)
        assert workers(gateway.process)[2] != victim
        until(lambda: healthy(gateway))
        assert not list(gateway.process.data_dir.glob("journal/*.starting"))
        assert gateway.process.stop() == 0
        assert len(gateway.store.recent_usage(EVERYTHING, limit=100)) == 60


def test_a_worker_that_is_told_to_end_finishes_and_is_replaced(tmp_path: Path, provider: FakeProvider) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url), *FOUR) as gateway:
        secret = gateway.secret(rpm=0)
        provider.reply(slow_stream(2))
        running = Running(gateway, secret)
        first = workers(gateway.process)
        for pid in first.values():  # whichever of them has the stream
            os.kill(pid, signal.SIGTERM)
        assert running.rest().endswith("data: [DONE]\n\n")
        until(lambda: births(gateway.process) == 8)
        assert not set(first.values()) & set(workers(gateway.process).values())
        assert gateway.process.log.count("ended with exit code 0; another one starts") == 4
        until(lambda: healthy(gateway))
        assert gateway.process.stop() == 0


# --- ending together


def test_all_end_when_their_parent_is_killed(tmp_path: Path, provider: FakeProvider) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url), *FOUR) as gateway:
        provider.reply(slow_stream(60))
        running = Running(gateway, gateway.secret(rpm=0))
        pids = list(workers(gateway.process).values())
        os.kill(parent(gateway.process), signal.SIGKILL)
        assert '"code":"draining"' in running.rest()
        until(lambda: all(gone(pid) for pid in pids))
        assert gateway.process.wait() == -signal.SIGKILL
        with socket.create_server(("127.0.0.1", gateway.process.port)):
            pass
        [record] = gateway.store.recent_usage(EVERYTHING, limit=10)
        assert record.status == "gateway_error"
        [left] = (gateway.process.data_dir / "metrics").iterdir()
        gateway.process.start()
        assert gateway.process.stop() == 0
        assert not left.exists()
        assert list((gateway.process.data_dir / "metrics").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_is_one_to_the_parent(tmp_path: Path, provider: FakeProvider, number: int) -> None:
    with opened(tmp_path, provider_section("openai", provider.base_url), *FOUR) as gateway:
        provider.reply(slow_stream(2))
        running = Running(gateway, gateway.secret(rpm=0))
        pids = list(workers(gateway.process).values())
        os.killpg(parent(gateway.process), number)
        os.killpg(parent(gateway.process), number)
        assert running.rest().endswith("data: [DONE]\n\n")
        assert gateway.process.wait() == 0
        assert all(gone(pid) for pid in pids)
        assert "another one starts" not in gateway.process.log
        assert "Traceback" not in gateway.process.log
        with pytest.raises(httpx.ConnectError):
            httpx.get(gateway.url + "/health")
        [record] = gateway.store.recent_usage(EVERYTHING, limit=10)
        assert (record.status, record.http_status) == ("ok", 200)


@pytest.mark.parametrize("to", ["parent", "group"])
def test_a_second_signal_ends_what_runs(tmp_path: Path, provider: FakeProvider, to: str) -> None:
    send = os.kill if to == "parent" else os.killpg
    with opened(tmp_path, provider_section("openai", provider.base_url), *FOUR) as gateway:
        provider.reply(slow_stream(60))
        running = Running(gateway, gateway.secret(rpm=0))
        send(parent(gateway.process), signal.SIGINT)
        send(parent(gateway.process), signal.SIGINT)  # the same one, delivered twice
        time.sleep(1.2)
        assert gateway.process.process is not None
        assert gateway.process.process.poll() is None
        send(parent(gateway.process), signal.SIGINT)
        assert gateway.process.wait() == 0
        assert '"code":"draining"' in running.rest()
        assert len(gateway.store.recent_usage(EVERYTHING, limit=10)) == 1


def test_an_idle_crew_ends_at_once(tmp_path: Path) -> None:
    with opened(tmp_path, "", *FOUR) as gateway:
        assert gateway.client.get("/health").status_code == 200  # this connection stays open
        pids = list(workers(gateway.process).values())
        assert gateway.process.stop() == 0
        assert all(gone(pid) for pid in pids)


# --- starting


def test_what_keeps_workers_from_starting_is_told_once(tmp_path: Path) -> None:
    database = tmp_path / "data" / "inferxgate.db"
    database.parent.mkdir()
    database.write_bytes(b"this is no database at all" * 100)
    done = start(tmp_path, "--port", "0", *FOUR)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if " is process " not in line] == [
        line for line in done.stderr.splitlines() if "is damaged or no database at all" in line
    ]
    assert done.stderr.count("no database at all") == 1
    assert list((tmp_path / "data" / "metrics").iterdir()) == []


def test_a_port_in_use_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = start(tmp_path, "--port", str(taken.getsockname()[1]), *FOUR)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "is in use already" in done.stderr
    assert not (tmp_path / "data").exists()


# --- metrics


def metric(world: World, credential: str, pattern: str) -> float:
    """The value of one series, asked for over a new connection; 0 where there is none."""
    found = re.findall(rf"^{pattern} (\S+)$", fetch(world, "GET", "/metrics", credential), re.MULTILINE)
    return float(found[0]) if found else 0.0


def everywhere(world: World, credential: str, pattern: str) -> set[float]:
    """What the workers say, each of which may not have heard of another one's last second."""
    return {metric(world, credential, pattern) for _ in range(12)}


COMPLETIONS = r'llm_gateway_requests_total\{model="echo",provider="echo",status="ok"\}'


def test_metrics_are_those_of_all_workers_whichever_is_asked(tmp_path: Path) -> None:
    with opened(tmp_path, "", *FOUR) as gateway:
        secret, admin = gateway.secret(rpm=0), gateway.person("admin").token

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert len(list(threads.map(lambda _: chat(gateway, secret), range(80)))) == 80
        until(lambda: everywhere(gateway, admin, COMPLETIONS) == {80})
        for victim in workers(gateway.process).values():
            os.kill(victim, signal.SIGKILL)
        until(lambda: births(gateway.process) == 8)
        chat(gateway, secret)
        until(lambda: everywhere(gateway, admin, COMPLETIONS) == {81})
        [folder] = (gateway.process.data_dir / "metrics").iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(list(folder.iterdir())) == 16, "a replacement takes over its predecessor's files"
        assert gateway.process.stop() == 0
        assert not folder.exists()


def test_what_dead_workers_had_under_way_is_forgotten(tmp_path: Path, provider: FakeProvider) -> None:
    active = r'llm_gateway_active_requests\{provider="openai"\}'
    with opened(tmp_path, provider_section("openai", provider.base_url), "--workers", "2") as gateway:
        secret, admin = gateway.secret(rpm=0), gateway.person("admin").token
        streams = []
        for _ in range(2):
            provider.reply(slow_stream(60))
            streams.append(Running(gateway, secret))
        until(lambda: everywhere(gateway, admin, active) == {2})
        for victim in workers(gateway.process).values():
            os.kill(victim, signal.SIGKILL)
        until(lambda: births(gateway.process) == 4)
        until(lambda: healthy(gateway))
        until(lambda: everywhere(gateway, admin, active) == {0})
        assert gateway.process.stop() == 0
