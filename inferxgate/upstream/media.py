"""Bytes for a client's URLs, where a provider takes only the bytes. Off unless the operator turns it on.

Whoever fetches what strangers name can be sent anywhere, so the way out is narrow:

* **Where to.** Only what ``public`` lets through. A name is resolved once for each connection; if any of its addresses
  is not public, the name is refused; the connection goes to the addresses that were looked at and to nothing else,
  while SNI and certificate are the name's. A redirect is a new URL with all of that from the beginning.
* **How.** A bare GET: no cookie, no credential, no header of the client's. Never through a proxy: a proxy resolves the
  name by itself, so that what was looked at here would not be what is connected to. Where a proxy is the only way out,
  nothing can be fetched.
* **How much.** Bytes for each URL and for a request, URLs, redirects, seconds for all of a request together, and
  fetches at one time, all bounded (``FetchLimits``). ``identity`` is asked for and everything else refused, so nothing
  is ever inflated. A body must say where it ends, or a cut one could not be told from a whole one.
* **What.** Bytes that are what the target takes, by their own first bytes.
* **What is said.** The client learns that its URL could not be fetched, in the same words whether a name does not
  exist, an address is refused, nobody listens or nobody answers: it cannot map a network with them. The log says which
  it was.

Names are looked up in threads of its own: strangers choose the names, and one whose servers do not answer holds a
thread for many seconds, for which the providers' names would have to wait.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urljoin

from inferxgate.canonical.conversation import Bytes
from inferxgate.dialects.protocol import MediaNeeded, Wanted
from inferxgate.errors import INVALID_VALUE, GatewayError
from inferxgate.upstream.connections import Address as AddressRow
from inferxgate.upstream.connections import Connections, Names, Place, Unreached
from inferxgate.upstream.environment import own_trust, usual_trust
from inferxgate.upstream.media_types import may_be, recognised
from inferxgate.upstream.public import Address, PublicUrl, is_public, parse_public_url
from inferxgate.upstream.wire import NEVER, Exchange
from inferxgate.values import dataclass

log = logging.getLogger(__name__)

SocketAddress = tuple[str, int]
"""An IP address in text, and a port."""
Resolve = Callable[[str, int], Awaitable[Sequence[SocketAddress]]]
"""From a name and a port to where that is. Raises ``OSError``."""

_PORT = 443
_LOOKUP_THREADS = 8
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much one request may have fetched."""

    bytes_each: int = 10 * _MIB
    bytes_in_all: int = 32 * _MIB
    """For one request."""
    seconds: float = 5.0
    """For everything that one request has fetched, from its first name's lookup to its last byte."""
    urls: int = 32
    redirects: int = 3
    """For each URL."""
    at_once: int = 4
    """Fetches at one time for one request."""
    at_once_in_all: int = 16
    """Fetches at one time for all requests."""


class MediaFetcher(Protocol):
    """Where the bytes behind a client's URLs come from."""

    async def fetch(self, needed: MediaNeeded, *, request_id: str) -> Mapping[str, Bytes]:
        """The bytes of every URL that is needed. Cancelling cuts the connections at once.

        Raises ``GatewayError`` (400) whose ``param`` is the place in the request. ``request_id`` is for the log.
        """

    async def close(self) -> None:
        """The engine is not used afterwards."""


class NoFetch(MediaFetcher):
    """Fetches nothing: what needs bytes is refused, in words that say how to send them."""

    async def fetch(self, needed: MediaNeeded, *, request_id: str) -> Mapping[str, Bytes]:
        raise needed

    async def close(self) -> None:
        """Nothing is open."""


