"""The application: what every request passes on its way to a route, from the outside in.

``Door``     gives the request its id, adds the headers that every answer has, counts and logs
``Cors``     only where ``server.cors_origins`` names origins
``Shield``   turns every failure into the contract's JSON, and refuses while the server is shutting down
``Router``   Starlette's, on ``scope["path"]``; the chat route is found before it, without a regular expression
``PathApp``  one path: which method, who may call it, the body, the handler

All of it is plain ASGI. Nothing reads ``request.url``, which a client can bend with a malformed ``Host`` header.
"""

from __future__ import annotations

import asyncio
import difflib
import itertools
import logging
import os
import re
import time
from collections.abc import Sequence

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
from inferxgate.server.bodies import ClientGone, parse_body, read_json
from inferxgate.server.cycle import connection_of
from inferxgate.server.endpoints import Call, Endpoint, Parts, Who, check_allowed
from inferxgate.server.identity import Identity
from inferxgate.server.logs import RequestLine, log_request
from inferxgate.server.responses import error_response, rate_headers, send_reply, start_message
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
    app: ASGIApp = Shield(parts, _chat_first(paths[CHAT_PATH], router))
    origins = parts.runtime.settings.server.cors_origins
    if origins:
        app = Cors(
            app,
            allow_origins=list(origins),
            allow_methods=("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
    return Door(parts, app)


def _chat_first(chat: ASGIApp, router: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (chat if scope["path"] == CHAT_PATH else router)(scope, receive, send)

    return app


class Door:
    """The outermost layer: whatever happens further in, the answer has its headers and the log its line."""

    def __init__(self, parts: Parts, app: ASGIApp) -> None:
        self._app = app
        self._parts = parts
        self._identity = parts.identity
        self._limits = parts.runtime.limits
        self._metrics = parts.runtime.metrics
        self._draining = parts.draining
        # Unique without being secret, so a number will do: fresh random bits for each would cost a call of the kernel.
        self._id_base = os.urandom(8).hex()
        self._id_count = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise AssertionError(f"only HTTP is served, not {scope['type']}")
        begin = time.monotonic()
        headers = scope["headers"]
        request_id = _own_request_id(headers) or f"req_{self._id_base}{next(self._id_count):010x}"
        state = scope["state"]
        state["request_id"] = request_id
        connection = connection_of(scope)
        connection.further_headers = lambda: self._headers(request_id, state, headers)
        try:
            await self._app(scope, receive, send)
        finally:
            seconds = time.monotonic() - begin
            status = connection.status or _CLIENT_LEFT
            method = scope["method"]
            caller: Caller | None = state.get("caller")
            error: GatewayError | None = state.get("error")
            self._metrics.http_request(
                state.get("route", "other"), method if method in _METHODS else "other", status, seconds
            )
            log_request(
                RequestLine(
                    request_id=request_id,
                    client=self._parts.addresses.client(scope),
                    method=method,
                    path=scope["path"],
                    status=status,
                    duration_ms=round(seconds * 1000, 1),
                    bytes=connection.body_bytes,
                    key_id=caller.key_id if caller else None,
                    user_id=caller.user_id if caller else None,
                    target=state.get("target") or (error.target if error else None),
                    error=error.code if error else None,
                )
            )

    def _headers(
        self, request_id: str, state: dict[str, object], headers: list[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """The headers that every answer has."""
        added = [(b"x-request-id", request_id.encode())]
        caller = state.get("caller") or self._identity.known(headers)
        if isinstance(caller, Caller):
            try:
                rate = state.get("rate")
                added += rate_headers(rate if isinstance(rate, RateState) else self._limits.peek(caller.scopes))
            except SharedUnavailable as error:  # the answer is no worse for it, and admission says so where it matters
                log.warning("no rate limit headers: %s", error)
        if self._draining.started:
            added.append((b"connection", b"close"))
        return added


def _own_request_id(headers: list[tuple[bytes, bytes]]) -> str | None:
    """The client's own id for its request, where it is a proper one."""
    for name, value in headers:
        if name == b"x-request-id":
            return value.decode("ascii") if _REQUEST_ID.fullmatch(value) else None
    return None


class Cors(CORSMiddleware):
    """Starlette's, but a refused preflight is told so in the contract's JSON."""

    def preflight_response(self, request_headers: HeaderMap) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        told = bytes(response.body).decode()
        status, headers, body = error_response(GatewayError(INVALID_VALUE, f"{told}.", param="Origin"), "")
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(body, status, kept | {name.decode(): value.decode() for name, value in headers})


class Shield:
    """Every failure becomes an answer, in one form; what was not foreseen is logged with its traceback."""

    def __init__(self, parts: Parts, app: ASGIApp) -> None:
        self._app = app
        self._draining = parts.draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Unread(receive) if _announces_body(scope["headers"]) else None
        error = await self._run(scope, receive if body is None else body.receive, send)
        if error is not None:
            scope["state"]["error"] = error
        if error is None:
            return
        if connection_of(scope).status:
            # The status is out, and nothing can be taken back: the server closes the connection, which the client
            # sees as an answer cut short.
            log.warning("request %s was cut short: %s", scope["state"]["request_id"], error.message)
            return
        status, headers, content = error_response(error, scope["state"]["request_id"])
        await send(start_message(status, headers, len(content)))
        if body is None or body.ended:
            await send({"type": "http.response.body", "body": content})
            return
        # A client that is still sending would lose the answer to a connection reset if we closed now. So the answer
        # goes out, and what still comes is read and thrown away, within bounds.
        await send({"type": "http.response.body", "body": content, "more_body": True})
        if await body.drained():
            await send({"type": "http.response.body", "body": b""})

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> GatewayError | None:
        """Run the application; the failure to answer with, if there is one."""
        if self._draining.started and scope["path"] not in _HEALTH:
            return _draining()
        try:
            await self._app(scope, receive, send)
        except GatewayError as error:
            return error
        except StoreUnavailable as error:
            log.warning("request %s: the store is unavailable: %s", scope["state"]["request_id"], error)
            return GatewayError(
                STORE_UNAVAILABLE, "The gateway's store is unavailable. Try again shortly.", retry_after_seconds=5
            )
        except ClientGone:
            return None
        except asyncio.CancelledError:
            if not connection_of(scope).status:  # only the end of a shutdown cancels a request
                status, headers, content = error_response(_draining(), scope["state"]["request_id"])
                await send(start_message(status, headers, len(content)))
                await send({"type": "http.response.body", "body": content})
            raise
        except Exception:  # the last resort of every request: logged in full, told as a fault of ours
            log.exception("request %s failed", scope["state"]["request_id"])
            return GatewayError(INTERNAL_ERROR, "The gateway failed on this request.")
        return None


def _draining() -> GatewayError:
    return GatewayError(DRAINING, "The gateway is shutting down. Try again shortly.", retry_after_seconds=1)


def _announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any((name == b"content-length" and value != b"0") or name == b"transfer-encoding" for name, value in headers)


class _Unread:
    """Watches a request's body, to know how much of it is still to come."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.ended = True
        return message

    async def drained(self) -> bool:
        """Read on to the body's end; False where it does not come within the bounds."""
        size = 0
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self.ended and size < _DRAIN_BYTES:
                    size += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return False
        return self.ended


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        state["route"] = self._label
        endpoint = self._endpoints.get(scope["method"])
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
