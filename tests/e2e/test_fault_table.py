"""Each fault of ``faults.ROWS`` in each mode, through a running gateway with one worker and with four.

All that is known of a case is compared at once, and what is not as it should be is listed for all cases together: the
client's view, how often each provider was asked, the one record, and what is thought of the provider afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from inferxgate.workers.health import CircuitKey, CircuitState
from tests.e2e.faults import (
    LONG_SECONDS,
    MAX_WAIT_SECONDS,
    ONCE_TOLD,
    RETRIES,
    ROWS,
    Cut,
    Expected,
    Failed,
    Fine,
    Row,
    answer,
    sse,
    status,
)
from tests.e2e.hostile import DONE, O_COUNTS, chunk, completion
from tests.support.clients import until
from tests.support.faults import credential, deaf_port
from tests.support.ledger import Record, circuits, records_by_request, reserved, under_way
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider, Reply, SeenRequest, Until

Mode = Literal["alone", "once", "fallback", "named"]
"""Its provider alone; alone, with the fault in its first answer only; with a healthy target behind it; the same, in an
alias that names the reason for which to go on."""

AT_ONCE = 60
HANG_SECONDS = 45
"""More than the slowest case takes on a busy machine."""
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "azure": "my-gpt"}
GOOD_TEXT = "Good day"
WINDOW_SECONDS = 600
"""All that happens to a provider within the test is in it."""
ROUTING = f"""
[server]
public_metrics = true
[routing]
retries = {RETRIES}
max_wait_seconds = {MAX_WAIT_SECONDS}
min_failures = 1000
window_seconds = {WINDOW_SECONDS}
[pricing."*"]
input = 1
output = 2
"""


@dataclass
class Case:
    """One row in one mode."""

    number: int
    row: Row
    mode: Mode
    url: str = ""
    """Of the provider that has the fault."""
    asked: int = 0
    """How often it was."""
    by_connection: Counter[tuple[int, int]] = field(default_factory=Counter)
    told: threading.Event = field(default_factory=threading.Event)
    """Whether the client has read the answer to its first request."""

    @property
    def name(self) -> str:
        row = self.row
        return f"{row.provider}: {row.name}, {'streamed' if row.stream else 'whole'}, {self.mode}"

    @property
    def bad(self) -> str:
        """The provider's name."""
        return f"bad{self.number}"

    def reply(self, server: FakeProvider, request: SeenRequest) -> Reply:
        self.asked += 1
        row = self.row
        place = (id(server), request.connection)
        self.by_connection[place] += 1
        if row.warm is not None and self.by_connection[place] == 1:
            return self._warm_reply(row.warm)
        if self.mode == "once" and row.warm is None and self.asked > 1:
            return answer(row.provider, stream=row.stream)
        return row.reply if isinstance(row.reply, Reply) else row.reply()

    def _warm_reply(self, reply: Reply) -> Reply:
        if ONCE_TOLD not in reply.steps:
            return reply
        place = reply.steps.index(ONCE_TOLD)
        after = () if self.told.is_set() else (Until(self.told), *reply.steps[place + 1 :])
        return Reply(reply.steps[:place] + after)

    def config(self) -> str:
        row = self.row
        v1 = "/v1" if row.provider == "openai" else ""
        said = {"api_key": self.bad, **row.settings, **({"api_version": "v1"} if row.provider == "azure" else {})}
        url = self.url.replace("http:", f"{row.scheme}:")
        section = provider_section(self.bad, url + v1, **said).replace('type = "openai"', f'type = "{row.provider}"')
        targets = [f"{self.bad}/{MODELS[row.provider]}"]
        if self.mode in ("fallback", "named"):
            targets.append(f"good/good{self.number}")
        lines = [section, f"[models.case{self.number}]", f"targets = {json.dumps(targets)}"]
        if self.mode == "named" and (reason := getattr(row.expected, "passed_on", None)):
            lines.append(f'fallback_on = ["{reason}"]')
        return "\n".join(lines) + "\n"