class HttpsFetch(MediaFetcher):
    """Fetches from the public internet, as the module says."""

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        resolve: Resolve | None = None,
        allowed: Callable[[Address], bool] = is_public,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Where nothing is given: the system's names, public addresses, and the trust that providers have.

        Raises StartError where ``SSL_CERT_FILE`` names a file that cannot be used.
        """
        self._limits = limits or FetchLimits()
        self._resolve = resolve or self._look_up
        self._allowed = allowed
        self._own_trust = trust or own_trust(None)
        self._at_once = asyncio.Semaphore(self._limits.at_once_in_all)
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="media-names")

    async def fetch(self, needed: MediaNeeded, *, request_id: str) -> Mapping[str, Bytes]:
        """See ``MediaFetcher.fetch``. A URL that stands in several places is fetched once."""
        by_url: dict[str, list[Wanted]] = {}
        for each in needed.wanted:
            by_url.setdefault(each.url, []).append(each)
        if len(by_url) > self._limits.urls:
            where = list(by_url.values())[self._limits.urls][0].where
            words = f"'{where}' is one URL too many: at most {self._limits.urls} are fetched for a request."
            raise GatewayError(INVALID_VALUE, words, param=where)
        jobs = {url: (_parsed(places[0]), places) for url, places in by_url.items()}  # before anything is fetched
        errand = _Errand(self._limits, asyncio.get_running_loop().time() + self._limits.seconds, request_id)
        try:
            async with asyncio.TaskGroup() as group:  # the first that fails cancels the others
                tasks = {url: group.create_task(self._fetch_one(*job, errand)) for url, job in jobs.items()}
        except ExceptionGroup as failed:
            failure = failed.exceptions[0]
        else:
            return {url: task.result() for url, task in tasks.items()}
        raise failure  # out here, so that the group is not chained

    async def close(self) -> None:
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _fetch_one(self, url: PublicUrl, places: Sequence[Wanted], errand: _Errand) -> Bytes:
        """The bytes of one URL, for all places in which it stands."""
        trail = [url]  # where redirects lead
        accepted = frozenset[str]().union(*(each.accepts for each in places))
        try:
            async with asyncio.timeout_at(errand.deadline), errand.at_once, self._at_once:
                data = await self._follow(trail, accepted, errand)
            return _typed(data, places)
        except _Unfetched as error:
            failure = error
        except (Unreached, OSError, ValueError) as error:
            failure = _Unfetched(_in_words(error))
        log.info("request %s: %s could not be fetched: %s", errand.request_id, trail[-1].shown, failure)
        where = failure.where or places[0].where
        words = failure.words or (
            "could not be fetched: its URL must be a public one that gives the data itself over https within "
            f"{self._limits.seconds:g} seconds"
        )
        raise GatewayError(INVALID_VALUE, f"'{where}' {words}. The data can also be sent as a data URL.", param=where)

    async def _follow(self, trail: list[PublicUrl], accepted: frozenset[str], errand: _Errand) -> bytearray:
        """The bytes that the last URL of the trail leads to, at the end of its redirects."""
        while True:
            answer = await self._get(trail[-1], accepted, errand)
            if isinstance(answer, bytearray):
                return answer
            if len(trail) > self._limits.redirects:
                raise _Unfetched(f"it leads on after {self._limits.redirects} redirects")
            try:
                trail.append(parse_public_url(urljoin(trail[-1].url, answer)))
            except ValueError as error:
                raise _Unfetched(f"it redirects to what {error}") from None

    async def _get(self, url: PublicUrl, accepted: frozenset[str], errand: _Errand) -> bytearray | str:
        """One exchange, on a connection of its own: the bytes, or where a redirect leads."""
        addresses = await self._addresses(url.host)
        connections = Connections(_LookedAt(addresses))
        try:
            connection = await connections.make(Place(url.host, _PORT, tls=True), self._trust)
            # what all of it may take is bounded by whoever asked
            exchange = connection.ask(
                _head(url, accepted), b"", bodyless=False, last=True, idle_seconds=NEVER, total_at=NEVER
            )
            await exchange.head(NEVER)
            if exchange.status in _REDIRECTS:
                return exchange.header(b"location")
            self._check_head(exchange, accepted, errand)
            return await self._read(exchange, errand)
        finally:
            await connections.close()

    async def _addresses(self, host: str) -> Sequence[SocketAddress]:
        """Where a name is; every one of its addresses has been looked at."""
        addresses = await self._resolve(host, _PORT)
        if not addresses:
            raise _Unfetched("its name has no address")
        for address, _ in addresses:
            if not self._allowed(ipaddress.ip_address(address)):
                raise _Unfetched(f"{host} is at {address}, which is not public")
        return addresses

    def _check_head(self, exchange: Exchange, accepted: frozenset[str], errand: _Errand) -> None:
        if not exchange.status:
            raise _broke_off(exchange)
        if exchange.status != HTTPStatus.OK:
            raise _Unfetched(f"it answered with status {exchange.status}")
        encoding = exchange.header(b"content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise _Unfetched(f"it came compressed ({encoding[:40]}), which nobody asked for")
        declared = exchange.header(b"content-type")
        if not may_be(declared, accepted):
            raise _Unfetched(f"its type is {declared[:80]}", _wrong_type(accepted))
        length = exchange.header(b"content-length")
        if length:
            errand.expect(int(length))
        elif not exchange.header(b"transfer-encoding"):
            raise _Unfetched("its answer does not say where it ends")

    async def _read(self, exchange: Exchange, errand: _Errand) -> bytearray:
        data = bytearray()
        while piece := await exchange.some():
            data += piece
            errand.take(len(piece), of=len(data))
        if exchange.failure is not None:
            raise _broke_off(exchange)
        return data

    async def _look_up(self, host: str, port: int) -> Sequence[SocketAddress]:
        look = asyncio.get_running_loop().run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        )
        return [(str(address[0]), int(address[1])) for *_, address in await look]

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Made for the first fetch: reading the roots takes some ten milliseconds."""
        return self._own_trust or usual_trust()


