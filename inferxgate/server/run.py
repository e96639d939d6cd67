"""Runs the server: opens the parts, listens, serves until told to stop, and ends with nothing left half done.

The first SIGTERM or SIGINT stops accepting. Requests that are running have ``server.shutdown_seconds`` to finish; new
ones on connections that are open already get a 503. A second signal ends the running ones at once. Either way the parts
are closed in order, so no record is lost, and the process ends with exit code 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
import uvloop

from inferxgate.accounts.tokens import Tokens, load_or_create_secret
from inferxgate.config import Loaded
from inferxgate.runtime import Runtime, open_runtime
from inferxgate.server.addresses import Addresses
from inferxgate.server.app import build_app
from inferxgate.server.endpoints import Draining, Parts
from inferxgate.server.identity import Identity
from inferxgate.server.listening import BACKLOG, all_loopback, listen, tls_context, url_of
from inferxgate.server.logs import start_logging, stop_logging
from inferxgate.server.protocol import GatewayProtocol
from inferxgate.server.threads import Threads
from inferxgate.server.throttle import SignIns

OnReady = Callable[[str, Runtime], None]

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than the pools of common clients and proxies keep theirs (60)."""
_SAME_SIGNAL_SECONDS = 1.0
"""A second signal within this time is the first one delivered twice, as a supervisor and a terminal do."""
_CANCEL_SECONDS = 2.0
_FLUSH_SECONDS = 1.0
_LINGER_SECONDS = 0.05
"""A request that was on its way when the server stopped is told so instead of losing its connection."""

log = logging.getLogger("inferxgate.server")


def run(loaded: Loaded, *, on_ready: OnReady) -> None:
    """Serve until a signal comes. ``on_ready`` is called with the URL once the server listens.

    Raises ``StartError`` of one line where the server cannot start.
    """
    server = loaded.settings.server
    writer = start_logging(server.log_level, server.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(loaded, on_ready=on_ready))
    finally:
        stop_logging(writer)


async def serve(loaded: Loaded, *, on_ready: OnReady) -> None:
    """The same, on a running loop."""
    settings = loaded.settings.server
    stop = _Stop()
    addresses = Addresses(settings.trusted_proxies)
    tls = tls_context(settings.tls_cert, settings.tls_key)
    sockets = listen(settings.host, settings.port)  # before anything dear, so that a port in use is told at once
    async with contextlib.AsyncExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        runtime = await stack.enter_async_context(open_runtime(loaded))
        threads = Threads()
        stack.callback(threads.close)
        tokens = _tokens(loaded)
        identity = Identity(runtime.store, tokens, defaults=loaded.settings.limits.of_keys)
        stack.push_async_callback(identity.stop)
        parts = Parts(
            runtime=runtime,
            identity=identity,
            tokens=tokens,
            addresses=addresses,
            sign_ins=SignIns(),
            threads=threads,
            draining=Draining(),
            listens_on_loopback=all_loopback(sockets),
        )
        config = _uvicorn_config(parts)
        config.load()
        config.ssl = tls
        server = _Server(config, parts.draining, stop, settings.shutdown_seconds)
        url = url_of(settings.host, sockets, tls=tls is not None)
        await identity.start()
        await server.serve_until_stopped(sockets, lambda: on_ready(url, runtime))


def _tokens(loaded: Loaded) -> Tokens:
    auth = loaded.settings.auth
    secret = auth.jwt_secret.get_secret_value() if auth.jwt_secret else load_or_create_secret(loaded.data_dir)
    return Tokens(secret, auth.jwt_expires_seconds)


def _uvicorn_config(parts: Parts) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(parts),
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # what its log would say, ours says with the request's id
        access_log=False,
        server_header=False,
        proxy_headers=False,  # addresses.Addresses reads them, from trusted proxies only
        workers=1,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


class _Stop:
    """The wish to stop, and the wish to stop at once, as signals express them."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self._asked_at = 0.0
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        now = self._loop.time()
        if not self.asked.is_set():
            self._asked_at = now
            self.asked.set()
        elif not self.forced.is_set() and now - self._asked_at >= _SAME_SIGNAL_SECONDS:
            self.forced.set()
            for number in (signal.SIGTERM, signal.SIGINT):  # the third one ends the process as it would any other
                self._loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """uvicorn's server, with our idea of how to end."""

    def __init__(self, config: uvicorn.Config, draining: Draining, stop: _Stop, shutdown_seconds: float) -> None:
        super().__init__(config)
        self._draining = draining
        self._stop = stop
        self._shutdown_seconds = shutdown_seconds
        self._on_ready: Callable[[], None] = lambda: None

    async def serve_until_stopped(self, sockets: list[socket.socket], on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        await self.serve(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ``_Stop``'s: uvicorn would raise them again at the end, which would spoil the exit code."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        while not self._stop.asked.is_set():
            await self.on_tick(0)  # renews the Date header
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stop.asked.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._draining.started = True
        log.info("stopping: %d requests are running", len(self.server_state.tasks))
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        await self._finish_requests()
        await self._close_connections()
        log.info("stopped")

    async def _finish_requests(self) -> None:
        tasks = self.server_state.tasks
        forced = asyncio.ensure_future(self._stop.forced.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_seconds):
                await asyncio.sleep(_LINGER_SECONDS)
                while tasks and not forced.done():
                    await asyncio.wait({forced, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if tasks:
            log.warning("%d requests did not finish in time and were ended", len(tasks))
            for task in list(tasks):
                task.cancel("shutdown: the time to finish is over")
            await asyncio.wait(set(tasks), timeout=_CANCEL_SECONDS)

    async def _close_connections(self) -> None:
        """Close what is idle; give what was written the time to arrive."""
        connections = self.server_state.connections
        for connection in list(connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                while connections and not self._stop.forced.is_set():  # noqa: ASYNC110 - uvicorn tells of no end
                    await asyncio.sleep(0.01)
        for connection in list(connections):
            if connection.transport is not None:
                connection.transport.abort()
