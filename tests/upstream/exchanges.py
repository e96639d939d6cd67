"""Requests to the tests' own servers, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from inferxgate.errors import (
    GatewayError,
)
from inferxgate.upstream.http import HttpOptions, HttpUpstream
from inferxgate.upstream.protocol import HttpRequest, HttpResponse, Timeouts
from tests.support.provider import (
    FakeProvider,
)

SECRET = "sk-canary-0123456789"
LIMIT = 10**8


def request(
    provider: FakeProvider | str,
    *,
    path: str = "/v1/chat/completions",
    body: bytes = b'{"messages":[]}',
    method: str = "POST",
    headers: dict[str, str] | None = None,
    **seconds: float,
) -> HttpRequest:
    base = provider if isinstance(provider, str) else provider.url
    timeouts = Timeouts(**{f"{name}_seconds": value for name, value in seconds.items()})
    return HttpRequest(method, base + path, {"Authorization": f"Bearer {SECRET}", **(headers or {})}, body, timeouts)


async def read_all(response: HttpResponse) -> bytes:
    return b"".join([chunk async for chunk in response.chunks()])


@contextlib.asynccontextmanager
async def engine(**options: str) -> AsyncIterator[HttpUpstream]:
    made = HttpUpstream(HttpOptions(**options))
    try:
        yield made
    finally:
        await made.close()


async def failure(upstream: HttpUpstream, what: HttpRequest, *, whole: bool = False) -> GatewayError:
    """The error that sending and reading ends with. It never holds a secret, in its text or behind it.

    It begins with the words after which the provider's name is put in, unless it is about the gateway itself.
    """
    with pytest.raises(GatewayError) as caught:
        await exchange(upstream, what, whole=whole)
    error = caught.value
    assert error.__context__ is None
    assert SECRET not in error.message
    assert error.message == str(error)
    assert error.message.startswith(("The provider ", "The provider's ", "The gateway is closing"))
    assert error.message.endswith(".")
    return error


async def exchange(upstream: HttpUpstream, what: HttpRequest, *, whole: bool = False) -> bytes:
    response = await upstream.send(what)
    try:
        return await response.read(limit=LIMIT) if whole else await read_all(response)
    finally:
        await response.close()


@contextlib.asynccontextmanager
async def serving(serve: Callable[[socket.socket], None]) -> AsyncIterator[int]:
    """A server for one connection, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                serve(connection)

        serving_it = asyncio.get_running_loop().run_in_executor(None, run)
        yield server.getsockname()[1]
        await serving_it


def say_the_same_to_everyone(connection: socket.socket) -> None:
    connection.recv(1)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    drain(connection)


def drain(connection: socket.socket) -> int:
    """Read until the other side is gone; how much there was."""
    size = 0
    connection.settimeout(10)
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 20):
            size += len(data)
    return size