class _Errand:
    """What all fetches of one request share."""

    def __init__(self, limits: FetchLimits, deadline: float, request_id: str) -> None:
        self._limits = limits
        self._left = limits.bytes_in_all
        self.deadline = deadline
        self.at_once = asyncio.Semaphore(limits.at_once)
        self.request_id = request_id

    def expect(self, size: int) -> None:
        """Raise where a body of this size would be too much."""
        if size > self._limits.bytes_each or size > self._left:
            raise _Unfetched(f"it has {size} bytes, and {self._left} are left for its request", self._too_large())

    def take(self, size: int, *, of: int) -> None:
        """Count ``size`` bytes that came, after which their body has ``of``. Raise where that is too much."""
        self._left -= size
        if of > self._limits.bytes_each or self._left < 0:
            raise _Unfetched(f"it has {of} bytes or more, and those of its request are used up", self._too_large())

    def _too_large(self) -> str:
        each, in_all = self._limits.bytes_each / _MIB, self._limits.bytes_in_all / _MIB
        return f"is too large to be fetched: at most {each:g} MiB are for one URL, {in_all:g} MiB for a request"


class _Unfetched(Exception):
    """Why a URL was not fetched, for the log."""

    def __init__(self, why: str, words: str | None = None, *, where: str | None = None) -> None:
        """``words``: what the client may know of it, after its place; None: no more than that it failed."""
        super().__init__(why)
        self.words = words
        self.where = where
        """The place, if it is not the first in which the URL stands."""


class _LookedAt(Names):
    """The addresses that were looked at, and none besides."""

    def __init__(self, addresses: Sequence[SocketAddress]) -> None:
        self._addresses = addresses

    async def look_up(self, host: str, port: int) -> Sequence[AddressRow]:
        return [
            (socket.AF_INET6 if ":" in there[0] else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", there)
            for there in self._addresses
        ]

    def forget(self, host: str, port: int) -> None:
        """There is nothing else."""


def _head(url: PublicUrl, accepted: frozenset[str]) -> bytes:
    lines = (
        f"GET {url.target} HTTP/1.1",
        f"host: {url.host}",
        "user-agent: inferxgate",
        f"accept: {', '.join(sorted(accepted))}",
        "accept-encoding: identity",
        "connection: close",
    )
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _broke_off(exchange: Exchange) -> _Unfetched:
    if exchange.failure is not None and exchange.failure.kind == "not http":
        return _Unfetched("its answer is not HTTP")
    return _Unfetched("its answer broke off" if exchange.status else "it ended the connection without an answer")


def _parsed(place: Wanted) -> PublicUrl:
    """Raises ``GatewayError`` (400) for a URL that is refused for how it is spelt."""
    try:
        return parse_public_url(place.url)
    except ValueError as error:
        message = f"'{place.where}' {error}. The data can also be sent as a data URL."
    raise GatewayError(INVALID_VALUE, message, param=place.where)


def _typed(data: bytearray, places: Sequence[Wanted]) -> Bytes:
    """The bytes with the type that they are of, which every place has to take."""
    media_type = recognised(data)
    for place in places:
        if media_type is None or media_type not in place.accepts:
            why = f"its bytes are {media_type or 'of no type that is known'}"
            raise _Unfetched(why, _wrong_type(place.accepts), where=place.where)
    return Bytes(media_type or "", base64.b64encode(data).decode())


def _wrong_type(accepted: Collection[str]) -> str:
    return f"must lead to data of one of these types: {', '.join(sorted(accepted))}"


def _in_words(error: Exception) -> str:
    """A failure for the log. Of the error's own text nothing that may hold a URL."""
    match error:
        case Unreached():
            return f"it {error}"
        case TimeoutError():
            return "it took too long"
        case socket.gaierror():
            return "its name could not be resolved"
        case OSError() if error.errno:
            return f"it could not be reached ({os.strerror(error.errno)})"
        case _:
            return f"its answer could not be had ({type(error).__name__})"
