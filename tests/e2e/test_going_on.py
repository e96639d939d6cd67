"""From one target to the next and back again: what several failing targets come to, and what a waiting client sees."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import InternalServerError, OpenAI, RateLimitError, Stream

from tests.e2e.faults import answer, limited_in, o_error, status
from tests.support.faults import credential
from tests.support.ledger import Record, records_by_request
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider, Reply, SeenRequest, Until, Wait

RETRIES = 2
GOOD = "good"
"""In the place of a reply: the answer that was asked for."""
FAILS = status(500, o_error("The server had an error.", "server_error"))
FAILS_LONGER = status(503, o_error("Overloaded.", "server_error"), {"retry-after": "5"})
DENIED = status(401, o_error("No.", "invalid_request_error", "invalid_api_key"))
NO_MODEL = status(404, o_error("No such model.", "invalid_request_error", "model_not_found"))
INVALID = status(400, o_error("No.", "invalid_request_error", "invalid_value"))
TOO_LONG = status(400, o_error("This model's maximum context length is 8 tokens.", "invalid_request_error"))
LIMITED = limited_in("600")


@dataclass(frozen=True)
class Row:
    """What targets say, each to its first request, its second, ..., the last of it for ever; and what comes of it."""

    name: str
    targets: tuple[tuple[Reply | str, ...], ...]
    asked: tuple[int, ...]
    status: int = 200
    code: str | None = None
    served: int | None = None
    """The number of the target that answers."""
    final: bool = False
    """Whether the client's SDK is told not to try again."""
    fallback_on: str = ""


ROWS = [
    Row("the third answers", ((FAILS,), (DENIED,), (GOOD,)), (1, 1, 1), served=2),
    Row("the first has recovered", ((FAILS, GOOD), (DENIED,)), (2, 1), served=0),
    Row("both fail", ((FAILS,), (FAILS,)), (2, 2), 502, "upstream_error", final=True),
    Row("both fail, the second for longer", ((FAILS, GOOD), (FAILS_LONGER,)), (2, 1), served=0),
    Row("neither has the model", ((NO_MODEL,), (NO_MODEL,)), (1, 1), 404, "model_not_found", final=True),
    Row("neither takes our credential", ((DENIED,), (DENIED,)), (1, 1), 502, "upstream_auth_error", final=True),
    Row(
        "the first is to be left alone, the second fails",
        ((LIMITED,), (FAILS,)),
        (1, 3),
        502,
        "upstream_error",
        final=True,
    ),
    Row(
        "the first fails, the second is to be left alone",
        ((FAILS,), (LIMITED,)),
        (3, 1),
        502,
        "upstream_error",
        final=True,
    ),
    Row("the second says that the caller is wrong", ((FAILS,), (INVALID,)), (1, 1), 400, "invalid_value"),
    Row("the first says that the caller is wrong", ((INVALID,), (GOOD,)), (1, 0), 400, "invalid_value"),
    Row(
        "too long for both",
        ((TOO_LONG,), (TOO_LONG,)),
        (1, 1),
        400,
        "context_length_exceeded",
        final=True,
        fallback_on="context_length",
    ),
    Row("too long for the first", ((TOO_LONG,), (FAILS, GOOD)), (1, 2), served=1, fallback_on="context_length"),
    Row(
        "too long, which is not what it is to go on for",
        ((TOO_LONG,), (GOOD,)),
        (1, 0),
        400,
        "context_length_exceeded",
        fallback_on="content_filter",
    ),
]


class Providers:
    """All of them at one port, by their credentials."""

    def __init__(self) -> None:
        self.server = FakeProvider(self._reply)
        self.replies: dict[str, Callable[[int, bool], Reply]] = {}

    def asked(self, name: str) -> int:
        return sum(credential(request) == name for request in self.server.requests)

    def _reply(self, request: SeenRequest) -> Reply:
        name = credential(request)
        return self.replies[name](self.asked(name), bool(request.json().get("stream")))


