"""Gemini's generateContent, the provider's end: the Gemini API, and Vertex AI, which speaks the same.

Strategy: every event of a stream is a whole GenerateContentResponse, so one reader, which remembers what it has seen of
each candidate, reads both the one body of a whole answer and the events of a stream; both forms mean the same by
construction. Requests are built in ``gemini_requests``.

What has no counterpart in a chat completion:

- Code that the provider ran, and its result (only where the client asked for that tool natively), become fenced text.
- ``toolCall`` and ``toolResponse`` (the provider's log of its own searches) are left out: their outcome is in the text
  and in the citations.

Sources for names and shapes: the types of the ``google-genai`` Python package 3.4 and Google's API reference, read in
November 2026, and recorded answers of both hosts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

import orjson

from inferxgate import errors
from inferxgate.canonical.chat import (
    ChatRequest,
    Chunk,
    Citation,
    Finish,
    ImageOutput,
    Logprobs,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    Start,
    TextDelta,
    TextSeal,
    Token,
    ToolCallDelta,
    UsageReport,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects.failures import nonsense, plain_integer, provider_error, retry_after
from inferxgate.dialects.gemini_requests import build_body
from inferxgate.dialects.gemini_tools import TOOL_NAMES
from inferxgate.dialects.model_lists import parse_gemini
from inferxgate.dialects.openai_conversation import cache_marks, parse_conversation
from inferxgate.dialects.protocol import BuildTarget, Call, Dialect, Event, FailedAnswer
from inferxgate.dialects.tool_names import JSON_ANSWER_TOOL, fit_tool_names
from inferxgate.dialects.writing import written
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEEvent
from inferxgate.values import dataclass

NAME = "gemini"

Json = Mapping[str, Any]


# --- requests -----------------------------------------------------------------------------------------------------


def build_request(request: ChatRequest, target: BuildTarget) -> Call:
    """The call that asks ``target`` for what the client asked for. Raises ``GatewayError`` (400) where it cannot."""
    conversation, tool_names = fit_tool_names(parse_conversation(request), TOOL_NAMES)
    body, dropped = build_body(conversation, target, cache_marks=cache_marks(request.source.body))
    data = written(body, request.source.body)
    return Call("chat", data, {"content-type": "application/json"}, dropped, tool_names)


# --- whole answers ------------------------------------------------------------------------------------------------


def parse_response(data: bytes, seed: str = "") -> tuple[Json, tuple[Chunk, ...]]:
    """The JSON of a whole answer, and what it means. Raises ``GatewayError`` for nonsense and for errors within.

    ``seed``: what tells this answer from all others, for the ids of calls, of which most have none.
    """
    body = _loads(data)
    error = _error_of(body)
    if error is not None:
        raise FailedAnswer(_failure(_status_of(error), error, answered=200), tuple(_count(_mapping(body))))
    if not isinstance(body, dict):
        raise nonsense("it is JSON, but not an object")
    chunks = _all(_Reader(seed), body)
    if not any(isinstance(chunk, Finish) for chunk in chunks) and not _list(body.get("candidates")):
        raise FailedAnswer(nonsense("it has no candidates and does not say why"), chunks)
    return body, chunks


# --- streams ------------------------------------------------------------------------------------------------------


class StreamReader:
    """Reads the events of one stream. The end of the body is its end: no event says that it is over."""

    done = False

    def __init__(self, seed: str = "") -> None:
        """``seed`` as for whole answers."""
        self._reader = _Reader(seed)

    @property
    def complete(self) -> bool:
        """Whether every candidate that was begun has its finish reason, and at least one has."""
        return self._reader.complete

    def feed(self, event: SSEEvent) -> Event | None:
        """What one event says. Raises ``GatewayError`` for errors and nonsense."""
        if not event.data.strip():
            return None
        body = _loads(event.data)
        error = _error_of(body)
        if error is None and event.event == "error":
            error = _mapping(body)
        if error is not None:
            raise FailedAnswer(_failure(_status_of(error), error, answered=200), tuple(_count(_mapping(body))))
        if not isinstance(body, dict):
            raise nonsense("an event of its stream is not an object")
        return Event(None, body, _all(self._reader, body))


# --- candidates ---------------------------------------------------------------------------------------------------

_FINISH_REASONS: Mapping[str, str] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
}
"""All others that are no failures are some filter's: SAFETY, RECITATION, LANGUAGE, BLOCKLIST, PROHIBITED_CONTENT, SPII,
IMAGE_SAFETY and its kin, NO_IMAGE, MODEL_ARMOR, ESCALATION, PUP_LIMITED_DISABLED, OTHER, and what is yet to come."""

_FAILURES: Mapping[str, str] = {
    "MALFORMED_FUNCTION_CALL": "the model wrote a tool call that is not valid",
    "UNEXPECTED_TOOL_CALL": "the model called a tool that it may not call now",
    "TOO_MANY_TOOL_CALLS": "the model called too many tools",
    "MALFORMED_RESPONSE": "the model wrote a malformed answer",
    "MISSING_THOUGHT_SIGNATURE": "a thought signature was missing in the request",
}

_NUMBERED = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
"""Reasons by number, as hosts write them where enumerations travel as integers; the later ones differ by host."""

_NO_REASONS = frozenset({"", "FINISH_REASON_UNSPECIFIED"})
_NO_BLOCKS = frozenset({"", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})


@dataclass(slots=True)
class _Candidate:
    """What has been read of one candidate."""

    index: int
    text: list[str] = field(default_factory=list)
    """The visible text so far, in pieces."""
    calls: int = 0
    blocks: int = 0
    """Blocks of thought that are over."""
    thinking: bool = False
    """Whether the last part was thought."""
    cited: set[tuple[object, ...]] = field(default_factory=set)
    finished: bool = False


class _Reader:
    """Reads one answer, in one body or in the events of a stream."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._candidates: dict[int, _Candidate] = {}
        self._start: Start | None = None
        self._answer_id = ""

    @property
    def complete(self) -> bool:
        return bool(self._candidates) and all(candidate.finished for candidate in self._candidates.values())

    def read(self, body: Json) -> Iterator[Chunk]:
        """What one body says, after those before it."""
        answer_id, model = _text(body.get("responseId")), _text(body.get("modelVersion"))
        start = Start(answer_id, model)
        self._answer_id = self._answer_id or answer_id or ""
        if start != self._start:
            self._start = start
            yield start
        for position, given in enumerate(_list(body.get("candidates"))):
            candidate = _mapping(given)
            index = plain_integer(candidate.get("index", position))
            yield from self._candidate(self._candidates.setdefault(index, _Candidate(index)), candidate)
        blocked = _mapping(body.get("promptFeedback"))
        reason = _text(blocked.get("blockReason")) or ""
        if reason not in _NO_BLOCKS and not self._candidates:
            self._candidates[0] = _Candidate(0, finished=True)
            words = _text(blocked.get("blockReasonMessage"))
            yield RefusalDelta(0, f"The provider blocked the prompt ({reason})" + (f": {words}" if words else "."))
            yield Finish(0, "content_filter")
        yield from _count(body)

    def _candidate(self, candidate: _Candidate, given: Json) -> Iterator[Chunk]:
        placed: list[tuple[int, str]] = []
        """Where the text of each part begins in the answer, and the text; only known where one body holds it all."""
        known = not candidate.text
        for part in _list(_mapping(given.get("content")).get("parts")):
            pieces = len(candidate.text)
            yield from self._part(candidate, _mapping(part))
            if known:
                begin = sum(map(len, candidate.text[:pieces]))
                placed.append((begin, "".join(candidate.text[pieces:])))
        yield from _citations(candidate, given, placed)
        if tokens := tuple(_tokens(_mapping(given.get("logprobsResult")))):
            yield Logprobs(candidate.index, tokens)
        reason = _finish_reason(given)
        if reason in _FAILURES:
            words = _text(given.get("finishMessage")) or _FAILURES[reason]
            raise GatewayError(errors.UPSTREAM_ERROR, f"The provider could not finish its answer ({reason}): {words}")
        if reason not in _NO_REASONS:
            candidate.finished = True
            told = _FINISH_REASONS.get(reason, "content_filter")
            yield Finish(candidate.index, "tool_calls" if told == "stop" and candidate.calls else told)

    def _part(self, candidate: _Candidate, part: Json) -> Iterator[Chunk]:
        signature = _text(part.get("thoughtSignature"))
        call, data = part.get("functionCall"), _mapping(part.get("inlineData"))
        thought = part.get("thought") is True and call is None
        if candidate.thinking and not thought:
            candidate.blocks += 1
        candidate.thinking = thought
        if thought:
            yield from _thought(candidate, part, signature)
        elif call is not None:
            yield self._call(candidate, _mapping(call), signature)
        elif inline := _text(data.get("data")):
            media_type = _text(data.get("mimeType")) or "application/octet-stream"
            yield ImageOutput(candidate.index, media_type, inline, signature)
            return
        elif text := _text(part.get("text")) or _rendered(part):
            yield _say(candidate, text)
        if signature is not None and not thought and all(part.get(name) is None for name in _SEALED_ELSEWHERE):
            yield TextSeal(candidate.index, signature)

    def _call(self, candidate: _Candidate, call: Json, signature: str | None) -> ToolCallDelta | TextDelta:
        name, arguments = _text(call.get("name")), call.get("args")
        if not name or call.get("partialArgs") or call.get("willContinue"):
            raise nonsense("a function call in it has no name, or comes in pieces that were not asked for")
        written = "{}" if arguments is None else _dumps(arguments)
        if name == JSON_ANSWER_TOOL:
            return _say(candidate, written)
        ordinal = candidate.calls
        candidate.calls += 1
        call_id = _text(call.get("id"))
        if not call_id:
            call_id = _call_id(self._seed, self._answer_id, candidate.index, ordinal, name, written)
        return ToolCallDelta(candidate.index, ordinal, call_id, name, written, signature)


