"""What is not HTTP, too long or too slow."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.types import Receive, Scope, Send

from inferxgate.server.protocol import HEAD_BYTES, GatewayProtocol
from tests.server.conftest import CHAT, World
from tests.server.serving import exchange, served

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


def refusal(said: bytes) -> tuple[int, str]:
    """Status and message of an answer that must be in the contract's form."""
    head, _, body = said.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/json" in lines
    assert b"connection: close" in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    error = json.loads(body)["error"]
    assert set(error) == {"type", "message", "code", "param"}
    return int(lines[0].split()[1]), error["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,  # TLS towards a plain port
        b"FETCH /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"Bad Header: x\r\n\r\n",
        GET + b"Content-Length: abc\r\n\r\n",
        GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_so_in_json(world: World, data: bytes) -> None:
    assert refusal(await exchange(world.process.port, data))[0] == 400


async def test_a_head_without_end_is_refused(world: World) -> None:
    for pieces in ([GET + b"X: "] + [b"x" * 20_000] * 4, [GET] + [b"X: " + b"x" * 9_000 + b"\r\n"] * 8):
        status, message = refusal(await exchange(world.process.port, *pieces, pause_seconds=0.005))
        assert (status, f"{HEAD_BYTES // 1024} kB" in message) == (431, True)


async def test_a_large_head_is_taken(world: World) -> None:
    said = await exchange(world.process.port, GET + b"X: " + b"x" * 30_000 + b"\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")


async def test_a_head_in_single_bytes_is_taken(world: World) -> None:
    data = GET + b"Connection: close\r\n\r\n"
    said = await exchange(world.process.port, *[data[place : place + 1] for place in range(len(data))])
    assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
async def test_an_offer_to_switch_protocols_is_overlooked_and_the_body_is_read(world: World, name: str) -> None:
    """Java's HTTP client offers HTTP/2 with its first request, body and all."""
    body = json.dumps(CHAT | {"messages": [{"role": "user", "content": "a\r\nupgrade: b"}]}).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"{name}: h2c\r\n"
        f"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nAuthorization: Bearer {world.secret(rpm=0)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    last = GET + b"Connection: close\r\n\r\n"
    for pieces, answers in (([request, request, last], 3), ([request[:-20], request[-20:], last], 2)):
        said = await exchange(world.process.port, *pieces, pause_seconds=0.2)
        assert said.count(b"HTTP/1.1 200 OK") == answers
        assert b"a\\r\\nupgrade: b" in said


class Impatient(GatewayProtocol):
    """The same with less patience."""

    head_seconds = 0.2


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.mark.parametrize("sent", [b"", b"GET", GET, GET + b"\r\n" + GET])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with served(hello, Impatient) as port:
        said = await exchange(port, sent)
    assert said.count(b"HTTP/1.1 200 OK") == sent.count(b"\r\n\r\n")


async def test_a_slow_answer_is_not_a_slow_head() -> None:
    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await hello(scope, receive, send)

    async with served(slowly, Impatient) as port:
        said = await exchange(port, GET + b"Connection: close\r\n\r\n")
    assert said.endswith(b"hi")
