"""The store, the journal or the workers' memory fails under a gateway that works: what goes on, and what is lost."""

from __future__ import annotations

import re
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from inferxgate.accounts.keys import new_secret
from inferxgate.store.records import UsageFilter
from tests.server.conftest import CHAT, World, bearer, opened
from tests.support.disks import MIB, fill, mounted

PUBLIC = "[server]\npublic_metrics = true\n"
EVERYTHING = UsageFilter(0, 2**53)

HOLDS_THE_LOCK = """
import sqlite3, sys, time
path, seconds, pause = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
store = sqlite3.connect(path, isolation_level=None, timeout=60)
while True:
    store.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    time.sleep(seconds)
    store.execute("ROLLBACK")
    time.sleep(pause)
"""


def until(condition: Callable[[], object], what: str = "") -> None:
    for _ in range(3_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(what or "it never came to pass")


class Load:
    """Clients that ask on and on, and what they were answered."""

    def __init__(self, world: World, secret: str, *, clients: int = 2) -> None:
        self.statuses: Counter[int] = Counter()
        self.answered: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(world.url, secret)) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.answered) + count
        until(lambda: len(self.answered) >= wanted, f"only {self.statuses} were answered")

    def _ask(self, url: str, secret: str) -> None:
        with httpx.Client(base_url=url, timeout=60, headers=bearer(secret)) as client:
            while not self._stop.is_set():
                answer = client.post("/v1/chat/completions", json=CHAT)
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.answered.append(answer.headers["X-Request-ID"])
                time.sleep(0.005)


def ask(world: World, secret: str, **more: Any) -> httpx.Response:
    return world.client.post("/v1/chat/completions", json=CHAT | more, headers=bearer(secret))


def health(world: World) -> tuple[int, str, str]:
    answer = world.client.get("/health")
    content = answer.json()
    return answer.status_code, content["status"], content.get("reason", "")


