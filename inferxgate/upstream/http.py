"""Requests to providers over HTTP/1.1: what a request says, how long it may take, and the words for its failure.

``connections`` has the ways to providers and what is open on them, ``wire`` the protocol on one connection. A gateway
waits for models most of its time, so that what it does itself counts: this client was written because a general one
costs three times its work. It does what a gateway needs, and nothing else:

* **Time.** Connecting has its own; from then on a connection has one timer, which looks at what is waited for.
* **Cutting.** Whatever ends an exchange before the body's end aborts the connection: nothing is flushed, no TLS
  farewell is waited for, and the provider sees it at once.
* **Once.** A request is never sent twice from here. A connection that the provider closed while we wrote cannot be told
  from a provider that failed in the middle of the work, so it is an error (``upstream_error``). Whether to try again is
  for the gateway, which knows what a second try may cost.
* **Credentials.** No redirect is followed, no cookie kept, no ``.netrc`` read. Messages are put together from the
  host's name and the kind of failure, and no other error is chained to them.
* **Encodings.** ``identity`` is asked for; ``gzip`` and ``deflate`` are decoded all the same.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import field
from functools import cached_property, lru_cache

from inferxgate import __version__
from inferxgate.errors import (
    INTERNAL_ERROR,
    UPSTREAM_ERROR,
    UPSTREAM_INVALID_RESPONSE,
    UPSTREAM_TIMEOUT,
    UPSTREAM_UNREACHABLE,
    GatewayError,
)
from inferxgate.upstream.connections import Connections, Place, Unreached, reason
from inferxgate.upstream.environment import Proxies, own_trust, usual_trust
from inferxgate.upstream.inflate import Inflater
from inferxgate.upstream.protocol import HttpRequest, HttpResponse, Timeouts, Upstream
from inferxgate.upstream.wire import ENDED, NEVER, Connection, Exchange, Failure
from inferxgate.values import dataclass

_HEADS = 256
"""How many different heads of requests an engine keeps, ready to be sent again."""
_URL = re.compile(
    r"(https?)://([^\s/?#@:\[\]\\]+|\[[0-9a-z:.%]+\])(?::([0-9]{1,5}))?((?:[/?][!\"$-~]*)?)", re.IGNORECASE
)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_VALUES = re.compile(r"[\r\n\0]")
_OURS = frozenset({"accept-encoding", "content-length", "transfer-encoding"})
"""Headers that nobody else sets: how a body is framed is known where it is framed."""
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What a provider's section may say about the way to it."""

    ca_file: str | None = None
    """A PEM file of authorities: only these are trusted."""
    proxy: str | None = None
    """An ``http://`` or ``https://`` URL, maybe with user and password, instead of what the environment names."""


