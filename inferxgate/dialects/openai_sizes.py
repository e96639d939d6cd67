"""How large a chat request in OpenAI's dialect may be, told from its body without a tokeniser.

No text has more tokens than UTF-8 bytes, so bytes are what budgets reserve by; four bytes to a token is the usual
estimate. What surrounds each message, and images, whose tokens depend on their size in pixels, have flat sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from inferxgate.values import dataclass

MESSAGE_BYTES = 16
"""For the role and the marks around a message."""
IMAGE_BYTES = 4096
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class PromptSize:
    """What a prompt consists of."""

    text_bytes: int
    """UTF-8 bytes of all text: messages, calls of tools and their results, definitions of tools and schemas."""
    messages: int
    images: int
    """Images, and files and audio of every other kind, whose bytes say little about their tokens."""
    audio: int = 0
    """How many of them are sound, which may have a price of its own."""

    @property
    def most_text_tokens(self) -> int:
        """More than any provider will count of the text, as budgets take it."""
        return self.text_bytes + MESSAGE_BYTES * self.messages

    @property
    def image_tokens(self) -> int:
        """What budgets take for images and files."""
        return IMAGE_BYTES * (self.images - self.audio)

    @property
    def audio_tokens(self) -> int:
        """What budgets take for sound."""
        return IMAGE_BYTES * self.audio

    @property
    def most_tokens(self) -> int:
        """All of it together."""
        return self.text_bytes + MESSAGE_BYTES * self.messages + IMAGE_BYTES * self.images

    @property
    def text_tokens(self) -> int:
        """About what the text alone comes to."""
        return -(-self.text_bytes // _BYTES_PER_TOKEN)

    @property
    def likely_tokens(self) -> int:
        """About what a provider will count."""
        return -(-self.most_tokens // _BYTES_PER_TOKEN)


def measure(body: Mapping[str, Any]) -> PromptSize:
    """The size of a request's prompt. ``body`` has passed ``openai_chat.parse_request``."""
    messages = body["messages"]
    text = images = audio = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            text += _bytes(content)
        elif isinstance(content, list):
            for part in content:
                part_text, part_images = _part(part)
                text += part_text
                images += part_images
                audio += isinstance(part, dict) and part.get("type") == "input_audio"
        if len(message) > 2:  # more than role and content
            text += _calls(message)
    for name in ("tools", "functions", "response_format"):
        if name in body:
            text += _json(body[name])
    return PromptSize(text, len(messages), images, audio)


def most_output_tokens(body: Mapping[str, Any]) -> int | None:
    """Tokens of the answer that the request asks for at most, all choices together; None where it does not say."""
    most = 0
    for name in ("max_completion_tokens", "max_tokens"):
        number = body.get(name)
        if isinstance(number, int) and not isinstance(number, bool) and number > most:
            most = number
    return most * choices(body) if most else None


def choices(body: Mapping[str, Any]) -> int:
    """How many answers are asked for."""
    n = body.get("n")
    return n if isinstance(n, int) and not isinstance(n, bool) and n > 0 else 1


def _part(part: object) -> tuple[int, int]:
    """Bytes of text and images of one part of a message."""
    match part:
        case {"text": str(text)}:
            return _bytes(text), 0
        case {"type": "file", "file": {"file_data": str(data)}}:
            return _file(data)
        case {"type": "document", "source": {"type": "text", "data": str(data)}}:
            return _bytes(data), 0
        case {"type": "refusal" | "thinking" as kind, **rest}:
            return _bytes(rest.get(kind)), 0
        case {"type": "image_url" | "file" | "document" | "input_audio"}:
            return 0, 1
        case _:
            return 0, 0


def _file(data: str) -> tuple[int, int]:
    """A file that is text counts as text; of others, every few kilobytes as an image: pages are about that."""
    head = data[:100].lower()
    decoded = len(data) * 3 // 4
    if head.startswith("data:text/"):
        return decoded, 0
    return 0, 1 + decoded // (8 * IMAGE_BYTES)


def _calls(message: Mapping[str, Any]) -> int:
    text = _bytes(message.get("reasoning_content"))
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        text += _json([call.get("function") for call in calls if isinstance(call, dict)])
    if "function_call" in message:
        text += _json(message["function_call"])
    return text


def _bytes(text: object) -> int:
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # nested so deeply that it cannot be sent either
        return 0
