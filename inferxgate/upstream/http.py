"""Requests to providers over HTTP/1.1, on aiohttp: one session of kept-alive connections per engine.

Strategy. aiohttp carries the bytes; what a gateway must decide itself is decided here:

* **Time.** Sending has one ``asyncio.timeout``, which is moved on when the connection stands. A body has one timer of
  the loop, which looks at when the current wait began and sets itself again: a chunk costs two assignments, no timer.
* **Cutting.** Whatever ends an exchange before the body's end aborts the transport: nothing is flushed, no TLS farewell
  is waited for, and the provider sees the connection end at once.
* **Kept-alive connections that the provider has just closed.** Before one is used again, its socket is asked whether
  anything has arrived. An idle connection has nothing to say, so if something has, it is the provider's farewell
  (or nonsense); nothing has been written yet, and another connection is taken. What remains is a farewell that is still
  under way while we write. It cannot be told from a provider that failed in the middle of the work, so it is an
  error (``upstream_error``): a request with a body is never sent twice from here. Whether to try again is for the
  gateway, which knows what a second try may cost.
* **Credentials.** No redirect is followed, no cookie kept, no ``.netrc`` read. Messages are put together from the
  host's name and the kind of failure: aiohttp's own texts hold URLs and headers, so they are neither shown nor chained.
* **Encodings.** ``identity`` is asked for; ``gzip`` and ``deflate`` are decoded all the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from inferxgate import __version__
from inferxgate.errors import (
    INTERNAL_ERROR,
    UPSTREAM_ERROR,
    UPSTREAM_INVALID_RESPONSE,
    UPSTREAM_TIMEOUT,
    UPSTREAM_UNREACHABLE,
    GatewayError,
)
from inferxgate.upstream.environment import Proxies, own_trust, usual_trust
from inferxgate.upstream.inflate import Inflater
from inferxgate.upstream.protocol import HttpRequest, HttpResponse, Upstream
from inferxgate.values import dataclass

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_KEEPALIVE_SECONDS = 45.0
"""Under the idle limits in common use: 60 s of AWS load balancers, 75 s of nginx. Servers with less (5 s of uvicorn and
Node.js) close first, which is seen."""
_DNS_SECONDS = 30
_HEADER_BYTES = 32 * 1024
"""For one header or the status line; aiohttp allows 128 headers."""
_PROBE_AFTER_SECONDS = 60
"""TCP keep-alive: a model may think for minutes, and address translators forget silent connections sooner."""
_PROBE_EVERY_SECONDS = 30
_PIECE_BYTES = 256 * 1024
_SWITCHING_PROTOCOLS = 101  # never asked for, and nothing after it is HTTP
_NEVER = float("inf")
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)


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
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[_Attempt] = set()
        self._closed = False

    async def send(self, request: HttpRequest) -> HttpResponse:
        """See ``Upstream.send``; also ``internal_error`` where the URL or a header is not fit for HTTP.

        ``upstream_unreachable`` means that the request was not sent; ``upstream_error``, that it was and that the
        connection ended without an answer, so that the provider may have acted on it.
        """
        attempt = _Attempt(asyncio.get_running_loop(), request)
        token = _ATTEMPT.set(attempt)
        self._under_way.add(attempt)
        try:
            url = URL(request.url, encoded=True)
            attempt.host = url.host_port_subcomponent or attempt.host
            proxy = self._proxies.find(url)
            attempt.proxied = proxy is not None
            async with asyncio.timeout_at(attempt.deadline) as attempt.clock:
                answer = await self._started_session().request(
                    request.method,
                    url,
                    headers=_headers(request),
                    data=_body(request.body),
                    allow_redirects=False,
                    proxy=proxy,
                    ssl=self._trust if "https" in {url.scheme, proxy.scheme if proxy else None} else True,
                )
            if answer.status != _SWITCHING_PROTOCOLS:
                return _Response(answer, attempt, self._under_way)
            attempt.cut()
            answer.close()
            failure = _not_http(attempt.host)
        except asyncio.CancelledError:
            attempt.cut()
            self._under_way.discard(attempt)
            raise
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            attempt.cut()
            failure = attempt.explain(error)
        finally:
            _ATTEMPT.reset(token)
        self._under_way.discard(attempt)
        raise failure  # out here, so that aiohttp's error, which holds the request's headers, is not chained

    async def close(self) -> None:
        """Cut what is under way and close the rest."""
        self._closed = True
        for attempt in self._under_way:
            attempt.cut()  # first, because the session waits for whatever is still to be written
        if self._session is not None:
            await self._session.close()

    def _started_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the engine is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(
                    limit=0,
                    ttl_dns_cache=_DNS_SECONDS,
                    keepalive_timeout=_KEEPALIVE_SECONDS,
                    socket_factory=_probing_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_NO_TIMEOUT,
                auto_decompress=False,
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
        return self._session

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Made when the first provider needs it: reading the roots takes some ten milliseconds."""
        return self._own_trust or usual_trust()


