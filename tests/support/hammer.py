"""A client that asks at a constant rate whatever happens to the gateway: ``python -m tests.support.hammer``.

It is started by ``tests.support.kills``. Half of its requests are streamed; their ids are ``NAME-NUMBER``. For each one
it prints a line with its id and what came of it: ``whole`` (all of a good answer has arrived), an HTTP status,
``refused`` (nobody listened) or ``broken``. It ends when its standard input does, after those under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence

_TIMEOUT_SECONDS = 30.0
_MOST_AT_ONCE = 1_000
_DONE = b"data: [DONE]\n\n"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hammer:
    """Connections to one gateway, and what is sent over them."""

    def __init__(self, name: str, port: int, model: str, secrets: Sequence[str]) -> None:
        self._name = name
        self._port = port
        self._model = model
        self._secrets = secrets
        self._idle: list[Connection] = []

    async def ask(self, number: int) -> None:
        """Send one request, and print what came of it."""
        request_id = f"{self._name}-{number}"
        stream = number % 2 == 1
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                status, body = await self._exchange(self._request(request_id, number, stream=stream))
        except ConnectionRefusedError:
            outcome = "refused"
        except (OSError, EOFError, ValueError, TimeoutError):
            outcome = "broken"
        else:
            outcome = str(status)
            if status == 200:
                outcome = "whole" if (body.endswith(_DONE) if stream else _is_answer(body)) else "broken"
        print(request_id, outcome, flush=True)

    def _request(self, request_id: str, number: int, *, stream: bool) -> bytes:
        message = {"role": "user", "content": request_id}
        asked = {"model": self._model, "messages": [message], "max_tokens": 50, "stream": stream}
        body = json.dumps(asked).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self._secrets[number % len(self._secrets)]}",
            f"X-Request-Id: {request_id}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        return "\r\n".join([*head, "", ""]).encode() + body

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connected()
        try:
            writer.write(request)
            status, length = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            body = await _read_chunks(reader) if length is None else await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return status, body

    async def _connected(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and reader.exception() is None:
                return reader, writer
            writer.close()  # its worker was killed
        return await asyncio.open_connection("127.0.0.1", self._port)


def _parse_head(head: bytes) -> tuple[int, int | None]:
    """Status and length; None: in chunks."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(first.split(" ")[1]), None if "transfer-encoding" in headers else int(headers["content-length"])


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    with contextlib.suppress(EOFError, OSError):  # a client has all of a stream with its [DONE], whatever comes then
        while size := int((await reader.readuntil(b"\r\n")), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    if not body.endswith(_DONE):
        raise EOFError
    return body


def _is_answer(body: bytes) -> bool:
    return bool(json.loads(body)["choices"][0]["finish_reason"] == "stop")


async def _hammer(name: str, port: str, rate: str, model: str, *secrets: str) -> None:
    hammer = Hammer(name, int(port), model, secrets)
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    tasks: set[asyncio.Task[None]] = set()
    number, begin = 0, loop.time()
    while not ended.done():
        await asyncio.sleep(begin + number / float(rate) - loop.time())
        if len(tasks) < _MOST_AT_ONCE:
            task = loop.create_task(hammer.ask(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        number += 1
    if tasks:
        await asyncio.wait(tasks)


if __name__ == "__main__":
    asyncio.run(_hammer(*sys.argv[1:]))
