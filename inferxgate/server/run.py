"""Runs the server: listens, opens the parts, serves until told to stop, and ends with nothing left half done.

The first SIGTERM or SIGINT stops accepting. Requests that are running have ``server.shutdown_seconds`` to finish; new
ones on connections that are open already get a 503. A second signal ends the running ones at once. Either way the parts
are closed in order, so no record is lost, and the process ends with exit code 0.

SIGHUP, and a change of the configuration file, have it read again: see ``reload``.

With several workers each of them does that in a process of its own, under a supervisor which listens once for all of
them. They take their connections from the same sockets, so those that wait there outlive a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop

from inferxgate.accounts.tokens import Tokens, load_or_create_secret
from inferxgate.config import Loaded
from inferxgate.config_sections import ServerSettings
from inferxgate.config_watch import Source
from inferxgate.runtime import Prepared, Runtime, open_runtime, prepare
from inferxgate.server.accepting import Acceptor
from inferxgate.server.addresses import Addresses
from inferxgate.server.app import build_app
from inferxgate.server.endpoints import Draining, Parts
from inferxgate.server.identity import Identity
from inferxgate.server.listening import BACKLOG, all_loopback, listen, tls_context, url_of
from inferxgate.server.logs import set_level, start_direct_logging, start_logging, stop_logging
from inferxgate.server.memory import settle_memory
from inferxgate.server.open_files import raise_open_files, warn_of_few_open_files
from inferxgate.server.protocol import GatewayProtocol
from inferxgate.server.reload import Alone, AmongWorkers, ForWorkers, Hands, Reloading
from inferxgate.server.threads import Threads
from inferxgate.server.throttle import SignIns
from inferxgate.values import dataclass
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.metrics_files import MetricsFiles, forget_living, metrics_folder, remove_dead
from inferxgate.workers.supervisor import SAME_SIGNAL_SECONDS, Line, Order, Supervisor
from inferxgate.workers.terminal import Terminal

OnReady = Callable[[str, Runtime], None]

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than the pools of common clients and proxies keep theirs (60)."""
_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_CANCEL_SECONDS = 2.0
_FLUSH_SECONDS = 1.0
_ORPHAN_SECONDS = 5
"""A worker without a supervisor ends in this time even where the store holds it up: the journal has its records."""
_SETTLED_SECONDS = 1.0
"""After that time a start has left nothing undone."""
_LINGER_SECONDS = 0.05
"""A request that was on its way when the server stopped is told so instead of losing its connection."""

log = logging.getLogger("inferxgate.server")


@dataclass(frozen=True, slots=True)
class _Entrance:
    """What must be right before anything dear is loaded or made, and what all workers share."""

    addresses: Addresses
    tls: ssl.SSLContext | None
    """Made once, so that a client can resume its session with any worker."""
    sockets: list[socket.socket]
    url: str

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def run(loaded: Loaded, source: Source, *, on_ready: OnReady) -> None:
    """Serve until a signal comes. ``on_ready`` is called with the URL once the server listens.

    ``loaded``: what ``source`` said first; it is asked again while the server runs.

    Raises ``StartError`` of one line where the server cannot start.
    """
    server = loaded.settings.server
    raise_open_files()  # workers inherit it
    reloading = Reloading(source, loaded)
    entrance = _open_entrance(server)
    with contextlib.closing(entrance):
        if server.workers > 1:
            _supervise(reloading, entrance, on_ready)
            return
        remove_dead(loaded.data_dir)
        writer = start_logging(server.log_level, server.log_format)
        warn_of_few_open_files()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve_alone(reloading, entrance, on_ready))
        finally:
            stop_logging(writer)


def _open_entrance(settings: ServerSettings) -> _Entrance:
    addresses = Addresses(settings.trusted_proxies)
    tls = tls_context(settings.tls_cert, settings.tls_key)
    sockets = listen(settings.host, settings.port)
    return _Entrance(addresses, tls, sockets, url_of(settings.host, sockets, tls=tls is not None))


