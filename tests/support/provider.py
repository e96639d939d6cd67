"""A provider that the tests own: OpenAI's chat API on a real socket, and every way in which one can misbehave.

It runs in a thread with a loop of its own, so that synchronous and asynchronous tests (and other processes) can use it.
It writes HTTP/1.1 by hand because it has to be able to write it wrongly.

    with FakeProvider() as provider:
        ...  # a client at provider.base_url gets what OpenAI would say
        provider.reply_json({"error": {"message": "no"}}, status=429, headers={"retry-after": "7"})
        ...  # the next request gets this
        provider.reply_sse([{"choices": []}, "[DONE]"], cuts=7, delay_seconds=0.01)
        provider.reply_body(recorded_bytes, headers=recorded_headers, cuts=11)
        provider.reply(HANG)                           # reads the request and says nothing
        provider.reply(Reply(steps=(b"HTTP/1.1 200 OK\r\n", Wait(0.1), RESET)))

Scripted replies are used in order, one for each request; then ``handler`` answers, which by default is
``provider.answer``. A reply is a sequence of steps: bytes to write, ``Wait(seconds)``, ``Until(event)``, ``HANG``,
``CLOSE``, ``RESET``.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

JsonObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause in the middle of a reply."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """A pause in the middle of a reply that ends when a test says so."""

    event: threading.Event


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a reply does other than writing."""

    name: Literal["hang", "close", "reset"]


HANG: Final = Act("hang")
"""Say nothing more until the client goes away."""
CLOSE: Final = Act("close")
"""Close the connection (FIN) after what was written."""
RESET: Final = Act("reset")
"""Reset the connection (RST) after what was written has had a moment to arrive."""

Step: TypeAlias = bytes | Wait | Until | Act
Encoding: TypeAlias = Literal["gzip", "deflate"]
Framing: TypeAlias = Literal["chunked", "length", "close"]


@dataclass(frozen=True, slots=True)
class Reply:
    """All that is done in answer to one request. Whoever builds one by hand writes the status line too."""

    steps: tuple[Step, ...]

    def then(self, *steps: Step) -> Reply:
        """This reply, followed by more. What was already complete HTTP stays so; a ``HANG`` after it hurts nobody."""
        return Reply(self.steps + steps)

    def cut_short(self, end: Act, *, keep: int) -> Reply:
        """The first ``keep`` steps (the head is the first), then ``end``: a reply that breaks off."""
        return Reply((*self.steps[:keep], end))


@dataclass(slots=True)
class SeenRequest:
    """One request as it arrived."""

    method: str
    target: str
    """Path and query, exactly as in the request line."""
    headers: dict[str, str]
    """Names in lower case; of a repeated name, the values joined with a comma."""
    raw_headers: list[tuple[str, str]]
    body: bytes
    connection: int
    """The number of the connection it came by, counted from 1."""
    ended_early: EndedEarly | None = None
    """Set when the client went away before the answer was complete."""
    written_bytes: int = 0
    """Of its answer so far."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class EndedEarly:
    """A connection that the client cut."""

    stage: Literal["request", "headers", "body"]
    """While the request (or a TLS greeting) was coming in, before the answer began, or in the middle of the answer."""
    at_seconds: float
    """``time.monotonic()``."""
    request: SeenRequest | None


Handler: TypeAlias = Callable[[SeenRequest], Reply]


# ---------------------------------------------------------------------------------------------------- building replies


def cut(data: bytes, seed: int, *, at_most: int = 40) -> list[bytes]:
    """``data`` in pieces of random size, the same for the same seed."""
    numbers = random.Random(seed)
    wanted = min(len(data) - 1, numbers.randint(1, at_most)) if len(data) > 1 else 0
    places = sorted(numbers.sample(range(1, len(data)), wanted)) if wanted else []
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]


def head(status: int, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """Status line and headers, as bytes."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def body_reply(
    body: bytes | Sequence[bytes],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    cuts: int | None = None,
    delay_seconds: float = 0.0,
    framing: Framing = "length",
    encoding: Encoding | None = None,
) -> Reply:
    """Bytes with headers. ``cuts`` is the seed of random cuts; without it, each piece given is one write.

    Headers that would contradict the framing (``content-length``, ``transfer-encoding``, ``content-encoding``,
    ``connection``) are left out, so that recorded ones can be given as they are.
    """
    pieces = [body] if isinstance(body, bytes) else list(body)
    if encoding is not None:
        pieces = _compress(pieces, encoding)
    if cuts is not None:
        pieces = cut(b"".join(pieces), cuts)
    kept = {
        name.lower(): value
        for name, value in (headers or {}).items()
        if name.lower() not in {"content-length", "transfer-encoding", "content-encoding", "connection"}
    }
    if encoding is not None:
        kept["content-encoding"] = encoding
    if framing == "length":
        kept["content-length"] = str(sum(map(len, pieces)))
    elif framing == "chunked":
        kept["transfer-encoding"] = "chunked"
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    else:
        kept["connection"] = "close"
    steps: list[Step] = [head(status, kept)]
    for number, piece in enumerate(pieces):
        if delay_seconds and number:
            steps.append(Wait(delay_seconds))
        steps.append(piece)
    if framing == "chunked":
        steps.append(b"0\r\n\r\n")
    elif framing == "close":
        steps.append(CLOSE)
    return Reply(tuple(steps))


