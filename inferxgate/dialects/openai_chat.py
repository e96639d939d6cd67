"""OpenAI chat completions, both ends: what clients send us, and what we send to hosts that speak it too.

Strategy: where both ends speak this dialect, everything goes through as it came (parsed and written again, so that
provider and gateway read the same thing); only the envelope is checked, and the rest is the provider's to judge. A
stream's events are forwarded as raw bytes unless usage has to be split off.

Sources for names and shapes: the type definitions of the ``openai`` Python package 3.54 and OpenAI's API reference
(chat completions, streaming, errors), read in November 2026; hosts' own additions are named where they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from inferxgate import errors
from inferxgate.canonical.chat import (
    ChatRequest,
    ChatResponse,
    Chunk,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Source,
    Start,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    collect,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects import openai_quirks
from inferxgate.dialects.failures import (
    MAX_MESSAGE_CHARACTERS,
    dumps,
    nonsense,
    plain_integer,
    provider_error,
    retry_after,
    spelt,
    word,
)
from inferxgate.dialects.model_lists import parse_openai
from inferxgate.dialects.protocol import BuildTarget, Call, Dialect, Event, FailedAnswer
from inferxgate.dialects.writing import written
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEEvent

NAME = "openai_chat"

_MAX_MODEL_CHARACTERS = 256
_MAX_END_USER_CHARACTERS = 256


# --- the client's end: requests -----------------------------------------------------------------------------------


def parse_request(body: object) -> ChatRequest:
    """The request that a client's JSON asks for.

    Checks the envelope only: model, messages as a list of objects with a role, stream and its options. Raises
    ``GatewayError`` (400) that names the field.
    """
    if not isinstance(body, dict):
        raise GatewayError(errors.INVALID_VALUE, f"The request body must be a JSON object, not {_kind_of(body)}.")
    model = _require(body, "model")
    if not isinstance(model, str):
        raise _wrong("model", "a string", model)
    if not 0 < len(model) <= _MAX_MODEL_CHARACTERS or not model.isprintable():
        raise GatewayError(
            errors.INVALID_VALUE,
            f"'model' must be 1 to {_MAX_MODEL_CHARACTERS} printable characters.",
            param="model",
        )
    _check_messages(_require(body, "messages"))
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _wrong("stream", "true or false", stream)
    user = body.get("user")
    return ChatRequest(
        model=model,
        stream=bool(stream),
        include_usage=_include_usage(body.get("stream_options")),
        end_user=user[:_MAX_END_USER_CHARACTERS] if isinstance(user, str) and user else None,
        source=Source(NAME, body),
    )


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list):
        raise _wrong("messages", "a list of messages", messages)
    if not messages:
        raise GatewayError(errors.INVALID_VALUE, "'messages' must have at least one message.", param="messages")
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong(f"messages.{position}", "an object with 'role' and 'content'", message)
        role = message.get("role")
        if not isinstance(role, str):
            if "role" not in message:
                raise GatewayError(
                    errors.MISSING_FIELD,
                    f"'messages.{position}' has no 'role' (system, developer, user, assistant or tool).",
                    param=f"messages.{position}.role",
                )
            raise _wrong(f"messages.{position}.role", "a string", role)


def _include_usage(options: object) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise _wrong("stream_options", "an object", options)
    include = options.get("include_usage")
    if include is not None and not isinstance(include, bool):
        raise _wrong("stream_options.include_usage", "true or false", include)
    return bool(include)


def _require(body: Mapping[str, Any], name: str) -> object:
    value = body.get(name)
    if value is None:
        raise GatewayError(errors.MISSING_FIELD, f"The request has no '{name}'.", param=name)
    return value


def _wrong(param: str, wanted: str, value: object) -> GatewayError:
    return GatewayError(errors.INVALID_VALUE, f"'{param}' must be {wanted}, not {_kind_of(value)}.", param=param)


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


# --- the provider's end: requests ---------------------------------------------------------------------------------


def build_request(request: ChatRequest, target: BuildTarget) -> Call:
    """The call that asks the target's model for what the client asked for.

    The model's name changes, a stream is asked for its usage where the host allows it, and the host's quirks apply;
    everything else goes on as it came. Raises ``GatewayError`` (400) for JSON nested too deeply to be written again,
    and for what the host is known to refuse.
    """
    quirks = target.quirks
    body = dict(request.source.body)
    body["model"] = target.model
    if request.stream and quirks.stream_usage and not request.include_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    dropped = openai_quirks.apply(body, target) if quirks.in_requests else ()
    return Call("chat", written(body, request.source.body), _JSON_HEADERS, dropped)


_JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}


# --- the provider's end: whole answers ----------------------------------------------------------------------------


def parse_response(
    data: bytes,
    seed: str = "",
) -> tuple[Mapping[str, Any], tuple[Chunk, ...]]:
    """The parsed JSON of a whole answer, and what it means.

    Raises ``GatewayError``: ``upstream_invalid_response`` where it is no chat completion, and the provider's own error
    where one comes with status 200 (OpenRouter does so).
    """
    body = _loads(data)
    if not isinstance(body, dict):
        raise nonsense(f"its answer is JSON, but {_kind_of(body)}")
    if "error" in body and body["error"] and not body.get("choices"):
        raise _failed(_error_in_success(body["error"]), body)
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise _failed(nonsense("its answer has no 'choices'"), body)
    chunks: list[Chunk] = [_start(body)]
    for position, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise _failed(nonsense(f"choice {position} of its answer is {_kind_of(choice)}"), body)
        index = _integer(choice.get("index"), position)
        message = choice.get("message")
        if isinstance(message, dict):
            chunks += _said(index, message)
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            chunks.append(Finish(index, reason))
    usage = usage_of(body)
    if usage is not None:
        chunks.append(UsageReport(usage))
    return body, tuple(chunks)


def response_of(data: bytes) -> ChatResponse:
    """The whole answer, folded. Raises as ``parse_response`` does."""
    return collect(parse_response(data)[1])


def _start(body: Mapping[str, Any]) -> Start:
    answer_id, model = body.get("id"), body.get("model")
    return Start(answer_id if isinstance(answer_id, str) else None, model if isinstance(model, str) else None)


def _said(choice: int, message: Mapping[str, Any]) -> Iterable[Chunk]:
    """What a message, or a delta of one, says."""
    text = message.get("content")
    if isinstance(text, str) and message.keys() <= _PLAIN and not message.get("refusal"):  # as nearly all of them
        return (TextDelta(choice, text),) if text else ()
    return _message_chunks(choice, message)


_PLAIN = frozenset({"role", "content", "refusal", "annotations"})
"""What a message may have without saying more than its text."""


def _message_chunks(choice: int, message: Mapping[str, Any]) -> Iterator[Chunk]:
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield TextDelta(choice, content)
    elif isinstance(content, list):  # Mistral's reasoning models answer with a list of parts
        yield from _part_chunks(choice, content)
    # DeepSeek, xAI, vLLM and others say `reasoning_content`; Groq, OpenRouter and newer vLLM say `reasoning`.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and reasoning:
        yield ReasoningDelta(choice, reasoning)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        yield RefusalDelta(choice, refusal)
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        for position, call in enumerate(calls):
            if isinstance(call, dict):
                yield _tool_call(choice, position, call, call.get("function") or call.get("custom"))
    legacy = message.get("function_call")
    if isinstance(legacy, dict) and any(legacy.values()):  # some hosts send one of nulls with every message
        yield _tool_call(choice, 0, {}, legacy)


def _part_chunks(choice: int, parts: Sequence[object]) -> Iterator[TextDelta | ReasoningDelta]:
    for part in parts:
        if not isinstance(part, dict):
            continue
        text, thinking = part.get("text"), part.get("thinking")
        if isinstance(text, str) and text:
            yield TextDelta(choice, text)
        if isinstance(thinking, str) and thinking:
            yield ReasoningDelta(choice, thinking)
        elif isinstance(thinking, list):
            for chunk in _part_chunks(choice, thinking):
                yield ReasoningDelta(choice, chunk.text)


def _tool_call(choice: int, position: int, call: Mapping[str, Any], function: object) -> ToolCallDelta:
    details = function if isinstance(function, dict) else {}
    call_id, name = call.get("id"), details.get("name")
    arguments = details.get("arguments", details.get("input"))
    if arguments is not None and not isinstance(arguments, str):  # some hosts send the object itself
        arguments = dumps(arguments).decode()
    return ToolCallDelta(
        choice,
        _integer(call.get("index"), position),
        call_id if isinstance(call_id, str) else None,
        name if isinstance(name, str) else None,
        arguments or "",
    )


def _integer(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


# --- usage --------------------------------------------------------------------------------------------------------


def usage_of(body: Mapping[str, Any]) -> Usage | None:
    """The usage that an answer or a stream's event reports, or None.

    Groq repeats it as ``x_groq.usage`` in streams, where ``usage`` itself comes only when asked for.
    """
    usage = body.get("usage")
    if usage is None and "x_groq" in body:
        usage = _mapping(body["x_groq"]).get("usage")
    return parse_usage(usage) if isinstance(usage, dict) and usage else None


def parse_usage(usage: Mapping[str, Any]) -> Usage:
    """OpenAI's usage object in disjoint buckets.

    OpenAI's ``prompt_tokens`` include what was read from or written to a cache, its ``completion_tokens`` the
    reasoning. DeepSeek names cache reads ``prompt_cache_hit_tokens``, Mistral ``num_cached_tokens`` at times, Together
    ``cached_tokens`` beside the prompt. OpenRouter's Gemini writes what it reads in one request, and charges both:
    such tokens are in both buckets. Not every host includes the parts in the whole:
    xAI counts reasoning beside the completion and Mistral audio beside the prompt, which shows in their totals, and
    reasoning above the completion (Gemini behind Vercel's gateway, which bills it so) cannot be in it. Azure's Grok
    counts as cached what is not in the prompt (the host's own preamble): no more is cached than there is.
    """
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if usage.keys() <= _PLAIN_USAGE:  # most answers say no more, and none of what follows is in them
        return Usage(input_tokens=prompt, output_tokens=completion)
    total = _count(usage, "total_tokens")
    inputs, outputs = _mapping(usage.get("prompt_tokens_details")), _mapping(usage.get("completion_tokens_details"))
    written = _count(inputs, "cache_write_tokens")
    audio_in, image_in = _count(inputs, "audio_tokens"), _count(inputs, "image_tokens")
    reasoning = _count(outputs, "reasoning_tokens")
    audio_out, image_out = _count(outputs, "audio_tokens"), _count(outputs, "image_tokens")
    if reasoning > completion or (reasoning and total == prompt + completion + reasoning):
        completion += reasoning
    if audio_in and total == prompt + completion + audio_in:
        prompt += audio_in
    read = (_count(usage, name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"))
    cached = min(_count(inputs, "cached_tokens") or max(read), prompt)
    in_cache = cached + written if cached + written <= prompt else max(cached, written)
    # What is cached may have been image or audio: it is counted once, as cached.
    image_in = min(image_in, prompt - cached)
    audio_in = min(audio_in, prompt - cached - image_in)
    return Usage(
        input_tokens=max(0, prompt - in_cache - audio_in - image_in),
        cache_read_tokens=cached,
        cache_write_5m_tokens=written,
        audio_input_tokens=audio_in,
        image_input_tokens=image_in,
        output_tokens=max(0, completion - reasoning - audio_out - image_out),
        reasoning_tokens=reasoning,
        audio_output_tokens=audio_out,
        image_output_tokens=image_out,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


_PLAIN_USAGE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


def _count(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    return plain_integer(value) if value else 0


_PLAIN_EVENT = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint", "obfuscation"}
)
"""What an event may have beside its text without saying more."""


# --- the provider's end: streams ----------------------------------------------------------------------------------


class StreamParser:
    """Turns the events of one stream into meaning; knows when the stream has properly ended."""

    def __init__(self, seed: str = "") -> None:
        self.done = False
        """Whether ``[DONE]`` came."""
        self._open: set[int] = set()
        self._finished: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether every choice that was begun has its finish reason, and at least one has."""
        return bool(self._finished) and self._open <= self._finished

    def feed(self, event: SSEEvent) -> Event | None:
        """What one event says; None for ``[DONE]`` and for events that say nothing.

        Raises ``GatewayError`` for an error that the provider sends in its stream, and for data that is not JSON.
        """
        data = event.data
        if data[:1] != b"{" and self._is_no_message(data):
            return None
        body = _loads(data)
        if not isinstance(body, dict):
            raise nonsense(f"an event of its stream is {_kind_of(body)}")
        if body.keys() <= _PLAIN_EVENT and not event.event and (text := self._plain_text(body)) is not None:
            return Event(data, body, (text,), plain=True)
        if body.get("error"):
            raise _failed(_error_in_success(body["error"]), body)
        if event.event == "error":
            raise _failed(_error_in_success(body), body)
        if "x_groq" in body and (error := _mapping(body["x_groq"]).get("error")):
            raise _failed(_error_in_success(error), body)
        if "choices" in body and not body["choices"] and not body.get("usage"):
            return None  # Azure's opening, with filter results alone, at which clients have stumbled
        return Event(data, body, self._chunks(body))

    def _is_no_message(self, data: bytes) -> bool:
        """Whether it is the mark of the end, or nothing at all."""
        if data.startswith(b"[DONE]"):
            self.done = True
            return True
        return not data or data.isspace()

    def _plain_text(self, body: Mapping[str, Any]) -> TextDelta | None:
        """The text of an event that says nothing else, as nearly all do; None for any other event."""
        choices = body.get("choices")
        if body.get("usage") or not isinstance(choices, list) or len(choices) != 1:
            return None
        choice = choices[0]
        if not isinstance(choice, dict) or choice.get("finish_reason"):
            return None
        index, delta = choice.get("index"), choice.get("delta")
        if type(index) is not int or not isinstance(delta, dict) or not delta.keys() <= _PLAIN:
            return None
        text = delta.get("content")
        if not isinstance(text, str) or not text or delta.get("refusal"):
            return None
        self._open.add(index)
        return TextDelta(index, text)

    def _chunks(self, body: Mapping[str, Any]) -> tuple[Chunk, ...]:
        chunks: list[Chunk] = []
        choices = body.get("choices")
        if isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, dict):
                    chunks += self._choice_chunks(_integer(choice.get("index"), position), choice)
        usage = usage_of(body) if body.get("usage") or "x_groq" in body else None
        if usage is not None:
            chunks.append(UsageReport(usage))
        return tuple(chunks)

    def _choice_chunks(self, index: int, choice: Mapping[str, Any]) -> Iterable[Chunk]:
        delta, reason = choice.get("delta"), choice.get("finish_reason")
        said: Iterable[Chunk] = ()
        if isinstance(delta, dict):
            self._open.add(index)
            said = _said(index, delta)
        if isinstance(reason, str) and reason:
            self._finished.add(index)
            return (*said, Finish(index, reason))
        return said


# --- errors -------------------------------------------------------------------------------------------------------

_STATUS_BY_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "tokens": 429,
    "requests": 429,
    "insufficient_quota": 402,
    "overloaded_error": 529,
    "timeout_error": 504,
}
"""For errors inside a stream, where no status comes along."""

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