def cases() -> list[Case]:
    found: list[tuple[Row, Mode]] = []
    for row in ROWS:
        failed = row.expected if isinstance(row.expected, Failed) else None
        if failed is None or row.warm is None:
            found.append((row, "alone"))
        if failed is not None and failed.asked > 1 and row.counted:
            found.append((row, "once"))
        found.append((row, "fallback"))
        if getattr(row.expected, "passed_on", None) is not None:
            found.append((row, "named"))
    return [Case(number, row, mode) for number, (row, mode) in enumerate(found)]


# --- what is seen -----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """All that is compared of a case."""

    status: int
    code: str | None = None
    text: str = ""
    finish: str | None = None
    served: str | None = None
    """``provider/model`` as the header has it."""
    asked: int | None = None
    good_asked: int = 0
    record: tuple[Any, ...] = ()
    """Status, HTTP status, error code, model and provider of the one record."""
    final: bool = False
    """Whether the client's SDK is told not to try again."""
    attempts: int = 0
    """How often anybody was asked, as the record says."""
    health: str = "well"


def expected_of(case: Case) -> Seen:
    """What has to come of a case."""
    row, expected = case.row, case.row.expected
    model, good = MODELS[row.provider], f"good{case.number}"
    bad_served = f"{case.bad}/{model}"
    other = case.mode in ("fallback", "named")
    goes_on = other and (
        (isinstance(expected, Failed) and expected.goes_on)
        or (case.mode == "named" and getattr(expected, "passed_on", None) is not None)
    )
    warm = 0 if row.warm is None else 1
    record: tuple[str, int, str | None, str, str]
    if goes_on:
        seen = Seen(200, None, GOOD_TEXT, "stop", f"good/{good}", 1 + warm, 1, ("ok", 200, None, good, "good"))
    elif isinstance(expected, Fine):
        record = ("ok", 200, None, model, case.bad)
        seen = Seen(200, None, expected.text, expected.finish, bad_served, 1 + warm, 0, record)
    elif isinstance(expected, Cut):
        record = ("provider_error", 200, expected.code, model, case.bad)
        seen = Seen(200, expected.code, expected.said, None, bad_served, 1, 0, record)
    elif case.mode == "once":
        seen = Seen(200, None, "Hello", "stop", bad_served, 2 + warm, 0, ("ok", 200, None, model, case.bad))
    else:
        record = ("provider_error", expected.status, expected.code, model, case.bad)
        final = expected.asked > 1 or expected.code in ("upstream_quota_exceeded", "upstream_auth_error")
        seen = Seen(expected.status, expected.code, asked=expected.asked, record=record, final=final)
    if isinstance(expected, Failed | Cut):
        failures = expected.asked if isinstance(expected, Failed) and case.mode == "alone" else 1
        seen.health = f"failed {failures} times" if expected.health == "failed" else expected.health
        waits = expected.retry_after if isinstance(expected, Failed) else None
        seen.health += ", left alone" if waits is not None and waits[0] == LONG_SECONDS else ""
    assert seen.asked is not None
    seen.attempts = seen.asked - warm + seen.good_asked
    if not row.counted:
        seen.asked = None
    return seen


def health_of(case: Case, states: Mapping[CircuitKey, CircuitState]) -> str:
    """What the workers think of a case's provider, in the words of ``expected_of``."""
    of_provider = [state for key, state in states.items() if key.provider == case.bad]
    if any(state.state == "set_aside" for state in of_provider):
        return "set aside"
    if not of_provider:
        return "well"
    [state] = of_provider
    assert state.key.model == MODELS[case.row.provider]
    health = f"failed {state.failures} times" if state.failures else "well"
    long = state.until is not None and state.until - time.time() > LONG_SECONDS / 2
    return f"{health}, left alone" if long else health


