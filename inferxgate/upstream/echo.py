"""A provider in memory: it answers a chat completion with the last user message, on the wire of OpenAI's API.

It stands where a provider's server would, so that everything before it (limits, metering, streaming, errors) treats it
like any other. Tokens are UTF-8 bytes divided by four, rounded up. Apart from ``id`` and ``created``, the same request
gets the same answer.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson

from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError
from inferxgate.framing.sse import build_event
from inferxgate.upstream.protocol import HttpRequest, HttpResponse, Upstream
from inferxgate.values import dataclass

_BYTES_PER_TOKEN = 4
_MAX_CHOICES = 128  # what OpenAI allows
_MAX_ANSWER_CHARACTERS = 8_000_000
_EVENTS_BETWEEN_PAUSES = 32  # so that a long answer does not keep others waiting
_WORDS = re.compile(r"\s*\S+|\s+")


class EchoUpstream(Upstream):
    """Answers ``POST echo://...`` in memory."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Never raises: a request that cannot be answered gets an error response, as over HTTP."""
        try:
            asked = _parse(request)
        except _Refused as refused:
            body = {"error": {"message": refused.message, "type": "invalid_request_error", "param": refused.param}}
            body["error"]["code"] = None
            return _EchoResponse(refused.status, "application/json", iter([orjson.dumps(body)]))
        if asked.stream:
            return _EchoResponse(200, "text/event-stream; charset=utf-8", _stream(asked))
        return _EchoResponse(200, "application/json", iter([orjson.dumps(_whole(asked))]))

    async def close(self) -> None:
        """Nothing is open."""


class _EchoResponse:
    """What would have come over the wire."""

    begin_by: float | None = None

    def __init__(self, status: int, content_type: str, pieces: Iterator[bytes]) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": content_type}
        self._pieces = pieces
        self._closed = False

    async def read(self, *, limit: int) -> bytes:
        body = b"".join([piece async for piece in self.chunks()])
        if len(body) > limit:
            raise GatewayError(UPSTREAM_INVALID_RESPONSE, f"echo answered with more than {limit} bytes.")
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        for count, piece in enumerate(self._pieces, 1):
            if self._closed:
                return
            yield piece
            if count % _EVENTS_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)

    async def close(self) -> None:
        self._closed = True


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the answer depends on."""

    model: str
    answer: str
    finish_reason: str
    prompt_tokens: int
    choices: int
    stream: bool
    include_usage: bool

    @property
    def usage(self) -> dict[str, int]:
        completion = self.choices * _tokens(len(self.answer.encode()))
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }


class _Refused(Exception):
    """A request that OpenAI would not take either."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status


# ---------------------------------------------------------------------------------------------------- reading


def _parse(request: HttpRequest) -> _Asked:
    if request.method != "POST":
        raise _Refused(f"echo answers POST, not {request.method}.", status=405)
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise _Refused("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise _Refused("The body is not a JSON object.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _Refused("'messages' must be an array of objects.", "messages")
    spoken = [message for message in messages if message.get("role") == "user"]
    if not spoken:
        raise _Refused("echo repeats the last user message, and there is none.", "messages")
    _refuse_what_echo_cannot(body, messages)
    answer, finish_reason = _text(spoken[-1]), "stop"
    limit = _count(body, "max_completion_tokens") or _count(body, "max_tokens")
    if limit is not None and limit < _tokens(len(answer.encode())):
        # a character cut in two is left out, so this many bytes are never more than the limit's tokens
        answer, finish_reason = answer.encode()[: limit * _BYTES_PER_TOKEN].decode(errors="ignore"), "length"
    choices = _count(body, "n", at_most=_MAX_CHOICES) or 1
    if choices * len(answer) > _MAX_ANSWER_CHARACTERS and choices > 1:
        raise _Refused(f"echo does not repeat {len(answer)} characters {choices} times; ask for fewer.", "n")
    options = body.get("stream_options")
    return _Asked(
        model=str(body.get("model", "")),
        answer=answer,
        finish_reason=finish_reason,
        prompt_tokens=_tokens(sum(len(_text(message).encode()) for message in messages)),
        choices=choices,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _refuse_what_echo_cannot(body: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    """Parameters that mean something which a repetition cannot give, and contents that are none."""
    for name in ("tools", "functions", "logprobs", "audio"):
        if body.get(name):
            raise _Refused(f"The provider echo does not take '{name}'.", name)
    form = body.get("response_format")
    if form is not None and form != {"type": "text"}:
        raise _Refused("The provider echo does not take 'response_format' other than text.", "response_format")
    for name in ("temperature", "top_p"):
        if body.get(name) is not None and (isinstance(body[name], bool) or not isinstance(body[name], int | float)):
            raise _Refused(f"'{name}' must be a number.", name)
    for position, message in enumerate(messages):
        if message.get("role") == "user" and not isinstance(message.get("content"), str | list):
            where = f"messages.{position}.content"
            raise _Refused(f"'{where}' must be a string or a list of parts.", where)


def _text(message: dict[str, Any]) -> str:
    """All the text of a message: its content, or the text parts of it, joined."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _count(body: dict[str, Any], name: str, *, at_most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (at_most is not None and value > at_most):
        raise _Refused(f"'{name}' must be a whole number from 1{f' to {at_most}' if at_most else ''}.", name)
    return value


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // _BYTES_PER_TOKEN)


# ---------------------------------------------------------------------------------------------------- writing


def _opening(asked: _Asked, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }


def _whole(asked: _Asked) -> dict[str, Any]:
    message = {"role": "assistant", "content": asked.answer, "refusal": None}
    choice = {"message": message, "logprobs": None, "finish_reason": asked.finish_reason}
    return {
        **_opening(asked, "chat.completion"),
        "choices": [{"index": index, **choice} for index in range(asked.choices)],
        "usage": asked.usage,
    }


def _stream(asked: _Asked) -> Iterator[bytes]:
    opening = _opening(asked, "chat.completion.chunk")
    ending: dict[str, Any] = {"usage": None} if asked.include_usage else {}

    def chunk(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return build_event(orjson.dumps({**opening, "choices": [choice], **ending}))

    for index in range(asked.choices):
        yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
        for word in _WORDS.finditer(asked.answer):
            yield chunk(index, {"content": word[0]})
        yield chunk(index, {}, asked.finish_reason)
    if asked.include_usage:
        yield build_event(orjson.dumps({**opening, "choices": [], "usage": asked.usage}))
    yield build_event(b"[DONE]")
