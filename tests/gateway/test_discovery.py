"""Asking providers for their models: on real sockets, with every way in which one can fail to say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from inferxgate.gateway.discovery import MAX_BYTES, Answer, Discovery, Pace
from inferxgate.providers.http import Timeouts
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS
from inferxgate.upstream.http import HttpUpstream
from inferxgate.workers.election import Election
from inferxgate.workers.model_lists import MAX_NAMES, ModelLists
from tests.support.provider import (
    CLOSE,
    HANG,
    RESET,
    FakeProvider,
    Reply,
    body_reply,
    error_body,
    json_reply,
)

SECRET = "sk-canary-0123456789"
HURRY = Timeouts(connect_seconds=5.0, first_byte_seconds=0.3, idle_seconds=0.3)


@pytest.fixture
def host() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


def provider(host: FakeProvider, kind: str = "openai", name: str = "host") -> Provider:
    base_url = host.base_url if kind == "openai" else host.url
    return Provider(name, ROWS[kind], base_url, api_key=SECRET, discover=True)


@asynccontextmanager
async def discovery(
    folder: Path, *providers: Provider, pace: Pace | None = None, now: list[float] | None = None
) -> AsyncIterator[tuple[Discovery, ModelLists]]:
    engine, lists = HttpUpstream(), ModelLists(folder / "models.json")
    clock = now if now is not None else [1_000.0]
    lists.look()
    try:
        engines = dict.fromkeys((each.name for each in providers), engine)
        yield Discovery(providers, engines, lists, pace=pace or Pace(), clock=lambda: clock[0]), lists
    finally:
        await engine.close()


async def asked(folder: Path, one: Provider) -> Answer:
    async with discovery(folder, one) as (asking, _):
        [answer] = await asking.refresh([one])
        return answer


def listed(*names: str) -> Reply:
    return json_reply({"data": [{"id": name} for name in names]})


async def test_a_list_is_asked_for_and_kept(tmp_path: Path, host: FakeProvider) -> None:
    one = provider(host)
    async with discovery(tmp_path, one) as (asking, lists):
        assert await asking.refresh([one]) == [Answer(one, ["gpt-4o-mini", "gpt-4o"])]
        assert lists.models(one) == {"gpt-4o-mini": 1, "gpt-4o": 1}
    [request] = host.requests
    assert (request.method, request.target, request.body) == ("GET", "/v1/models", b"")
    assert request.headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_where_one_credential_is_refused_the_next_one_asks(
    tmp_path: Path, host: FakeProvider, status: int
) -> None:
    one = replace(provider(host), other_keys=("sk-other-5c1e",))
    host.reply_json(error_body(f"No, {SECRET}!"), status=status)
    assert await asked(tmp_path, one) == Answer(one, ["gpt-4o-mini", "gpt-4o"])
    assert [request.headers["authorization"] for request in host.requests] == [
        f"Bearer {SECRET}",
        "Bearer sk-other-5c1e",
    ]


async def test_where_all_credentials_are_refused_the_setting_that_holds_them_is_named(
    tmp_path: Path, host: FakeProvider
) -> None:
    one = replace(provider(host), other_keys=("sk-other-5c1e",))
    host.handler = lambda request: json_reply(error_body(request.headers["authorization"]), status=401)
    answer = await asked(tmp_path, one)
    assert answer.models is None
    assert answer.problem.endswith("Look at providers.host.api_keys.")
    host.handler = lambda request: json_reply(error_body(request.headers["authorization"]), status=500)
    assert "sk-" not in (await asked(tmp_path, one)).problem
    assert len(host.requests) == 3, "a host that fails does so whatever the credential"


async def test_anthropics_pages_are_all_read(tmp_path: Path, host: FakeProvider) -> None:
    host.reply_json({"data": [{"id": "claude-a"}], "has_more": True, "last_id": "claude-a"})
    host.reply_json({"data": [{"id": "claude-a"}, {"id": "claude-b"}], "has_more": False, "last_id": "claude-b"})
    assert (await asked(tmp_path, provider(host, "anthropic"))).models == ["claude-a", "claude-b"]
    assert [request.target for request in host.requests] == [
        "/v1/models?limit=1000",
        "/v1/models?limit=1000&after_id=claude-a",
    ]
    assert all(request.headers["x-api-key"] == SECRET for request in host.requests)


async def test_googles_pages_are_all_read(tmp_path: Path, host: FakeProvider) -> None:
    def model(name: str) -> dict[str, object]:
        return {"name": f"models/{name}", "supportedGenerationMethods": ["generateContent"]}

    host.reply_json({"models": [model("gemini-a")], "nextPageToken": "t/1"})
    host.reply_json({"models": [model("gemini-b")]})
    assert (await asked(tmp_path, provider(host, "gemini"))).models == ["gemini-a", "gemini-b"]
    assert [request.target for request in host.requests] == [
        "/v1beta/models?pageSize=1000",
        "/v1beta/models?pageSize=1000&pageToken=t%2F1",
    ]
    assert all(request.headers["x-goog-api-key"] == SECRET for request in host.requests)


BIG = b'{"data":[' + b" " * (MAX_BYTES + 1) + b"]}"


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            json_reply(error_body(f"Incorrect API key provided: {SECRET}."), status=401),
            "Look at providers.host.api_key",
        ),
        (json_reply(error_body(f"No, {SECRET}!"), status=403), "refused the gateway's own credential"),
        (json_reply(error_body(f"{SECRET} is out of money"), status=402), "**** is out of money"),
        (json_reply(error_body(f"What is {SECRET}?\r\nIndeed."), status=400), "What is ****? Indeed."),
        (json_reply(error_body("Slowly."), status=429), "limits the gateway's rate"),
        (body_reply(b"<html><h1>Not Found</h1></html>", status=404), "base_url may be wrong"),
        (body_reply(b"<!doctype html><html>Welcome</html>"), "something that is not JSON"),
        (json_reply({"hello": "world"}), "it is no list of models"),
        (body_reply(b"", status=302, headers={"location": "https://elsewhere.example"}), "redirect (status 302)"),
        (body_reply(b"oops", status=500), "failed (status 500)"),
        (body_reply(BIG), f"more than {MAX_BYTES} bytes"),
        (body_reply(b" " * MAX_BYTES * 11, encoding="gzip"), f"more than {MAX_BYTES} bytes"),
        (json_reply({"data": [{"id": f"m{number}"} for number in range(MAX_NAMES + 1)]}), "more than 10,000 models"),
        (Reply((HANG,)), "within 0.3 seconds"),
        (listed("a").cut_short(HANG, keep=1), "fell silent for 0.3 seconds"),
        (listed("a").cut_short(CLOSE, keep=1), "broke off"),
        (Reply((RESET,)), "ended the connection without an answer"),
        (Reply((b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE)), "not HTTP"),
    ],
)
async def test_who_does_not_say_keeps_the_list_of_before(
    tmp_path: Path, host: FakeProvider, reply: Reply, told: str
) -> None:
    one = replace(provider(host), timeouts=HURRY)
    async with discovery(tmp_path, one) as (asking, lists):
        host.reply(listed("old"))
        await asking.refresh([one])
        host.handler = lambda _: reply
        [answer] = await asking.refresh([one])
        assert answer.models is None
        assert answer.problem.startswith(("The provider host ", "The provider host's "))
        assert told in answer.problem
        assert SECRET not in answer.problem
        assert "\n" not in answer.problem
        assert lists.models(one) == {"old": 1}


async def test_pages_without_end_have_one(tmp_path: Path, host: FakeProvider) -> None:
    host.handler = lambda _: json_reply({"data": [{"id": "claude"}], "has_more": True, "last_id": "claude"})
    answer = await asked(tmp_path, provider(host, "anthropic"))
    assert "more than 100 pages" in answer.problem
    assert len(host.requests) == 100


async def test_one_that_hangs_keeps_no_other_waiting(tmp_path: Path, host: FakeProvider) -> None:
    with FakeProvider(lambda _: Reply((HANG,))) as other:
        slow, quick = replace(provider(other, name="slow"), timeouts=HURRY), provider(host)
        async with discovery(tmp_path, slow, quick) as (asking, lists):
            assert [each.models for each in await asking.refresh([slow, quick])] == [None, ["gpt-4o-mini", "gpt-4o"]]
            assert lists.models(quick).keys() == {"gpt-4o-mini", "gpt-4o"}


async def test_nobody_is_asked_again_before_their_list_is_old(tmp_path: Path, host: FakeProvider) -> None:
    one, now = provider(host), [1_000.0]
    pace = Pace(fresh=100, again=30)
    async with discovery(tmp_path, one, pace=pace, now=now) as (asking, _):
        await asking.step()
        await asking.step()
        assert len(host.requests) == 1
        now[0] += 99
        await asking.step()
        assert len(host.requests) == 1
        now[0] += 2
        await asking.step()
        assert len(host.requests) == 2
    async with discovery(tmp_path, one, pace=pace, now=now) as (asking, _):
        await asking.step()
        assert len(host.requests) == 2, "what another process has just asked is known"
        now[0] -= 50
        await asking.step()
        assert len(host.requests) == 3, "a list from the future proves nothing"


async def test_a_failure_is_told_once_and_tried_again_later(
    tmp_path: Path, host: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    one, now = provider(host), [1_000.0]
    caplog.set_level(logging.INFO, "inferxgate.gateway.discovery")
    async with discovery(tmp_path, one, pace=Pace(fresh=100, again=30), now=now) as (asking, lists):
        for status in (401, 401, 500):
            host.reply_json(error_body(f"no {SECRET}"), status=status)
            await asking.step()
            now[0] += 29
            await asking.step()
            now[0] += 1
        assert len(host.requests) == 3
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
        assert "status 401" in caplog.records[0].getMessage()
        assert "the list of before stays" in caplog.records[0].getMessage()
        assert "status 500" in caplog.records[1].getMessage()
        await asking.step()
        assert lists.models(one)
    assert caplog.records[-1].getMessage() == "host lists 2 models"
    assert SECRET not in caplog.text


async def test_what_cannot_be_kept_is_told_and_stops_nothing(
    tmp_path: Path, host: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1_000.0]
    (tmp_path / "file").write_text("")
    async with discovery(tmp_path / "file", provider(host), pace=Pace(again=30), now=now) as (asking, _):
        await asking.step()
        now[0] += 31
        await asking.step()
    assert len(host.requests) == 2
    told = [record.getMessage() for record in caplog.records if "cannot be kept" in record.getMessage()]
    assert len(told) == 1


async def test_only_those_that_are_to_be_discovered_are_asked(tmp_path: Path, host: FakeProvider) -> None:
    one, other = provider(host), replace(provider(host, name="other"), discover=False)
    async with discovery(tmp_path, one, other) as (asking, _):
        assert asking.providers == (one,)
        await asking.step()
    assert len(host.requests) == 1


async def test_of_several_workers_one_asks_and_another_takes_its_place(tmp_path: Path, host: FakeProvider) -> None:
    def askers() -> list[str]:
        return [request.headers["x-worker"] for request in host.requests]

    busily = Pace(first=0, look=0.01, fresh=-1, again=0)
    offices = [Election(tmp_path / "office") for _ in range(2)]
    workers = [replace(provider(host), headers={"x-worker": str(number)}) for number in range(2)]
    assert offices[0].won()
    async with (
        discovery(tmp_path, workers[0], pace=busily) as (first, _),
        discovery(tmp_path, workers[1], pace=busily) as (second, _),
    ):
        idle = asyncio.create_task(second.keep_fresh(offices[1]))
        busy = asyncio.create_task(first.keep_fresh(offices[0]))
        await host.until(lambda _: len(askers()) >= 5)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        assert set(askers()) == {"0"}, "only who holds the office asks"
        offices[0].close()
        await host.until(lambda _: askers()[-1] == "1")
        idle.cancel()
        await asyncio.gather(idle, return_exceptions=True)
    offices[1].close()


async def test_the_first_question_comes_well_after_the_start(tmp_path: Path, host: FakeProvider) -> None:
    election = Election(tmp_path / "office")
    async with discovery(tmp_path, provider(host), pace=Pace(first=3_600)) as (asking, _):
        task = asyncio.create_task(asking.keep_fresh(election))
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    election.close()
    assert host.connections == 0