def parse_error(status: int, headers: Mapping[str, str], data: bytes, now_s: float) -> GatewayError:
    """The error that a provider's answer with a status other than 200 amounts to.

    ``headers`` have lower-case names; ``now_s`` is the time, for a ``Retry-After`` that is a date.
    """
    try:
        body = orjson.loads(data) if data else None
    except ValueError:
        body = None
    return _provider_error(status, body, answered=status, retry_after_seconds=retry_after(headers, now_s=now_s))


def _error_in_success(error: object) -> GatewayError:
    """An error that came with status 200, whole or in a stream."""
    details = _mapping(error)
    status = next(
        (number for name in ("code", "status", "status_code") if (number := _status(details.get(name))) is not None),
        None,
    )
    if status is None:
        names = (str(details.get("type")), str(details.get("code")))
        status = next((_STATUS_BY_TYPE[name] for name in names if name in _STATUS_BY_TYPE), 500)
    return _provider_error(status, {"error": error}, answered=200)


def _failed(error: GatewayError, body: Mapping[str, Any]) -> GatewayError:
    """The error, with the count that may stand beside it."""
    usage = usage_of(body)
    return error if usage is None else FailedAnswer(error, [UsageReport(usage)])


def _status(value: object) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _provider_error(
    status: int, body: object, *, answered: int, retry_after_seconds: float | None = None
) -> GatewayError:
    message, details = _message_of(body)
    code, error_type = word(details.get("code")), word(details.get("type"))
    if retry_after_seconds is None and isinstance(body, dict):  # Hugging Face says so of a model that is being loaded
        retry_after_seconds = plain_integer(body.get("estimated_time")) or None
    return provider_error(
        status,
        message,
        answered=answered,
        code=code,
        param=details.get("param"),
        retry_after_seconds=retry_after_seconds,
        quota=status == 429 and (code in _QUOTA_CODES or error_type in _QUOTA_CODES),
    )


