"""What a gateway holds in memory does not grow with the requests it has served. tests/bench has an hour's."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferxgate.accounts import keys
from tests.bench.soak import anthropic_answer
from tests.server.conftest import World, bearer
from tests.support import census
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider, sse_reply

ROUNDS = 80
"""Of every kind of request, between the two counts that are compared."""
WARM_UP_ROUNDS = 40
MOST_MORE = ROUNDS // 2
"""What may be there more after as many rounds, of objects or entries: one a round, of any kind, is twice as many."""
MOST_MORE_BLOCKS = 5 * ROUNDS
"""Of memory blocks, which come and go more: a number that is counted up takes one once it is no small one."""

CONFIG = """
[routing]
retries = 0
window_seconds = 1  # what is counted within it fills up while it warms up
[pricing."openai/*"]
input = 1
output = 5
[pricing."anthropic/*"]
input = 1
output = 5
[providers.anthropic]
api_key = "sk-1"
base_url = """


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        fake.handler = lambda request: (
            anthropic_answer(request.json()) if request.path.endswith("/messages") else fake.answer(request)
        )
        yield fake


class Clients:
    """One round after the other; no two rounds name the same end user, unknown key or path."""

    def __init__(self, world: World, provider: FakeProvider) -> None:
        self._world = world
        self._provider = provider
        self._good = self._key(rate_limit_rpm=10**6, rate_limit_tpm=10**9, max_budget_nanos=10**15)
        self._limited = self._key(rate_limit_rpm=1)
        self._spent = self._key(max_budget_nanos=1)
        self._names = itertools.count()

    def rounds(self, count: int) -> None:
        for number in range(count):
            assert self._ask("openai/gpt-4o") == 200
            assert self._ask("openai/gpt-4o", stream=True) == 200
            assert self._ask("anthropic/claude-sonnet-4-5") == 200
            assert self._ask("anthropic/claude-sonnet-4-5", stream=True) == 200
            self._leave()
            assert self._ask("openai/gpt-4o", self._limited) in {200, 429}
            assert self._ask("openai/gpt-4o", self._spent) == 429
            assert self._ask(f"unknown-{number % 10}") == 404  # thousands of such names are kept, and no more
            assert self._ask("openai/gpt-4o", keys.new_secret()) == 401
            assert self._ask("openai/gpt-4o", messages="none") == 400
            self._provider.reply_json({"error": {"message": self._name()}}, status=500)
            assert self._ask("openai/gpt-4o") == 502
            self._provider.reply_sse([{"choices": []}, "nonsense"])
            assert self._ask("openai/gpt-4o", stream=True) == 502
            assert self._world.client.get(f"/v1/{self._name()}", headers=bearer(self._good)).status_code == 404
            assert self._world.client.get("/health").status_code == 200

    def _name(self) -> str:
        return f"name-{next(self._names)}-{random.getrandbits(64):x}"

    def _body(self, model: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self._name() * random.choice([1, 10, 500])}]
        return {"model": model, "messages": messages, "max_tokens": 50, "user": self._name(), **more}

    def _ask(self, model: str, secret: str | None = None, **more: Any) -> int:
        answer = self._world.client.post(
            "/v1/chat/completions", json=self._body(model, **more), headers=bearer(secret or self._good)
        )
        return answer.status_code

    def _leave(self) -> None:
        """Go away in the middle of a stream."""
        chunk = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
        self._provider.reply(sse_reply([chunk] * 1_000, delay_seconds=1))
        seen = len(self._provider.ended_early)
        body = json.dumps(self._body("openai/gpt-4o", stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._good}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._world.process.port), timeout=60) as client:
            client.sendall(head.encode() + body)
            assert client.recv(1_000).startswith(b"HTTP/1.1 200 ")
        self._provider.wait_for(lambda provider: len(provider.ended_early) > seen)

    def _key(self, **limits: Any) -> str:
        _, secret = keys.create_key(
            self._world.store,
            name=None,
            user_id=None,
            allowed_models=None,
            expires_at_ms=None,
            keys_per_user=None,
            **({"rate_limit_rpm": 0} | limits),
        )
        return secret


def settled(folder: Path, pid: int) -> census.Census:
    """The least of a few counts: what is there for a moment only is in one of them and not in another."""
    return min((census.take(folder, pid) for _ in range(5)), key=lambda each: each.blocks)


@pytest.mark.skipif("INFERXGATE_TEST_BIN" in os.environ, reason="a built program does not import what counts it")
def test_memory_does_not_grow_with_requests(tmp_path: Path, provider: FakeProvider) -> None:
    folder = tmp_path / "census"
    config = f'{CONFIG}"{provider.url}"\n' + provider_section("openai", provider.base_url)
    with GatewayProcess(tmp_path / "gateway", config=config, environment=census.environment(folder)) as process:
        world = World(process)
        assert process.process is not None
        clients = Clients(world, provider)
        clients.rounds(WARM_UP_ROUNDS)
        before = settled(folder, process.process.pid)
        clients.rounds(ROUNDS)
        after = settled(folder, process.process.pid)
        world.close()
        grown = after.grown(before, at_least=10)
        assert after.objects - before.objects < MOST_MORE, grown
        assert after.entries - before.entries < MOST_MORE, grown
        assert after.blocks - before.blocks < MOST_MORE_BLOCKS, grown
        assert process.stop() == 0