async def _serve_alone(reloading: Reloading, entrance: _Entrance, on_ready: OnReady) -> None:
    stop = _Stop()
    configuration = Alone(reloading)
    stop.heed_signals(configuration.asked.set)
    prepared = prepare(reloading.state.loaded)
    await _serve(
        prepared, entrance, stop, Metrics(), configuration, on_ready=lambda runtime: on_ready(entrance.url, runtime)
    )


def _supervise(reloading: Reloading, entrance: _Entrance, on_ready: OnReady) -> None:
    loaded = reloading.state.loaded
    server = loaded.settings.server
    writer = start_direct_logging(server.log_level, server.log_format)
    warn_of_few_open_files()
    try:
        lookout = ForWorkers(reloading)
        with metrics_folder(loaded.data_dir) as folder:
            Supervisor(
                server.workers,
                lambda line: _work(lookout, entrance, folder, line, on_ready),
                on_stop=entrance.close,  # what comes now is refused as soon as the workers have closed theirs as well
                on_death=lambda worker: forget_living(folder, worker),
                lookout=lookout,
            ).run()
    finally:
        stop_logging(writer)


def _work(lookout: ForWorkers, entrance: _Entrance, folder: Path, line: Line, on_ready: OnReady) -> None:
    """A worker's life, in its own process."""
    server = lookout.state.loaded.settings.server
    writer = start_logging(server.log_level, server.log_format, line.number)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve_with_others(lookout, entrance, folder, line, on_ready))
    finally:
        stop_logging(writer)


async def _serve_with_others(
    lookout: ForWorkers, entrance: _Entrance, folder: Path, line: Line, on_ready: OnReady
) -> None:
    stop = _Stop()
    stop.heed_polite_signals()
    configuration = AmongWorkers(line, lookout.state)

    def ready(runtime: Runtime) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(line.fileno(), lambda: obey(runtime))
        line.ready()

    def obey(runtime: Runtime) -> None:
        for order in line.orders():
            match order:
                case Order.ANNOUNCE:
                    line.announced()
                    on_ready(entrance.url, runtime)
                case Order.NEWS:
                    configuration.told.set()
                case Order.STOP:
                    stop.asked.set()
                case Order.FORCE:
                    stop.now()
                case Order.PARENT_IS_GONE:
                    asyncio.get_running_loop().remove_reader(line.fileno())
                    signal.setitimer(signal.ITIMER_REAL, _ORPHAN_SECONDS)  # SIGALRM then ends the process
                    log.error("the supervisor is gone: this worker ends")
                    stop.now()

    metrics = Metrics(MetricsFiles(folder, line.number))
    await _serve(lookout.prepared, entrance, stop, metrics, configuration, on_ready=ready, line=line)


async def _serve(
    prepared: Prepared,
    entrance: _Entrance,
    stop: _Stop,
    metrics: Metrics,
    configuration: Alone | AmongWorkers,
    *,
    on_ready: Callable[[Runtime], None],
    line: Line | None = None,
) -> None:
    """One process's part of serving, from the opening of the store to the last record.

    ``line`` leads to the supervisor, where there is one.
    """
    async with contextlib.AsyncExitStack() as stack:
        loaded = prepared.loaded
        stack.callback(metrics.tell)
        runtime = await stack.enter_async_context(open_runtime(loaded, metrics, prepared=prepared))
        threads = Threads()
        stack.callback(threads.close)
        tokens = _tokens(loaded)
        identity = Identity(runtime.store, tokens, defaults=loaded.settings.limits.of_keys)
        stack.push_async_callback(identity.stop)
        metrics.watch_part("credentials", lambda: identity.store_failure)
        metrics.watch_part("configuration", lambda: "mistaken" if configuration.mistaken() else None)
        parts = Parts(
            runtime=runtime,
            identity=identity,
            tokens=tokens,
            addresses=entrance.addresses,
            sign_ins=SignIns(runtime.attempts),
            threads=threads,
            draining=Draining(),
            listens_on_loopback=all_loopback(entrance.sockets),
            missing_workers=line.missing if line is not None else lambda: 0,
            mistaken=configuration.mistaken,
        )
        config = _uvicorn_config(parts)
        config.load()
        config.ssl = entrance.tls
        server = _Server(
            config,
            parts.draining,
            stop,
            lambda: runtime.settings.server.shutdown_seconds,
            on_second=metrics.refresh,
            line=line,
        )
        keeping = asyncio.create_task(configuration.keep(_hands(parts)), name="configuration")
        stack.callback(keeping.cancel)
        await identity.start()
        await server.serve_until_stopped(entrance.sockets, lambda: on_ready(runtime))


