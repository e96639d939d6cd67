"""What several workers find out about their providers together: circuits, cool-downs, and credentials set aside.

Each test has providers of its own, and clients of which it is known which worker serves each of them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from inferxgate.workers.health import CircuitState
from tests.e2e.faults import FIRST, answer, status
from tests.support.clients import until
from tests.support.faults import chunked, credential
from tests.support.ledger import circuits
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import CLOSE, FakeProvider, Reply, SeenRequest, Until

WORKERS = 4
MIN_FAILURES = 4
MAX_WAIT_SECONDS = 3
WINDOW_SECONDS = 600
ROUTING = f"""
[routing]
retries = 2
max_wait_seconds = {MAX_WAIT_SECONDS}
min_failures = {MIN_FAILURES}
window_seconds = {WINDOW_SECONDS}
cooldown_seconds = 1
"""
CONNECTIONS = 400
"""Most that are tried for every worker to have one."""
FAILS, SPENT, FORBIDDEN, DENIED = (status(number, {"error": {"message": "No."}}) for number in (500, 402, 403, 401))
BAD_REQUEST = status(400, {"error": {"message": "What you ask for makes no sense."}})

ALIASES = {
    "opens": ["opens", "good"],
    "probes": ["probes", "good"],
    "fails-again": ["fails-again", "good"],
    "callers": ["callers"],
    "seldom": ["seldom", "good"],
    "breaks-off": ["breaks-off", "good"],
    "later": ["later", "good"],
    "earlier": ["earlier", "good"],
    "waits": ["waits-a", "waits-b"],
    "too-long": ["long-a", "long-b"],
    **{f"dead-{number}": [f"dead-{number}"] for number in (401, 402, 403)},
    "limited": ["limited"],
    "all-dead": ["all-dead"],
    "one-dead": ["one-dead"],
}
"""And the providers that each leads to."""
TWO_KEYS = {"dead-401", "dead-402", "dead-403", "limited", "all-dead"}


def limited(seconds: float) -> Reply:
    return status(429, {"error": {"message": "Too many requests."}}, {"retry-after": f"{seconds:g}"})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def code(self) -> str | None:
        error = self.body.get("error")
        return error["code"] if error else None

    @property
    def served(self) -> str:
        return self.headers["x-inferxgate-model"].partition("/")[0]


class Client:
    """One connection, and so one worker."""

    def __init__(self, port: int, secret: str, number: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._secret = secret
        self._number = number
        self._count = itertools.count()
        self.last_id = ""

    def chat(self, alias: str, *, stream: bool = False) -> Answer:
        body = {"model": alias, "messages": [{"role": "user", "content": "?"}], "stream": stream}
        return self.ask("POST", "/v1/chat/completions", body)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        self.last_id = f"client{self._number}-{next(self._count)}"
        headers = {
            "Authorization": f"Bearer {self._secret}",
            "Content-Type": "application/json",
            "X-Request-Id": self.last_id,
        }
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = self._connection.getresponse()
        told, said = response.read(), {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, said, json.loads(told) if said["content-type"] == "application/json" else {})

    def close(self) -> None:
        self._connection.close()


class World:
    """A gateway with four workers, a client of each, and providers that do as each test says."""

    def __init__(self, gateway: GatewayProcess, server: FakeProvider) -> None:
        self.gateway = gateway
        self.server = server
        self.replies: dict[str, Callable[[int], Reply]] = {}
        """By credential: what is said to the first request, the second, ... (from 1)."""
        self.asked_at: dict[str, list[float]] = defaultdict(list)
        """By credential: when, in seconds of the monotonic clock."""
        self._lock = threading.Lock()
        self.clients: list[Client] = []
        server.handler = self._answer

    def connect(self) -> None:
        """Connect clients until each worker serves one."""
        secret = self.gateway.create_key("--rpm", "0")
        by_worker: dict[int, Client] = {}
        for number in range(CONNECTIONS):
            client = Client(self.gateway.port, secret, number)
            assert client.ask("GET", "/v1/models").status == 200
            by_worker.setdefault(self._worker_of(client.last_id), client)
            if len(by_worker) == WORKERS:
                break
        assert len(by_worker) == WORKERS
        self.clients = list(by_worker.values())

    def asked(self, name: str) -> int:
        return len(self.asked_at[name])

    def state(self, provider: str, *, credential: bool = False) -> CircuitState | None:
        """What is thought of a provider's model, or of its credential."""
        states = circuits(self.gateway.data_dir, WINDOW_SECONDS)
        model = "" if credential else "m"
        return next((s for key, s in states.items() if (key.provider, key.model) == (provider, model)), None)

    def all_at_once(self, alias: str, *, times: int = 1, but: int = 0) -> list[Answer]:
        """Ask by all workers, but for the first few."""
        with ThreadPoolExecutor(len(self.clients)) as threads:
            rounds = [list(threads.map(lambda client: client.chat(alias), self.clients[but:])) for _ in range(times)]
        return [each for one in rounds for each in one]

    def _worker_of(self, request_id: str) -> int:
        """Which worker has served a request, as the log says."""
        until(lambda: any(request_id in line for line in self.gateway.lines))
        line = next(line for line in self.gateway.lines if request_id in line)
        worker: int = json.loads(line)["worker"]
        return worker

    def _answer(self, request: SeenRequest) -> Reply:
        name = credential(request)
        with self._lock:
            self.asked_at[name].append(time.monotonic())
            count = len(self.asked_at[name])
        if name in self.replies:
            return self.replies[name](count)
        return answer("openai", stream=bool(request.json().get("stream")))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with FakeProvider() as server:
        config = ROUTING
        for name in sorted({"good", *itertools.chain(*ALIASES.values())}):
            keys = {"api_keys": [f"{name}-1", f"{name}-2"]} if name in TWO_KEYS else {"api_key": name}
            config += section(name, server.base_url, keys)
        for alias, providers in ALIASES.items():
            config += f"[models.{alias}]\ntargets = {json.dumps([f'{name}/m' for name in providers])}\n"
        folder = tmp_path_factory.mktemp("health")
        arguments = ["--workers", str(WORKERS), "--log-format", "json"]
        with GatewayProcess(folder, config=config, arguments=arguments) as gateway:
            opened = World(gateway, server)
            opened.connect()
            yield opened
            for client in opened.clients:
                client.close()


