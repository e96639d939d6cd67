"""POST /v1/chat/completions, as a plain ASGI app: every call of every client goes through here.

When the client leaves, its connection tells the watcher, which cancels the request; that ends the provider's request
too. For a stream, a timer speaks when nobody else does: after ``keepalive_seconds`` of silence it commits the 200 and
sends a comment, so that proxies on the way do not cut a connection while a model thinks. Until then the status is held
back, so that a failure before the first event can still have its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson
from starlette.types import Receive, Scope, Send

from inferxgate.canonical.chat import collect
from inferxgate.catalog.pricing import plain_dollars
from inferxgate.dialects import openai_answers, openai_chat
from inferxgate.errors import DRAINING, GatewayError
from inferxgate.framing.sse import build_event
from inferxgate.gateway.pipeline import CLIENT_GONE, StreamReply, Told, WholeReply
from inferxgate.ids import new_id
from inferxgate.server.bodies import ClientGone, read_json
from inferxgate.server.cycle import Connection, connection_of
from inferxgate.server.responses import JSON, Headers, request_id_of, start_message

if TYPE_CHECKING:
    from inferxgate.canonical.chat import ChatRequest
    from inferxgate.runtime import Runtime

log = logging.getLogger("inferxgate.server")

_STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise hold a stream back
]
_COMMENT = b": keep-alive\n\n"
_LAST_WORD_SECONDS = 1.0
_STOPPED = GatewayError(DRAINING, "The gateway was stopped before the answer was finished.")


class ChatEndpoint:
    """Answers chat completions. Its route has put the caller into ``scope["state"]``."""

    def __init__(self, runtime: Runtime) -> None:
        self._gateway = runtime.gateway
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises ``GatewayError`` for what fails before the answer has begun."""
        server = self._runtime.settings.server
        connection = connection_of(scope)
        limit = server.max_body_mb * 1024 * 1024
        _, body = await read_json(receive, scope["headers"], limit, arrived=not connection.more_body)
        if connection.disconnected:
            raise ClientGone
        request = openai_chat.parse_request(body)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: ASGI apps run in tasks
        watcher = _Watcher(task, connection)
        try:
            if request.stream:
                answer = _StreamAnswer(send, watcher, server.keepalive_seconds, request)
                try:
                    await answer.relay(await self._chat(scope, request, answer.told))
                except GatewayError as error:
                    if not answer.started:
                        raise
                    scope["state"]["error"] = error
                    await answer.fail(error)
                except asyncio.CancelledError:
                    # Neither a silent end nor a made-up one for a client that is still there: the gateway is stopping.
                    if answer.started and not watcher.client_left:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LAST_WORD_SECONDS):  # a client that does not read gets none
                                await answer.fail(_STOPPED)
                    raise
                finally:
                    await answer.close()
            else:
                reply = await self._chat(scope, request, Told())
                assert isinstance(reply, WholeReply)  # noqa: S101 - a request without stream has a whole reply
                scope["state"]["rate"] = reply.rate
                await _send_whole(reply, request, send, watcher)
        except asyncio.CancelledError:
            if not watcher.client_left:
                raise
            task.uncancel()
            raise ClientGone from None
        finally:
            watcher.answered()

    async def _chat(self, scope: Scope, request: ChatRequest, told: Told) -> WholeReply | StreamReply:
        state = scope["state"]
        request_id = request_id_of(scope)
        try:
            reply = await self._gateway.chat(state["caller"], request, request_id=request_id, told=told)
        except GatewayError as error:
            if error.withheld is not None:  # clients are not told, so that whoever can mend it has to read it here
                log.warning("request %s to %s: %s It said: %s", request_id, error.target, error.message, error.withheld)
            raise
        state["target"] = reply.target.name
        return reply


class _Watcher:
    """Cancels a task when its client leaves."""

    def __init__(self, task: asyncio.Task[None], connection: Connection) -> None:
        self.client_left = False
        self._task = task
        self._connection = connection
        connection.on_leaving = self._leave

    def answered(self) -> None:
        """The last bytes are on their way: from now on an end of the connection is no departure."""
        self._connection.on_leaving = None

    def _leave(self) -> None:
        self.client_left = True
        self._task.cancel(CLIENT_GONE)