class HttpUpstream(Upstream):
    """The HTTP engine. It belongs to the loop in which it first sends."""

    def __init__(self, options: HttpOptions | None = None) -> None:
        """Reads the environment (``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE``) and the CA file.

        Raises StartError for a CA file that cannot be used and for a proxy of another kind.
        """
        options = options or HttpOptions()
        self._proxies = Proxies(options.proxy)
        self._own_trust = own_trust(options.ca_file)
        self._connections: Connections | None = None
        self._closed = False
        self._head = lru_cache(_HEADS)(self._made_head)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """See ``Upstream.send``; also ``internal_error`` where the URL or a header is not fit for HTTP.

        ``upstream_unreachable`` means that the request was not sent; ``upstream_error``, that it was and that the
        connection ended without an answer, so that the provider may have acted on it.
        """
        answer = await self._ask(request)
        if isinstance(answer, GatewayError):
            raise answer  # out here, so that nothing is chained to it
        return answer

    async def close(self) -> None:
        """Cut what is under way and close the rest."""
        self._closed = True
        if self._connections is not None:
            await self._connections.close()

    async def _ask(self, request: HttpRequest) -> _Response | GatewayError:
        try:
            head = self._head(request.method, request.url, tuple(request.headers.items()))
        except ValueError:
            return _unfit(request.url)
        timeouts, loop = request.timeouts, asyncio.get_running_loop()
        total_at = NEVER if timeouts.total_seconds is None else loop.time() + timeouts.total_seconds
        words = _Words(head.who, timeouts, total_at)
        connection = await self._connection(head.place, words)
        if isinstance(connection, GatewayError):
            return connection
        begin_by = min(loop.time() + timeouts.first_byte_seconds, total_at)
        exchange = connection.ask(
            head.with_length(len(request.body)),
            request.body,
            bodyless=head.method == "HEAD",
            last=head.last,
            idle_seconds=timeouts.idle_seconds,
            total_at=total_at,
        )
        try:
            await exchange.head(begin_by)
        except asyncio.CancelledError:
            exchange.cut()
            raise
        if exchange.status:
            return _Response(exchange, words, begin_by)
        return words.unanswered(exchange.failure or ENDED)

    async def _connection(self, place: Place, words: _Words) -> Connection | GatewayError:
        """One that is free, or a new one."""
        if self._closed:
            return _closing()
        connections = self._connections
        if connections is None:
            connections = self._connections = Connections()
        connection = connections.take(place)
        if connection is not None:
            return connection
        trust = self._trust if place.needs_trust else None  # before the time begins: this may read files
        by = words.connected_by(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout_at(by):
                connection = await connections.make(place, trust)
        except Unreached as error:
            return _unreachable(f"The provider at {words.who} {error}.")
        except TimeoutError:
            return words.unconnected(by)
        if connections.closed:  # meanwhile
            connection.cut(ENDED)
            return _closing()
        return connection

    def _made_head(self, method: str, url: str, headers: tuple[tuple[str, str], ...]) -> _Head:
        """Raises ``ValueError`` for what is not fit for HTTP."""
        scheme, host, port, target, who = _parts(url)
        proxy = self._proxies.find(scheme, host, port)
        if proxy is not None and scheme == "http":
            target = f"http://{who}{target}"
        place = Place(host, port, scheme == "https", proxy)
        told = {"host": who, "user-agent": f"inferxgate/{__version__}", "accept": "*/*"}
        told |= {name.lower(): value for name, value in headers if name.lower() not in _OURS}
        told["accept-encoding"] = "identity"
        if proxy is not None and proxy.authorization and scheme == "http":
            told["proxy-authorization"] = proxy.authorization
        for name, value in told.items():
            if not _NAME.fullmatch(name) or _NOT_IN_VALUES.search(value):
                raise ValueError("a header is not fit for HTTP")
        if not _NAME.fullmatch(method):
            raise ValueError("the method is not fit for HTTP")
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items()), ""]
        last = "close" in told.get("connection", "").lower()
        return _Head(method, who, place, last, "\r\n".join(lines).encode())

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Made when the first provider needs it: reading the roots takes some ten milliseconds."""
        return self._own_trust or usual_trust()


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of a request, and where it goes."""

    method: str
    who: str
    """The host's name, and its port where the scheme has another; it stands after ``The provider at``."""
    place: Place
    last: bool
    """Whether it says that the connection ends with it."""
    lines: bytes = field(repr=False)
    """With the credential, so never shown."""

    def with_length(self, size: int) -> bytes:
        if not size and self.method in _WITHOUT_BODY:
            return self.lines + b"\r\n"
        return b"%bcontent-length: %d\r\n\r\n" % (self.lines, size)


