"""The floor: the least that a gateway in Python does, a raw ASGI application for uvicorn, with aiohttp as its client.

It knows a key by its hash, parses the request, sends it on under the model's other name, parses the answer, counts its
usage and writes it again; of a stream every event. There is no limit, no price, no record, no metric, no log, no
translation, no second try and hardly an error.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any

import aiohttp
import orjson

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_KEYS = {os.environ["FLOOR_KEY_SHA256"]: "key"}
_PROVIDER = os.environ["FLOOR_PROVIDER"]
_MODELS = {name: f"{_PROVIDER}/{name}/v1/chat/completions" for name in ("whole", "burst", "paced", "first")}
_MODEL = "gpt-4o-mini"
_HEADERS = {"Authorization": "Bearer sk-provider", "Content-Type": "application/json"}
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class Floor:
    """The application."""

    def __init__(self) -> None:
        self._client: aiohttp.ClientSession | None = None
        self.used: dict[str, list[int]] = {}
        """By key: requests, tokens in, tokens out."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == "/health":
            await _reply(send, 200, b"ok")
        elif scope["path"] == "/v1/chat/completions":
            await self._chat(scope, receive, send)
        else:
            await _reply(send, 404, b"{}")

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.startup":
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
                self._client = aiohttp.ClientSession(
                    connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
                )
            elif self._client is not None:
                await self._client.close()
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _chat(self, scope: Message, receive: Receive, send: Send) -> None:
        key = _key_of(scope["headers"])
        if key is None:
            await _reply(send, 401, b"{}")
            return
        asked = orjson.loads(await _body_of(receive))
        url = _MODELS[asked["model"]]
        asked["model"] = _MODEL
        assert self._client is not None
        async with self._client.post(url, data=orjson.dumps(asked), headers=_HEADERS) as answer:
            if asked.get("stream"):
                await send({"type": "http.response.start", "status": answer.status, "headers": [_EVENTS]})
                async for piece in self._events(key, answer.content):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
                return
            said = orjson.loads(await answer.read())
        self._count(key, said.get("usage"))
        await _reply(send, answer.status, orjson.dumps(said))

    async def _events(self, key: str, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """What came at once is written at once."""
        rest = b""
        async for piece in content.iter_any():
            *events, rest = (rest + piece).split(b"\n\n")
            if out := b"".join([self._event(key, event) for event in events]):
                yield out

    def _event(self, key: str, event: bytes) -> bytes:
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            return b"data: [DONE]\n\n"
        chunk = orjson.loads(data)
        self._count(key, chunk.get("usage"))
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def _count(self, key: str, usage: Mapping[str, int] | None) -> None:
        if usage:
            used = self.used.setdefault(key, [0, 0, 0])
            used[0] += 1
            used[1] += usage["prompt_tokens"]
            used[2] += usage["completion_tokens"]


def _key_of(headers: list[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"authorization":
            return _KEYS.get(sha256(value.removeprefix(b"Bearer ")).hexdigest())
    return None


async def _body_of(receive: Receive) -> bytes:
    message = await receive()
    parts = [message["body"]]
    while message.get("more_body"):
        message = await receive()
        parts.append(message["body"])
    return b"".join(parts)


async def _reply(send: Send, status: int, body: bytes) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = Floor()