def _all(reader: _Reader, body: Json) -> tuple[Chunk, ...]:
    """What one body says. Raises ``FailedAnswer`` with what came, the count included, where it says that it failed."""
    chunks: list[Chunk] = []
    try:
        for chunk in reader.read(body):
            chunks.append(chunk)  # noqa: PERF402 - what came before a failure is wanted too
    except GatewayError as error:
        raise FailedAnswer(error, (*chunks, *_count(body))) from error
    return tuple(chunks)


_SEALED_ELSEWHERE = frozenset({"functionCall", "executableCode", "codeExecutionResult", "toolCall", "toolResponse"})
"""Parts whose signature is no text's: a call carries its own, the others cannot be sent back."""


def _say(candidate: _Candidate, text: str) -> TextDelta:
    candidate.text.append(text)
    return TextDelta(candidate.index, text)


def _thought(candidate: _Candidate, part: Json, signature: str | None) -> Iterator[Chunk]:
    """A piece of thought. Pieces that follow each other are one block, which a signature ends."""
    if text := _text(part.get("text")):
        yield ReasoningDelta(candidate.index, text, candidate.blocks)
    if signature is not None:
        yield ReasoningSeal(candidate.index, candidate.blocks, thought_signature=signature)
        candidate.blocks += 1
        candidate.thinking = False