def metric(world: World, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", world.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def recorded(world: World) -> list[str]:
    return sorted(record.request_id for record in world.store.recent_usage(EVERYTHING, limit=100_000))


@contextmanager
def locking(path: Path, *, seconds: float = 3_600, pause: float = 0.0) -> Iterator[None]:
    """Another process holds the store's write lock: ``seconds`` at a time, with pauses."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(path), str(seconds), str(pause)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.kill()
        process.communicate()


def test_a_locked_store_costs_no_request_and_no_record(tmp_path: Path) -> None:
    with opened(tmp_path, PUBLIC, "--workers", "2") as gateway:
        secret, fresh = gateway.secret(rpm=0), gateway.secret(rpm=0)
        assert ask(gateway, secret).status_code == 200
        with Load(gateway, secret) as load:
            with locking(gateway.process.data_dir / "inferxgate.db"):
                until(lambda: health(gateway)[1] == "degraded")
                assert health(gateway)[0] == 200
                assert "locked by another process" in health(gateway)[2]
                assert metric(gateway, 'llm_gateway_store_errors_total{cause="locked",part="store"}') >= 1
                until(lambda: metric(gateway, 'llm_gateway_degraded{part="store"}') == 2)
                assert metric(gateway, 'llm_gateway_degraded{part="journal"}') == 0
                assert ask(gateway, fresh).status_code == 200, "it can still be read"
                assert ask(gateway, new_secret()).status_code == 401
                load.wait_for_more(50)
                assert len(recorded(gateway)) < len(load.answered)
            load.wait_for_more(10)
        assert set(load.statuses) == {200}
        until(lambda: metric(gateway, 'llm_gateway_degraded{part="store"}') == 0)
        until(lambda: health(gateway)[1] == "healthy")
        assert gateway.process.stop() == 0
        ours = set(load.answered)
        assert len(ours) == len(load.answered)
        found = Counter(recorded(gateway))
        assert {request: found[request] for request in ours} == dict.fromkeys(ours, 1)
        assert found.total() == len(ours) + 2


def test_a_store_that_is_slow_costs_no_request_and_no_record(tmp_path: Path) -> None:
    """Somebody else writes most of the time, so that every batch waits."""
    with opened(tmp_path, PUBLIC) as gateway:
        secret = gateway.secret(rpm=0)
        with (
            locking(gateway.process.data_dir / "inferxgate.db", seconds=0.4, pause=0.01),
            Load(gateway, secret) as load,
        ):
            load.wait_for_more(300)
        assert set(load.statuses) == {200}
        until(lambda: health(gateway)[1] == "healthy")
        assert gateway.process.stop() == 0
        assert recorded(gateway) == sorted(load.answered)


def test_a_full_disk_costs_no_request_until_the_journals_space_is_used(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", mib=64) as disk, opened(disk, PUBLIC) as gateway:
        secret, fresh = gateway.secret(rpm=0), gateway.secret(rpm=0)
        assert ask(gateway, secret).status_code == 200
        ballast = fill(disk)
        with Load(gateway, secret) as load:
            until(lambda: health(gateway)[1] == "degraded")
            assert "disk is full" in health(gateway)[2]
            assert metric(gateway, 'llm_gateway_store_errors_total{cause="full",part="store"}') >= 1
            assert ask(gateway, fresh).status_code == 200
            load.wait_for_more(100)
            ballast.unlink()
            until(lambda: health(gateway)[1] == "healthy")
            load.wait_for_more(10)
        assert set(load.statuses) == {200}
        assert gateway.process.stop() == 0
        assert Counter(recorded(gateway)).most_common(1)[0][1] == 1
        assert set(load.answered) <= set(recorded(gateway))
        assert len(recorded(gateway)) == len(load.answered) + 2


def test_a_journal_without_space_admits_nobody_and_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", mib=64) as disk:
        with opened(disk, PUBLIC) as gateway:
            assert gateway.process.stop() == 0
        first = fill(disk, leave_bytes=3 * MIB)
        with opened(disk, PUBLIC) as gateway:
            secret = gateway.secret(rpm=0)
            assert ask(gateway, secret).status_code == 200
            ballast = fill(disk)
            with Load(gateway, secret, clients=6) as load:
                until(lambda: load.statuses[503], f"{load.statuses}")
            assert set(load.statuses) == {200, 503}
            answer = ask(gateway, secret)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert health(gateway) == (503, "unhealthy", "Requests cannot be recorded: the disk is full.")
            assert metric(gateway, 'llm_gateway_degraded{part="journal"}') == 1
            assert metric(gateway, 'llm_gateway_store_errors_total{cause="full",part="journal"}') >= 1
            gateway.process.kill()  # and what was answered is in the journal, not in memory
            ballast.unlink()
            first.unlink()
            gateway.process.start()
            until(lambda: health(gateway)[1] == "healthy")
            assert ask(gateway, secret).status_code == 200
            assert gateway.process.stop() == 0
            found = Counter(recorded(gateway))
            assert max(found.values()) == 1
            assert set(load.answered) <= set(found)
            assert found.total() == len(load.answered) + 2


def test_limits_that_cannot_be_kept_admit_nobody(tmp_path: Path) -> None:
    """The workers' memory cannot be written: nothing is counted, so nothing is served, until it can be again."""
    with opened(tmp_path, PUBLIC) as gateway:
        secret = gateway.secret(rpm=1_000)
        assert ask(gateway, secret).status_code == 200
        assert gateway.process.process is not None
        pid = gateway.process.process.pid
        limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # Its pages lie beyond this size and the journal's first lines do not: as if its disk alone were full.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (8_192, limit[1]))
        answer = ask(gateway, secret)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert health(gateway)[:2] == (503, "unhealthy")
        assert health(gateway)[2].startswith("Requests cannot be counted: ")
        assert metric(gateway, 'llm_gateway_degraded{part="limits"}') == 1
        assert metric(gateway, 'llm_gateway_degraded{part="journal"}') == 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
        until(lambda: health(gateway)[1] == "healthy", "it heals by itself")
        assert ask(gateway, secret).status_code == 200
        assert gateway.process.stop() == 0
        assert len(recorded(gateway)) == 2


def test_limits_heal_while_the_store_is_locked(tmp_path: Path) -> None:
    with opened(tmp_path, PUBLIC) as gateway:
        secret = gateway.secret(rpm=1_000)
        assert ask(gateway, secret).status_code == 200
        assert gateway.process.process is not None
        pid = gateway.process.process.pid
        with locking(gateway.process.data_dir / "inferxgate.db"):
            assert ask(gateway, secret).status_code == 200
            until(lambda: health(gateway)[1] == "degraded")
            limit = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (8_192, limit[1]))
            assert ask(gateway, secret).status_code == 503
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
            until(lambda: health(gateway)[1] == "degraded")
        until(lambda: health(gateway)[1] == "healthy")
        assert gateway.process.stop() == 0
        assert len(recorded(gateway)) == 2


@pytest.mark.parametrize("locked", [True, False])
def test_what_the_store_did_or_did_not_take_is_there_once_after_a_kill(tmp_path: Path, locked: bool) -> None:
    """The same lines may be carried twice: lines that the store has taken stay in the journal for a while."""
    with opened(tmp_path, PUBLIC) as gateway:
        secret = gateway.secret(rpm=0)
        with sqlite3.connect(gateway.process.data_dir / "inferxgate.db", isolation_level=None) as other:
            if locked:
                other.execute("BEGIN IMMEDIATE")
            answered = [ask(gateway, secret).headers["X-Request-ID"] for _ in range(20)]
            if not locked:
                until(lambda: len(recorded(gateway)) == 20)
            gateway.process.kill()
            if locked:
                other.execute("ROLLBACK")
        other.close()
        gateway.process.start()
        assert gateway.process.stop() == 0
        assert recorded(gateway) == sorted(answered)
        assert gateway.process.run("stats", "verify").returncode == 0