def scripted(replies: tuple[Reply | str, ...]) -> Callable[[int, bool], Reply]:
    def reply(count: int, stream: bool) -> Reply:
        said = replies[min(count, len(replies)) - 1]
        return said if isinstance(said, Reply) else answer("openai", stream=stream)

    return reply


@dataclass
class World:
    gateway: GatewayProcess
    providers: Providers
    key: str

    def ask(self, model: str, request_id: str, *, stream: bool) -> httpx.Response:
        return httpx.post(
            f"{self.gateway.base_url}/chat/completions",
            json={"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": stream},
            headers={"authorization": f"Bearer {self.key}", "x-request-id": request_id},
            timeout=60,
        )

    def records(self) -> dict[str, list[Record]]:
        """Ends the gateway."""
        assert self.gateway.stop() == 0
        assert "Traceback" not in self.gateway.log
        return records_by_request(self.gateway.data_dir)


def opened(folder: Path, routing: str, aliases: dict[str, tuple[list[str], str]], **settings: Any) -> Iterator[World]:
    """A gateway with a provider for each name that an alias leads to; ``settings`` by provider."""
    providers = Providers()
    with providers.server as server:
        config = routing
        for alias, (names, fallback_on) in aliases.items():
            for name in names:
                config += provider_section(name, server.base_url, api_key=name, **settings.get(name, {}))
            config += f"[models.{alias}]\ntargets = {json.dumps([f'{name}/m' for name in names])}\n"
            config += f'fallback_on = ["{fallback_on}"]\n' if fallback_on else ""
        with GatewayProcess(folder, config=config) as gateway:
            yield World(gateway, providers, gateway.create_key("--rpm", "0"))


@pytest.fixture
def several(tmp_path: Path) -> Iterator[World]:
    aliases = {
        f"alias{number}{kind}": ([f"t{number}{kind}{place}" for place in range(len(row.targets))], row.fallback_on)
        for number, row in enumerate(ROWS)
        for kind in ("whole", "stream")
    }
    routing = f"[routing]\nretries = {RETRIES}\nmax_wait_seconds = 5\nmin_failures = 1000\n"
    yield from opened(tmp_path, routing, aliases)


def test_what_several_targets_come_to(several: World) -> None:
    cases = [(number, row, kind) for number, row in enumerate(ROWS) for kind in ("whole", "stream")]
    for number, row, kind in cases:
        for place, replies in enumerate(row.targets):
            several.providers.replies[f"t{number}{kind}{place}"] = scripted(replies)
    with ThreadPoolExecutor(len(cases)) as threads:
        told = list(
            threads.map(
                lambda case: several.ask(
                    f"alias{case[0]}{case[2]}", f"r{case[0]}{case[2]}", stream=case[2] == "stream"
                ),
                cases,
            )
        )
    records = several.records()
    for (number, row, kind), said in zip(cases, told, strict=True):
        names = [f"t{number}{kind}{place}" for place in range(len(row.targets))]
        [record] = records[f"r{number}{kind}"]
        assert said.status_code == row.status, (row.name, said.text)
        assert tuple(map(several.providers.asked, names)) == row.asked, row.name
        assert (said.headers.get("x-should-retry") == "false") == row.final, row.name
        assert (record["http_status"], record["error_code"]) == (row.status, row.code), row.name
        if row.served is None:
            assert said.json()["error"]["code"] == row.code, row.name
        else:
            assert said.headers["x-inferxgate-model"] == f"{names[row.served]}/m", row.name
            assert record["provider"] == names[row.served], row.name


# --- the client's own retries --------------------------------------------------------------------------------------


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[World]:
    aliases = {name: ([name], "") for name in ("failing", "limited", "denied", "recovering")}
    routing = f"[routing]\nretries = {RETRIES}\nmax_wait_seconds = 5\nmin_failures = 1000\n"
    yield from opened(tmp_path, routing, aliases)


