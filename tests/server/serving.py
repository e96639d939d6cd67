"""A server in the test's own process, for applications that no gateway would run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.types import ASGIApp

from inferxgate.server.protocol import GatewayProtocol


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to become true, and fail when it does not."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - whatever it waits for knows nothing of tests
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp, protocol: type[GatewayProtocol] = GatewayProtocol, *, idle_seconds: int = 5
) -> AsyncIterator[int]:
    """Serve ``app`` on the real HTTP protocol; the port. Idle connections are closed after ``idle_seconds``."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=idle_seconds,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([sock]))
    await until(lambda: server.started)
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def exchange(port: int, *pieces: bytes, pause_seconds: float = 0.0) -> bytes:
    """Write bytes to a server and read until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_seconds)
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