async def _send_whole(reply: WholeReply, request: ChatRequest, send: Send, watcher: _Watcher) -> None:
    data = reply.data
    if data is None:
        answer_id, now_s = new_id("chatcmpl-"), int(time.time())
        response = collect(reply.chunks)
        data = orjson.dumps(
            openai_answers.build_response(response, answer_id=answer_id, created_s=now_s, model=request.model)
        )
    headers: Headers = [JSON, *_served_headers(reply)]
    if reply.cost_nanos is not None:
        headers.append((b"x-inferxgate-cost", plain_dollars(reply.cost_nanos).encode()))
    watcher.answered()
    await send(start_message(200, headers, len(data)))
    await send({"type": "http.response.body", "body": data})


class _StreamAnswer:
    """One stream on its way to a client."""

    def __init__(self, send: Send, watcher: _Watcher, keepalive_seconds: float, request: ChatRequest) -> None:
        self.told = Told()
        self._send = send
        self._watcher = watcher
        self._builder = openai_answers.StreamBuilder(
            include_usage=request.include_usage,
            answer_id=new_id("chatcmpl-"),
            created_s=int(time.time()),
            model=request.model,
        )
        self._beginning = asyncio.Lock()  # the relay and the timer may both want to begin the answer
        self._busy = False
        """Whether the relay is writing, so that there is no silence to be broken."""
        self._loop = asyncio.get_running_loop()
        self._keepalive_seconds = keepalive_seconds
        self._last_write = self._loop.time()
        self._comment: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(keepalive_seconds, self._tick) if keepalive_seconds > 0 else None
        self._ended = False

    @property
    def started(self) -> bool:
        """Whether the status has gone out."""
        return self.told.status != 0

    async def relay(self, reply: WholeReply | StreamReply) -> None:
        """Send every event of a reply, then the end."""
        assert isinstance(reply, StreamReply)  # noqa: S101 - a request with stream has a stream reply
        failure: GatewayError | None = None
        try:
            async for events in reply.events:
                pieces: list[bytes] = []
                try:
                    self._builder.build_all(events, pieces)
                finally:
                    if data := b"".join(pieces):
                        await self._write(data, reply=reply)
            self._watcher.answered()
            await self._write(self._builder.finish(), reply=reply, last=True)
        except GatewayError as error:  # the stream's own, or an event that cannot be written
            failure = error
            raise
        finally:
            # Only a client that left is one; everything else that ends the relay early is a matter of ours.
            await reply.close(failure or ("client_closed" if self._watcher.client_left else "gateway_error"))

    async def fail(self, error: GatewayError) -> None:
        """End a stream that has begun with its error: no finish reason is made up, and no ``[DONE]`` is sent."""
        self._watcher.answered()
        await self._write(build_event(openai_chat.build_error(error)), last=True)

    async def close(self) -> None:
        """Stop the timer, and a comment that it may be writing."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._comment is not None and not self._comment.done():
            self._comment.cancel()

    async def _write(self, data: bytes, *, reply: StreamReply | None = None, last: bool = False) -> None:
        """Send a piece. Each is whole events and is handed over in one go, so nothing lands in the midst of one."""
        self._busy = True
        if not self.told.status or self._beginning.locked():
            await self._start(reply)
        if last and self._comment is not None:
            self._comment.cancel()  # one that waits for a slow reader would come after the end
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        self._last_write = self._loop.time()
        self._busy, self._ended = False, last

    async def _start(self, reply: StreamReply | None) -> None:
        async with self._beginning:
            if self.told.status:
                return
            headers = list(_STREAM_HEADERS)
            if reply is not None:
                headers += _served_headers(reply)
            self.told.status = 200
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    def _tick(self) -> None:
        """Comment if there was silence; come back when there next may have been."""
        silence = self._loop.time() - self._last_write
        writing = self._busy or (self._comment is not None and not self._comment.done())
        if silence >= self._keepalive_seconds and not writing:
            self._comment = self._loop.create_task(self._write_comment())
            silence = 0.0
        remaining = max(self._keepalive_seconds - silence, 0.05)
        self._timer = self._loop.call_later(remaining, self._tick)

    async def _write_comment(self) -> None:
        if not self.told.status:
            await self._start(None)
        if not self._ended:
            await self._send({"type": "http.response.body", "body": _COMMENT, "more_body": True})
            self._last_write = self._loop.time()


def _served_headers(reply: WholeReply | StreamReply) -> Headers:
    """Which target served the request, and what of it the target does not take."""
    headers: Headers = [(b"x-inferxgate-model", reply.target.name.encode("ascii", "backslashreplace"))]
    if reply.dropped:
        headers.append((b"x-inferxgate-dropped-params", dropped_params(reply.dropped)))
    return headers


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
