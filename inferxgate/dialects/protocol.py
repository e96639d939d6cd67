"""What the two ends of every dialect pass to the rest of the gateway.

A dialect is a set of pure functions in one module, gathered in a ``Dialect`` value: no input or output, no clock, no
randomness, no logging. What a build needs to know about its target comes in as a ``BuildTarget``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from inferxgate import errors
from inferxgate.canonical.chat import ChatRequest, Chunk
from inferxgate.canonical.conversation import Bytes
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.model_lists import ModelPage
from inferxgate.dialects.quirks import Quirks
from inferxgate.errors import GatewayError
from inferxgate.framing.sse import SSEEvent
from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class BuildTarget:
    """What a dialect has to know about the target that it builds a request for."""

    provider: str
    """The configured name, for messages."""
    model: str
    """The provider's own name for the model."""
    abilities: Abilities
    quirks: Quirks = field(default_factory=Quirks)
    strict: bool = False
    """Whether an unsupported tuning parameter is a 400 (``params.unsupported = "strict"``) instead of dropped."""
    fetched: Mapping[str, Bytes] = field(default_factory=dict, repr=False)
    """By the URL as the client wrote it: what an earlier ``MediaNeeded`` asked for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Media that the client named by a URL, and that the target takes only as bytes."""

    url: str
    """As the client wrote it; nothing about it is known but that it begins with ``https://``."""
    where: str
    """Its place in the request, in dotted form (``messages.0.content.1``)."""
    accepts: frozenset[str]
    """The media types that the target takes there."""


class MediaNeeded(GatewayError):
    """A request can be built, but for bytes that the client named by URLs.

    Whoever may fetch them builds again with ``BuildTarget.fetched``; for everybody else this is the 400 that says how
    the client can send them. It is raised only where nothing else is wrong with the request, so that nothing is
    fetched in vain.
    """

    def __init__(self, message: str, wanted: Sequence[Wanted]) -> None:
        """``wanted``: at least one."""
        super().__init__(errors.UNSUPPORTED_PARAMETER, message, param=wanted[0].where)
        self.wanted = tuple(wanted)


class FailedAnswer(GatewayError):
    """An answer that failed although some of it had come: what the provider counted is paid for all the same."""

    def __init__(self, error: GatewayError, chunks: Sequence[Chunk]) -> None:
        """``error``: what the client is told; ``chunks``: what came with it, the provider's count above all."""
        super().__init__(
            error.kind,
            error.message,
            param=error.param,
            status=error.status,
            error_type=error.type,
            code=error.code,
            retry_after_seconds=error.retry_after_seconds,
            headers=error.headers,
            upstream_status=error.upstream_status,
        )
        self.chunks = tuple(chunks)


@dataclass(frozen=True, slots=True)
class Call:
    """A request in a provider's wire format, before the provider's row adds its address and signature."""

    operation: str
    """What is asked for, such as ``chat``; the provider's row knows where each operation is."""
    body: bytes
    headers: Mapping[str, str]
    dropped: tuple[str, ...] = ()
    """What the target does not take and was left out: its place in the client's request, in dotted form."""
    tool_names: Mapping[str, str] = field(default_factory=dict)
    """The client's name for each tool that goes by another one here: calls in the answer have to be named back."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a provider's stream: as it came, and what it means."""

    raw: bytes | None
    """The data exactly as the provider sent it, for clients of the same dialect; None where it was translated."""
    body: Mapping[str, Any]
    """The parsed data."""
    chunks: tuple[Chunk, ...]
    plain: bool = False
    """Whether it is known to have text in it and nothing else: no state, no usage."""


class StreamReader(Protocol):
    """Turns the events of one stream into meaning."""

    @property
    def done(self) -> bool:
        """Whether the stream has said that it is over; nothing after that is read."""

    @property
    def complete(self) -> bool:
        """Whether the answer was finished: every choice that was begun has its finish reason, and at least one has."""

    def feed(self, event: SSEEvent) -> Event | None:
        """What one event says; None where it says nothing.

        Raises ``GatewayError`` for errors and nonsense, ``FailedAnswer`` where something came with them.
        """


class ResponseParser(Protocol):
    """Reads whole answers."""

    def __call__(self, data: bytes, seed: str = "") -> tuple[Mapping[str, Any], tuple[Chunk, ...]]:
        """The JSON of a whole answer with status 200, and its meaning.

        ``seed`` is something that no other answer has: ids that a provider leaves to us are made of it. Raises
        ``GatewayError`` for nonsense and errors, ``FailedAnswer`` where something came with them.
        """


class StreamReaderMaker(Protocol):
    """Makes a reader for each stream."""

    def __call__(self, seed: str = "") -> StreamReader:
        """A reader for one stream; ``seed`` as for whole answers."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The provider's end of one dialect."""

    name: str
    build_request: Callable[[ChatRequest, BuildTarget], Call]
    """Raises ``GatewayError`` (400) for what the target cannot be asked for, and ``MediaNeeded``."""
    parse_response: ResponseParser
    stream_reader: StreamReaderMaker
    parse_error: Callable[[int, Mapping[str, str], bytes, float], GatewayError]
    """From status, headers (lower-case names), body and the time in Unix seconds."""
    parse_models: Callable[[bytes], ModelPage]
    """One page of a provider's own list of models. Raises ``GatewayError`` for nonsense."""
    mend: Callable[[bytes, Quirks], bytes] | None = None
    """Puts right what a host gets wrong in a whole answer or in an event's data, before it is read and forwarded.

    Called only for hosts whose quirks are in their answers.
    """
