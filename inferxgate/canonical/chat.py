"""A chat, in nobody's wire format: what was asked, and the pieces of what comes back.

``ChatRequest`` carries an *envelope* (the few facts that every part of the gateway reads) and its *source* (the
client's dialect and parsed body). Targets that speak the client's dialect are served from the source, so nothing that
we do not know is lost.

An answer is a sequence of chunks, whether it came whole or as a stream; ``collect`` folds them into a
``ChatResponse``, so that both forms mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, assert_never

from inferxgate.canonical.usage import Usage
from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """The request as the client wrote it."""

    dialect: str
    """Name of the dialect module, such as ``openai_chat``."""
    body: Mapping[str, Any]
    """The parsed JSON. Read only: several attempts are built from it."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat completion asked for by a client."""

    model: str
    """The name as the client spelt it: an alias, ``provider/model``, or a bare model name."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with a usage chunk (``stream_options.include_usage``)."""
    end_user: str | None
    """The client's own ``user`` field, for its reports; no identity of ours."""
    source: Source


@dataclass(frozen=True, slots=True)
class Start:
    """The provider's names for this answer; may come again with each event."""

    id: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class TextDelta:
    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of what the model thought."""

    choice: int
    text: str
    block: int = 0
    """The ordinal of the block of thought within its message."""


@dataclass(frozen=True, slots=True)
class ReasoningSeal:
    """What a provider demands back with a block of thought: its signature, or opaque data in place of text.

    Each vendor's signature has a field of its own, because no vendor takes another's.
    """

    choice: int
    block: int
    signature: str | None = None
    """Anthropic's."""
    redacted: str | None = None
    thought_signature: str | None = None
    """Gemini's."""


@dataclass(frozen=True, slots=True)
class TextSeal:
    """A signature that belongs to the answer's text (Gemini's ``thoughtSignature`` on a text part)."""

    choice: int
    signature: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A source for the text just before it, as OpenAI's ``url_citation`` or, where there is no URL, a document."""

    choice: int
    url: str | None
    title: str | None
    text: str | None
    """The words of the source."""
    start_index: int | None = None
    """Characters into the answer's text, where known."""
    end_index: int | None = None


@dataclass(frozen=True, slots=True)
class ImageOutput:
    """An image that the model made."""

    choice: int
    media_type: str
    base64: str
    signature: str | None = None
    """Gemini's ``thoughtSignature`` of the image."""


@dataclass(frozen=True, slots=True)
class ServerBlock:
    """What a tool that Anthropic runs itself was asked, or what it found: nothing but that API can read it, and it is
    wanted back where it stood."""

    choice: int
    block: Mapping[str, Any]
    """As the API spells it."""
    thoughts: int
    """Blocks of thought before it, in its message."""
    characters: int
    """Characters of text before it."""
    calls: int
    """Tool calls before it."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the answer, or one that could have stood in its place, and how probable it was."""

    text: str
    logprob: float
    """Natural logarithm of the probability."""
    top: tuple[Token, ...] = ()
    """The most probable ones at its place, itself among them; empty where nobody asked for them."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """How probable the next tokens of the answer were."""

    choice: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    choice: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of one tool call; ``index`` is the call's ordinal in its message."""

    choice: int
    index: int
    id: str | None
    name: str | None
    arguments: str
    signature: str | None = None
    """Gemini's ``thoughtSignature`` of the call."""


@dataclass(frozen=True, slots=True)
class Finish:
    choice: int
    reason: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The provider's own count. Cumulative: the last one of an answer is the true one."""

    usage: Usage


Piece = (
    TextDelta
    | ReasoningDelta
    | ReasoningSeal
    | TextSeal
    | RefusalDelta
    | ToolCallDelta
    | Citation
    | ImageOutput
    | Logprobs
    | ServerBlock
)
"""What a choice says, a piece at a time."""

Chunk = Start | Piece | Finish | UsageReport


@dataclass(slots=True)
class ToolCall:
    id: str = ""
    name: str = ""
    arguments: str = ""
    signature: str | None = None


@dataclass(slots=True)
class Thought:
    """One block of what the model thought."""

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    thought_signature: str | None = None


@dataclass(slots=True)
class Choice:
    """One alternative of an answer."""

    text: str = ""
    thoughts: dict[int, Thought] = field(default_factory=dict)
    refusal: str = ""
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    citations: list[Citation] = field(default_factory=list)
    images: list[ImageOutput] = field(default_factory=list)
    text_signature: str | None = None
    logprobs: list[Token] = field(default_factory=list)
    server_blocks: list[ServerBlock] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def reasoning(self) -> str:
        """All thought as one text."""
        return "".join(thought.text for thought in self.thoughts.values())

    def thought(self, block: int) -> Thought:
        return self.thoughts.setdefault(block, Thought())


@dataclass(slots=True)
class ChatResponse:
    """A whole answer."""

    id: str | None = None
    model: str | None = None
    choices: dict[int, Choice] = field(default_factory=dict)
    usage: Usage | None = None

    def add(self, chunk: Chunk) -> None:
        """Fold one more chunk into this answer."""
        match chunk:
            case Start():
                self.id = self.id or chunk.id
                self.model = self.model or chunk.model
            case UsageReport():
                self.usage = chunk.usage
            case TextDelta():
                self._choice(chunk.choice).text += chunk.text
            case ReasoningDelta():
                self._choice(chunk.choice).thought(chunk.block).text += chunk.text
            case ReasoningSeal():
                thought = self._choice(chunk.choice).thought(chunk.block)
                thought.signature = chunk.signature or thought.signature
                thought.redacted = chunk.redacted or thought.redacted
                thought.thought_signature = chunk.thought_signature or thought.thought_signature
            case TextSeal():
                self._choice(chunk.choice).text_signature = chunk.signature
            case Citation():
                self._choice(chunk.choice).citations.append(chunk)
            case ImageOutput():
                self._choice(chunk.choice).images.append(chunk)
            case Logprobs():
                self._choice(chunk.choice).logprobs += chunk.tokens
            case ServerBlock():
                self._choice(chunk.choice).server_blocks.append(chunk)
            case RefusalDelta():
                self._choice(chunk.choice).refusal += chunk.text
            case ToolCallDelta():
                call = self._choice(chunk.choice).tool_calls.setdefault(chunk.index, ToolCall())
                call.id = chunk.id or call.id
                call.name = chunk.name or call.name
                call.arguments += chunk.arguments
                call.signature = chunk.signature or call.signature
            case Finish():
                self._choice(chunk.choice).finish_reason = chunk.reason
            case _:
                assert_never(chunk)

    def _choice(self, index: int) -> Choice:
        return self.choices.setdefault(index, Choice())


def collect(chunks: Iterable[Chunk]) -> ChatResponse:
    """The whole answer that a stream of chunks amounts to."""
    response = ChatResponse()
    for chunk in chunks:
        response.add(chunk)
    return response
