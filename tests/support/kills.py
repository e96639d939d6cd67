"""A gateway under load whose processes are killed at random moments, and the comparison of what is left behind.

Clients of other processes ask at a constant rate (``tests.support.hammer``). In each round some workers are killed with
SIGKILL, one by one, then the whole group at once; it is started again, sometimes only to be killed as it starts,
sometimes with another command beside it that imports what the killed ones left. In the end the load stops, and the
books are compared with what the clients received and what the provider saw.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from inferxgate.store.periods import period_start_ms
from inferxgate.store.records import BudgetPeriod, UsageRecord
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.limits import ScopeKind
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_limits import SharedLimits
from tests.support.clients import until
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider, Reply, SeenRequest, Wait
from tests.support.stores import EVER

MODEL = "openai/gpt-4o-mini"
ROOT = Path(__file__).resolve().parents[2]
EMAIL = "load@example.com"
_WORKERS = 4
_CLIENTS = 2
_PRICES = f'[pricing."{MODEL}"]\ninput = 1.0\ncache_read = 0.1\noutput = 2.0\n'
_LIMITS = ("--tpm", "1000000000", "--parallel", "100000", "--budget", "100000", "--budget-period", "day")
_END_SECONDS = 60.0


@dataclass
class Outcome:
    """What came of a run, and what does not agree."""

    rounds: int
    requests: int = 0
    seconds: float = 0.0
    down_seconds: float = 0.0
    """Of these, from the kills of the group until all workers served again."""
    answers: int = 0
    completed: int = 0
    """Answers that clients received whole."""
    worker_kills: int = 0
    group_kills: int = 0
    lost: int = 0
    """Requests whose worker was killed, recorded with what was known of them."""
    missing: list[str] = field(default_factory=list)
    """Requests whose answers were received whole and that have no record which says so."""
    unaccounted: list[str] = field(default_factory=list)
    """Requests that the provider saw and that have no record at all."""
    duplicates: list[str] = field(default_factory=list)
    reservations: int = 0
    """Scopes that still have requests under way, and workers that still have claims."""
    spend: list[str] = field(default_factory=list)
    """Where the money counted for the limits is not that of the store."""
    verification: str = ""
    """What ``stats verify`` found wrong."""

    @property
    def rate(self) -> float:
        """Requests a second, whether anybody listened or not."""
        return self.requests / self.seconds

    @property
    def answer_rate(self) -> float:
        """Answers a second while there was somebody to give them."""
        return self.answers / (self.seconds - self.down_seconds)


class Load:
    """The clients, and what they have told so far."""

    def __init__(self, gateway: GatewayProcess, secrets: list[str], rate: float) -> None:
        self.outcomes: dict[str, str] = {}
        self._whole = [0] * _CLIENTS
        self._rate = rate
        self._begin = time.monotonic()
        self._processes: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        for number in range(_CLIENTS):
            command = [sys.executable, "-m", "tests.support.hammer", f"client{number}", str(gateway.port)]
            process = subprocess.Popen(
                [*command, str(rate / _CLIENTS), MODEL, *secrets],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            reader = threading.Thread(target=self._read, args=(number, process), daemon=True)
            reader.start()
            self._processes.append(process)
            self._readers.append(reader)

    def _read(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            request_id, outcome = line.split()
            self.outcomes[request_id] = outcome
            self._whole[number] += outcome == "whole"

    def go_on(self, seconds: float) -> None:
        """Let as many whole answers come as are due in this time, however long a busy machine takes for it."""
        due = sum(self._whole) + math.ceil(seconds * self._rate)
        until(lambda: sum(self._whole) >= due, "no answers come")

    def end(self) -> float:
        """Stop asking and wait for what is under way; for how many seconds there was load."""
        seconds = time.monotonic() - self._begin
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process, reader in zip(self._processes, self._readers, strict=True):
            assert process.wait(_END_SECONDS) == 0
            reader.join(_END_SECONDS)
        return seconds

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def slow_answers(provider: FakeProvider, chance: random.Random) -> Callable[[SeenRequest], Reply]:
    """What a provider says, in up to a quarter of a second: some requests are under way at every moment."""

    def answer(request: SeenRequest) -> Reply:
        steps = provider.answer(request).steps
        pause = Wait(chance.uniform(0.0, 0.25) / max(1, len(steps) - 1))
        slow = [steps[0]]
        for step in steps[1:]:
            slow += [pause, step]
        return Reply(tuple(slow))

    return answer


def run(
    folder: Path,
    *,
    rounds: int,
    rate: float,
    pause_seconds: float,
    seed: int = 1,
    say: Callable[[str], object] = lambda _line: None,
) -> Outcome:
    """Do so many rounds at so many requests a second, with up to ``pause_seconds`` from one kill to the next.

    ``say`` is told of each round.
    """
    chance = random.Random(seed)
    outcome = Outcome(rounds)
    with FakeProvider() as provider, ExitStack() as stack:
        provider.text, provider.handler = "Hello to you.", slow_answers(provider, random.Random(seed))
        config = provider_section("openai", provider.base_url) + _PRICES + "[server]\nshutdown_seconds = 10\n"
        gateway = GatewayProcess(folder, config=config, arguments=["--workers", str(_WORKERS)])
        gateway.run("users", "create", EMAIL, "--password-stdin", stdin="correct horse battery\n")
        gateway.run("users", "update", EMAIL, "--budget", "1000000")
        secrets = [gateway.create_key("--rpm", "0", *more) for more in ((), _LIMITS, ("--user", EMAIL, *_LIMITS))]
        stack.callback(gateway.kill)
        gateway.start()
        load = Load(gateway, secrets, rate)
        stack.callback(load.kill)
        for number in range(1, rounds + 1):
            _kill_workers(gateway, load, chance, pause_seconds, outcome)
            begin = time.monotonic()
            _kill_all(gateway, chance, outcome)
            outcome.down_seconds += time.monotonic() - begin
            say(_progress(number, load))
        _kill_workers(gateway, load, chance, pause_seconds, outcome)
        outcome.seconds = load.end()
        _wait_for_recovery(gateway)
        assert gateway.stop() == 0, gateway.log[-4000:]
        _compare_spend(folder, outcome)  # as it was counted; a start would take it from the store
        gateway.start()
        assert gateway.stop() == 0, gateway.log[-4000:]
        _compare(folder, load, provider, outcome)
        _compare_spend(folder, outcome)
        verified = gateway.run("stats", "verify", check=False)
        outcome.verification = verified.stdout + verified.stderr if verified.returncode else ""
    return outcome


def _progress(number: int, load: Load) -> str:
    found = Counter(list(load.outcomes.values()))
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(found.items()))
    return f"round {number}: {found.total():,} requests so far, {told}"


# --- killing


def _kill_workers(
    gateway: GatewayProcess, load: Load, chance: random.Random, pause_seconds: float, outcome: Outcome
) -> None:
    for _ in range(chance.randint(1, 3)):
        load.go_on(chance.uniform(0.0, pause_seconds))
        pid = chance.choice(_living_workers(gateway))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            outcome.worker_kills += 1
    load.go_on(chance.uniform(0.0, pause_seconds))


def _living_workers(gateway: GatewayProcess) -> list[int]:
    """The last known process of each worker, as far as it still belongs to the gateway's group."""
    last = {number: int(pid) for number, pid in re.findall(r"worker (\d+) is process (\d+)", gateway.log)}
    assert gateway.process is not None
    return [pid for pid in last.values() if _group_of(pid) == gateway.process.pid]


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _kill_all(gateway: GatewayProcess, chance: random.Random, outcome: Outcome) -> None:
    """Kill the whole group and start anew.

    In one of three times kill it as it starts, or soon after, too; in another one, let ``stats`` import the journals
    while it starts.
    """
    gateway.kill()
    outcome.group_kills += 1
    case = chance.randrange(3)
    if case == 0:
        timer = threading.Timer(chance.uniform(0.5, 2.5), gateway.kill)
        timer.start()
        gateway.start()
        timer.join()
        outcome.group_kills += 1
    with ThreadPoolExecutor(1) as threads:
        importing = threads.submit(gateway.run, "stats", "--json") if case == 1 else None
        gateway.start()
        if importing is not None:
            importing.result()
    assert gateway.process is not None
    assert gateway.process.poll() is None, gateway.log[-4000:]