class Client:
    """Asks, and holds every answer to the form that it must have."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._many = httpx.AsyncClient(base_url=url, timeout=HANG_SECONDS, limits=limits)

    async def run(self, case: Case) -> tuple[Seen, httpx.Headers]:
        if case.row.warm is None:
            return await self._ask(self._many, case, f"case{case.number}")
        async with httpx.AsyncClient(
            base_url=self._url, timeout=HANG_SECONDS
        ) as one:  # one connection, and so one worker
            await self._ask(one, case, f"warm{case.number}")
            case.told.set()
            await asyncio.sleep(0.3)
            return await self._ask(one, case, f"case{case.number}")

    async def _ask(self, client: httpx.AsyncClient, case: Case, request_id: str) -> tuple[Seen, httpx.Headers]:
        asked = {
            "model": f"case{case.number}",
            "messages": [{"role": "user", "content": case.row.prompt}],
            "stream": case.row.stream,
        }
        headers = {**self._headers, "x-request-id": request_id}
        async with asyncio.timeout(HANG_SECONDS):
            told = await client.post("/v1/chat/completions", json=asked, headers=headers)
        seen = Seen(told.status_code, served=told.headers.get("x-inferxgate-model"))
        seen.final = told.headers.get("x-should-retry") == "false"
        if told.status_code != 200:
            seen.code = told.json()["error"]["code"]
            assert set(told.json()["error"]) == {"type", "message", "code", "param"}
        elif case.row.stream:
            read_events(told.text, seen)
        else:
            [choice] = told.json()["choices"]
            seen.text, seen.finish = choice["message"]["content"] or "", choice["finish_reason"]
        return seen, told.headers

    async def close(self) -> None:
        await self._many.aclose()


def read_events(text: str, seen: Seen) -> None:
    *events, rest = text.split("\n\n")
    assert rest == "", "a stream ends with a whole event"
    events = [one.removeprefix("data: ") for one in events if not one.startswith(":")]
    *said, last = events
    for each in map(json.loads, said):
        assert "error" not in each, "an error is the last that is said"
        for choice in each["choices"]:
            seen.text += choice["delta"].get("content") or ""
            seen.finish = choice["finish_reason"] or seen.finish
    if last != "[DONE]":
        seen.code = json.loads(last)["error"]["code"]
        assert seen.finish is None or seen.text == "Hello", "no finish reason is made up"
        seen.finish = None


# --- the providers ----------------------------------------------------------------------------------------------------


class Providers:
    """All of them: those with faults at one port where they can be, and the healthy one."""

    def __init__(self, all_cases: list[Case]) -> None:
        self._by_key = {case.bad: case for case in all_cases}
        self.good = FakeProvider(self._good)
        self.bad = FakeProvider()
        self.bad.handler = lambda request: self._bad(self.bad, request)
        self.good_asked: Counter[str] = Counter()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.good)
            stack.enter_context(self.bad)
            ports: dict[str, int] = {}
            for case in self._by_key.values():
                row = case.row
                if row.deaf is not None:
                    if row.deaf not in ports:
                        ports[row.deaf] = stack.enter_context(deaf_port(row.deaf))
                    case.url = f"http://127.0.0.1:{ports[row.deaf]}"
                elif row.warm is not None:  # connections of its own
                    case.url = stack.enter_context(self._own()).url
                else:
                    case.url = self.bad.url
            yield

    def _own(self) -> FakeProvider:
        provider = FakeProvider()
        provider.handler = lambda request: self._bad(provider, request)
        return provider

    def _bad(self, server: FakeProvider, request: SeenRequest) -> Reply:
        return self._by_key[credential(request)].reply(server, request)

    def _good(self, request: SeenRequest) -> Reply:
        asked = request.json()
        self.good_asked[asked["model"]] += 1
        return good_answer(stream=bool(asked.get("stream")))


def good_answer(*, stream: bool) -> Reply:
    """What the healthy provider says."""
    if stream:
        return sse(chunk("Good "), chunk("day", "stop"), O_COUNTS, DONE)
    return status(200, completion(message={"role": "assistant", "content": GOOD_TEXT}))


# --- the table --------------------------------------------------------------------------------------------------------


async def run_all(client: Client, all_cases: list[Case]) -> dict[int, tuple[Seen, httpx.Headers] | str]:
    """What was seen of each case, or what went wrong with seeing it."""
    turns = asyncio.Semaphore(AT_ONCE)
    results: dict[int, tuple[Seen, httpx.Headers] | str] = {}

    async def run(case: Case) -> None:
        async with turns:
            try:
                results[case.number] = await client.run(case)
            except TimeoutError:
                results[case.number] = "it hangs"
            except (AssertionError, httpx.HTTPError, ValueError, KeyError) as error:
                results[case.number] = f"{type(error).__name__}: {error}"

    await asyncio.gather(*(run(case) for case in all_cases))
    return results


def judged(
    case: Case,
    result: tuple[Seen, httpx.Headers] | str,
    records: list[Record],
    good_asked: int,
    health: str,
) -> list[str]:
    """What is not as it should be."""
    if isinstance(result, str):
        return [result]
    seen, headers = result
    seen.health = health
    expected = expected_of(case)
    if isinstance(case.row.expected, Failed) and seen.code is not None and seen.code == case.row.expected.or_code:
        expected = replace(expected, code=seen.code, record=(*expected.record[:2], seen.code, *expected.record[3:]))
    seen.asked = case.asked if case.row.counted else None
    seen.good_asked = good_asked
    if len(records) == 1:
        seen.attempts = records[0]["attempts"]
        seen.record = tuple(records[0][name] for name in ("status", "http_status", "error_code", "model", "provider"))
    wrong = [
        f"{each.name} is {getattr(seen, each.name)!r} and not {getattr(expected, each.name)!r}"
        for each in fields(Seen)
        if getattr(seen, each.name) != getattr(expected, each.name)
    ]
    if len(records) != 1:
        wrong.append(f"{len(records)} records")
    if seen.status != 200:
        wrong += wrong_waits(case.row.expected, headers)
    return wrong


def wrong_waits(expected: Expected, headers: httpx.Headers) -> list[str]:
    """What is wrong with the seconds that the client is told to wait."""
    said, exact = headers.get("retry-after"), headers.get("retry-after-ms")
    bounds = expected.retry_after if isinstance(expected, Failed) else None
    if bounds is None:
        return [] if said is None and exact is None else [f"retry-after is {said} and should not be there"]
    if said is None or exact is None:
        return ["there is no retry-after"]
    wrong = [] if bounds[0] <= int(said) <= bounds[1] else [f"retry-after is {said} and not in {bounds}"]
    return wrong if math.ceil(int(exact) / 1000) == int(said) else [*wrong, f"retry-after-ms is {exact}"]


@pytest.mark.parametrize("workers", [1, 4])
async def test_fault_table(tmp_path: Path, workers: int) -> None:
    all_cases = cases()
    providers = Providers(all_cases)
    with providers.open():
        config = (
            ROUTING + provider_section("good", providers.good.base_url) + "".join(case.config() for case in all_cases)
        )
        with GatewayProcess(tmp_path, config=config, arguments=["--workers", str(workers)]) as gateway:
            client = Client(gateway.url, gateway.create_key("--rpm", "0", "--budget", "1000"))
            results = await run_all(client, all_cases)
            await client.close()
            until(lambda: under_way(gateway.url) == 0)
            left, states = reserved(gateway.data_dir), circuits(gateway.data_dir, WINDOW_SECONDS)
            assert gateway.stop() == 0
        records = records_by_request(gateway.data_dir)
    wrong = {
        case.name: mistakes
        for case in all_cases
        if (
            mistakes := judged(
                case,
                results[case.number],
                records[f"case{case.number}"],
                providers.good_asked[f"good{case.number}"],
                health_of(case, states),
            )
        )
    }
    listed = "\n".join(f"{name}: {'; '.join(mistakes)}" for name, mistakes in wrong.items())
    assert not wrong, f"{len(wrong)} of {len(all_cases)} cases:\n{listed}"
    assert left == {}
    assert "Traceback" not in gateway.log
    assert "never retrieved" not in gateway.log