def _compress(pieces: Sequence[bytes], encoding: Encoding) -> list[bytes]:
    if encoding == "gzip" and len(pieces) == 1:
        return [gzip.compress(pieces[0])]
    squeeze = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    return [*(squeeze.compress(piece) + squeeze.flush(zlib.Z_SYNC_FLUSH) for piece in pieces), squeeze.flush()]


def json_reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON body, as APIs answer."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return body_reply(body, status=status, headers={"content-type": "application/json", **(headers or {})})


def sse_body(events: Iterable[bytes | str | object]) -> list[bytes]:
    """Each event as the bytes on the wire: bytes as they are, strings as data lines, anything else as JSON data."""
    return [_sse_event(event) for event in events]


def _sse_event(event: bytes | str | object) -> bytes:
    if isinstance(event, bytes):
        return event
    text = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def sse_reply(
    events: Iterable[bytes | str | object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    cuts: int | None = None,
    delay_seconds: float = 0.0,
    framing: Framing = "chunked",
    encoding: Encoding | None = None,
) -> Reply:
    """An event stream, one write for each event, or cut at random places (``cuts`` is the seed)."""
    return body_reply(
        sse_body(events),
        status=status,
        headers={"content-type": "text/event-stream; charset=utf-8", **(headers or {})},
        cuts=cuts,
        delay_seconds=delay_seconds,
        framing=framing,
        encoding=encoding,
    )


def error_body(message: str, *, kind: str = "invalid_request_error", code: str | None = None) -> JsonObject:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


# ---------------------------------------------------------------------------------------------------- the provider


class FakeProvider:
    """A provider at ``base_url``, used as a context manager. All methods may be called from any thread."""

    text = "Hello from the provider: naïve, 日本語, 🎈."
    """What ``answer`` says."""
    usage: JsonObject = {  # noqa: RUF012 - replaced as a whole by tests, never changed in place
        "prompt_tokens": 21,
        "completion_tokens": 9,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    }
    """What ``answer`` says that it cost."""
    models: Sequence[str] = ("gpt-4o-mini", "gpt-4o")

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        api_key: str | None = None,
        tls: ssl.SSLContext | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        """``api_key``: refuse every other one with 401. ``idle_seconds``: close connections that stand idle so long."""
        self.handler: Handler = handler if handler is not None else self.answer
        self.requests: list[SeenRequest] = []
        self.connections = 0
        """How many were accepted so far."""
        self.ended_early: list[EndedEarly] = []
        self.failures: list[Exception] = []
        """What handlers raised; leaving the context raises the first."""
        self._api_key = api_key
        self._tls = tls
        self._idle_seconds = idle_seconds
        self._script: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._open: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-provider", daemon=True)
        self._server: asyncio.Server | None = None
        self._started = threading.Event()
        self.port = 0

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        if self.failures and error is None:
            raise self.failures[0]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._started.set()
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(asyncio.sleep(0.01))  # whoever was just accepted becomes a connection
            self._server.close()
            for connection in list(self._open):
                connection.abort()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    @property
    def url(self) -> str:
        """Without a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """As OpenAI's SDK spells it."""
        return f"{self.url}/v1"

    # ------------------------------------------------------------------ scripting

    def reply(self, reply: Reply | Step) -> None:
        """Answer the next unscripted request with this."""
        with self._changed:
            self._script.append(reply if isinstance(reply, Reply) else Reply((reply,)))

    def reply_json(self, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.reply(json_reply(value, status=status, headers=headers))

    def reply_sse(
        self,
        events: Iterable[bytes | str | object],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cuts: int | None = None,
        delay_seconds: float = 0.0,
        framing: Framing = "chunked",
        encoding: Encoding | None = None,
    ) -> None:
        """See ``sse_reply``. Nothing is added: say ``"[DONE]"`` yourself."""
        self.reply(
            sse_reply(
                events,
                status=status,
                headers=headers,
                cuts=cuts,
                delay_seconds=delay_seconds,
                framing=framing,
                encoding=encoding,
            )
        )

    def reply_body(
        self,
        body: bytes | Sequence[bytes],
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        cuts: int | None = None,
        delay_seconds: float = 0.0,
        framing: Framing = "length",
        encoding: Encoding | None = None,
    ) -> None:
        """See ``body_reply``: a recorded answer with its headers, for instance."""
        self.reply(
            body_reply(
                body,
                status=status,
                headers=headers,
                cuts=cuts,
                delay_seconds=delay_seconds,
                framing=framing,
                encoding=encoding,
            )
        )

    def reply_raw(self, data: bytes, *, end: Act = CLOSE) -> None:
        """These bytes on the socket, whatever they are, then ``end``."""
        self.reply(Reply((data, end)))

    def drop_connections(self) -> None:
        """Close every connection (FIN), as a provider does with idle ones. Returns once that has happened."""
        asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result()

    async def _drop(self) -> None:
        for connection in list(self._open):
            connection.close()

    # ------------------------------------------------------------------ watching

    @property
    def last(self) -> SeenRequest:
        return self.requests[-1]

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def wait_for(self, seen: Callable[[FakeProvider], bool], timeout_seconds: float = 10.0) -> None:
        """Return once ``seen`` is true of this provider. Raises AssertionError when it stays false."""
        with self._changed:
            assert self._changed.wait_for(lambda: seen(self), timeout_seconds), "the provider never saw it"

    async def until(self, seen: Callable[[FakeProvider], bool], timeout_seconds: float = 10.0) -> None:
        """``wait_for``, for asynchronous tests."""
        await asyncio.to_thread(self.wait_for, seen, timeout_seconds)

    def wait_for_requests(self, count: int, timeout_seconds: float = 10.0) -> None:
        self.wait_for(lambda provider: len(provider.requests) >= count, timeout_seconds)

    def wait_closed_early(self, timeout_seconds: float = 10.0, *, count: int = 1) -> EndedEarly:
        """Return the latest connection that the client cut, once there were ``count`` of them."""
        self.wait_for(lambda provider: len(provider.ended_early) >= count, timeout_seconds)
        return self.ended_early[-1]

    async def until_closed_early(self, timeout_seconds: float = 10.0, *, count: int = 1) -> EndedEarly:
        """``wait_closed_early``, for asynchronous tests."""
        return await asyncio.to_thread(self.wait_closed_early, timeout_seconds, count=count)

    # ------------------------------------------------------------------ answering

    def answer(self, request: SeenRequest) -> Reply:
        """What OpenAI would say: to a chat completion whole and streamed, to a list of models, and 404 to the rest."""
        if self._api_key is not None and request.headers.get("authorization") != f"Bearer {self._api_key}":
            return json_reply(error_body("Incorrect API key provided.", code="invalid_api_key"), status=401)
        if request.method == "GET" and request.path == "/v1/models":
            rows = [{"id": name, "object": "model", "created": 1, "owned_by": "openai"} for name in self.models]
            return json_reply({"object": "list", "data": rows})
        if request.method != "POST" or request.path != "/v1/chat/completions":
            return json_reply(error_body(f"Invalid URL ({request.method} {request.path})"), status=404)
        try:
            asked = json.loads(request.body)
        except ValueError:
            return json_reply(error_body("We could not parse the JSON body of your request."), status=400)
        if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
            return json_reply(error_body("Missing required parameter: 'messages'."), status=400)
        headers = {"x-request-id": f"req_{len(self.requests)}", "openai-processing-ms": "12"}
        if asked.get("stream"):
            return sse_reply([*self.stream_chunks(asked), "[DONE]"], headers=headers)
        return json_reply(self.completion(asked), headers=headers)

    def completion(self, asked: JsonObject) -> JsonObject:
        """The whole answer to a request body."""
        calls = _tool_calls(asked)
        message: JsonObject = {"role": "assistant", "content": None if calls else self.text, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        reason = "tool_calls" if calls else "stop"
        return {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked.get("model", ""),
            "choices": [
                {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
                for index in range(asked.get("n") or 1)
            ],
            "usage": self.usage,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }

    def stream_chunks(self, asked: JsonObject) -> list[JsonObject]:
        """The streamed answer to a request body, without ``[DONE]``."""
        with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        calls = _tool_calls(asked)
        chunks: list[JsonObject] = []

        def add(choices: list[JsonObject], usage: JsonObject | None = None) -> None:
            chunk: JsonObject = {
                "id": "chatcmpl-fake",
                "object": "chat.completion.chunk",
                "created": 1_700_000_000,
                "model": asked.get("model", ""),
                "system_fingerprint": "fp_fake",
                "choices": choices,
            }
            chunks.append(chunk | {"usage": usage} if with_usage else chunk)

        def say(index: int, delta: JsonObject, reason: str | None = None) -> None:
            add([{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}])

        for index in range(asked.get("n") or 1):
            say(index, {"role": "assistant", "content": None if calls else "", "refusal": None})
            for number, call in enumerate(calls):
                arguments = call["function"]["arguments"]
                opening = {**call, "index": number, "function": {"name": call["function"]["name"], "arguments": ""}}
                say(index, {"tool_calls": [opening]})
                for start in range(0, len(arguments), 5):
                    piece = {"index": number, "function": {"arguments": arguments[start : start + 5]}}
                    say(index, {"tool_calls": [piece]})
            for word in [] if calls else _words(self.text):
                say(index, {"content": word})
            say(index, {}, "tool_calls" if calls else "stop")
        if with_usage:
            add([], self.usage)
        return chunks

    # ------------------------------------------------------------------ what connections report

    def next_reply(self, request: SeenRequest) -> Reply:
        with self._changed:
            self.requests.append(request)
            scripted = self._script.popleft() if self._script else None
            self._changed.notify_all()
        return scripted if scripted is not None else self.handler(request)

    def opened(self, connection: _Connection) -> int:
        with self._changed:
            self.connections += 1
            self._open.add(connection)
            self._changed.notify_all()
            return self.connections

    def closed(self, connection: _Connection, ended: EndedEarly | None) -> None:
        with self._changed:
            self._open.discard(connection)
            if ended is not None:
                self.ended_early.append(ended)
                if ended.request is not None:
                    ended.request.ended_early = ended
            self._changed.notify_all()

    @property
    def idle_seconds(self) -> float | None:
        return self._idle_seconds


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def _tool_calls(asked: JsonObject) -> list[JsonObject]:
    """A call of every tool that the request offers, unless the last message is already a tool's result."""
    if asked.get("tool_choice") == "none" or (asked["messages"] and asked["messages"][-1].get("role") == "tool"):
        return []
    names = [tool["function"]["name"] for tool in asked.get("tools") or [] if tool.get("type") == "function"]
    arguments = json.dumps({"city": "Zürich", "days": 3}, ensure_ascii=False)
    return [
        {"id": f"call_{number:024d}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, name in enumerate(names)
    ]


# ---------------------------------------------------------------------------------------------------- one connection


@dataclass(slots=True)
class _Incoming:
    """A request whose head is here and whose body may still be coming."""

    request: SeenRequest
    wanted: int | None
    """Bytes of body; None for a chunked one."""
    body: bytearray = field(default_factory=bytearray)


class _Connection(asyncio.Protocol):
    """Reads requests, answers them one after the other, and notices when the client goes away."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._incoming: _Incoming | None = None
        self._waiting: deque[SeenRequest] = deque()
        self._answering: asyncio.Task[None] | None = None
        self._current: SeenRequest | None = None
        self._wrote = False
        self._ours = False
        """Whether it was this side that ended the connection."""
        self._room = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._number = 0

    # ------------------------------------------------------------------ the loop's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._room.set()
        self._number = self._provider.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._answering is not None:
            self._answering.cancel()
        stage: Literal["request", "headers", "body"] | None = None
        if self._current is not None:
            stage = "body" if self._wrote else "headers"
        elif self._buffer or self._incoming is not None:
            stage = "request"
        ended = None
        if stage is not None and not self._ours:
            ended = EndedEarly(stage=stage, at_seconds=time.monotonic(), request=self._current)
        self._provider.closed(self, ended)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def data_received(self, data: bytes) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._buffer += data
        while (request := self._take_request()) is not None:
            self._waiting.append(request)
        if self._waiting and self._answering is None:
            self._answering = self._loop.create_task(self._answer_all())

    # ------------------------------------------------------------------ ending

    def close(self) -> None:
        self._ours = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._ours = True
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        assert self._transport is not None
        held: socket.socket | None = self._transport.get_extra_info("socket")
        if held is not None:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    # ------------------------------------------------------------------ reading

    def _take_request(self) -> SeenRequest | None:
        if self._incoming is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
            del self._buffer[: end + 4]
            self._incoming = self._begin(lines)
        incoming = self._incoming
        if incoming.wanted is None:
            if not self._take_chunks(incoming):
                return None
        else:
            missing = incoming.wanted - len(incoming.body)
            incoming.body += self._buffer[:missing]
            del self._buffer[:missing]
            if len(incoming.body) < incoming.wanted:
                return None
        self._incoming = None
        incoming.request.body = bytes(incoming.body)
        return incoming.request

    def _begin(self, lines: list[str]) -> _Incoming:
        method, _, rest = lines[0].partition(" ")
        target = rest.rpartition(" ")[0]
        raw = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        headers: dict[str, str] = {}
        for name, value in raw:
            key = name.lower()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        if headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunked = "chunked" in headers.get("transfer-encoding", "")
        request = SeenRequest(method, target, headers, raw, b"", self._number)
        return _Incoming(request, None if chunked else int(headers.get("content-length", "0")))

    def _take_chunks(self, incoming: _Incoming) -> bool:
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            size = int(self._buffer[:end].split(b";")[0], 16)
            if len(self._buffer) < end + 2 + size + 2:
                return False
            incoming.body += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 2 + size + 2]
            if size == 0:
                return True

    # ------------------------------------------------------------------ answering

    async def _answer_all(self) -> None:
        while self._waiting:
            request = self._waiting.popleft()
            self._current, self._wrote = request, False
            try:
                reply = self._provider.next_reply(request)
            except Exception as error:  # noqa: BLE001 - a test's handler may raise anything; the test shall see it
                self._provider.failures.append(error)
                reply = Reply((CLOSE,))
            for step in reply.steps:
                await self._do(step)
            self._current = None
            if request.headers.get("connection", "").lower() == "close":
                self.close()
        self._answering = None
        if self._provider.idle_seconds is not None:
            self._idle = self._loop.call_later(self._provider.idle_seconds, self.close)

    async def _do(self, step: Step) -> None:
        if isinstance(step, bytes):
            self._write(step)
            await self._room.wait()
        elif isinstance(step, Wait):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Until):
            while not step.event.is_set():  # noqa: ASYNC110 - threads set it, and the loop may end at any time
                await asyncio.sleep(0.01)
        elif step is HANG:
            await asyncio.Event().wait()
        elif step is CLOSE:
            self.close()
        else:
            await asyncio.sleep(0.05)  # a reset may destroy what the other side has not read yet
            self._reset()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._wrote = self._current is not None
            if self._current is not None:
                self._current.written_bytes += len(data)
            self._transport.write(data)