def section(name: str, base_url: str, keys: dict[str, Any]) -> str:
    lines = provider_section(name, base_url, **keys).splitlines(keepends=True)
    return "".join(line for line in lines if "api_key" in keys or not line.startswith("api_key ="))


# --- circuits ---------------------------------------------------------------------------------------------------------


def test_failures_seen_by_different_workers_open_one_circuit(world: World) -> None:
    world.replies["opens"] = lambda _: FAILS
    for client in world.clients:  # one failure in each worker
        assert client.chat("opens").served == "good"
    state = world.state("opens")
    assert state is not None
    assert (state.state, state.failures) == ("open", MIN_FAILURES)
    asked = world.asked("opens")
    assert asked == MIN_FAILURES
    assert {each.served for each in world.all_at_once("opens")} == {"good"}
    assert world.asked("opens") == asked, "nobody asks it, whichever worker has seen it fail"


def test_one_probe_goes_for_all_workers_and_closes_the_circuit(world: World) -> None:
    probed = threading.Event()
    probe = Reply((Until(probed), *answer("openai", stream=False).steps))
    world.replies["probes"] = lambda count: FAILS if count <= MIN_FAILURES else probe
    world.all_at_once("probes")
    assert world.asked("probes") == MIN_FAILURES
    until(lambda: (state := world.state("probes")) is not None and state.state == "half_open")
    with ThreadPoolExecutor(WORKERS) as threads:
        told = [threads.submit(client.chat, "probes") for client in world.clients]
        until(lambda: sum(each.done() for each in told) == WORKERS - 1)
        assert {each.result().served for each in told if each.done()} == {"good"}
        assert world.asked("probes") == MIN_FAILURES + 1
        probed.set()
        assert sorted(each.result().served for each in told) == ["good"] * (WORKERS - 1) + ["probes"]
    assert {each.served for each in world.all_at_once("probes")} == {"probes"}, "the circuit is closed for all"


def test_a_probe_that_fails_opens_the_circuit_for_longer(world: World) -> None:
    world.replies["fails-again"] = lambda _: FAILS
    world.all_at_once("fails-again")
    until(lambda: (state := world.state("fails-again")) is not None and state.state == "half_open")
    assert world.clients[0].chat("fails-again").served == "good"
    assert world.asked("fails-again") == MIN_FAILURES + 1
    state = world.state("fails-again")
    assert state is not None
    assert state.state == "open"
    assert state.until is not None
    assert state.until - state.since == pytest.approx(2), "twice as long as the first time"


def test_what_callers_cause_does_not_count(world: World) -> None:
    world.replies["callers"] = lambda _: BAD_REQUEST
    told = world.all_at_once("callers", times=3)
    assert {each.status for each in told} == {400}
    assert world.asked("callers") == 3 * WORKERS
    assert world.state("callers") is None


def test_a_provider_that_fails_seldom_stays_in_use(world: World) -> None:
    world.replies["seldom"] = lambda count: FAILS if count % 3 == 0 else answer("openai", stream=False)
    for client in world.clients * 2:
        client.chat("seldom")
    time.sleep(1.5)  # successes are told once a second
    told = [client.chat("seldom").served for client in world.clients * 3]
    assert world.asked("seldom") == 5 * WORKERS
    assert told.count("good") == 5 * WORKERS // 3 - 2 * WORKERS // 3


def test_streams_that_break_off_are_failures_and_no_successes(world: World) -> None:
    """Three of four do: were each a success as well, that would not be half of what was asked."""
    begun = chunked(FIRST, end=(CLOSE,))
    world.replies["breaks-off"] = lambda count: answer("openai", stream=True) if count % 4 == 1 else begun
    for client in world.clients:
        client.chat("breaks-off", stream=True)
    time.sleep(1.5)  # successes are told once a second
    for client in world.clients:
        client.chat("breaks-off", stream=True)
    state = world.state("breaks-off")
    assert state is not None
    assert (state.state, state.failures, world.asked("breaks-off")) == ("open", MIN_FAILURES, 6)


