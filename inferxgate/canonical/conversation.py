"""The whole of a chat request, in nobody's wire format: what a dialect that is not the client's builds from.

A value stands for what was *meant*. What only one provider understands travels in ``extra`` under the name that the
client used, and the dialect of that provider picks it up; nothing is invented and nothing is dropped here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from inferxgate.values import dataclass

Role = Literal["system", "user", "assistant"]
"""``developer`` messages are system messages."""


@dataclass(frozen=True, slots=True)
class CacheMark:
    """Everything up to here may be cached by the provider."""

    ttl: str | None = None
    """``5m`` or ``1h``; None: the provider's default."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class Bytes:
    """Media that came with the request."""

    media_type: str
    base64: str
    """The data as the client sent it: base64, not decoded."""


@dataclass(frozen=True, slots=True)
class Url:
    """Media that somebody else has; never fetched unless the operator allows it."""

    url: str


@dataclass(frozen=True, slots=True)
class FileId:
    """A file that was uploaded to the provider."""

    id: str


MediaSource = Bytes | Url | FileId


@dataclass(frozen=True, slots=True)
class Image:
    source: MediaSource
    detail: str | None = None
    cache: CacheMark | None = None
    signature: str | None = None
    """Gemini's ``thoughtSignature`` of an image that the model made."""


@dataclass(frozen=True, slots=True)
class Audio:
    source: Bytes


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF or another file."""

    source: MediaSource
    filename: str | None = None
    cache: CacheMark | None = None
    title: str | None = None
    """What it is called, for the model and in its citations."""
    context: str | None = None
    """What the model should know about it, and never cites."""
    citations: bool | None = None
    """Whether the answer is to cite it. None: the provider's default."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought, as its provider wants it back: unchanged, with its signature.

    Each vendor's signature has a field of its own, because no vendor takes another's.
    """

    text: str
    signature: str | None = None
    """Anthropic's; never empty."""
    redacted: str | None = None
    """Opaque data instead of text (Anthropic's ``redacted_thinking``)."""
    thought_signature: str | None = None
    """Gemini's; never empty."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that the model made."""

    id: str
    name: str
    arguments: str
    """The arguments as JSON text, exactly as the client returned them; may be empty or broken."""
    signature: str | None = None
    """Gemini's ``thoughtSignature`` of this call."""
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to. Stands in a user message, in the order in which the client gave the results."""

    call_id: str
    name: str | None
    """The called function's name, looked up from the call; None where the history has no such call."""
    content: tuple[Text | Image | Document, ...]
    is_error: bool = False
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ServerBlock:
    """What a tool that Anthropic ran itself was asked, or what it found; stands among the parts where it stood."""

    block: Mapping[str, Any]
    """As the API spells it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An earlier answer in which the model declined."""

    text: str


Part = Text | Image | Audio | Document | Reasoning | ToolUse | ToolResult | ServerBlock | Refused


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    signature: str | None = None
    """Gemini's ``thoughtSignature`` of an assistant's text."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str | None
    parameters: Mapping[str, Any] | None
    """JSON Schema, as the client wrote it; None: no parameters."""
    strict: bool | None = None
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools the model may or must call."""

    kind: Literal["auto", "none", "required", "named", "allowed"]
    names: tuple[str, ...] = ()
    """One for ``named``, any number for ``allowed``."""
    required: bool = False
    """For ``allowed``: whether one of them must be called."""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form that the answer's text must have."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One chat request, whole."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    n: int = 1
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[str, Any] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    """``none`` to ``max``; None: the provider's default."""
    modalities: tuple[str, ...] = ()
    user: str | None = None
    service_tier: str | None = None
    metadata: Mapping[str, Any] | None = None
    cache: CacheMark | None = None
    """A mark on the request as a whole."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other field of the request, under the client's name: a provider's own settings, or something unknown."""
