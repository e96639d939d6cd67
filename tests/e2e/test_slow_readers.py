"""A client that does not read: the provider is not read on, and nothing piles up here; then the client gets it all."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import FakeProvider, Reply, SeenRequest, head

MIB = 1024 * 1024
TEXT = "x" * 16_000
EVENTS = 8_192
"""Some 128 MiB in all."""
SOCKETS_MIB = 48
"""What the system's buffers of two connections may take, with much to spare."""
OURS_MIB = 16


def openai_events() -> Iterator[dict[str, Any]]:
    for number in range(EVENTS):
        delta = {"content": f"{number:05}{TEXT}"}
        yield {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
    yield {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    }


def anthropic_events() -> Iterator[dict[str, Any]]:
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for number in range(EVENTS):
        delta = {"type": "text_delta", "text": f"{number:05}{TEXT}"}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
    yield {"type": "message_stop"}


EVENTS_OF = {"openai/gpt-4o": openai_events, "anthropic/claude-sonnet-4-5": anthropic_events}


def endless(model: str) -> Reply:
    """As fast as it is read."""
    events = (f"event: {event.get('type')}\ndata: {json.dumps(event)}\n\n".encode() for event in EVENTS_OF[model]())
    beginning = head(200, {"content-type": "text/event-stream", "connection": "close"})
    return Reply((beginning, *events, *([b"data: [DONE]\n\n"] if model.startswith("openai") else [])))


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    config = provider_section("openai", provider.base_url)
    config += f'[providers.anthropic]\napi_key = "sk-1"\nbase_url = "{provider.url}"\n'
    config += "[server]\nkeepalive_seconds = 0.5\n[limits]\nrequests_per_minute = 0\n"
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), config=config) as process:
        yield process


@contextlib.contextmanager
def asking(gateway: GatewayProcess, model: str, key: str) -> Iterator[socket.socket]:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Go on"}], "stream": True}).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(60)
        client.connect(("127.0.0.1", gateway.port))
        client.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        yield client


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(MIB), b""))


def until_blocked(request: SeenRequest) -> int:
    """How much a provider could write before it could write no more."""
    before = -1
    while request.written_bytes != before:
        before = request.written_bytes
        time.sleep(1)
    return before


def private_bytes(gateway: GatewayProcess) -> int:
    assert gateway.process is not None
    lines = Path(f"/proc/{gateway.process.pid}/smaps_rollup").read_text().splitlines()
    (dirty,) = (line.split()[1] for line in lines if line.startswith("Private_Dirty:"))
    return int(dirty) * 1024


@pytest.mark.parametrize("model", EVENTS_OF)
def test_nothing_piles_up_for_who_does_not_read(gateway: GatewayProcess, provider: FakeProvider, model: str) -> None:
    key = gateway.create_key()
    with asking(gateway, "echo", key) as client:  # what is loaded with the first request is in memory then
        read_all(client)
    provider.reply(endless(model))
    before, count = private_bytes(gateway), len(provider.requests)
    with asking(gateway, model, key) as client:
        provider.wait_for_requests(count + 1)
        request = provider.last
        written = until_blocked(request)
        assert MIB / 16 < written < SOCKETS_MIB * MIB
        assert private_bytes(gateway) - before < OURS_MIB * MIB
        assert request.ended_early is None
        received = read_all(client)
    assert private_bytes(gateway) - before < OURS_MIB * MIB
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert received.count(TEXT.encode()) == EVENTS
    assert received.count(b": keep-alive") <= 1, "what waits for the client is no silence"
    assert all(b"%05dx" % number in received for number in range(0, EVENTS, 100))