def _hands(parts: Parts) -> Hands:
    def adopt(prepared: Prepared) -> None:
        settings = prepared.loaded.settings
        parts.runtime.adopt(prepared)
        parts.identity.configure(settings.limits.of_keys)
        parts.tokens.expires_seconds = settings.auth.jwt_expires_seconds
        set_level(settings.server.log_level)

    return Hands(parts.runtime.prepare, adopt)


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
    """The wish to stop, and the wish to stop at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()
        self._asked_at = 0.0
        self._terminal: Terminal | None = None
        self._loop = asyncio.get_running_loop()

    def now(self) -> None:
        """Stop at once."""
        self.asked.set()
        self.forced.set()

    def heed_signals(self, read_again: Callable[[], None]) -> None:
        """Take the first signal as the one wish, and a second as the other; SIGHUP, to read the configuration again."""
        terminal = self._terminal = Terminal()
        for number in _STOPPING_SIGNALS:
            self._loop.add_signal_handler(number, self._signalled)
        self._loop.add_signal_handler(
            signal.SIGHUP, lambda: self._signalled() if terminal.has_just_gone() else read_again()
        )

    def look(self) -> None:
        """To be called about once a second."""
        if self._terminal is not None:
            self._terminal.look()

    def heed_polite_signals(self) -> None:
        """Take every signal as the wish to stop: a worker gets the supervisor's ones as well, and more than once."""
        for number in _STOPPING_SIGNALS:
            self._loop.add_signal_handler(number, self.asked.set)

    def _signalled(self) -> None:
        now = self._loop.time()
        if not self.asked.is_set():
            self._asked_at = now
            self.asked.set()
        elif not self.forced.is_set() and now - self._asked_at >= SAME_SIGNAL_SECONDS:
            self.forced.set()
            for number in _STOPPING_SIGNALS:  # the third one ends the process as it would any other
                self._loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    """uvicorn's server, with our idea of how to end."""

    def __init__(
        self,
        config: uvicorn.Config,
        draining: Draining,
        stop: _Stop,
        shutdown_seconds: Callable[[], float],
        *,
        on_second: Callable[[], None],
        line: Line | None,
    ) -> None:
        super().__init__(config)
        self._line = line
        self._acceptor: Acceptor | None = None
        self._on_second = on_second
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
        await super().startup([])
        self._acceptor = Acceptor(
            sockets or [], self._line, serve=self._connect, connections=lambda: len(self.server_state.connections)
        )
        self._on_ready()

    async def _connect(self, sock: socket.socket) -> None:
        """Do with an accepted socket what uvicorn does with those that it accepts itself."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            lambda: GatewayProtocol(self.config, self.server_state, self.lifespan.state, loop),
            sock,
            ssl=self.config.ssl,
        )

    async def main_loop(self) -> None:
        asyncio.get_running_loop().call_later(_SETTLED_SECONDS, settle_memory)
        while not self._stop.asked.is_set():
            await self.on_tick(0)  # renews the Date header
            self._on_second()
            self._stop.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._stop.asked.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._draining.started = True
        log.info("stopping: %d requests are running", len(self.server_state.tasks))
        if self._acceptor is not None:
            self._acceptor.close()
        for sock in sockets or []:
            sock.close()
        await self._finish_requests()
        await self._close_connections()
        log.info("stopped")

    async def _finish_requests(self) -> None:
        tasks = self.server_state.tasks
        forced = asyncio.ensure_future(self._stop.forced.wait())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_seconds()):
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