def _message_of(body: object) -> tuple[str, Mapping[str, Any]]:
    """The message and the other details of an error body, in any of the spellings that hosts use.

    OpenAI nests an object under ``error``; Hugging Face and Ollama put a string or a list there; Mistral and vLLM put
    the fields at the top (``{"object": "error", "message": ...}``); FastAPI hosts answer ``{"detail": ...}``.
    """
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return "", {}
    details = body.get("error") or body.get("detail") or body
    if isinstance(details, list):
        details = "; ".join(_plain(item) for item in details)
    if isinstance(details, str):
        return details[:MAX_MESSAGE_CHARACTERS], body
    if not isinstance(details, dict):
        return "", {}
    message = details.get("message") or details.get("detail") or body.get("message")
    if message is not None and not isinstance(message, str):
        message = spelt(message)
    return (message or "")[:MAX_MESSAGE_CHARACTERS], details


def _plain(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and isinstance(item.get("msg"), str):
        where = item.get("loc")
        place = ".".join(str(step) for step in where) if isinstance(where, list) else ""
        return f"{place}: {item['msg']}" if place else str(item["msg"])
    return spelt(item)


def build_error(error: GatewayError) -> bytes:
    """The error as a client of this dialect reads it."""
    return orjson.dumps(
        {"error": {"type": error.type, "message": error.message, "code": error.code, "param": error.param}}
    )


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise nonsense("it answered with something that is not JSON") from error


DIALECT = Dialect(NAME, build_request, parse_response, StreamParser, parse_error, parse_openai, openai_quirks.mend)
