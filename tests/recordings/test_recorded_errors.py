"""Recorded error bodies of real hosts, played through the running gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.recordings.test_replay import HOSTS
from tests.support import recordings
from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

TOLD = {400: 400, 401: 502, 402: 429, 403: 502, 404: 404, 413: 413, 422: 422, 429: 429, 500: 502, 501: 502, 503: 503}
"""What the contract makes of each recorded status."""

CODES = {
    429: {("rate_limit_error", "upstream_rate_limited"), ("insufficient_quota", "upstream_quota_exceeded")},
    502: {("upstream_error", "upstream_error"), ("upstream_error", "upstream_auth_error")},
    503: {("service_unavailable", "upstream_overloaded")},
}


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeProvider, GatewayProcess, str]]:
    with FakeProvider() as provider:
        config = (
            f'[providers.recorded]\ntype = "openai"\napi_key = "sk-recorded-0000"\nbase_url = "{provider.base_url}"\n'
        )
        with GatewayProcess(tmp_path_factory.mktemp("errors"), config=config) as process:
            yield provider, process, process.create_key("--rpm", "0")


def test_every_recorded_error_is_told_as_the_contract_says(gateway: tuple[FakeProvider, GatewayProcess, str]) -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    provider, process, key = gateway
    seen = 0
    for recording in recordings.find(lambda r: r.provider in HOSTS and r.api == "chat.completions" and r.status >= 400):
        response = recording.load()["response"]
        data = json.dumps(response["body"]).encode() if response["text"] is None else response["text"].encode()
        for stream in (False, True):
            provider.reply_body(data, status=recording.status, headers=response["headers"])
            answer = httpx.post(
                process.base_url + "/chat/completions",
                headers={"authorization": f"Bearer {key}"},
                json={"model": "recorded/m", "messages": [{"role": "user", "content": "x"}], "stream": stream},
            )
            error = answer.json()["error"]
            assert set(error) == {"type", "message", "code", "param"}, recording.file
            assert answer.status_code == TOLD[recording.status], (recording.file, error)
            assert answer.headers["x-inferxgate-upstream-status"] == str(recording.status)
            if recording.status not in (400, 404, 413, 422):
                code = error["code"]
                assert (error["type"], code) in CODES[answer.status_code], (recording.file, error)
                assert ("retry-after" in answer.headers) == (code in ("upstream_rate_limited", "upstream_overloaded"))
                final = code in ("upstream_quota_exceeded", "upstream_auth_error")
                assert (answer.headers.get("x-should-retry") == "false") == final
            if recording.status in (400, 404, 422):
                details = response["body"].get("error", response["body"]) if response["body"] else {}
                if isinstance(details, dict) and isinstance(details.get("message"), str):
                    assert error["message"] == details["message"][:2000], recording.file
            seen += 1
    assert seen > 50