def _headers(request: HttpRequest) -> dict[str, str]:
    headers = {"user-agent": f"inferxgate/{__version__}"}
    for name, value in request.headers.items():
        headers[name.lower()] = value
    headers["accept-encoding"] = "identity"
    if len(request.body) > _PIECE_BYTES:
        headers["content-length"] = str(len(request.body))
    return headers


def _body(body: bytes) -> bytes | AsyncIterator[bytes] | None:
    """A large body goes out in pieces, so that copying and encrypting it keeps nobody waiting."""
    return _pieces(body) if len(body) > _PIECE_BYTES else body or None


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE_BYTES):
        yield body[start : start + _PIECE_BYTES]


# ---------------------------------------------------------------------------------------------------- one attempt


class _Attempt:
    """Where the sending of one request stands, for its timeouts and for the words of its failure."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: HttpRequest) -> None:
        self._loop = loop
        self.timeouts = request.timeouts
        self.host = "its base_url"
        """The host's name, and its port where the scheme has another; it stands after ``The provider at``."""
        self.proxied = False
        self.connected = False
        self.transport: asyncio.Transport | None = None
        self.protocol: ResponseHandler | None = None
        self.clock: asyncio.Timeout | None = None
        total = request.timeouts.total_seconds
        self.total_at = _NEVER if total is None else loop.time() + total
        self.deadline = min(loop.time() + request.timeouts.connect_seconds, self.total_at)

    def looks_for_connection(self) -> None:
        """The beginning; also a second time, where aiohttp repeats a GET."""
        self.connected, self.transport, self.protocol = False, None, None
        self._move_on(self.timeouts.connect_seconds)

    def sends_over(self, connection: Connection) -> None:
        """There is a connection, and the request goes out now."""
        self.connected, self.transport, self.protocol = True, connection.transport, connection.protocol
        self._move_on(self.timeouts.first_byte_seconds)

    def _move_on(self, seconds: float) -> None:
        if self.clock is not None and not self.clock.expired():
            self.deadline = min(self._loop.time() + seconds, self.total_at)
            self.clock.reschedule(self.deadline)

    def cut(self) -> None:
        """End the connection now, whatever waits to be written to it."""
        if self.transport is not None:
            self.transport.abort()

    def explain(self, error: Exception) -> GatewayError:
        """The failure in our words; of the error's own text only what OpenSSL and the system call it.

        Each sentence begins with ``The provider``, so that the provider's name can be put in.
        """
        host = self.host
        unreached = f"The provider at {host} could not be reached"
        if self.clock is not None and self.clock.expired():
            return self._explain_timeout()
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            fault = _certificate_fault(error)
            return _unreachable(f"The provider at {host} showed a certificate that is not trusted{fault}.")
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            return _unreachable(f"{unreached}: no TLS connection could be made.")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            whose = "the proxy on the way there" if self.proxied else "its host"
            return _unreachable(f"{unreached}: the name of {whose} could not be resolved.")
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return _unreachable(f"{unreached}: the proxy on the way there is not reachable{_reason(error)}.")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return _unreachable(f"{unreached}: the proxy refused the way there (status {error.status}).")
        if isinstance(error, aiohttp.ClientResponseError):
            return _not_http(host)
        if isinstance(error, aiohttp.NonHttpUrlClientError | ValueError):
            message = f"The provider at {host} cannot be asked in HTTP: check its base_url and headers."
            return GatewayError(INTERNAL_ERROR, message)
        if isinstance(error, RuntimeError):
            return _unreachable("The gateway is closing its connections to providers.")
        if self.connected:
            message = f"The provider at {host} ended the connection without an answer{_reason(error)}."
            return GatewayError(UPSTREAM_ERROR, message)
        return _unreachable(f"{unreached}{_reason(error)}.")

    def _explain_timeout(self) -> GatewayError:
        if self.deadline >= self.total_at:
            return self.explain_total()
        if self.connected:
            what, seconds = "did not begin to answer", self.timeouts.first_byte_seconds
        else:
            what, seconds = "could not be reached", self.timeouts.connect_seconds
        return _timeout(f"The provider at {self.host} {what} within {seconds:g} seconds.")

    def explain_total(self) -> GatewayError:
        seconds = self.timeouts.total_seconds or 0
        return _timeout(f"The provider at {self.host} did not finish its answer within {seconds:g} seconds.")


