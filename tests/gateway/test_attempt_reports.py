"""What is told of attempts that failed and were followed by another: a log line, and counts."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inferxgate.accounts.callers import OPERATOR
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.errors import GatewayError
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.pipeline import Gateway
from inferxgate.gateway.routing import Alias, Router
from inferxgate.gateway.setup import Policy, Setup
from inferxgate.providers import anthropic
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.upstream.http import HttpUpstream
from inferxgate.workers.health import HealthPolicy, LocalHealth
from inferxgate.workers.limits import NoLimits
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.reasoning import NoReasoning
from tests.support.provider import FakeProvider, error_body

SECRET = "sk-canary-55ab01c7"
ASK = {"model": "smart", "messages": [{"role": "user", "content": "Hello"}]}


class World:
    """Two providers behind one alias."""

    def __init__(self, gateway: Gateway, first: FakeProvider, second: FakeProvider) -> None:
        self.gateway = gateway
        self.first = first
        self.second = second

    async def ask(self, **more: object) -> None:
        await self.gateway.chat(OPERATOR, parse_request({**ASK, **more}), request_id="req-7")

    def values(self) -> dict[str, float]:
        self.gateway.metrics.refresh()
        lines = self.gateway.metrics.render().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


@asynccontextmanager
async def opened(folder: Path, policy: Policy, *, min_failures: int = 5) -> AsyncIterator[World]:
    store = SQLiteStore.open(folder / "inferxgate.db")
    ledger = Ledger(store, folder / "journal")
    ledger.start()
    catalog, upstream = Catalog({"*": {"input_tokens": 1, "output_tokens": 1}}), HttpUpstream()
    with FakeProvider() as first, FakeProvider() as second:
        providers = [
            Provider(name=name, row=ROW, base_url=fake.base_url, api_key=SECRET)
            for name, fake in (("first", first), ("second", second))
        ]
        providers.append(Provider(name="claude", row=anthropic.ROW, base_url=first.url, api_key=SECRET))
        router = Router(providers, {"smart": Alias.of("first/m", "second/m")}, catalog)
        gateway = Gateway(
            Setup(router, catalog, dict.fromkeys(["first", "second", "claude"], upstream), policy=policy),
            limits=NoLimits(),
            ledger=ledger,
            metrics=Metrics(),
            reasoning=NoReasoning(),
            health=LocalHealth(HealthPolicy(min_failures=min_failures, cooldown_seconds=60)),
        )
        yield World(gateway, first, second)
    await upstream.close()
    ledger.close()
    store.close()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    name = "inferxgate.gateway.pipeline"
    return [(record.levelno, record.getMessage()) for record in caplog.records if record.name == name]


async def test_a_failure_that_another_target_makes_good_has_a_line_and_a_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inferxgate")
    async with opened(tmp_path, Policy()) as world:
        world.first.reply_json(error_body("no"), status=500)
        await world.ask()
        line = "request req-7 to first/m failed with upstream_error (status 500): second/m is asked next"
        assert told(caplog) == [(logging.INFO, line)]
        found = world.values()
        assert found['llm_gateway_attempt_failures_total{code="upstream_error",provider="first"}'] == 1
        assert found['llm_gateway_retries_total{provider="second"}'] == 1
        assert not any("retries_total" in name and "first" in name for name in found)
        await world.ask()
        assert [line for line in told(caplog) if "asked next" in line[1]] == [(logging.INFO, line)]
        assert world.values()['llm_gateway_retries_total{provider="second"}'] == 1


async def test_what_the_operator_alone_may_read_of_it_is_in_the_line_without_the_credential(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inferxgate")
    async with opened(tmp_path, Policy()) as world:
        world.first.reply_json({"error": {"message": f"{SECRET} was revoked"}}, status=401)
        await world.ask()
        [(level, line)] = told(caplog)
        assert level == logging.WARNING
        assert line.startswith(
            "request req-7 to first/m failed with upstream_auth_error (status 401): second/m is asked"
        )
        assert "**** was revoked" in line
        assert SECRET not in caplog.text


async def test_a_wait_is_told_too_and_the_last_failure_is_the_clients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "inferxgate")
    async with opened(tmp_path, Policy(retries=1)) as world:
        for provider in (world.first, world.second):
            provider.reply_json(error_body("no"), status=500)
            provider.reply_json(error_body("no"), status=500)
        with pytest.raises(GatewayError):
            await world.ask()
        lines = [line for _, line in told(caplog)]
        assert len(lines) == 2, "the third failure is what the client is told"
        assert lines[0].endswith("second/m is asked next")
        assert "request req-7 to second/m failed with upstream_error (status 500): " in lines[1]
        assert "another attempt follows in " in lines[1]
        found = world.values()
        failures = [value for name, value in found.items() if "attempt_failures_total" in name]
        assert sum(failures) == 3
        assert sum(value for name, value in found.items() if "retries_total" in name) == 2


async def test_what_was_never_sent_is_no_failed_attempt(tmp_path: Path) -> None:
    async with opened(tmp_path, Policy()) as world:
        with pytest.raises(GatewayError, match="More than one answer"):
            await world.ask(model="claude/m", n=2)
        assert world.first.requests == []
        assert not any("attempt_failures_total" in name for name in world.values())


async def test_targets_that_are_left_alone_are_counted_by_provider_and_state(tmp_path: Path) -> None:
    async with opened(tmp_path, Policy(), min_failures=1) as world:
        world.first.reply_json(error_body("no"), status=500)
        world.second.reply_json(error_body("no"), status=429, headers={"retry-after": "60"})
        with pytest.raises(GatewayError):
            await world.ask()
        found = world.values()
        assert found['llm_gateway_targets_unavailable{provider="first",state="open"}'] == 1
        assert found['llm_gateway_targets_unavailable{provider="second",state="cooling"}'] == 1
