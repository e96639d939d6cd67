"""Where opaque state of providers stands in OpenAI's messages: found there, and taken out again.

Signatures of thoughts, encrypted reasoning and what a provider's own tools encrypted mean something to whoever made
them and are refused by others. They travel in the fields that ``openai_answers`` writes and ``openai_conversation``
reads, and in those of hosts that speak this dialect themselves: ``reasoning_details`` (OpenRouter) and
``encrypted_content`` (xAI). Thought as plain text is no such state: everybody may read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from inferxgate.values import dataclass

Json = Mapping[str, Any]
Path = tuple[str | int, ...]

ANTHROPIC, GEMINI, OPENAI = "anthropic_messages", "gemini", "openai_chat"

_CARRIERS = frozenset(
    {
        "thinking_blocks", "extra_content", "provider_specific_fields", "tool_calls", "images", "reasoning_details",
        "encrypted_content",
    }
)  # fmt: skip
_SIGNED = frozenset({"extra_content", "provider_specific_fields"})
_PLAIN = frozenset({"role", "content", "refusal"})
"""What most answers and nearly all events consist of, and where there is no state."""
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


@dataclass(frozen=True, slots=True)
class Opaque:
    """A piece of state in a message."""

    path: Path
    """What to take out of the message to be rid of it."""
    word: str
    """The state itself."""
    dialect: str
    """The dialect whose providers make this kind."""
    whole: bool = False
    """Whether it is all the state of its answer, whose calls have none of their own."""

    @property
    def place(self) -> str:
        """The path in dotted form."""
        return ".".join(map(str, self.path))


def opaque(message: Json) -> list[Opaque]:
    """The state that an assistant's message, or a delta of one, carries. What is of the wrong type is none."""
    found: list[Opaque] = []
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            if isinstance(part, dict) and part.get("type") in _THOUGHTS:
                found += _thought(("content", index), part)
    if _CARRIERS.isdisjoint(message):
        return found
    for block in _objects(message.get("thinking_blocks")):
        found += _thought(("thinking_blocks",), block)
    if not _SIGNED.isdisjoint(message):
        found += _google((), message)
        for block in _anthropic_blocks(message):
            if word := block_word(block):
                found.append(Opaque(("extra_content", "anthropic"), word, ANTHROPIC))
    for name in ("tool_calls", "images"):
        items = message.get(name)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            if isinstance(item, dict) and not _SIGNED.isdisjoint(item):
                found += _google((name, index), item)
    for detail in _objects(message.get("reasoning_details")):
        found += _words(("reasoning_details",), detail, ("signature", "data"), OPENAI)
    found += _words(("encrypted_content",), message, ("encrypted_content",), OPENAI)
    return found


def without(message: Json, paths: Iterable[Path]) -> dict[str, Any]:
    """The message without what is at some paths, and without the objects that have nothing left in them."""
    new = dict(message)
    for path in sorted(set(paths), key=_order, reverse=True):  # of a list the last first: the others keep their places
        _remove(new, path)
    return new


def says_nothing(message: Json) -> bool:
    """Whether an assistant's message has nothing in it that a provider would take as an answer."""
    return not any(message.get(name) for name in ("content", "tool_calls", "function_call", "refusal", "audio"))


def words_of_answer(body: Json) -> Iterator[str]:
    """The state in a whole answer or in an event of a stream, as its provider wrote it."""
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            message = choice.get("message") or choice.get("delta")
            if isinstance(message, dict) and not (message.keys() <= _PLAIN and isinstance(message.get("content"), str)):
                yield from (each.word for each in opaque(message))


def _anthropic_blocks(message: Json) -> Iterator[Json]:
    """What tools that Anthropic ran itself said."""
    extra = message.get("extra_content")
    anthropic = extra.get("anthropic") if isinstance(extra, dict) else None
    entries = anthropic.get("blocks") if isinstance(anthropic, dict) else None
    for entry in _objects(entries):
        if isinstance(block := entry.get("block"), dict):
            yield block


def block_word(block: Json) -> str:
    """What a block of a tool that Anthropic ran itself is known by, however a client writes it again.

    Empty for one that is nested too deeply to be written, as no provider has made it.
    """
    try:
        return orjson.dumps(block, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError:
        return ""


def _thought(path: Path, block: Json) -> Iterator[Opaque]:
    yield from _words(path, block, ("signature", "data"), ANTHROPIC, whole=True)
    for found in _google(path, block):
        yield Opaque(path, found.word, GEMINI)


def _google(path: Path, carrier: Json) -> Iterator[Opaque]:
    extra = carrier.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    if isinstance(google, dict):
        where = (*path, "extra_content", "google", "thought_signature")
        yield from _words(where, google, ("thought_signature",), GEMINI)
    fields = carrier.get("provider_specific_fields")
    if isinstance(fields, dict):
        where = (*path, "provider_specific_fields", "thought_signature")
        yield from _words(where, fields, ("thought_signature",), GEMINI)


def _words(path: Path, holder: Json, names: Iterable[str], dialect: str, *, whole: bool = False) -> Iterator[Opaque]:
    for name in names:
        if isinstance(word := holder.get(name), str) and word:
            yield Opaque(path, word, dialect, whole)


def _objects(value: object) -> Iterator[Json]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item


def _order(path: Path) -> list[tuple[str, int]]:
    return [("", each) if isinstance(each, int) else (each, 0) for each in path]


def _remove(holder: Any, path: Path) -> None:
    """Remove what is at a path below a copy, copying what is on the way to it."""
    first, rest = path[0], path[1:]
    if not rest:
        del holder[first]
        return
    below = holder[first].copy()
    _remove(below, rest)
    if below:
        holder[first] = below
    else:
        del holder[first]
