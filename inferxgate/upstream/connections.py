"""Where connections come from and where they wait: names, addresses, TLS, proxies, and the idle ones of each place.

A connection that was used is asked whether it is still open before it is used again. What remains is a farewell that is
still under way while we write: it cannot be told from a provider that failed in the middle of the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import Coroutine, Hashable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from aiohappyeyeballs import start_connection

from inferxgate.upstream.environment import Proxy
from inferxgate.upstream.wire import ENDED, Connection
from inferxgate.values import dataclass

_NAMES_SECONDS = 30.0
_NEXT_ADDRESS_SECONDS = 0.25
"""How long an address has for itself before the next one is tried beside it."""
_PROBE_AFTER_SECONDS = 60
"""TCP keep-alive: a model may think for minutes, and address translators forget silent connections sooner."""
_PROBE_EVERY_SECONDS = 30
_TUNNEL_HEAD_BYTES = 32 * 1024

_T = TypeVar("_T")
Address: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""A row of ``getaddrinfo``."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go, and how."""

    host: str
    """In ASCII; an IPv6 address without brackets."""
    port: int
    tls: bool
    proxy: Proxy | None = None

    @property
    def needs_trust(self) -> bool:
        return self.tls or (self.proxy is not None and self.proxy.tls)


class Unreached(Exception):
    """No connection could be made. The text goes on from ``The provider at …``, and holds nothing secret."""


class Names(Protocol):
    """Where names are."""

    async def look_up(self, host: str, port: int) -> Sequence[Address]:
        """Raises ``socket.gaierror``, and ``UnicodeError`` for what cannot be a name."""

    def forget(self, host: str, port: int) -> None:
        """What was told led nowhere."""


class Connections:
    """Those of one engine, for one loop."""

    def __init__(self, names: Names | None = None) -> None:
        """``names``: instead of the system's."""
        self._loop = asyncio.get_running_loop()
        self._names = names or SystemNames()
        self._idle: dict[Hashable, dict[Connection, None]] = {}
        """The one that was used last is the last, and the next to be used: the others grow old and are closed."""
        self._open: set[Connection] = set()
        self.closed = False

    def take(self, place: Place) -> Connection | None:
        """One that is open and free."""
        idle = self._idle.get(place)
        while idle:
            connection, _ = idle.popitem()
            if connection.is_fit():
                return connection
            connection.cut(ENDED)
        return None

    async def make(self, place: Place, trust: ssl.SSLContext | None) -> Connection:
        """A new one; ``trust`` where the place needs it. Raises ``Unreached``. Cancelling leaves nothing open."""
        proxy = place.proxy
        if trust is None and place.needs_trust:
            raise ValueError("TLS without trust")
        if proxy is not None and place.tls and trust is not None:
            return await self._tunnel(place, proxy, trust)
        first = proxy or place
        connected = await self._reach(first, place)
        connection = Connection(self._loop, self, place)
        await self._greet(first, connected, connection, trust)
        return connection

    async def close(self) -> None:
        """Cut every connection, and those that are being made as soon as they are."""
        self.closed = True
        for connection in list(self._open):
            connection.cut(ENDED)
        await asyncio.sleep(0)  # in which the loop closes their sockets

    # ------------------------------------------------------------------ what connections say

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def freed(self, connection: Connection) -> None:
        self._idle.setdefault(connection.place, {})[connection] = None

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.place)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.place]

    # ------------------------------------------------------------------ making one

    async def _reach(self, first: Place | Proxy, place: Place) -> socket.socket:
        """Connected with whichever of a name's addresses answers first."""
        try:
            addresses = await self._names.look_up(first.host, first.port)
        except (socket.gaierror, UnicodeError):  # Python applies IDNA's rules, such as a label's length
            whose = "its host" if first is place else "the proxy on the way there"
            raise Unreached(f"could not be reached: the name of {whose} could not be resolved") from None
        try:
            return await start_connection(
                addresses, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, socket_factory=_probing_socket
            )
        except (OSError, RuntimeError) as error:  # uvloop raises the second, too
            self._names.forget(first.host, first.port)
            who = "" if first is place else ": the proxy on the way there is not reachable"
            raise Unreached(f"could not be reached{who}{reason(error)}") from None

    async def _greet(
        self, first: Place | Proxy, connected: socket.socket, protocol: asyncio.Protocol, trust: ssl.SSLContext | None
    ) -> asyncio.Transport:
        """The transport of a socket that is connected with ``first``, after the TLS greeting where there is one."""
        with _in_words(first):
            greeting = self._loop.create_connection(
                lambda: protocol,
                sock=connected,
                ssl=trust if first.tls else None,
                server_hostname=_server_name(first),
            )
            transport, _ = await _to_the_end(greeting, connected)
        return transport

    async def _tunnel(self, place: Place, proxy: Proxy, trust: ssl.SSLContext) -> Connection:
        """TLS with the place, in a tunnel through the proxy."""
        connected = await self._reach(proxy, place)
        asking = _Tunnel(self._loop, place, proxy)
        transport = await self._greet(proxy, connected, asking, trust)
        connection = Connection(self._loop, self, place)
        try:
            await asking.stands
            with _in_words(place):
                greeting_inside = self._loop.start_tls(
                    transport, connection, trust, server_hostname=_server_name(place)
                )
                inside = await _to_the_end(greeting_inside, connected)
        except BaseException:  # a cancellation, too, must not leave the tunnel open
            transport.abort()
            raise
        connection.connection_made(cast("asyncio.Transport", inside))
        return connection


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place, proxy: Proxy) -> None:
        self._asked = _connect_head(place, proxy)
        self._heard = b""
        self.stands: asyncio.Future[None] = loop.create_future()
        """Done when it stands. Raises ``Unreached``."""
        self.stands.add_done_callback(_take_note)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self.stands.done():
            return
        head, end, rest = self._heard.partition(b"\r\n\r\n")
        if not end and len(head) <= _TUNNEL_HEAD_BYTES:
            return
        said = re.match(rb"HTTP/1\.[01] (\d{3})\b", head)
        if not end or said is None:
            self._refuse("answered in something that is not HTTP")
        elif not said[1].startswith(b"2"):
            self._refuse(f"refused the way there (status {said[1].decode()})")
        elif rest:  # nobody has anything to say in a new tunnel before we do
            self._refuse("spoke in the tunnel")
        else:
            self.stands.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stands.done():
            self._refuse(f"ended the connection{reason(exc)}")

    def _refuse(self, how: str) -> None:
        self.stands.set_exception(Unreached(f"could not be reached: the proxy {how}"))