def _parts(url: str) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, target, and the host as people (and the ``Host`` header) write it. Raises ``ValueError``."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("not a URL of HTTP")
    scheme, host, target = found[1].lower(), found[2].lower(), found[4]
    if not host.isascii():
        host = host.encode("idna").decode()
    port = int(found[3] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise ValueError("no such port")
    who = host if port == _PORTS[scheme] else f"{host}:{port}"
    return scheme, host.strip("[]"), port, target if target.startswith("/") else f"/{target}", who


# ---------------------------------------------------------------------------------------------------- one response


class _Response:
    """A response on the wire."""

    def __init__(self, exchange: Exchange, words: _Words, begin_by: float) -> None:
        self.status = exchange.status
        self.begin_by: float | None = begin_by
        self._exchange = exchange
        self._words = words

    @cached_property
    def headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        for name, value in self._exchange.raw_headers:
            key, text = name.decode("latin-1"), value.decode("utf-8", "surrogateescape")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers

    async def read(self, *, limit: int) -> bytes:
        if self._inflater() is not None:
            return await self._read_inflated(limit)
        exchange = self._exchange
        data = await exchange.all(limit)
        if data is not None:
            return data
        if exchange.failure is not None:
            raise self._words.broken(exchange.failure)
        exchange.cut()
        raise self._words.too_long(limit)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See ``HttpResponse.chunks``. ``upstream_error`` where the body broke off."""
        exchange, inflater = self._exchange, self._inflater()
        while data := await exchange.some():
            if inflater is None:
                yield data
            else:
                for piece in inflater.feed(data):
                    yield piece
        if exchange.failure is not None:
            raise self._words.broken(exchange.failure)
        if inflater is not None:
            inflater.flush()

    async def close(self) -> None:
        self._exchange.cut()

    def _inflater(self) -> Inflater | None:
        encoding = self._exchange.header(b"content-encoding").strip().lower()
        return None if encoding in ("", "identity") else Inflater(encoding)

    async def _read_inflated(self, limit: int) -> bytes:
        pieces = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                self._exchange.cut()
                raise self._words.too_long(limit)
            pieces.append(piece)
        return b"".join(pieces)


# ---------------------------------------------------------------------------------------------------- words


class _Words:
    """How the failures of one exchange are told. Each sentence begins with ``The provider``, so that the provider's
    name can be put in; of errors they hold only what OpenSSL and the system call them."""

    __slots__ = ("_timeouts", "_total_at", "who")

    def __init__(self, who: str, timeouts: Timeouts, total_at: float) -> None:
        self.who = who
        self._timeouts = timeouts
        self._total_at = total_at

    def connected_by(self, now: float) -> float:
        return min(now + self._timeouts.connect_seconds, self._total_at)

    def unconnected(self, by: float) -> GatewayError:
        seconds = self._timeouts.connect_seconds
        return self._overdue(by, f"could not be reached within {seconds:g} seconds")

    def unanswered(self, failure: Failure) -> GatewayError:
        """Before the head of the response had come."""
        if failure.kind == "overdue":
            seconds = self._timeouts.first_byte_seconds
            return self._overdue(failure.by, f"did not begin to answer within {seconds:g} seconds")
        return self._ended(failure, "ended the connection without an answer")

    def broken(self, failure: Failure) -> GatewayError:
        """After it."""
        if failure.kind == "overdue":
            seconds = self._timeouts.idle_seconds
            return self._overdue(failure.by, f"fell silent for {seconds:g} seconds in its answer")
        return self._ended(failure, "broke off in the middle of its answer")

    def too_long(self, limit: int) -> GatewayError:
        message = f"The provider at {self.who} answered with more than {limit} bytes."
        return GatewayError(UPSTREAM_INVALID_RESPONSE, message)

    def _overdue(self, by: float, what: str) -> GatewayError:
        if by >= self._total_at:
            what = f"did not finish its answer within {self._timeouts.total_seconds or 0:g} seconds"
        return GatewayError(UPSTREAM_TIMEOUT, f"The provider at {self.who} {what}.")

    def _ended(self, failure: Failure, what: str) -> GatewayError:
        if failure.kind == "not http":
            message = f"The provider at {self.who} answered in something that is not HTTP; check its base_url."
            return GatewayError(UPSTREAM_INVALID_RESPONSE, message)
        return GatewayError(UPSTREAM_ERROR, f"The provider at {self.who} {what}{reason(failure.cause)}.")


def _unreachable(message: str) -> GatewayError:
    return GatewayError(UPSTREAM_UNREACHABLE, message)


def _closing() -> GatewayError:
    return _unreachable("The gateway is closing its connections to providers.")


def _unfit(url: str) -> GatewayError:
    try:
        who = _parts(url)[4]
    except ValueError:
        who = "its base_url"
    message = f"The provider at {who} cannot be asked in HTTP: check its base_url and headers."
    return GatewayError(INTERNAL_ERROR, message)