# --- comparing


@contextmanager
def books(folder: Path) -> Iterator[tuple[SQLiteStore, SharedLimits]]:
    """The store and the workers' shared memory of a gateway, as another process sees them."""
    store = SQLiteStore.open(folder / "data" / "inferxgate.db")
    shared = SharedMemory.open(folder / "data" / "workers")
    try:
        yield store, SharedLimits(shared, "nobody")
    finally:
        shared.close()
        store.close()


def _wait_for_recovery(gateway: GatewayProcess) -> None:
    """Until the living have settled for the dead, which they do every few seconds."""
    with books(gateway.folder) as (_, limits):
        until(lambda: not limits.reserved() and not limits.owners(), "claims of dead workers stand")


def _compare(folder: Path, load: Load, provider: FakeProvider, outcome: Outcome) -> None:
    with books(folder) as (store, limits):
        records = store.recent_usage(EVER, limit=10_000_000)
        outcome.reservations = len(limits.reserved()) + len(limits.owners())
    recorded = Counter(record.request_id for record in records)
    ended_well = {record.request_id for record in records if _is_right(record)}
    whole = [request_id for request_id, what in load.outcomes.items() if what == "whole"]
    seen = {json.loads(request.body)["messages"][0]["content"] for request in provider.requests}
    outcome.requests, outcome.completed = len(load.outcomes), len(whole)
    outcome.answers = sum(what not in {"refused", "broken"} for what in load.outcomes.values())
    outcome.lost = sum(record.error_code == "worker_lost" for record in records)
    outcome.missing = sorted(set(whole) - ended_well)
    outcome.unaccounted = sorted(seen - recorded.keys())
    outcome.duplicates = sorted(request_id for request_id, count in recorded.items() if count > 1)


def _is_right(record: UsageRecord) -> bool:
    """Whether a record says what the fake provider counts."""
    return record.status == "ok" and (record.usage.prompt_tokens, record.cost_nanos) == (21, 35_400)


def _compare_spend(folder: Path, outcome: Outcome) -> None:
    now_ms = time.time_ns() // 1_000_000
    with books(folder) as (store, limits):
        sums: Counter[tuple[ScopeKind, str]] = Counter()
        for record in store.recent_usage(EVER, limit=10_000_000):
            sums["key", record.key_id or ""] += record.cost_nanos or 0
            sums["user", record.user_id or ""] += record.cost_nanos or 0
        del sums["user", ""]
        for (kind, scope_id), nanos in sums.items():
            spent = limits.spent(kind, scope_id, now_ms)
            if spent["total"] != nanos:
                outcome.spend.append(f"{kind} {scope_id}: {spent['total']} counted, {nanos} in the records")
            for period in get_args(BudgetPeriod):
                stored = store.spend_since(kind, period_start_ms(period, now_ms)).get(scope_id, 0)
                if spent[period] != stored:
                    outcome.spend.append(f"{kind} {scope_id}, {period}: {spent[period]} counted, {stored} stored")
