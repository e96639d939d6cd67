"""The application: what every request passes on its way to a route, from the outside in.

``Door``     gives the request its id, adds the headers that every answer has, counts and logs; turns every failure into
             the contract's JSON, and refuses while the server is shutting down
``Cors``     only where ``server.cors_origins`` names origins: answers preflights, and leaves its headers for the answer
``Router``   Starlette's, on ``scope["path"]``; the chat route is found before it, without a regular expression
``PathApp``  one path: which method, who may call it, the body, the handler

All of it is plain ASGI, and nothing wraps ``receive`` or ``send``: what a layer wants to know or to add, the connection
tells and takes (``cycle``). The usual request passes few functions, since calling them costs more than what they do.
Nothing reads ``request.url``, which a client can bend with a malformed ``Host`` header.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
import time
from collections.abc import Awaitable, Sequence

from starlette.datastructures import Headers as HeaderMap
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferxgate.accounts.callers import Caller
from inferxgate.errors import (
    DRAINING,
    INTERNAL_ERROR,
    INVALID_VALUE,
    METHOD_NOT_ALLOWED,
    ROUTE_NOT_FOUND,
    STORE_UNAVAILABLE,
    GatewayError,
    StoreUnavailable,
)
from inferxgate.ids import new_id
from inferxgate.server.bodies import ClientGone, parse_body, read_json
from inferxgate.server.cycle import Connection, connection_of
from inferxgate.server.endpoints import Call, Endpoint, Parts, Who, check_allowed
from inferxgate.server.identity import Identity
from inferxgate.server.logs import RequestLine, log_request
from inferxgate.server.responses import error_response, header_lines, rate_lines, send_reply, start_message
from inferxgate.server.routes import CHAT_PATH, build_endpoints
from inferxgate.workers.limits import RateState
from inferxgate.workers.shared import SharedUnavailable

log = logging.getLogger("inferxgate.server")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_HEALTH = frozenset({"/health", "/health/live"})
_CLIENT_LEFT = 499
"""What log and metrics say where the client left before it was told anything (nginx's convention)."""
_BODY_BYTES = 1024 * 1024
"""The longest body of an administrative route; the largest sensible one has a few kilobytes."""
_RECOGNISE_SECONDS = 0.25
"""How long a route for everyone waits to learn who is calling, for no more than the rate limit headers."""
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_SECONDS = 5.0
_EXPOSED = (
    "X-Request-Id",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-InferXgate-Model",
    "X-InferXgate-Cost",
    "X-InferXgate-Dropped-Params",
)


def build_app(parts: Parts) -> Door:
    """The whole application for one server."""
    endpoints = build_endpoints(parts)
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    paths = {path: PathApp(parts, path, those) for path, those in by_path.items()}
    router = Router(
        [Route(path, app) for path, app in paths.items()],
        redirect_slashes=False,  # the redirect would be to the Host header's host
        default=NotFound(parts.identity, list(by_path)),
    )
    origins = parts.runtime.settings.server.cors_origins
    cors = None
    if origins:
        cors = Cors(
            _nothing_more,
            allow_origins=list(origins),
            allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    return Door(parts, router, chat=paths[CHAT_PATH], cors=cors)


async def _nothing_more(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pass


class Door:
    """The outermost layer: whatever happens further in, the client has an answer, and the log its line."""

    def __init__(
        self, parts: Parts, app: ASGIApp, *, chat: ASGIApp | None = None, cors: CORSMiddleware | None = None
    ) -> None:
        """``chat`` is the application for the path that most requests go to, and ``app`` that for every other."""
        self._app = app
        self._chat = chat or app
        self._cors = cors
        self._addresses = parts.addresses
        self._identity = parts.identity
        self._limits = parts.runtime.limits
        self._count = parts.runtime.metrics.http_request
        self._draining = parts.draining
        self._further_lines = self._lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = time.monotonic()
        if scope["type"] != "http":
            raise AssertionError(f"only HTTP is served, not {scope['type']}")
        state, path = scope["state"], scope["path"]
        told = state["told"] = dict(scope["headers"])
        own_id = _own_request_id(scope["headers"]) if b"x-request-id" in told else None
        state["request_id"] = own_id or new_id("req_")
        connection: Connection = state["connection"]
        connection.further_lines = self._further_lines
        try:
            if self._cors is not None:
                await self._cors(scope, receive, send)
            if not connection.status:  # else it was a preflight
                if self._draining.started and path not in _HEALTH:
                    raise _draining()
                await (self._chat if path == CHAT_PATH else self._app)(scope, receive, send)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            if not connection.status:  # only the end of a shutdown cancels a request
                status, headers, content = error_response(_draining(), state["request_id"])
                connection.answer(status, header_lines(headers), content)
            raise
        except Exception as failure:  # noqa: BLE001 - the last resort of every request: told, and logged where unforeseen
            await self._fail(_error_of(failure, state["request_id"]), scope, receive)
        finally:
            self._record(scope, connection, time.monotonic() - begin)

    def _lines(self, scope: Scope) -> bytes:
        """The headers that every answer has."""
        state = scope["state"]
        own = b"x-request-id: %b\r\n" % state["request_id"].encode()
        if self._draining.started:
            state["connection"].keep_alive = False
        rate: RateState | None = state.get("rate")
        if rate is None:
            caller: Caller | None = state.get("caller") or self._identity.known(scope["headers"])
            if caller is None:
                return own
            try:
                rate = self._limits.peek(caller.scopes)
            except SharedUnavailable as error:  # the answer is no worse for it, and admission says so where it matters
                log.warning("no rate limit headers: %s", error)
                return own
        return own + rate_lines(rate)

    async def _fail(self, error: GatewayError, scope: Scope, receive: Receive) -> None:
        """Tell the client of a failure."""
        state = scope["state"]
        state["error"] = error
        connection = connection_of(scope)
        if connection.status:
            # The status is out, and nothing can be taken back: the server closes the connection, which the client
            # sees as an answer cut short.
            log.warning("request %s was cut short: %s", state["request_id"], error.message)
            return
        if connection.flow.write_paused:  # with earlier answers, of which a client that does not read gets no more
            await connection.flow.drain()
        status, headers, content = error_response(error, state["request_id"])
        if not connection.more_body:
            connection.answer(status, header_lines(headers), content)
            return
        # A client that is still sending would lose the answer to a connection reset if we closed now. So the answer
        # goes out, and what still comes is read and thrown away, within bounds.
        connection.begin(status, header_lines(headers), len(content))
        connection.write(content)
        if await _drained(connection, receive):
            connection.write(b"", last=True)

    def _record(self, scope: Scope, connection: Connection, seconds: float) -> None:
        """Count and log a request that has its answer."""
        state, method = scope["state"], scope["method"]
        status = connection.status or _CLIENT_LEFT
        caller: Caller | None = state.get("caller")
        error: GatewayError | None = state.get("error")
        self._count(state.get("route", "other"), method if method in _METHODS else "other", status, seconds)
        log_request(
            RequestLine(
                state["request_id"],
                self._addresses.client(scope),
                method,
                scope["path"],
                status,
                round(seconds * 1000, 1),
                connection.body_bytes,
                caller.key_id if caller else None,
                caller.user_id if caller else None,
                state.get("target") or (error.target if error else None),
                error.code if error else None,
            )
        )


def _own_request_id(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The client's own id for its request, where it is a proper one."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else None
    return None


class Cors(CORSMiddleware):
    """Starlette's, but a refused preflight is told so in the contract's JSON, and ``send`` is not wrapped.

    Whether the connection's answer has begun tells afterwards whether it was a preflight.
    """

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: HeaderMap) -> None:
        added: Message = {"type": "http.response.start", "status": 200, "headers": []}

        async def keep(_message: Message) -> None:
            pass

        await self.send(added, send=keep, request_headers=request_headers)
        connection_of(scope).added_lines += header_lines(added["headers"])

    def preflight_response(self, request_headers: HeaderMap) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        told = bytes(response.body).decode()
        status, headers, body = error_response(GatewayError(INVALID_VALUE, f"{told}.", param="Origin"), "")
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(body, status, kept | {name.decode(): value.decode() for name, value in headers})


def _error_of(failure: Exception, request_id: str) -> GatewayError:
    """What to tell of a failure; what was not foreseen is logged with its traceback."""
    if isinstance(failure, GatewayError):
        return failure
    if isinstance(failure, StoreUnavailable):
        log.warning("request %s: the store is unavailable: %s", request_id, failure)
        return GatewayError(
            STORE_UNAVAILABLE, "The gateway's store is unavailable. Try again shortly.", retry_after_seconds=5
        )
    log.error("request %s failed", request_id, exc_info=failure)
    return GatewayError(INTERNAL_ERROR, "The gateway failed on this request.")


def _draining() -> GatewayError:
    return GatewayError(DRAINING, "The gateway is shutting down. Try again shortly.", retry_after_seconds=1)


async def _drained(connection: Connection, receive: Receive) -> bool:
    """Read on to the body's end; False where it does not come within the bounds."""
    size = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while connection.more_body and not connection.disconnected and size < _DRAIN_BYTES:
                size += len((await receive()).get("body", b""))
    except TimeoutError:
        return False
    return not connection.more_body


class PathApp:
    """One path: the method, the caller, the body, the handler."""

    def __init__(self, parts: Parts, path: str, endpoints: Sequence[Endpoint]) -> None:
        self._parts = parts
        self._label = path.replace(":path}", "}")
        self._endpoints = {endpoint.method: endpoint for endpoint in endpoints}
        if "GET" in self._endpoints:
            self._endpoints["HEAD"] = self._endpoints["GET"]
        self._allow = ", ".join(sorted([*self._endpoints, "OPTIONS"]))
        self._body_limit = min(_BODY_BYTES, parts.runtime.settings.server.max_body_mb * 1024 * 1024)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine, so that the usual call of an application costs none."""
        state = scope["state"]
        state["route"] = self._label
        endpoint = self._endpoints.get(scope["method"])
        if endpoint is not None and endpoint.app is not None and endpoint.who is Who.ANY:
            caller = state["caller"] = self._parts.identity.known(scope["headers"], state["told"])
            if caller is not None:
                return endpoint.app(scope, receive, send)
        return self._take(endpoint, scope, receive, send)

    async def _take(self, endpoint: Endpoint | None, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        if endpoint is None:
            await recognise(self._parts.identity, scope)
            if scope["method"] == "OPTIONS":
                await send(start_message(204, [(b"allow", self._allow.encode())], 0))
                await send({"type": "http.response.body", "body": b""})
                return
            raise GatewayError(
                METHOD_NOT_ALLOWED,
                f"{self._label} does not take {scope['method']}. Allowed: {self._allow}.",
                headers={"Allow": self._allow},
            )
        if endpoint.who is Who.EVERYONE:
            await recognise(self._parts.identity, scope)
        else:
            identity = self._parts.identity
            state["caller"] = identity.known(scope["headers"]) or await identity.look_up(scope["headers"])
            check_allowed(endpoint.who, state["caller"])
        if endpoint.app is not None:
            await endpoint.app(scope, receive, send)
            return
        await self._handle(endpoint, scope, receive, send)

    async def _handle(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        body = None
        if endpoint.body is not None:
            _, content = await read_json(receive, scope["headers"], self._body_limit)
            body = parse_body(endpoint.body, content)
        if endpoint.handler is None:
            raise AssertionError(f"{endpoint.method} {endpoint.path} has neither an application nor a handler")
        reply = await endpoint.handler(Call(self._parts, scope, scope["state"].get("caller"), body))
        await send_reply(send, reply)


class NotFound:
    """Every other path."""

    def __init__(self, identity: Identity, paths: Sequence[str]) -> None:
        self._identity = identity
        self._paths = [path.replace(":path}", "}") for path in paths]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await recognise(self._identity, scope)
        path = scope["path"]
        if path == "*" and scope["method"] == "OPTIONS":
            await send(start_message(204, [(b"allow", ", ".join(sorted(_METHODS - {"PUT"})).encode())], 0))
            await send({"type": "http.response.body", "body": b""})
            return
        raise GatewayError(ROUTE_NOT_FOUND, f"There is no route {_shown(path)}.{self._hint(path)}")

    def _hint(self, path: str) -> str:
        if f"/v1{path}" in self._paths:
            return f" Did you mean /v1{path}? An OpenAI client's base URL has to end with /v1."
        if path.startswith("/v1/v1/"):
            return f" Did you mean {_shown(path[3:])}? The base URL holds /v1 already."
        if path.rstrip("/") in self._paths:
            return f" Did you mean {path.rstrip('/')}, without the slash at its end?"
        near = difflib.get_close_matches(path[:200].lower(), self._paths, n=3, cutoff=0.6)
        return f" Did you mean {' or '.join(near)}?" if near else " GET /openapi.json lists what there is."


def _shown(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:200]}..."


async def recognise(identity: Identity, scope: Scope) -> None:
    """Find out who is calling where nothing depends on it but the rate limit headers; never fails, never waits long."""
    headers = scope["headers"]
    if not any(name in (b"authorization", b"x-api-key") for name, _ in headers):
        return
    caller = identity.known(headers)
    if caller is None:
        try:
            async with asyncio.timeout(_RECOGNISE_SECONDS):
                caller = await identity.look_up(headers)
        except (GatewayError, TimeoutError):
            return
    scope["state"]["caller"] = caller
