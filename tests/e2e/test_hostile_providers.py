"""Providers that send nonsense, through the running gateway: what clients see, what is recorded, that it lives on."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openai import APIError, APIStatusError, OpenAI

from tests.e2e.hostile import CASES, Answer, Case, Failure
from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

Json = dict[str, Any]

SECRETS = {name: f"canary-{name}-5c1e77a0" for name in ("anthropic", "gemini", "azure", "openrouter")}
CONFIG = """
[routing]  # each failure is told as it comes, and none leaves the provider alone
retries = 0
min_failures = 1000000
[providers.anthropic]
base_url = "{url}"
api_key = "canary-anthropic-5c1e77a0"
[providers.gemini]
base_url = "{url}"
api_key = "canary-gemini-5c1e77a0"
[providers.azure]
base_url = "{url}"
api_key = "canary-azure-5c1e77a0"
api_version = "v1"
[providers.openrouter]
base_url = "{url}/v1"
api_key = "canary-openrouter-5c1e77a0"
"""
MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash", "azure": "my-gpt", "openrouter": "x/y"}
QUESTION: list[Any] = [{"role": "user", "content": "Say hello."}]


@dataclass
class View:
    """What one client saw."""

    status: int = 200
    code: str | None = None
    text: str = ""
    finish: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    message: str = ""
    """Of an error."""


@dataclass
class Setup:
    provider: FakeProvider
    gateway: GatewayProcess
    key: str

    def record(self, request_id: str) -> dict[str, Any]:
        """The one record of a request, once it is in the store."""
        for _ in range(500):
            with closing(sqlite3.connect(f"file:{self.gateway.data_dir}/inferxgate.db?mode=ro", uri=True)) as store:
                store.row_factory = sqlite3.Row
                rows = store.execute("SELECT * FROM usage WHERE request_id = ?", (request_id,)).fetchall()
            if rows:
                assert len(rows) == 1
                return dict(rows[0])
            time.sleep(0.02)
        raise AssertionError(f"{request_id} was never recorded")


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with FakeProvider() as provider:
        config = CONFIG.format(url=provider.url)
        with GatewayProcess(tmp_path_factory.mktemp("hostile"), config=config) as gateway:
            yield Setup(provider, gateway, gateway.create_key("--rpm", "0"))


# --- two readers --------------------------------------------------------------------------------------------------


def read_raw(setup: Setup, case: Case, request_id: str) -> View:
    """A client that reads bytes, and holds them to the form that every stream and every answer has."""
    answer = httpx.post(
        setup.gateway.base_url + "/chat/completions",
        headers={"authorization": f"Bearer {setup.key}", "x-request-id": request_id},
        json={"model": f"{case.provider}/{MODELS[case.provider]}", "messages": QUESTION, "stream": case.stream},
        timeout=60,
    )
    assert answer.headers["x-request-id"] == request_id
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert case.stream
        return read_events(answer.content)
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    if answer.status_code != 200:
        assert set(body) == {"error"}
        return View(answer.status_code, told(body["error"]), message=body["error"]["message"])
    assert not case.stream
    [choice] = body["choices"]
    said = choice["message"]
    calls = tuple((one["function"]["name"], one["function"]["arguments"]) for one in said.get("tool_calls") or ())
    return View(text=said["content"] or "", finish=choice["finish_reason"], calls=calls)


def told(error: Json) -> str:
    assert set(error) == {"type", "message", "code", "param"}
    assert error["message"]
    code: str = error["code"]
    return code


def read_events(data: bytes) -> View:
    *events, rest = data.decode().split("\n\n")
    assert rest == "", "a stream ends with a whole event"
    assert all(event.startswith("data: ") for event in events)
    view, calls = View(), dict[int, list[str]]()
    *said, last = [event.removeprefix("data: ") for event in events]
    for chunk in map(json.loads, said):
        assert "error" not in chunk, "an error is the last that is said"
        [choice] = chunk["choices"]
        view.text += choice["delta"].get("content") or ""
        view.finish = choice["finish_reason"] or view.finish
        for piece in choice["delta"].get("tool_calls") or ():
            call = calls.setdefault(piece["index"], ["", ""])
            call[0] += piece["function"].get("name") or ""
            call[1] += piece["function"]["arguments"]
    view.calls = tuple((name, arguments) for name, arguments in calls.values())
    if last != "[DONE]":
        error = json.loads(last)
        assert set(error) == {"error"}
        view.code, view.message = told(error["error"]), error["error"]["message"]
    return view


def read_with_sdk(setup: Setup, case: Case, request_id: str) -> View:
    """The official client."""
    client = OpenAI(base_url=setup.gateway.base_url, api_key=setup.key, max_retries=0, timeout=60)
    asked: Json = {
        "model": f"{case.provider}/{MODELS[case.provider]}",
        "messages": QUESTION,
        "extra_headers": {"x-request-id": request_id},
    }
    view = View()
    try:
        if case.stream:
            for chunk in client.chat.completions.create(stream=True, **asked):
                for choice in chunk.choices:
                    view.text += choice.delta.content or ""
                    view.finish = choice.finish_reason or view.finish
        else:
            [whole] = client.chat.completions.create(**asked).choices
            view.text, view.finish = whole.message.content or "", whole.finish_reason
    except APIStatusError as error:
        return View(error.status_code, error.code)
    except APIError as error:
        view.code = error.code
    return view


# --- each case ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_nonsense_reaches_clients_as_what_it_is(setup: Setup, name: str) -> None:
    case, ids = CASES[name], [f"{name.encode().hex()[-96:]}-{reader}" for reader in ("raw", "sdk")]
    setup.provider.reply(case.reply())
    raw = read_raw(setup, case, ids[0])
    setup.provider.reply(case.reply(cuts=len(name)))
    sdk = read_with_sdk(setup, case, ids[1])

    expected = case.expected
    if isinstance(expected, Answer):
        seen = View(200, None, expected.text, expected.finish, expected.calls)
    elif expected.said is None:
        seen = View(expected.status, expected.code)
    else:
        seen = View(200, expected.code, expected.said)
    assert (raw.status, raw.code, raw.finish, raw.calls) == (seen.status, seen.code, seen.finish, seen.calls), (
        raw.message
    )
    assert (sdk.status, sdk.code, sdk.finish) == (seen.status, seen.code, seen.finish)
    assert raw.text == sdk.text == seen.text
    if raw.code is not None:
        assert f"The provider {case.provider}" in raw.message
        assert SECRETS[case.provider] not in raw.message

    for request_id in ids:
        check(setup.record(request_id), expected)
    assert setup.gateway.process is not None
    assert setup.gateway.process.poll() is None
    assert "Traceback" not in setup.gateway.log
    assert httpx.get(setup.gateway.url + "/health").json()["status"] == "healthy"


def check(record: dict[str, Any], expected: Answer | Failure) -> None:
    """One record of each request, that says what the client was told and what was used."""
    failed = isinstance(expected, Failure)
    assert record["status"] == ("provider_error" if failed else "ok")
    assert record["error_code"] == (expected.code if isinstance(expected, Failure) else None)
    before = isinstance(expected, Failure) and expected.said is None
    assert record["http_status"] == (expected.status if isinstance(expected, Failure) and before else 200)
    counts = {name: record[name] for name in record if name.endswith("_tokens")}
    completion = sum(count for name, count in counts.items() if "output" in name or "reasoning" in name)
    prompt = sum(counts.values()) - completion
    if expected.counted is not None:
        assert (record["usage_source"], (prompt, completion)) == ("provider", expected.counted)
        return
    source = (expected.source or ("none" if before else "estimated")) if isinstance(expected, Failure) else "estimated"
    assert record["usage_source"] == source
    assert (prompt > 0 and completion > 0) == (source == "estimated")
