"""Whether memory stays flat under load: ``python -m tests.bench.soak --minutes 60 --rate 50 --workers 2``.

Starts a provider in a process of its own, a gateway before it, and asks at a constant rate what clients ask: whole and
streamed, of a provider of the same API and of one that is translated to, with bodies of many sizes, by many keys with
limits and budgets, for end users that are named once each; with wrong keys, models that do not exist, used up limits
and budgets, failing providers, and clients that leave in the middle of an answer. A line a minute tells of every
process; at the end, what each of them held after warming up and at the last, and the slope between the two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from inferxgate.accounts import keys
from inferxgate.catalog.pricing import NANOS_PER_DOLLAR
from inferxgate.store.sqlite import SQLiteStore
from tests.support import census
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider, Reply, SeenRequest, error_body, json_reply, sse_reply

KEYS = 200
WARM_UP_SHARE = 1 / 3
"""Of the time: until then pools fill up, and made-up models take all the series that the metrics have for them."""
CENSUS_EVERY_MINUTES = 5
MIB = 1024 * 1024


# --- the provider


class LeanProvider(FakeProvider):
    """Remembers nothing, fails now and then, and speaks Anthropic's API as well."""

    def answer(self, request: SeenRequest) -> Reply:
        self.requests.clear()
        self.ended_early.clear()
        if random.random() < 0.02:
            return json_reply(error_body("Overloaded.", kind="server_error"), status=random.choice([429, 500, 503]))
        if request.path.endswith("/messages"):
            return anthropic_answer(json.loads(request.body), delay_seconds=0.02)
        asked = json.loads(request.body)
        if asked.get("stream"):
            return sse_reply([*self.stream_chunks(asked), "[DONE]"], delay_seconds=0.02)
        return super().answer(request)


def anthropic_answer(asked: dict[str, Any], *, delay_seconds: float = 0.0) -> Reply:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 21, "output_tokens": 1},
    }
    words = ["Hello ", "from ", "the ", "provider."]
    if not asked.get("stream"):
        said = {"content": [{"type": "text", "text": "".join(words)}], "stop_reason": "end_turn"}
        return json_reply(message | said | {"usage": {"input_tokens": 21, "output_tokens": 9}})
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    return sse_reply(lines, delay_seconds=delay_seconds)


def provide(tell: Connection) -> None:
    """The provider's process: it ends with its parent."""
    with LeanProvider(idle_seconds=20) as provider:
        tell.send(provider.url)
        with contextlib.suppress(EOFError):
            tell.recv()


def config(url: str) -> str:
    anthropic = f'[providers.anthropic]\nbase_url = "{url}"\napi_key = "sk-1"\n'
    prices = "".join(f'[pricing."{name}/*"]\ninput = 1\noutput = 5\n' for name in ("openai", "anthropic"))
    return "[server]\npublic_metrics = true\n" + provider_section("openai", f"{url}/v1") + anthropic + prices


# --- the clients