_ATTEMPT: ContextVar[_Attempt | None] = ContextVar("attempt", default=None)
"""The attempt of the current task, for the connector, which aiohttp calls with nothing of ours."""


def _unreachable(message: str) -> GatewayError:
    return GatewayError(UPSTREAM_UNREACHABLE, message)


def _timeout(message: str) -> GatewayError:
    return GatewayError(UPSTREAM_TIMEOUT, message)


def _not_http(host: str) -> GatewayError:
    return GatewayError(
        UPSTREAM_INVALID_RESPONSE, f"The provider at {host} answered in something that is not HTTP; check its base_url."
    )


def _reason(error: Exception) -> str:
    """The system's own name for the failure, such as ``Connection refused``."""
    number = error.errno if isinstance(error, OSError) else None
    return f" ({os.strerror(number)})" if number is not None and number in errno.errorcode else ""


def _certificate_fault(error: aiohttp.ClientConnectorCertificateError) -> str:
    """OpenSSL's own words, such as ``certificate has expired``."""
    fault = getattr(error.certificate_error, "verify_message", "")
    return f" ({fault.rstrip('.')})" if fault else ""


# ---------------------------------------------------------------------------------------------------- connections


class _Connector(aiohttp.TCPConnector):
    """Tells the attempt where it stands, and never hands out a connection that has already ended."""

    _used: weakref.WeakSet[ResponseHandler] | None = None

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        used = self._used
        if used is None:
            used = self._used = weakref.WeakSet()
        attempt = _ATTEMPT.get()
        if attempt is not None:
            attempt.looks_for_connection()
        connection = await super().connect(req, traces, timeout)
        # Only one that was used before is asked: on a new TLS connection the server's session tickets may be waiting.
        while connection.protocol in used and _has_ended(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if protocol is not None and protocol not in used:
            used.add(protocol)
            if protocol.closed is not None:
                protocol.closed.add_done_callback(_take_note)
        if attempt is not None:
            attempt.sends_over(connection)
        return connection


def _take_note(ended: asyncio.Future[None]) -> None:
    """How a connection ended is asked for where it matters; asyncio complains about failures that nobody asked for."""
    if not ended.cancelled():
        ended.exception()


def _has_ended(connection: Connection) -> bool:
    """Whether an idle connection has something to say, or something left over from the answer before."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or protocol.should_close:
        return True
    held = transport.get_extra_info("socket")
    return held is not None and _readable(held.fileno())


if hasattr(select, "poll"):

    def _readable(handle: int) -> bool:
        asked = select.poll()
        asked.register(handle, select.POLLIN)
        return bool(asked.poll(0))

else:  # Windows

    def _readable(handle: int) -> bool:
        return bool(select.select([handle], [], [], 0)[0])


def _probing_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
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


# ---------------------------------------------------------------------------------------------------- one response


class _Response:
    """A response on the wire."""

    def __init__(self, answer: aiohttp.ClientResponse, attempt: _Attempt, under_way: set[_Attempt]) -> None:
        self.status = answer.status
        self.begin_by: float | None = attempt.deadline
        self._answer = answer
        self._attempt = attempt
        self._under_way = under_way
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = _NEVER
        """When the current wait for bytes began. A reader of ours that takes its time is not the provider's silence."""
        self._expired: GatewayError | None = None
        # aiohttp says nothing to the reader when a body without a length is reset, and leaves it waiting when the
        # chunked encoding breaks; how the connection ended says both
        self._ended = attempt.protocol.closed if attempt.protocol is not None else None

    @cached_property
    def headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        for name, value in self._answer.headers.items():
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return headers

    async def read(self, *, limit: int) -> bytes:
        pieces = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > limit:
                await self.close()
                message = f"The provider at {self._attempt.host} answered with more than {limit} bytes."
                raise GatewayError(UPSTREAM_INVALID_RESPONSE, message)
            pieces.append(piece)
        return b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See ``HttpResponse.chunks``. ``upstream_error`` where the body broke off."""
        content, loop = self._answer.content, self._loop
        encoding = self._answer.headers.get("content-encoding", "").strip().lower()
        inflater = None if encoding in {"", "identity"} else Inflater(encoding)
        broke_off = False
        self._watch()
        try:
            while True:
                self._waiting_since = loop.time()
                data = await content.readany()
                self._waiting_since = _NEVER
                if not data:
                    broke_off = self._was_reset()
                    break
                if inflater is None:
                    yield data
                else:
                    for piece in inflater.feed(data):
                        yield piece
        except (aiohttp.ClientError, OSError, RuntimeError, HttpProcessingError):
            broke_off = True
        finally:
            self._unwatch()
        if broke_off or self._expired is not None:
            raise self._explain()
        if inflater is not None:
            inflater.flush()

    async def close(self) -> None:
        self._unwatch()
        self._under_way.discard(self._attempt)
        connection = self._answer.connection  # None once the body has ended and the connection went back
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._answer.close()

    # ------------------------------------------------------------------ time

    def _watch(self) -> None:
        self._waiting_since = _NEVER
        self._timer = self._loop.call_at(self._silent_at(), self._look_at_the_clock)
        if self._ended is not None:
            self._ended.add_done_callback(self._connection_ended)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ended is not None:
            self._ended.remove_done_callback(self._connection_ended)
        if self._answer.content.is_eof():
            self._under_way.discard(self._attempt)

    def _silent_at(self) -> float:
        """When the silence will have been too long, if nothing comes from now on; or when the total is used up."""
        began = min(self._waiting_since, self._loop.time())
        return min(began + self._attempt.timeouts.idle_seconds, self._attempt.total_at)

    def _look_at_the_clock(self) -> None:
        at = self._silent_at()
        if self._loop.time() < at:
            self._timer = self._loop.call_at(at, self._look_at_the_clock)
            return
        if at >= self._attempt.total_at:
            self._expired = self._attempt.explain_total()
        else:
            seconds = self._attempt.timeouts.idle_seconds
            host = self._attempt.host
            self._expired = _timeout(f"The provider at {host} fell silent for {seconds:g} seconds in its answer.")
        self._attempt.cut()
        self._wake_reader()

    # ------------------------------------------------------------------ ends

    def _connection_ended(self, _: asyncio.Future[None]) -> None:
        self._wake_reader()

    def _wake_reader(self) -> None:
        content = self._answer.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())

    def _was_reset(self) -> bool:
        """Whether a body that lasts until the connection closes was ended by anything but the provider's closing it."""
        headers = self._answer.headers
        if "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower():
            return False
        ended = self._ended
        return ended is not None and ended.done() and not ended.cancelled() and ended.exception() is not None

    def _explain(self) -> GatewayError:
        if self._expired is not None:
            return self._expired
        cause = self._attempt.protocol.exception() if self._attempt.protocol is not None else None
        host = self._attempt.host
        if isinstance(cause, HttpProcessingError):
            return _not_http(host)
        why = _reason(cause) if isinstance(cause, Exception) else ""
        return GatewayError(UPSTREAM_ERROR, f"The provider at {host} broke off in the middle of its answer{why}.")