async def _to_the_end(greeting: Coroutine[Any, Any, _T], connected: socket.socket) -> _T:
    """Await what makes a transport of a socket. Cancelling ends the connection, and lets the rest take its course.

    It is not cancelled itself: uvloop then closes the transport without telling its protocol, which in TLS goes on with
    its greeting, fails, and complains.
    """
    task = asyncio.ensure_future(greeting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_take_note)
        with contextlib.suppress(OSError):  # it may have ended by itself
            connected.shutdown(socket.SHUT_RDWR)
        raise


def _take_note(done: asyncio.Future[Any]) -> None:
    """Whoever asked may be gone, and asyncio complains about failures that nobody asked for."""
    if not done.cancelled():
        done.exception()


def _connect_head(place: Place, proxy: Proxy) -> bytes:
    host = f"[{place.host}]" if ":" in place.host else place.host
    head = f"CONNECT {host}:{place.port} HTTP/1.1\r\nHost: {host}:{place.port}\r\n"
    credentials = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    return f"{head}{credentials}\r\n".encode()


def _server_name(first: Place | Proxy) -> str | None:
    """What the certificate has to name; a dot at the end of a name is for resolvers alone."""
    return first.host.rstrip(".") if first.tls else None


class SystemNames(Names):
    """As the system says, for half a minute; who asks while somebody else does waits for the same answer."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], tuple[asyncio.Task[Sequence[Address]], float]] = {}

    async def look_up(self, host: str, port: int) -> Sequence[Address]:
        loop = asyncio.get_running_loop()
        asked, until = self._asked.get((host, port), (None, 0.0))
        if asked is None or (asked.done() and loop.time() >= until):
            asked = loop.create_task(_resolve(loop, host, port))
            asked.add_done_callback(lambda done: self._forget_failed(host, port, done))
            self._asked[host, port] = asked, loop.time() + _NAMES_SECONDS
        return await asyncio.shield(asked)

    def forget(self, host: str, port: int) -> None:
        self._asked.pop((host, port), None)

    def _forget_failed(self, host: str, port: int, done: asyncio.Task[Sequence[Address]]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.forget(host, port)


async def _resolve(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[Address]:
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


@contextlib.contextmanager
def _in_words(first: Place | Proxy) -> Iterator[None]:
    """Failures of TLS with ``first``, and of connections that end in it, as ``Unreached``."""
    by_proxy = "could not be reached: the proxy on the way there " if isinstance(first, Proxy) else ""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        fault = error.verify_message.rstrip(".")  # OpenSSL's own words, such as "certificate has expired"
        told = f" ({fault})" if fault else ""
        raise Unreached(f"{by_proxy}showed a certificate that is not trusted{told}") from None
    except ssl.SSLError:
        raise Unreached("could not be reached: no TLS connection could be made") from None
    except OSError as error:
        raise Unreached(f"could not be reached{reason(error)}") from None


def reason(error: Exception | None) -> str:
    """The system's own name for a failure, such as ``Connection refused``, in brackets."""
    number = error.errno if isinstance(error, OSError) else None
    return f" ({os.strerror(number)})" if number is not None and number in errno.errorcode else ""


def _probing_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER_SECONDS),  # Linux
        ("TCP_KEEPALIVE", _PROBE_AFTER_SECONDS),  # macOS
        ("TCP_KEEPINTVL", _PROBE_EVERY_SECONDS),
        ("TCP_KEEPCNT", 4),
    ):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
