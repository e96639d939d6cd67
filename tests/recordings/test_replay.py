"""Recorded answers of real hosts, played through the running gateway to OpenAI's own SDK.

A server on a real socket plays each recording in random cuts; the gateway, a real process, is configured with it as a
provider of type openai; and the SDK reads what comes out. What it read is held against the recording, and what the
provider was sent against the recorded request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.recordings import reading
from tests.support import recordings
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider
from tests.support.recordings import Recording

HOSTS = ("openai", "groq", "mistral", "deepseek", "openrouter", "xai", "azure", "ollama")

EXCEPTIONS = {
    "groq/chat.completions/test-groq-test-tool-use-failed-error-streaming-with-text-0-9e866a63.json": (
        "the host's stream breaks off with an error event, which the client gets as one"
    ),
    "openai/chat.completions/test-tools-streaming-test-tools-streaming-variant-a-0-bf467b9a.json": (
        "the stream ends without any finish reason, which is an error and not made up"
    ),
}
"""Exchanges whose client does not get what the recording holds, each with the reason."""


def wanted(host: str) -> list[Recording]:
    return recordings.find(lambda r: r.provider == host and r.api == "chat.completions" and r.status == 200)


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def client(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    config = provider_section("recorded", provider.base_url)
    with GatewayProcess(tmp_path_factory.mktemp("replay"), config=config) as gateway:
        key = gateway.create_key("--rpm", "0")
        yield openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0)


def play(provider: FakeProvider, exchange: dict[str, Any], seed: int) -> None:
    """Have the provider answer the next request as recorded."""
    response = exchange["response"]
    headers = {name: value for name, value in response["headers"].items() if name in ("content-type", "x-request-id")}
    if response["text"] is not None:
        headers.setdefault("content-type", "text/event-stream")
        provider.reply_body(response["text"].encode(), headers=headers, cuts=seed)
    else:
        headers.setdefault("content-type", "application/json")
        provider.reply_body(json.dumps(response["body"]).encode(), headers=headers, cuts=seed)


def ask(client: openai.OpenAI, body: dict[str, Any], *, stream: bool) -> reading.Reading:
    """What the SDK makes of the gateway's answer."""
    if not stream:
        answer = client.post("/chat/completions", body=body, cast_to=ChatCompletion)
        return reading.of_whole(answer.model_dump(exclude_unset=True, warnings=False))
    chunks = client.post(
        "/chat/completions",
        body=body,
        cast_to=ChatCompletion,
        stream=True,
        stream_cls=openai.Stream[ChatCompletionChunk],
    )
    with chunks:
        return reading.of_stream(chunk.model_dump(exclude_unset=True, warnings=False) for chunk in chunks)


def differs(client: openai.OpenAI, provider: FakeProvider, recording: Recording, seed: int) -> str | None:
    """Why a client does not get what the recording holds; None where it does."""
    exchange = recording.load()
    response = exchange["response"]
    stream = response["text"] is not None
    recorded = dict(exchange["request"]["body"])
    body = {**recorded, "model": f"recorded/{recorded.get('model') or 'deployment'}", "stream": stream}
    if stream:
        body["stream_options"] = {**(recorded.get("stream_options") or {}), "include_usage": True}
    play(provider, exchange, seed)
    try:
        got = ask(client, body, stream=stream)
    except openai.APIError as error:
        return f"{type(error).__name__}: {error}"
    sent = provider.last.json()
    if sent != {**body, "model": recorded.get("model") or "deployment"}:
        return f"the provider was sent something else: {sent}"
    expected = reading.of_stream(reading.events_of(response["text"])) if stream else reading.of_whole(response["body"])
    return None if got == expected else f"expected {expected}, got {got}"


@pytest.mark.parametrize("host", HOSTS)
def test_clients_get_what_was_recorded(host: str, client: openai.OpenAI, provider: FakeProvider) -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    exchanges = wanted(host)
    assert exchanges, f"there are recordings, but none of {host}"
    failed: dict[str, str] = {}
    for seed, recording in enumerate(exchanges):
        why = differs(client, provider, recording, seed)
        if why is not None:
            failed[recording.file] = why
    healed = [file for file in EXCEPTIONS if file in {each.file for each in exchanges} and file not in failed]
    assert not healed, "listed as exceptions, though clients get what they hold"
    unlisted = {file: why for file, why in failed.items() if file not in EXCEPTIONS}
    assert not unlisted, "\n".join(f"{file}: {why[:600]}" for file, why in unlisted.items())


def test_the_exceptions_are_few_and_real() -> None:
    if recordings.folder() is None:
        pytest.skip(recordings.MISSING)
    files = {recording.file for host in HOSTS for recording in wanted(host)}
    assert set(EXCEPTIONS) <= files
    assert len(EXCEPTIONS) / len(files) <= 0.005