def _rendered(part: Json) -> str | None:
    """Code that the provider ran, or its result, as fenced text."""
    code, result = _mapping(part.get("executableCode")), _mapping(part.get("codeExecutionResult"))
    if written := _text(code.get("code")):
        return _fenced(str(code.get("language", "")).lower(), written)
    if output := _text(result.get("output")):
        return _fenced("", output)
    return None


def _tokens(result: Json) -> Iterator[Token]:
    """The tokens of a body, each with the most probable ones at its place."""
    places = _list(result.get("topCandidates"))
    for position, chosen in enumerate(_list(result.get("chosenCandidates"))):
        place = _mapping(places[position]) if position < len(places) else {}
        token = _token(chosen)
        yield Token(token.text, token.logprob, tuple(map(_token, _list(place.get("candidates")))))


def _token(given: object) -> Token:
    """One token. A probability that is left out is the default, 0; what is no number is too small for one."""
    token = _mapping(given)
    logprob = token.get("logProbability")
    if logprob is None:
        logprob = 0.0
    elif isinstance(logprob, bool) or not isinstance(logprob, int | float):
        logprob = _IMPROBABLE
    return Token(_text(token.get("token")) or "", float(logprob))


_IMPROBABLE = -9999.0
"""OpenAI's value for a token that is very unlikely."""


