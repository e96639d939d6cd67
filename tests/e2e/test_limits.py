"""Limits under many requests at once, with one worker and with several: as many pass as may, and all are told so."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inferxgate.accounts.keys import prefix_of
from tests.server.conftest import World, opened
from tests.support.clients import Answer, Client, ask, crowd, until
from tests.support.process import provider_section
from tests.support.provider import FakeProvider, Reply, SeenRequest, Until

MODEL = "openai/gpt-4o-mini"
PRICES = f'[pricing."{MODEL}"]\ninput = 1.0\ncache_read = 0.1\noutput = 2.0\n'  # 1000, 100 and 2000 nano-dollars each
CHAT = "/v1/chat/completions"


def chat(*, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """At most 21 tokens of prompt as budgets count them (5 bytes and 16 for the message), 6 as token limits do."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 100,
        "stream": stream,
        **fields,
    }


class Gate:
    """A provider that reads requests at once and answers when it is told to."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider
        self._open = threading.Event()
        provider.handler = self._answer

    def _answer(self, request: SeenRequest) -> Reply:
        return Reply((Until(self._open), *self._provider.answer(request).steps))

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.clear()


@contextmanager
def gateway(folder: Path, workers: int) -> Iterator[tuple[World, FakeProvider, Gate]]:
    with FakeProvider() as provider:
        gate = Gate(provider)
        config = provider_section("openai", provider.base_url) + PRICES
        with opened(folder, config, "--workers", str(workers), "--log-format", "json") as world:
            try:
                yield world, provider, gate
            finally:
                gate.open()


def workers_that_served(world: World, path: str) -> set[int | None]:
    """The numbers of the workers that have answered, as the log has them; None is the only one."""
    lines = [json.loads(line) for line in world.process.lines]
    return {line.get("worker") for line in lines if line["message"] == "request" and path in json.dumps(line)}


def all_served(world: World, workers: int) -> bool:
    return workers_that_served(world, CHAT) == ({None} if workers == 1 else set(range(1, workers + 1)))


def rate(answer: Answer) -> tuple[int, int, int]:
    """Limit, remaining and reset, as the headers have them."""
    limit, remaining, reset = (answer.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset"))
    return int(limit), int(remaining), int(reset)


@pytest.mark.parametrize("workers", [1, 4])
def test_requests_a_minute(tmp_path: Path, workers: int) -> None:
    """Of 200 at once 60 pass, and the next one when everyone was told that it would."""
    with gateway(tmp_path, workers) as (world, provider, gate):
        port, secret = world.process.port, world.process.create_key("--rpm", "60")
        fresh = ask(port, secret, "/v1/models")
        limit, remaining, reset = rate(fresh)
        assert (limit, remaining) == (60, 60)
        assert math.floor(fresh.asked_at) <= reset <= math.ceil(fresh.told_at)

        begin = time.time()
        with crowd(port, secret, [chat(stream=number % 2 == 0) for number in range(200)]) as clients:
            refused = clients.told(140)
            assert {answer.code for answer in refused} == {"rate_limit_exceeded"}
            provider.wait_for_requests(60, 60)
            end = time.time()
            gate.open()
            answers = clients.all()
        assert Counter(answer.status for answer in answers) == {200: 60, 429: 140}
        assert sum(answer.complete for answer in answers) == 60
        assert len(provider.requests) == 60
        until(lambda: all_served(world, workers))

        _, _, reset = rate(answers[0])
        assert begin + 60 <= reset <= math.ceil(end + 60)
        for answer in answers:
            check_refusal(answer, reset) if answer.status == 429 else check_admission(answer, reset)
        state = {rate(ask(port, secret, "/v1/models")) for _ in range(12)}
        assert state == {(60, 0, reset)}, "whichever worker is asked"

        check_refusal(ask(port, secret, CHAT, chat()), reset)
        time.sleep(max(0.0, reset - 6 - time.time()))
        check_refusal(ask(port, secret, CHAT, chat()), reset)
        time.sleep(max(0.0, reset - time.time()))
        assert ask(port, secret, CHAT, chat()).complete
        assert len(provider.requests) == 61


def check_refusal(answer: Answer, reset: int) -> None:
    assert answer.status == 429
    assert rate(answer) == (60, 0, reset)
    assert "x-should-retry" not in answer.headers
    wait = int(answer.headers["retry-after"])
    assert 1 <= wait <= 60
    assert answer.told_at + wait > reset - 1, "whoever waits that long gets through"
    assert answer.asked_at + wait < reset + 1, "and nobody waits longer than needed"


def check_admission(answer: Answer, reset: int) -> None:
    limit, remaining, told_reset = rate(answer)
    assert (limit, told_reset) == (60, reset)
    assert remaining == 0, "it was told after all sixty were admitted"
    assert "retry-after" not in answer.headers


def test_each_answer_says_what_is_left(tmp_path: Path) -> None:
    with gateway(tmp_path, 4) as (world, _, gate):
        gate.open()
        port, secret = world.process.port, world.process.create_key("--rpm", "5")
        answers = [ask(port, secret, CHAT, chat(stream=number % 2 == 0)) for number in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert [rate(answer)[:2] for answer in answers] == [(5, left) for left in (4, 3, 2, 1, 0, 0, 0)]
        assert len({rate(answer)[2] for answer in answers}) == 1, "what is left next grows with the oldest's minute"


RESERVED = 21 * 1000 + 100 * 2000
COST = 17 * 1000 + 4 * 100 + 9 * 2000
"""Nano-dollars of what the fake provider counts."""


def dollars(nanos: int) -> str:
    return str(Decimal(nanos).scaleb(-9))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_budget_of_three_reservations(tmp_path: Path, workers: int, stream: bool) -> None:
    with gateway(tmp_path, workers) as (world, provider, gate):
        owner = world.person()
        budget = ("--budget", dollars(3 * RESERVED))
        secret = world.process.create_key("--rpm", "0", "--user", owner.user.email, *budget)
        port = world.process.port
        with crowd(port, secret, [chat(stream=stream)] * 50) as clients:
            refused = clients.told(47)
            assert {answer.code for answer in refused} == {"budget_exceeded"}
            assert {answer.headers["x-should-retry"] for answer in refused} == {"false"}
            assert not any("retry-after" in answer.headers for answer in refused)
            provider.wait_for_requests(3, 60)
            gate.open()
            answers = clients.all()
        assert Counter(answer.status for answer in answers) == {200: 3, 429: 47}
        assert sum(answer.complete for answer in answers) == 3
        assert len(provider.requests) == 3
        until(lambda: all_served(world, workers))
        assert_spent(world, secret, owner.token, 3 * COST)

        gate.close()  # what was reserved and not used is free again: two more fit, and a third does not
        with crowd(port, secret, [chat(stream=stream)] * 20) as clients:
            assert {answer.code for answer in clients.told(18)} == {"budget_exceeded"}
            provider.wait_for_requests(5, 60)
            gate.open()
            assert sum(answer.complete for answer in clients.all()) == 2
        assert_spent(world, secret, owner.token, 5 * COST)


def assert_spent(world: World, secret: str, token: str, nanos: int) -> None:
    def over_http() -> int:
        [key] = json.loads(ask(world.process.port, token, "/auth/keys").body, parse_float=Decimal)["data"]
        return int(key["current_spend"].scaleb(9))

    until(lambda: over_http() == nanos, f"it is {over_http()}, not {nanos}")
    shown = world.process.run("keys", "show", prefix_of(secret), "--json").stdout
    assert int(json.loads(shown, parse_float=Decimal)["current_spend"].scaleb(9)) == nanos


def test_what_is_used_up_stays_used_up(tmp_path: Path) -> None:
    """The provider counts all that was reserved: not a nano-dollar is left of the budget, nor spent beyond it."""
    with gateway(tmp_path, 4) as (world, provider, gate):
        provider.usage = {"prompt_tokens": 21, "completion_tokens": 100, "total_tokens": 121}
        gate.open()
        owner = world.person()
        budget = ("--budget", dollars(3 * RESERVED))
        secret = world.process.create_key("--rpm", "0", "--user", owner.user.email, *budget)
        with crowd(world.process.port, secret, [chat(stream=number % 2 == 0) for number in range(50)]) as clients:
            answers = clients.all()
        assert Counter(answer.status for answer in answers) == {200: 3, 429: 47}
        assert_spent(world, secret, owner.token, 3 * RESERVED)
        assert ask(world.process.port, secret, CHAT, chat()).code == "budget_exceeded"
        assert len(provider.requests) == 3


def test_a_users_budget_holds_over_their_keys(tmp_path: Path) -> None:
    with gateway(tmp_path, 4) as (world, provider, gate):
        owner = world.person()
        world.process.run("users", "update", owner.user.email, "--budget", dollars(3 * RESERVED))
        first, second = (world.process.create_key("--rpm", "0", "--user", owner.user.email) for _ in range(2))
        with (
            crowd(world.process.port, first, [chat()] * 20) as some,
            crowd(world.process.port, second, [chat(stream=True)] * 20) as others,
        ):
            provider.wait_for_requests(3, 60)
            until(lambda: len(some.told(1)) + len(others.told(1)) >= 37)
            gate.open()
            answers = some.all() + others.all()
        assert Counter((answer.status, answer.code) for answer in answers) == {
            (200, None): 3,
            (429, "budget_exceeded"): 37,
        }
        assert len(provider.requests) == 3


def test_tokens_a_minute(tmp_path: Path) -> None:
    """Five estimates fit; when they are settled with what was used, so does more."""
    estimate, used = 6 + 100, 30
    with gateway(tmp_path, 4) as (world, provider, gate):
        secret = world.process.create_key("--rpm", "0", "--tpm", str(5 * estimate + 50))
        bodies = [chat(stream=number % 2 == 0) for number in range(40)]
        with crowd(world.process.port, secret, bodies) as clients:
            for answer in clients.told(35):
                assert (answer.status, answer.code) == (429, "token_limit_exceeded")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            provider.wait_for_requests(5, 60)
            gate.open()
            assert sum(answer.complete for answer in clients.all()) == 5
        gate.close()
        fit = (5 * estimate + 50 - 5 * used) // estimate
        with crowd(world.process.port, secret, bodies) as clients:
            assert {answer.code for answer in clients.told(40 - fit)} == {"token_limit_exceeded"}
            provider.wait_for_requests(5 + fit, 60)
            gate.open()
            assert sum(answer.complete for answer in clients.all()) == fit
        assert len(provider.requests) == 5 + fit
        until(lambda: all_served(world, 4))


def test_requests_at_once(tmp_path: Path) -> None:
    with gateway(tmp_path, 4) as (world, provider, gate):
        secret = world.process.create_key("--rpm", "0", "--parallel", "5")
        bodies = [chat(stream=number % 2 == 0) for number in range(40)]
        for times in (1, 2):
            with crowd(world.process.port, secret, bodies) as clients:
                assert {answer.code for answer in clients.told(35)} == {"too_many_parallel_requests"}
                provider.wait_for_requests(5 * times, 60)
                gate.open()
                assert sum(answer.complete for answer in clients.all()) == 5
            gate.close()
        assert len(provider.requests) == 10
        until(lambda: all_served(world, 4))


def refuses_to_know(client: Client) -> bool:
    return client.ask(CHAT, chat()).code == "invalid_api_key"


def test_a_revoked_key_is_refused_by_every_worker(tmp_path: Path) -> None:
    with gateway(tmp_path, 4) as (world, provider, gate), ExitStack() as stack:
        gate.open()
        secret = world.process.create_key("--rpm", "0")
        clients = [Client(world.process.port, secret) for _ in range(32)]
        for client in clients:
            stack.callback(client.close)
        for client in clients:
            assert client.ask(CHAT, chat()).complete
        until(lambda: all_served(world, 4))
        world.process.run("keys", "revoke", prefix_of(secret))
        for client in clients:  # each worker has some of these connections
            until(partial(refuses_to_know, client))
        asked = len(provider.requests)
        assert {client.ask(CHAT, chat()).status for client in clients} == {401}
        assert len(provider.requests) == asked
