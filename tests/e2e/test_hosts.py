"""Hosts with their own addresses, credentials and spellings, from the configuration to the wire and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.process import GatewayProcess
from tests.support.provider import FakeProvider

USER = {"role": "user", "content": "Hello"}
CONFIG = """
[providers.azure]
base_url = "{url}"
api_key = "azure-key-0000"
api_version = "2024-02-01"
deployments = {{ my-gpt = "gpt-4o" }}
[providers.azure-v1]
type = "azure"
base_url = "{url}/openai/v1"
api_key = "entra-token-0000"
auth = "bearer"
[providers.mistral]
base_url = "{url}/v1"
api_key = "mistral-key-0000"
"""


class Asker:
    """A client of a gateway in front of one fake provider."""

    def __init__(self, provider: FakeProvider, gateway: GatewayProcess) -> None:
        self.provider = provider
        self._gateway = gateway
        self._key = gateway.create_key("--rpm", "0")

    def ask(self, model: str, **more: Any) -> httpx.Response:
        return httpx.post(
            self._gateway.base_url + "/chat/completions",
            headers={"authorization": f"Bearer {self._key}"},
            json={"model": model, "messages": [USER], **more},
        )


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    with FakeProvider() as provider:
        config = CONFIG.format(url=provider.url)
        with GatewayProcess(tmp_path_factory.mktemp("hosts"), config=config) as gateway:
            yield Asker(provider, gateway)


def completion(reason: str) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "model": "as-the-host-calls-it",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def test_a_deployment_has_its_own_address_and_the_price_of_its_model(asker: Asker) -> None:
    asker.provider.reply_json(completion("stop"))
    answer = asker.ask("my-gpt")
    assert answer.status_code == 200
    sent = asker.provider.last
    assert sent.target == "/openai/deployments/my-gpt/chat/completions?api-version=2024-02-01"
    assert sent.headers["api-key"] == "azure-key-0000"
    assert "authorization" not in sent.headers
    assert answer.headers["x-inferxgate-model"] == "azure/my-gpt"
    assert answer.headers["x-inferxgate-cost"] == "0.0035"
    assert answer.json()["model"] == "as-the-host-calls-it"


def test_a_deployment_that_nothing_is_known_of_has_no_price(asker: Asker) -> None:
    asker.provider.reply_json(completion("stop"))
    answer = asker.ask("azure/gpt-4o")
    assert answer.status_code == 200
    assert "x-inferxgate-cost" not in answer.headers


def test_an_old_version_is_not_asked_for_usage_and_the_newer_form_is(asker: Asker) -> None:
    events = [{"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}]
    for model, path, options in [
        ("azure/my-gpt", "/openai/deployments/my-gpt/chat/completions", None),
        ("azure-v1/my-gpt", "/openai/v1/chat/completions", {"include_usage": True}),
    ]:
        asker.provider.reply_sse(events)
        assert asker.ask(model, stream=True, stream_options={"include_usage": True}).text.endswith("data: [DONE]\n\n")
        sent = asker.provider.last
        assert (sent.path, sent.json().get("stream_options")) == (path, options)
    assert sent.headers["authorization"] == "Bearer entra-token-0000"
    assert sent.json()["model"] == "my-gpt"


def test_a_name_that_would_lead_elsewhere_never_leaves(asker: Asker) -> None:
    before = len(asker.provider.requests)
    answer = asker.ask("azure/../../other?x=1#")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert len(asker.provider.requests) == before


def test_a_hosts_spelling_goes_out_and_openais_comes_back(asker: Asker) -> None:
    asker.provider.reply_json(completion("model_length"))
    answer = asker.ask("mistral/mistral-small-latest", seed=7, user="ann", max_completion_tokens=9)
    sent = asker.provider.last.json()
    assert sent == {"model": "mistral-small-latest", "messages": [USER], "random_seed": 7, "max_tokens": 9}
    assert answer.headers["x-inferxgate-dropped-params"] == "user"
    assert answer.json() == completion("length")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mistral/mistral-small-latest", "The provider mistral does not take 'functions'."),
        ("echo", "The provider echo does not take 'functions'."),
    ],
)
def test_a_refusal_names_the_provider_once(asker: Asker, model: str, said: str) -> None:
    answer = asker.ask(model, functions=[{"name": "f"}])
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)


def last_event(reason: str) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def test_a_hosts_spelling_in_streams(asker: Asker) -> None:
    said = {"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
    asker.provider.reply_sse([said, last_event("model_length")])
    answer = asker.ask("mistral/mistral-small-latest", stream=True)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert events == [said, last_event("length")]
    asker.provider.reply_sse([said, last_event("error")])
    failed = asker.ask("mistral/mistral-small-latest", stream=True).text
    assert '"type":"upstream_error"' in failed
    assert "[DONE]" not in failed


def test_a_strict_gateway_refuses_what_it_would_drop(tmp_path_factory: pytest.TempPathFactory) -> None:
    with FakeProvider() as provider:
        config = CONFIG.format(url=provider.url) + '[params]\nunsupported = "strict"\n'
        with GatewayProcess(tmp_path_factory.mktemp("strict"), config=config) as gateway:
            answer = Asker(provider, gateway).ask("mistral/mistral-small-latest", user="ann")
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "unsupported_parameter"
            assert answer.json()["error"]["param"] == "user"
            assert provider.requests == []