# --- cool-downs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "first", "second"), [("later", 30, 600), ("earlier", 600, 30)])
def test_of_two_times_to_wait_the_later_holds(world: World, name: str, first: int, second: int) -> None:
    both = threading.Event()

    def reply(count: int) -> Reply:
        if count == 1:
            return Reply((Until(both), *limited(first).steps))
        return limited(second)

    world.replies[name] = reply
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(world.clients[0].chat, name)
        until(lambda: world.asked(name) == 1)
        assert world.clients[1].chat(name).served == "good"
        both.set()
        assert one.result().served == "good"
    state = world.state(name)
    assert state is not None
    assert (state.state, state.failures) == ("cooling", 0)
    assert state.until is not None
    assert state.until - time.time() > 300
    assert {each.served for each in world.all_at_once(name)} == {"good"}
    assert world.asked(name) == 2


def test_where_all_are_cooling_everybody_waits_for_the_first_to_be_ready(world: World) -> None:
    seconds = 2
    for name in ("waits-a", "waits-b"):
        world.replies[name] = lambda count: limited(seconds) if count == 1 else answer("openai", stream=False)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(world.clients[0].chat, "waits")
        until(lambda: all((state := world.state(f"waits-{each}")) and state.state == "cooling" for each in "ab"))
        told = [*world.all_at_once("waits", but=1), first.result()]
    assert {each.status for each in told} == {200}
    for name in ("waits-a", "waits-b"):
        times = world.asked_at[name]
        assert all(later - times[0] >= seconds for later in times[1:]), "nobody asks before the time is over"


def test_where_all_are_cooling_for_too_long_the_true_time_is_told(world: World) -> None:
    times = {"long-a": 90, "long-b": 50}
    world.replies["long-a"] = lambda _: limited(times["long-a"])
    world.replies["long-b"] = lambda _: limited(times["long-b"])
    first = world.clients[0].chat("too-long")
    assert (first.status, first.code) == (429, "upstream_rate_limited")
    assert first.headers["x-should-retry"] == "false"
    told = [first, *world.all_at_once("too-long")]
    assert {(each.status, each.code) for each in told[1:]} == {(503, "no_target_available")}
    assert all(40 < int(each.headers["retry-after"]) <= 53 for each in told)
    assert {name: world.asked(name) for name in times} == dict.fromkeys(times, 1)


# --- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "reply"), [(401, DENIED), (402, SPENT), (403, FORBIDDEN)])
def test_a_dead_credential_is_set_aside_for_all_workers(world: World, number: int, reply: Reply) -> None:
    name = f"dead-{number}"
    world.replies[f"{name}-1"] = lambda _: reply
    assert world.clients[0].chat(name).served == name
    assert {each.served for each in world.all_at_once(name, times=2)} == {name}
    assert (world.asked(f"{name}-1"), world.asked(f"{name}-2")) == (1, 1 + 2 * WORKERS)
    state = world.state(name, credential=number != 403)  # which models it may use is a matter of each model
    assert state is not None
    assert state.state == "set_aside"
    reported = [line for line in world.gateway.lines if "set aside" in line and f"provider {name} " in line]
    assert len(reported) == 1, "whoever runs the gateway is told once"
    assert not any(f"{name}-1" in line for line in world.gateway.lines), "and not by the credential's name"


def test_a_limited_credential_rests_and_the_next_is_used(world: World) -> None:
    world.replies["limited-1"] = lambda _: limited(600)
    assert {each.served for each in [world.clients[0].chat("limited"), *world.all_at_once("limited")]} == {"limited"}
    assert (world.asked("limited-1"), world.asked("limited-2")) == (1, 1 + WORKERS)


def test_the_last_credential_is_always_tried_and_its_error_passed_on(world: World) -> None:
    world.replies["all-dead-1"] = world.replies["all-dead-2"] = lambda _: DENIED
    for told in (world.clients[0].chat("all-dead"), *world.all_at_once("all-dead")):
        assert (told.status, told.code) == (502, "upstream_auth_error")
        assert told.headers["x-should-retry"] == "false"
    assert world.asked("all-dead-2") == 1 + WORKERS
    world.replies["all-dead-2"] = lambda _: answer("openai", stream=False)
    assert {each.status for each in world.all_at_once("all-dead")} == {200}, "it is asked, and has recovered"


def test_the_only_credential_is_never_set_aside(world: World) -> None:
    world.replies["one-dead"] = lambda count: DENIED if count <= 1 + WORKERS else answer("openai", stream=False)
    for told in (world.clients[0].chat("one-dead"), *world.all_at_once("one-dead")):
        assert (told.status, told.code) == (502, "upstream_auth_error")
    assert world.asked("one-dead") == 1 + WORKERS
    assert {each.served for each in world.all_at_once("one-dead")} == {"one-dead"}