def _fenced(language: str, content: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return f"\n{fence}{language}\n{content.rstrip(chr(10))}\n{fence}\n"


def _call_id(*told_by: str | int) -> str:
    """An id for a call that has none: the same for the same answer with the same seed, another for every other.

    The provider's own id of the answer is not enough: some answers have none, and the same call with the same
    arguments is made in more than one turn.
    """
    told = orjson.dumps(told_by)
    return "call_" + hashlib.sha256(told).hexdigest()[:24]


def _finish_reason(candidate: Json) -> str:
    reason = candidate.get("finishReason")
    if isinstance(reason, int) and not isinstance(reason, bool):
        return _NUMBERED[reason] if 0 <= reason < len(_NUMBERED) else "OTHER"
    return reason if isinstance(reason, str) else ""


# --- citations ----------------------------------------------------------------------------------------------------


def _citations(candidate: _Candidate, given: Json, placed: Sequence[tuple[int, str]]) -> Iterator[Citation]:
    """The sources that this body names, each place once, however often a stream repeats it."""
    for citation in _sources(candidate, given, placed):
        key = (citation.url, citation.title, citation.text, citation.start_index, citation.end_index)
        if key not in candidate.cited:
            candidate.cited.add(key)
            yield citation


def _sources(candidate: _Candidate, given: Json, placed: Sequence[tuple[int, str]]) -> Iterator[Citation]:
    grounding, recited = _mapping(given.get("groundingMetadata")), _mapping(given.get("citationMetadata"))
    if not grounding and not recited:
        return
    answer = "".join(candidate.text)
    chunks = [_mapping(chunk) for chunk in _list(grounding.get("groundingChunks"))]
    supported: set[int] = set()
    for support in map(_mapping, _list(grounding.get("groundingSupports"))):
        begin, end = _place(_mapping(support.get("segment")), answer, placed)
        for index in _list(support.get("groundingChunkIndices")):
            if isinstance(index, int) and 0 <= index < len(chunks):
                supported.add(index)
                yield _source(candidate.index, chunks[index], begin, end)
    for index, chunk in enumerate(chunks):
        if index not in supported:
            yield _source(candidate.index, chunk, None, None)
    # the Gemini API says citationSources, Vertex says citations
    for source in map(_mapping, _list(recited.get("citationSources") or recited.get("citations"))):
        begin, end = _place(source, answer, placed)
        yield Citation(candidate.index, _text(source.get("uri")), _text(source.get("title")), None, begin, end)


def _source(choice: int, chunk: Json, begin: int | None, end: int | None) -> Citation:
    """A grounding chunk: a page of the web, a document of the client's own store, a place on a map, or an image."""
    kinds = (_mapping(chunk.get(name)) for name in ("web", "retrievedContext", "maps", "image"))
    found = next((kind for kind in kinds if kind), {})
    url = next((text for name in ("uri", "sourceUri", "imageUri") if (text := _text(found.get(name)))), None)
    title = next((text for name in ("title", "documentName") if (text := _text(found.get(name)))), None)
    return Citation(choice, url, title, _text(found.get("text")), begin, end)


def _place(segment: Json, answer: str, placed: Sequence[tuple[int, str]]) -> tuple[int | None, int | None]:
    """Where a segment is in the answer, in characters.

    The provider counts bytes, within a part; in streams, and beside parts that it does not count, which part is not to
    be told. So each reading is held against the segment's own words, where it has them, and at last those are searched
    for.
    """
    if "endIndex" not in segment:
        return None, None
    words = _text(segment.get("text"))
    begin, end = plain_integer(segment.get("startIndex")), plain_integer(segment.get("endIndex"))
    number = plain_integer(segment.get("partIndex"))
    candidates = [placed[number]] if number < len(placed) else []
    for offset, text in (*candidates, (0, answer)):
        data = text.encode()
        if end <= len(data) and (words is None or data[begin:end] == words.encode()):
            return (
                offset + len(data[:begin].decode(errors="ignore")),
                offset + len(data[:end].decode(errors="ignore")),
            )
    found = answer.find(words) if words else -1
    return (None, None) if found < 0 else (found, found + len(words or ""))


# --- usage --------------------------------------------------------------------------------------------------------

_MODALITIES = ("", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
"""By number, as hosts write them where enumerations travel as integers."""


def parse_usage(usage: Json) -> Usage:
    """Gemini's ``usageMetadata`` in disjoint buckets.

    ``promptTokenCount`` includes what was read from a cache, ``candidatesTokenCount`` leaves out thought, and what the
    provider's own tools fed to the model (``toolUsePromptTokenCount``) comes on top of the prompt. Video and documents
    count as plain input, for which they are charged.
    """
    prompt = plain_integer(usage.get("promptTokenCount"))
    cached = min(prompt, plain_integer(usage.get("cachedContentTokenCount")))
    tools = plain_integer(usage.get("toolUsePromptTokenCount"))
    output = plain_integer(usage.get("candidatesTokenCount"))
    fresh = prompt - cached + tools
    inputs, cache = _by_modality(usage, "promptTokensDetails"), _by_modality(usage, "cacheTokensDetails")
    fed, outputs = _by_modality(usage, "toolUsePromptTokensDetails"), _by_modality(usage, "candidatesTokensDetails")
    audio_in = _within(inputs.get("AUDIO", 0) - cache.get("AUDIO", 0) + fed.get("AUDIO", 0), fresh)
    image_in = _within(inputs.get("IMAGE", 0) - cache.get("IMAGE", 0) + fed.get("IMAGE", 0), fresh - audio_in)
    audio_out = _within(outputs.get("AUDIO", 0), output)
    image_out = _within(outputs.get("IMAGE", 0), output - audio_out)
    return Usage(
        input_tokens=fresh - audio_in - image_in,
        cache_read_tokens=cached,
        audio_input_tokens=audio_in,
        image_input_tokens=image_in,
        output_tokens=output - audio_out - image_out,
        reasoning_tokens=plain_integer(usage.get("thoughtsTokenCount")),
        audio_output_tokens=audio_out,
        image_output_tokens=image_out,
    )


def _count(body: Json) -> Iterator[UsageReport]:
    """The count that a body holds, if it does."""
    usage = _mapping(body.get("usageMetadata"))
    if any(name.endswith("TokenCount") for name in usage):
        yield UsageReport(parse_usage(usage))


def _by_modality(usage: Json, name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for detail in map(_mapping, _list(usage.get(name))):
        modality = detail.get("modality")
        if isinstance(modality, int) and 0 <= modality < len(_MODALITIES):
            modality = _MODALITIES[modality]
        counts[str(modality)] = counts.get(str(modality), 0) + plain_integer(detail.get("tokenCount"))
    return counts


def _within(count: int, most: int) -> int:
    return max(0, min(count, most))


# --- errors -------------------------------------------------------------------------------------------------------

_STATUSES: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The canonical codes of Google's APIs; for errors inside a stream, where no status comes along."""

_BAD_KEY = re.compile(r"API[ _]key (not valid|expired|not found)", re.IGNORECASE)
_BAD_KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED"})
_NO_FILE = re.compile(r"\b(File|CachedContent)\b.*\b(not found|may not exist)\b", re.IGNORECASE)
"""A file or cache that the client named and that is not there is told as a lack of permission."""
_SPENT = re.compile(r"credits? (is|are) depleted|spending cap|billing account.*(disabled|closed)", re.IGNORECASE)
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_RETRY_IN = re.compile(r"retry in (\d{1,9}(?:\.\d{1,9})?)s", re.IGNORECASE)


def parse_error(status: int, headers: Mapping[str, str], data: bytes, now_s: float) -> GatewayError:
    """The error that an answer with another status than 200 amounts to."""
    try:
        body = orjson.loads(data) if data else None
    except ValueError:
        body = None
    error = _error_of(body)
    waits = retry_after(headers, now_s=now_s)
    return _failure(status, {} if error is None else error, answered=status, waits=waits)


def _error_of(body: object) -> Json | None:
    """The error in a body, which streams may wrap in a list; None where there is none."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict) or not body.get("error"):
        return None
    error = body["error"]
    return error if isinstance(error, dict) else {"message": error if isinstance(error, str) else _dumps(error)}


def _status_of(error: Json) -> int:
    """The status that an error within an answer with status 200 names."""
    code = plain_integer(error.get("code"))
    return code if 400 <= code <= 599 else _STATUSES.get(str(error.get("status")), 500)


def _failure(status: int, error: Json, *, answered: int, waits: float | None = None) -> GatewayError:
    message = _text(error.get("message")) or ""
    details = [_mapping(detail) for detail in _list(error.get("details"))]
    if status == 400 and (_BAD_KEY.search(message) or _BAD_KEY_REASONS & {_text(d.get("reason")) for d in details}):
        status = 401
    if status == 403 and _NO_FILE.search(message):
        status = 400
    quota = status in (402, 403, 429) and (_SPENT.search(message) is not None or _daily(details))
    return provider_error(
        status,
        message,
        answered=answered,
        retry_after_seconds=None if quota else _delay(details, message, waits),
        quota=quota,
    )


def _daily(details: Sequence[Json]) -> bool:
    """Whether a quota is of a kind that waiting a moment does not help: per day, or none at all."""
    violations = [_mapping(item) for detail in details for item in _list(detail.get("violations"))]
    return any(
        "PerDay" in str(violation.get("quotaId")) or str(violation.get("quotaValue")) == "0" for violation in violations
    )


def _delay(details: Sequence[Json], message: str, waits: float | None) -> float | None:
    """How many seconds to wait: the header, else RetryInfo's ``retryDelay`` ("37s"), else what the message says."""
    if waits is not None:
        return waits
    for detail in details:
        if found := _SECONDS.fullmatch(str(detail.get("retryDelay"))):
            return float(found[1])
    found = _RETRY_IN.search(message)
    return float(found[1]) if found else None


# --- JSON ---------------------------------------------------------------------------------------------------------


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise nonsense("it is not JSON") from error


def _dumps(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:  # orjson's JSONEncodeError
        raise nonsense("its JSON is nested too deeply") from error


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    """A string that says something, else None."""
    return value if isinstance(value, str) and value else None


DIALECT = Dialect(NAME, build_request, parse_response, StreamReader, parse_error, parse_gemini)
