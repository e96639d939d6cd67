"""POST /v1/chat/completions, as a plain ASGI app: every call of every client goes through here.

When the client leaves, its connection cancels the request; that ends the provider's request too. The answer goes to
the connection without ASGI events, each of which would cost a stream as much as a piece of it.

For a stream, a timer speaks when nobody else does: after ``keepalive_seconds`` of silence it commits the 200 and sends
a comment, so that proxies on the way do not cut a connection while a model thinks. Until then the status is held back,
so that a failure before the first event can still have its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson
from starlette.types import Receive, Scope, Send

from inferxgate.canonical.chat import collect
from inferxgate.catalog.pricing import plain_dollars
from inferxgate.dialects import openai_answers, openai_chat
from inferxgate.errors import DRAINING, GatewayError
from inferxgate.framing.sse import build_event
from inferxgate.gateway.pipeline import CLIENT_GONE, StreamReply, Told, WholeReply
from inferxgate.ids import new_id
from inferxgate.server.bodies import ClientGone, check_announced, parse_json, read_body
from inferxgate.server.responses import JSON, header_line, header_lines

if TYPE_CHECKING:
    from inferxgate.canonical.chat import ChatRequest
    from inferxgate.dialects.protocol import Event
    from inferxgate.runtime import Runtime
    from inferxgate.server.cycle import Connection

log = logging.getLogger("inferxgate.server")

_JSON_LINE = header_line(*JSON)
_STREAM_LINES = header_lines(
    [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),  # nginx would otherwise hold a stream back
    ]
)
_COMMENT = b": keep-alive\n\n"
_LAST_WORD_SECONDS = 1.0
_STOPPED = GatewayError(DRAINING, "The gateway was stopped before the answer was finished.")


class ChatEndpoint:
    """Answers chat completions. Its route has put the caller into ``scope["state"]``."""

    def __init__(self, runtime: Runtime) -> None:
        self._gateway = runtime.gateway
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, _send: Send) -> None:
        """Answer one request. Raises ``GatewayError`` for what fails before the answer has begun."""
        server, state = self._runtime.settings.server, scope["state"]
        connection: Connection = state["connection"]
        limit = server.max_body_mb * 1048576
        check_announced(scope["headers"], state["told"], limit)
        body = await read_body(receive, limit) if connection.more_body else connection.take_body()
        request = openai_chat.parse_request(parse_json(body, limit))
        if connection.disconnected:
            raise ClientGone
        connection.cancels_with = CLIENT_GONE
        try:
            if request.stream:
                await self._stream(state, request, connection, server.keepalive_seconds)
            else:
                reply = await self._gateway.chat(state["caller"], request, request_id=state["request_id"], told=Told())
                state["target"] = reply.target.name
                assert isinstance(reply, WholeReply)  # noqa: S101 - a request without stream has a whole reply
                state["rate"] = reply.rate
                connection.cancels_with = None  # from now on an end of the connection is no departure
                if connection.flow.write_paused:
                    await connection.flow.drain()
                _send_whole(reply, request, connection)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connection.client_left or task is None:
                raise
            task.uncancel()
            raise ClientGone from None
        except GatewayError as error:
            if error.withheld is not None:  # clients are not told, so that whoever can mend it has to read it here
                log.warning(
                    "request %s to %s: %s It said: %s", state["request_id"], error.target, error.message, error.withheld
                )
            raise
        finally:
            connection.cancels_with = None

    async def _stream(
        self, state: dict[str, Any], request: ChatRequest, connection: Connection, keepalive_seconds: float
    ) -> None:
        answer = _StreamAnswer(connection, keepalive_seconds, request)
        try:
            reply = await self._gateway.chat(state["caller"], request, request_id=state["request_id"], told=answer.told)
            state["target"] = reply.target.name
            await answer.relay(reply)
        except GatewayError as error:
            if not answer.started:
                raise
            state["error"] = error
            await answer.fail(error)
        except asyncio.CancelledError:
            # Neither a silent end nor a made-up one for a client that is still there: the gateway is stopping.
            if answer.started and not connection.client_left:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORD_SECONDS):  # a client that does not read gets none
                        await answer.fail(_STOPPED)
            raise
        finally:
            answer.close()


def _send_whole(reply: WholeReply, request: ChatRequest, connection: Connection) -> None:
    data = reply.data
    if data is None:
        response, now_s = collect(reply.chunks), int(time.time())
        answer_id = response.id or new_id("chatcmpl-")
        data = orjson.dumps(
            openai_answers.build_response(response, answer_id=answer_id, created_s=now_s, model=request.model)
        )
    lines = _JSON_LINE + _served_lines(reply)
    if reply.cost_nanos is not None:
        lines += b"x-inferxgate-cost: %b\r\n" % plain_dollars(reply.cost_nanos).encode()
    connection.answer(200, lines, data)


class _StreamAnswer:
    """One stream on its way to a client."""

    def __init__(self, connection: Connection, keepalive_seconds: float, request: ChatRequest) -> None:
        self.told = Told()
        self._connection = connection
        self._builder = openai_answers.StreamBuilder(
            include_usage=request.include_usage,
            answer_id=new_id("chatcmpl-"),
            created_s=int(time.time()),
            model=request.model,
        )
        self._loop = asyncio.get_running_loop()
        self._keepalive_seconds = keepalive_seconds
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(keepalive_seconds, self._tick) if keepalive_seconds > 0 else None

    @property
    def started(self) -> bool:
        """Whether the status has gone out."""
        return self.told.status != 0

    async def relay(self, reply: WholeReply | StreamReply) -> None:
        """Send every event of a reply, then the end."""
        assert isinstance(reply, StreamReply)  # noqa: S101 - a request with stream has a stream reply
        failure: GatewayError | None = None
        connection, build, now = self._connection, self._builder.build, self._loop.time
        flow, write = connection.flow, connection.write
        try:
            async for events in reply.events:
                data, failure = (build(events[0]), None) if len(events) == 1 else self._built(events)
                if data:
                    if flow.write_paused:
                        await flow.drain()
                    if not self.told.status:
                        self._start(_served_lines(reply))
                    write(data)
                    self._last_write = now()
                if failure is not None:
                    raise failure
            await self._end(self._builder.finish(), _served_lines(reply))
        except GatewayError as error:  # the stream's own, or an event that cannot be written
            failure = error
            raise
        finally:
            # Only a client that left is one; everything else that ends the relay early is a matter of ours.
            await reply.close(failure or ("client_closed" if connection.client_left else "gateway_error"))

    async def fail(self, error: GatewayError) -> None:
        """End a stream that has begun with its error: no finish reason is made up, and no ``[DONE]`` is sent."""
        await self._end(build_event(openai_chat.build_error(error)), b"")

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _built(self, events: Sequence[Event]) -> tuple[bytes, GatewayError | None]:
        """The bytes of events; where one cannot be written, those of the events before it, and why."""
        pieces: list[bytes] = []
        try:
            self._builder.build_all(events, pieces)
        except GatewayError as error:
            return b"".join(pieces), error
        return b"".join(pieces), None

    def _start(self, lines: bytes) -> None:
        self.told.status = 200
        self._connection.begin(200, _STREAM_LINES + lines)

    async def _end(self, data: bytes, lines: bytes) -> None:
        self._connection.cancels_with = None  # from now on an end of the connection is no departure
        if self._connection.flow.write_paused:
            await self._connection.flow.drain()
        if not self.told.status:
            self._start(lines)
        self._connection.write(data, last=True)
        self.close()

    def _tick(self) -> None:
        """Comment if there was silence; come back when there next may have been.

        A client that has not taken what is waiting for it sees no silence, and no comments pile up for it.
        """
        silence = self._loop.time() - self._last_write
        if silence >= self._keepalive_seconds and not self._connection.flow.write_paused:
            if not self.told.status:
                self._start(b"")
            self._connection.write(_COMMENT)
            self._last_write = self._loop.time()
            silence = 0.0
        remaining = max(self._keepalive_seconds - silence, 0.05)
        self._timer = self._loop.call_later(remaining, self._tick)


@lru_cache(maxsize=1024)
def _model_line(name: str) -> bytes:
    return header_line(b"x-inferxgate-model", name.encode("ascii", "backslashreplace"))


def _served_lines(reply: WholeReply | StreamReply) -> bytes:
    """Which target served the request, and what of it the target does not take."""
    line = _model_line(reply.target.name)
    return line + header_line(b"x-inferxgate-dropped-params", dropped_params(reply.dropped)) if reply.dropped else line


_MAX_DROPPED_BYTES = 2_000
"""Of the header. Some of the client's proxies and libraries take no more than 8 KB of all headers together."""
_MAX_NAME_BYTES = 200
_NOT_IN_NAMES = re.compile(rb"[^!-+\--~]")


def dropped_params(names: Sequence[str]) -> bytes:
    """What was left out of a request, as a header's value: places in dotted form, comma between them.

    A client may call its fields anything: what no header can hold, or what would look like two names, is escaped, and
    what is too long is cut. ``...`` at the end stands for more of them.
    """
    shown: list[bytes] = []
    for name in names:
        escaped = _NOT_IN_NAMES.sub(lambda match: b"\\x%02x" % match[0][0], name.encode("ascii", "backslashreplace"))
        if len(escaped) > _MAX_NAME_BYTES:
            escaped = escaped[: _MAX_NAME_BYTES - 3] + b"..."
        if len(escaped) + sum(len(each) + 2 for each in shown) > _MAX_DROPPED_BYTES:
            shown.append(b"...")
            break
        shown.append(escaped)
    return b", ".join(shown)
