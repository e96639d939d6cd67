"""Connections from the sockets on which the server listens, spread evenly where several workers share them.

A worker by itself takes a handful with each turn of its loop. The loop's own servers take one: under load, when a turn
lasts, hundreds would wait for many seconds. All at once would be no better, since the requests that come with them keep
those that are under way waiting.

All workers are woken when a connection comes, and whoever is first takes it. Left at that, the first one takes whatever
else is waiting too, and connections stay where they are: a client's pool of them could keep one worker busy beside
others that idle. So a worker that has more connections than another one gives the others a moment before it takes more.
It is no more than a moment, because the others may be too busy to come.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence

from inferxgate.workers.supervisor import Line

_MOMENT_SECONDS = 0.002
_AFTER_A_MOMENT = 8
"""Connections taken at once when nobody else came."""
_ALONE = 16
"""And where there is nobody else."""
_RECOVER_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("inferxgate.server")


class Acceptor:
    """Takes connections, until it is closed."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        line: Line | None,
        *,
        serve: Callable[[socket.socket], Coroutine[None, None, object]],
        connections: Callable[[], int],
    ) -> None:
        """``line`` leads to the supervisor, and over it to the other workers, where there are any.

        ``serve`` makes a connection of an accepted socket; ``connections`` is how many this worker has.
        """
        self._sockets = sockets
        self._line = line
        self._serve = serve
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[object]] = set()
        self._closed = False
        self._ahead()
        for listener in sockets:
            self._wait(listener)

    def close(self) -> None:
        self._closed = True
        for listener in self._sockets:
            self._loop.remove_reader(listener)
        self._publish(None)

    def _wait(self, listener: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listener, self._come, listener)

    def _come(self, listener: socket.socket) -> None:
        if self._ahead():
            self._rest(listener, _MOMENT_SECONDS)
        else:
            self._take(listener, _ALONE if self._line is None else 1)

    def _rest(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener)
        self._loop.call_later(seconds, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if not self._closed:
            self._wait(listener)
            self._take(listener, _AFTER_A_MOMENT)

    def _ahead(self) -> bool:
        """Tell the others how many connections this worker has; whether one of them has fewer."""
        mine = self._connections() + len(self._beginning)
        self._publish(mine)
        return self._line is not None and mine > self._line.fewest()

    def _publish(self, connections: int | None) -> None:
        if self._line is not None:
            self._line.publish(connections)

    def _take(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.error("cannot take connections: %s", error.strerror)
                    self._rest(listener, _RECOVER_SECONDS)
                return  # else another worker was faster, or the client has given up
            connection.settimeout(0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._begin(connection))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        self._publish(self._connections() + len(self._beginning))

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._serve(connection)
        except OSError:  # it was gone before it began, or its TLS handshake failed
            connection.close()
