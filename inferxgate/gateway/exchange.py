"""One attempt at one target, without input or output: an HTTP request out, bytes in, meaning out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from inferxgate import errors
from inferxgate.canonical.chat import ChatRequest, Chunk, Finish, Start, ToolCallDelta, UsageReport
from inferxgate.canonical.conversation import Bytes
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.failures import spelt
from inferxgate.dialects.openai_state import words_of_answer
from inferxgate.dialects.protocol import BuildTarget, Event, FailedAnswer
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEDecoder, SSEEvent
from inferxgate.gateway.routing import Target
from inferxgate.providers.http import HttpRequest

_MOST_STATE = 64
"""Pieces of opaque state that are noted of one answer."""
_MAX_WITHHELD = 1_000
"""Characters of a provider's words that go to the log."""


def laid_over(request: ChatRequest, target: Target) -> ChatRequest:
    """The request with the fields that the target sets in it."""
    if not target.params:
        return request
    body = target.laid_over(request.source.body)
    return replace(request, source=replace(request.source, body=body))


class Exchange:
    """What is asked of one target, and what its bytes mean."""

    def __init__(
        self, request: ChatRequest, target: Target, abilities: Abilities, *, strict: bool, seed: str = ""
    ) -> None:
        """``strict``: a tuning parameter that the target does not take is a 400 instead of dropped; ``seed``: something
        that no other exchange has, for ids that a provider leaves to us."""
        self._request = request
        self._target = target
        self._dialect = DIALECTS[target.provider.row.dialect]
        self._quirks = target.provider.quirks
        self._build_target = BuildTarget(target.provider.name, target.model, abilities, self._quirks, strict)
        self._mend = self._dialect.mend if self._quirks.in_answers else None
        self._seed = seed
        if request.stream:
            self._decoder = SSEDecoder()
            self._parser = self._dialect.stream_reader(seed)
        self.verbatim = self._dialect.name == request.source.dialect
        """Whether the target speaks the client's dialect, so that answers go through as they come."""
        self.tool_names: Mapping[str, str] = {}
        """The client's name for each tool that goes by another one in the request."""
        self.dropped: tuple[str, ...] = ()
        """Parameters that the target does not take and that were left out of the request."""
        self.state: list[str] = []
        """Opaque state in an answer that goes through as it comes."""
        self.failure: GatewayError | None = None
        """What went wrong in the stream, after the events that were returned so far."""

    def http_request(self, fetched: Mapping[str, Bytes] | None = None) -> HttpRequest:
        """The signed request.

        Raises ``MediaNeeded`` where bytes have to be fetched and given, by URL, as ``fetched``; ``GatewayError`` (400)
        for what cannot be written.
        """
        target = replace(self._build_target, fetched=fetched) if fetched is not None else self._build_target
        call = self._dialect.build_request(self._request, target)
        self.dropped = call.dropped
        self.tool_names = call.tool_names
        return self._target.provider.request(call, model=self._target.model, stream=self._request.stream)

    def whole(self, data: bytes) -> tuple[bytes, tuple[Chunk, ...]]:
        """A whole answer, put right where its host gets things wrong, and its meaning.

        Raises ``GatewayError`` for nonsense, for errors within, and where a finish reason is missing, as in streams.
        """
        if self._mend is not None:
            data = self._mend(data, self._quirks)
        body, chunks = self._dialect.parse_response(data, self._seed)
        self._note_state(body)
        if not _is_finished(chunks):
            raise FailedAnswer(_UNFINISHED, chunks)
        return data, self._named_back(chunks)

    @staticmethod
    def is_document(beginning: bytes) -> bool:
        """Whether a body that begins so is JSON or HTML and no stream, whatever its content type says.

        No line of a stream begins with a brace, a bracket or an angle; older OpenAI streams say ``application/json``.
        """
        return beginning.lstrip()[:1] in (b"{", b"[", b"<")

    def not_a_stream(self, data: bytes) -> GatewayError:
        """The error that a whole answer to a streaming request amounts to: the one it holds, or its being whole."""
        try:
            self._dialect.parse_response(data)
        except GatewayError as error:
            return error
        return GatewayError(
            errors.UPSTREAM_INVALID_RESPONSE, "The provider answered a streaming request with no stream."
        )

    def events(self, data: bytes) -> list[Event]:
        """What the next bytes of a stream say. Events before an error are returned, and ``failure`` is set."""
        try:
            raw = self._decoder.feed(data)
        except GatewayError as error:
            self.failure = error
            return []
        return self._parse(raw)

    def last_events(self) -> list[Event]:
        """What the end of the bytes says; sets ``failure`` where the stream broke off."""
        events = self._parse(self._decoder.flush()) if not self._parser.done else []
        if self.failure is None and not self._parser.complete:
            self.failure = GatewayError(
                errors.UPSTREAM_ERROR,
                "The provider's stream ended before the answer was finished (no finish reason came).",
            )
        return events

    @property
    def complete(self) -> bool:
        """Whether the answer was finished, and only its end may be missing."""
        return self._parser.complete

    @property
    def done(self) -> bool:
        """Whether the stream has said that it is over."""
        return self._parser.done

    def error(self, status: int, headers: Mapping[str, str], data: bytes, *, now_s: float) -> GatewayError:
        """The error that an answer with another status than 200 amounts to."""
        error = self._dialect.parse_error(status, headers, data, now_s)
        if error.kind in (errors.UPSTREAM_AUTH_ERROR, errors.UPSTREAM_NOT_FOUND):
            error.withheld = self._withheld(data)
        return error

    def _withheld(self, data: bytes) -> str:
        """What a provider said that only its operator can mend. It may have repeated our credential: that is masked.

        JSON is written anew, because another writer's escapes would hide a credential from the search for it.
        """
        try:
            said = spelt(orjson.loads(data))
        except ValueError:
            said = data.decode("utf-8", "replace")
        return self._masked(" ".join(said.split()))[:_MAX_WITHHELD] or "nothing"

    def name(self, error: GatewayError) -> None:
        """Put the provider's name into an error's message, and take every secret out of all that it says."""
        provider = self._target.provider
        message = self._masked(error.message)
        named = message.startswith(f"The provider {provider.name} ")
        if message.startswith(("The provider ", "The provider's ")) and not named:
            message = f"The provider {provider.name}" + message.removeprefix("The provider")
        error.message = message
        error.args = (message,)
        error.type = self._masked(error.type)
        error.code = self._masked(error.code) if error.code is not None else None
        error.param = self._masked(error.param) if error.param is not None else None
        error.target = self._target.name

    def _masked(self, text: str) -> str:
        for secret in self._target.provider.secrets():
            text = text.replace(secret, "****")
        return text

    def _parse(self, raw: list[SSEEvent]) -> list[Event]:
        events = []
        for item in raw:
            if self._parser.done:
                break
            try:
                if self._mend is not None:
                    item.data = self._mend(item.data, self._quirks)
                event = self._parser.feed(item)
            except GatewayError as error:
                self.failure = error
                break
            if event is None:
                continue
            if not event.plain:
                self._note_state(event.body)
                if self.tool_names:
                    event = replace(event, chunks=self._named_back(event.chunks))
            events.append(event)
        return events

    def _note_state(self, body: Mapping[str, Any]) -> None:
        if self.verbatim and len(self.state) < _MOST_STATE:
            self.state += words_of_answer(body)

    def _named_back(self, chunks: tuple[Chunk, ...]) -> tuple[Chunk, ...]:
        """The chunks with the client's own names of its tools."""
        if not self.tool_names:
            return chunks
        return tuple(
            replace(chunk, name=self.tool_names.get(chunk.name, chunk.name))
            if isinstance(chunk, ToolCallDelta) and chunk.name is not None
            else chunk
            for chunk in chunks
        )


_UNFINISHED = GatewayError(
    errors.UPSTREAM_INVALID_RESPONSE,
    "The provider's answer is not finished: it has no finish reason, or not one for each choice.",
)


def _is_finished(chunks: tuple[Chunk, ...]) -> bool:
    """Whether every choice that was begun has its finish reason, and at least one has."""
    begun: set[int] = set()
    finished: set[int] = set()
    for chunk in chunks:
        if isinstance(chunk, Finish):
            finished.add(chunk.choice)
        elif not isinstance(chunk, (Start, UsageReport)):
            begun.add(chunk.choice)
    return bool(finished) and begun <= finished