@pytest.mark.parametrize("stream", [False, True])
def test_sdks_do_not_repeat_what_was_tried_often_enough(patient: World, stream: bool) -> None:
    """They try again by themselves, twice: each provider would be asked nine times."""
    providers = patient.providers
    for name, replies in {
        "failing": (FAILS,),
        "limited": (LIMITED,),
        "denied": (DENIED,),
        "recovering": (FAILS, FAILS, GOOD),
    }.items():
        providers.replies[name] = scripted(replies)
    client = OpenAI(base_url=patient.gateway.base_url, api_key=patient.key)
    assert client.max_retries == 2

    def ask(model: str) -> None:
        said = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], stream=stream
        )
        if isinstance(said, Stream):
            assert "".join(each.choices[0].delta.content or "" for each in said if each.choices) == "Hello"
        else:
            assert said.choices[0].message.content == "Hello"

    ask("recovering")
    for name, failure in {"failing": InternalServerError, "denied": InternalServerError}.items():
        with pytest.raises(failure):
            ask(name)
    with pytest.raises((RateLimitError, InternalServerError)):
        ask("limited")
    asked = {name: providers.asked(name) for name in providers.replies}
    assert asked == {"failing": 1 + RETRIES, "limited": 1, "denied": 1, "recovering": 3}


# --- comments while the client waits ----------------------------------------------------------------------------------

SLOW_FAILURE = Reply((Wait(0.8), *FAILS.steps))
COMMENT = ": keep-alive\n\n"


@pytest.fixture
def commenting(tmp_path: Path) -> Iterator[World]:
    routing = f"[server]\nkeepalive_seconds = 0.3\n[routing]\nretries = {RETRIES}\nqueue_seconds = 1\n"
    aliases = {
        "falls-back": (["slow-failing", "fine"], ""),
        "fails": (["failing"], ""),
        "pauses": (["pausing"], ""),
        "queues": (["full"], ""),
    }
    yield from opened(tmp_path, routing, aliases, full={"max_parallel_requests": 1})


def test_comments_do_not_end_what_may_still_be_tried(commenting: World) -> None:
    providers, freed = commenting.providers, threading.Event()
    providers.replies["slow-failing"] = providers.replies["failing"] = scripted((SLOW_FAILURE,))
    providers.replies["fine"] = scripted((GOOD,))
    providers.replies["pausing"] = scripted((limited_in("1"), GOOD))
    providers.replies["full"] = lambda _, stream: Reply((Until(freed), *answer("openai", stream=stream).steps))
    names = ("falls-back", "fails", "pauses", "queues")
    with ThreadPoolExecutor(len(names) + 1) as threads:
        blocking = threads.submit(commenting.ask, "queues", "blocking", stream=False)
        providers.server.wait_for(lambda _: providers.asked("full") == 1)
        told = dict(zip(names, threads.map(lambda name: commenting.ask(name, name, stream=True), names), strict=True))
        freed.set()
        assert blocking.result().status_code == 200
    records = commenting.records()
    for name, code in {
        "falls-back": None,
        "fails": "upstream_error",
        "pauses": None,
        "queues": "no_target_available",
    }.items():
        said = told[name]
        assert (said.status_code, said.text[: len(COMMENT)]) == (200, COMMENT), name
        assert "x-inferxgate-model" not in said.headers, "nobody knew it when the headers went out"
        events = [event for event in said.text.split("\n\n")[:-1] if not event.startswith(":")]
        if code is None:
            assert [events[-1], '"Hel"' in events[0]] == ["data: [DONE]", True], name
        else:
            [event] = events
            assert json.loads(event.removeprefix("data: "))["error"]["code"] == code, name
        [record] = records[name]
        assert (record["http_status"], record["error_code"]) == (200, code), name
    asked = {name: providers.asked(name) for name in providers.replies}
    assert asked == {"slow-failing": 1, "fine": 1, "failing": 1 + RETRIES, "pausing": 2, "full": 1}