@dataclass
class Clients:
    """Asks at a constant rate, whatever the answers take."""

    url: str
    keys: Sequence[str]
    limited: str
    spent: str
    http: httpx.AsyncClient
    answers: Counter[str] = field(default_factory=Counter)
    running: set[asyncio.Task[None]] = field(default_factory=set)

    async def ask_for(self, seconds: float, rate: float) -> None:
        kinds = list(self._mix())
        begin = time.monotonic()
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            [(name, ask, _)] = random.choices(kinds, [weight for *_, weight in kinds])
            task = asyncio.create_task(self._counted(name, ask))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
        await asyncio.gather(*self.running)

    def _mix(self) -> Sequence[tuple[str, Callable[[], Awaitable[object]], int]]:
        return (
            ("whole", lambda: self._chat("openai/gpt-4o-mini"), 25),
            ("streamed", lambda: self._stream("openai/gpt-4o-mini"), 20),
            ("translated", lambda: self._chat("anthropic/claude-sonnet-4-5"), 12),
            ("translated stream", lambda: self._stream("anthropic/claude-sonnet-4-5"), 12),
            ("leaves", self._leave, 8),
            ("over its limit", lambda: self._chat("echo", self.limited), 6),
            ("over its budget", lambda: self._chat("openai/gpt-4o", self.spent), 4),
            ("unknown model", lambda: self._chat(f"model-{random.getrandbits(64):x}"), 4),
            ("unknown model of a provider", lambda: self._chat(f"openai/model-{random.getrandbits(64):x}"), 2),
            ("unknown key", lambda: self._chat("echo", keys.new_secret()), 3),
            ("unknown path", lambda: self.http.get(f"{self.url}/v1/{random.getrandbits(64):x}"), 1),
            ("health", lambda: self.http.get(f"{self.url}/health"), 2),
            ("metrics", lambda: self.http.get(f"{self.url}/metrics", headers=self._authorization()), 1),
        )

    async def _counted(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            answer = await ask()
            status = answer.status_code if isinstance(answer, httpx.Response) else "-"
        except (OSError, httpx.HTTPError, EOFError) as error:
            status = type(error).__name__
        self.answers[f"{name} {status}"] += 1

    def _body(self, model: str, *, stream: bool = False) -> dict[str, object]:
        text = "Hello there. " * random.choice([1, 5, 50, 50, 500, 5_000])
        user = f"user-{random.getrandbits(64):x}"
        messages = [{"role": "user", "content": text}]
        return {"model": model, "messages": messages, "max_tokens": 50, "stream": stream, "user": user}

    async def _chat(self, model: str, secret: str | None = None) -> httpx.Response:
        return await self.http.post(
            f"{self.url}/v1/chat/completions", json=self._body(model), headers=self._authorization(secret)
        )

    async def _stream(self, model: str) -> httpx.Response:
        async with self.http.stream(
            "POST",
            f"{self.url}/v1/chat/completions",
            json=self._body(model, stream=True),
            headers=self._authorization(),
        ) as answer:
            async for _ in answer.aiter_raw():
                pass
            return answer

    async def _leave(self) -> None:
        """Go away before the answer, or in the middle of it."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(self._body("openai/gpt-4o-mini", stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self._authorization().items())
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        await writer.drain()
        if random.random() < 0.7:
            await reader.read(random.choice([1, 500, 1_500]))
        if random.random() < 0.5:
            writer.transport.abort()
        writer.close()

    def _authorization(self, secret: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {secret or random.choice(self.keys)}"}


def make_clients(gateway: GatewayProcess, http: httpx.AsyncClient) -> Clients:
    """With keys of every sort; most have every limit there is, and stay below it."""
    store = SQLiteStore.open(gateway.data_dir / "inferxgate.db")

    def key(**limits: Any) -> str:
        given = {"rate_limit_rpm": 100_000, "rate_limit_tpm": 100_000_000, "max_parallel_requests": 1_000, **limits}
        _, secret = keys.create_key(
            store, name=None, user_id=None, allowed_models=None, expires_at_ms=None, keys_per_user=None, **given
        )
        return secret

    try:
        many = [key(max_budget_nanos=100_000 * NANOS_PER_DOLLAR, budget_period="day") for _ in range(KEYS)]
        return Clients(gateway.url, many, key(rate_limit_rpm=2), key(max_budget_nanos=1), http)
    finally:
        store.close()


# --- the figures


def memory_of(pid: int) -> dict[str, float]:
    """MiB: what is resident, and its share where pages are shared with other processes."""
    found = {}
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kib = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
        found = {name.lower(): int(kib[name]) / 1024 for name in ("Rss", "Pss", "Private_Dirty")}
        found["fds"] = float(len(list(Path(f"/proc/{pid}/fd").iterdir())))
    return found


def files_of(data: Path) -> dict[str, float]:
    """MiB that the files take on the disk, and how many records have arrived."""
    groups = {"journal": "journal/*", "shared": "workers/*", "store": "inferxgate.db*", "metrics": "metrics/**/*"}
    sizes = {name: sum(_taken(path) for path in data.glob(pattern)) / MIB for name, pattern in groups.items()}
    with contextlib.closing(sqlite3.connect(f"file:{data / 'inferxgate.db'}?mode=ro", uri=True)) as store:
        return sizes | {"records": float(store.execute("SELECT count(*) FROM usage").fetchone()[0])}


def _taken(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_blocks * 512
    return 0.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits best, a unit of the first number."""
    middle = sum(x for x, _ in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * y for x, y in points) / spread if spread else 0.0


class Figures:
    """All that was measured, by process and then by what it is."""

    def __init__(self, gateway: GatewayProcess, counts: Path) -> None:
        self._gateway = gateway
        self._counts = counts
        self._begin = time.monotonic()
        self._points: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._first_kinds: dict[str, census.Census] = {}
        assert gateway.process is not None
        self._processes = {"parent": gateway.process.pid} if "is process" in gateway.log else {}
        found = re.findall(r"worker (\d+) is process (\d+)", gateway.log) or [("1", str(gateway.process.pid))]
        self._processes |= {f"worker {number}": int(pid) for number, pid in found}

    def sample(self, *, counting: bool) -> None:
        """Measure everything once, and print it on one line."""
        minutes = (time.monotonic() - self._begin) / 60
        line = [f"{minutes:5.1f} min"]
        for name, pid in self._processes.items():
            figures = memory_of(pid)
            if counting:
                # The least of a few: an answer of /metrics that is being made is tens of thousands of objects.
                counted = min((census.take(self._counts, pid) for _ in range(4)), key=lambda each: each.blocks)
                figures |= {"objects": counted.objects, "entries": counted.entries, "blocks": counted.blocks}
                self._tell_grown(name, counted)
            line.append(self._keep(name, minutes, figures))
        line.append(self._keep("files", minutes, files_of(self._gateway.data_dir)))
        print(" | ".join(line), flush=True)

    def _keep(self, name: str, minutes: float, figures: dict[str, float]) -> str:
        for what, value in figures.items():
            self._points.setdefault((name, what), []).append((minutes, value))
        return f"{name}: " + " ".join(
            f"{what} {value:.10g}" for what, value in ((k, round(v, 1)) for k, v in figures.items())
        )

    def _tell_grown(self, name: str, counted: census.Census) -> None:
        first = self._first_kinds.setdefault(name, counted)
        if more := counted.grown(first, at_least=200):
            print(f"  {name} has more of", ", ".join(f"{kind} +{count}" for kind, count in list(more.items())[:8]))

    def summary(self, minutes: float) -> None:
        print(f"\n{'':28}{'warmed up':>12}{'last':>12}{'an hour':>12}   after {minutes * WARM_UP_SHARE:.0f} minutes")
        for (name, what), points in self._points.items():
            warm = [point for point in points if point[0] >= minutes * WARM_UP_SHARE] or points
            print(f"{name:12}{what:16}{warm[0][1]:12.1f}{warm[-1][1]:12.1f}{60 * slope(warm):+12.2f}")


async def soak(url: str, folder: Path, minutes: float, rate: float, workers: int) -> None:
    counts = folder / "census"
    arguments = ("--workers", str(workers))
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=20, keepalive_expiry=30)
    with GatewayProcess(
        folder, config=config(url), arguments=arguments, environment=census.environment(counts)
    ) as gateway:
        async with httpx.AsyncClient(limits=limits, timeout=60) as http:
            clients = make_clients(gateway, http)
            await asyncio.sleep(2)
            figures = Figures(gateway, counts)
            asking = asyncio.create_task(clients.ask_for(minutes * 60, rate))
            for minute in range(max(2, int(minutes))):
                await asyncio.wait({asking}, timeout=60)
                counting = minute % CENSUS_EVERY_MINUTES == 0 or minute >= int(minutes) - 1
                await asyncio.to_thread(figures.sample, counting=counting)
            await asking
        figures.summary(minutes)
        print("answers:", ", ".join(f"{name}: {count}" for name, count in sorted(clients.answers.items())))
        _tell_log(gateway, folder)
        print("exit code", gateway.stop())


def _tell_log(gateway: GatewayProcess, folder: Path) -> None:
    (folder / "log.txt").write_text(gateway.log)
    strange = [line for line in gateway.lines if re.search(r"ERROR|Traceback|another one starts", line)]
    print(f"lines of the log: {len(gateway.lines)}, of them about faults: {len(strange)}", *strange[:10])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    provider = multiprocessing.get_context("spawn").Process(target=provide, args=(theirs,), daemon=True)
    provider.start()
    theirs.close()
    print(
        f"{asked.minutes:g} minutes, {asked.rate:g} requests a second, {asked.workers} workers, {os.cpu_count()} CPUs"
    )
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        asyncio.run(soak(ours.recv(), Path(folder), asked.minutes, asked.rate, asked.workers))
    ours.close()
    provider.join(10)


if __name__ == "__main__":
    main()
