"""How connections are taken: also by a loop whose turns are long, as they are under load."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import uvloop

from inferxgate.server.accepting import Acceptor

CONNECTIONS = 96


def test_a_busy_loop_takes_many_in_a_turn() -> None:
    async def accept_all() -> int:
        loop = asyncio.get_running_loop()
        taken: list[socket.socket] = []
        all_taken = asyncio.Event()
        turns = 0

        async def serve(connection: socket.socket) -> None:
            taken.append(connection)
            if len(taken) == CONNECTIONS:
                all_taken.set()

        def turn() -> None:
            nonlocal turns
            turns += 1
            time.sleep(0.001)
            if not all_taken.is_set():
                loop.call_soon(turn)

        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS))
            listener.settimeout(0)
            for _ in range(CONNECTIONS):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            acceptor = Acceptor([listener], None, serve=serve, connections=lambda: len(taken))
            turn()
            async with asyncio.timeout(20):
                await all_taken.wait()
            acceptor.close()
            for connection in taken:
                connection.close()
        return turns

    assert uvloop.run(accept_all()) < CONNECTIONS / 4
