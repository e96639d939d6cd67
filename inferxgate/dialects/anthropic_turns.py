"""A conversation's messages as Anthropic's: alternating turns of content blocks, and the system's words beside them.

Strategy: messages of the same role in a row become one turn. In a user's turn the results of tools stand first,
because Anthropic wants them directly after the calls; each is matched to a call of the assistant's turn before it, so
that what the provider would refuse is a 400 that names the client's own message. Images and files that an assistant has
made stand in the user's turn that follows, because the API permits none "within assistant turns".

Sources: the request types of the ``anthropic`` Python package 2.12, Anthropic's pages "Using the Messages API", "Handle
tool calls" and "Vision", and the API's own errors for empty, blank and misplaced blocks.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any, Literal, assert_never

import orjson

from inferxgate import errors
from inferxgate.canonical.conversation import (
    Audio,
    Bytes,
    CacheMark,
    Conversation,
    Document,
    FileId,
    Image,
    MediaSource,
    Message,
    Part,
    Reasoning,
    Refused,
    ServerBlock,
    Text,
    ToolResult,
    ToolUse,
    Url,
)
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError
from inferxgate.values import dataclass

Block = dict[str, Any]

_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/x-yaml", "application/yaml"})
"""Types that are text, besides ``text/*``."""
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
"""What the API takes as the id of a call."""
_THINKING = frozenset({"thinking", "redacted_thinking"})
SERVER_BLOCKS = ("_tool_use", "_tool_result")
"""How the kinds of blocks end that belong to tools that Anthropic runs itself: ``server_tool_use``, ``mcp_tool_use``,
``web_search_tool_result`` and many more."""


class Omissions:
    """What is left out of a request, each by its place there, in dotted form (``messages.0.name``)."""

    def __init__(self, target: BuildTarget) -> None:
        self._target = target
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def tuning(self, param: str, why: str = "is not taken") -> None:
        """Leave out a parameter that only tunes; 400 where the policy is strict."""
        if self._target.strict:
            raise refused(self._target, param, f"'{param}' {why}")
        self._names[param] = None

    def history(self, name: str) -> None:
        """Name a part of the history that could not be sent as it came. Never an error."""
        self._names[name] = None


def refused(target: BuildTarget, param: str, why: str) -> GatewayError:
    """The 400 for what the target cannot be asked for."""
    return GatewayError(
        errors.UNSUPPORTED_PARAMETER, f"{why} by {target.provider} (model {target.model}).", param=param
    )


@dataclass(slots=True)
class _Call:
    """One call of the last assistant's turn."""

    client_id: str
    wire_id: str
    where: str
    answered: bool = False


@dataclass(slots=True)
class _Turn:
    role: Literal["user", "assistant"]
    where: int
    """The client's index of its last message."""
    results: list[Block] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    thoughts: str = ""
    """Where its thinking came from."""

    @property
    def content(self) -> list[Block]:
        return self.results + self.blocks


@dataclass(slots=True)
class Turns:
    """What was said."""

    system: list[Block]
    messages: list[Block]
    prefill: str | None
    """Where the beginning of the answer stands, if the last turn is the assistant's."""
    loop_without_thought: bool
    """Whether a loop of tool calls is under way in which nothing of what the model thought has come back."""


def build_turns(conversation: Conversation, target: BuildTarget, omissions: Omissions) -> Turns:
    """The turns of a conversation. Raises ``GatewayError`` (400) that names the client's message."""
    builder = _Builder(target, omissions)
    for position, message in _positions(conversation.messages):
        builder.add(message, position)
    return builder.finish()


def _positions(messages: Sequence[Message]) -> Iterator[tuple[int, Message]]:
    """Each message with the index of the client's: one of tool results alone was a client's message for each."""
    position = 0
    for message in messages:
        yield position, message
        only_results = bool(message.parts) and all(isinstance(part, ToolResult) for part in message.parts)
        position += len(message.parts) if only_results else 1


class _Builder:
    def __init__(self, target: BuildTarget, omissions: Omissions) -> None:
        self._target = target
        self._omissions = omissions
        self._system: list[Block] = []
        self._turns: list[_Turn] = []
        self._calls: list[_Call] = []
        """Those of the last assistant's turn."""
        self._wire_ids: set[str] = set()
        self._shown: list[tuple[Block, str]] = []
        """Images and files of assistants' turns, which the next user's turn has to show, and where they were."""
        self._blank: int | None = None
        """The last message, where it is a user's and says nothing."""

    # each message

    def add(self, message: Message, position: int) -> None:
        if message.name is not None:
            self._omissions.tuning(f"messages.{position}.name", "(the name of a participant) is not taken")
        if message.role == "system":
            self._system += self._system_blocks(message, position)
        elif message.role == "user":
            self._user(message, position)
        else:
            self._assistant(message, position)

    def _system_blocks(self, message: Message, position: int) -> list[Block]:
        blocks: list[Block] = []
        for part in message.parts:
            if not isinstance(part, Text):
                raise refused(
                    self._target, f"messages.{position}.content", "Anything but text in a system message is not taken"
                )
            _add_text(blocks, part.text, part.cache)
        return blocks

    def _user(self, message: Message, position: int) -> None:
        turn = self._turn("user", position)
        said = len(turn.content)
        turn.blocks += [block for block, _ in self._shown]
        self._shown.clear()
        for index, part in enumerate(message.parts):
            if isinstance(part, ToolResult):
                turn.results.append(self._result(part, position + index))
            else:
                self._part(turn.blocks, part, f"messages.{position}.content.{index}")
        self._blank = position if len(turn.content) == said else None
        if not turn.content:
            self._turns.pop()

    def _assistant(self, message: Message, position: int) -> None:
        if not any(_says_something(part) for part in message.parts):
            return
        self._blank = None
        last = self._turns[-1] if self._turns else None
        if last is None or last.role == "user":
            self._check_answers()
            self._calls.clear()
        turn = self._turn("assistant", position)
        thoughts = calls = images = 0
        for index, part in enumerate(message.parts):
            if isinstance(part, Image):
                self._show(part, f"messages.{position}.images.{images}")
                images += 1
            elif isinstance(part, Document):
                self._show(part, f"messages.{position}.content.{index}")
            elif isinstance(part, Reasoning):
                where = f"messages.{position}.thinking_blocks.{thoughts}"
                thoughts += 1
                if (block := _thought(part)) is None:
                    self._omissions.history(where)  # without a signature of Anthropic's the API refuses a thought
                else:
                    turn.blocks.append(block)
                    turn.thoughts = where
            elif isinstance(part, ToolUse):
                turn.blocks.append(self._call(part, f"messages.{position}.tool_calls.{calls}"))
                calls += 1
            elif isinstance(part, ServerBlock):
                if part.block["type"].endswith(SERVER_BLOCKS):
                    turn.blocks.append(dict(part.block))
                else:
                    self._omissions.history(f"messages.{position}.extra_content.anthropic")
            else:
                self._part(turn.blocks, part, f"messages.{position}.content.{index}")
        if not turn.content:
            self._turns.pop()

    def _show(self, part: Image | Document, where: str) -> None:
        blocks: list[Block] = []
        self._part(blocks, part, where)
        self._shown += [(block, where) for block in blocks]

    def _turn(self, role: Literal["user", "assistant"], position: int) -> _Turn:
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role, position))
        turn = self._turns[-1]
        turn.where = position
        return turn

    # calls and their results

    def _call(self, use: ToolUse, where: str) -> Block:
        wire_id = use.id
        if not _CALL_ID.fullmatch(wire_id):  # other providers' ids may have dots and colons in them
            wire_id = re.sub(r"[^a-zA-Z0-9_-]", "_", wire_id) or "call"
        number = 2
        plain = wire_id
        while wire_id in self._wire_ids:  # some hosts give every first call of an answer the same id
            wire_id = f"{plain}_{number}"
            number += 1
        self._wire_ids.add(wire_id)
        self._calls.append(_Call(use.id, wire_id, where))
        block: Block = {"type": "tool_use", "id": wire_id, "name": use.name, "input": self._arguments(use, where)}
        return _marked(block, use.cache)

    def _arguments(self, use: ToolUse, where: str) -> Any:
        text = use.arguments.strip()
        if not text:
            return {}
        try:
            if isinstance(orjson.loads(text), dict):
                return orjson.Fragment(text)  # as it was written: numbers keep their digits
        except ValueError:
            pass
        self._omissions.history(f"{where}.function.arguments")
        return {"_raw_arguments": use.arguments}

    def _result(self, result: ToolResult, position: int) -> Block:
        named = [call for call in self._calls if call.client_id == result.call_id]
        call = next((call for call in named if not call.answered), None)
        if call is None:
            what = "was answered before" if named else "is not among the calls of the assistant's turn before it"
            raise GatewayError(
                errors.INVALID_VALUE,
                f"'messages.{position}' is the result of the tool call '{result.call_id}', which {what}.",
                param=f"messages.{position}.tool_call_id",
            )
        call.answered = True
        block: Block = {"type": "tool_result", "tool_use_id": call.wire_id, "content": ""}
        if len(result.content) == 1 and isinstance(only := result.content[0], Text) and only.cache is None:
            block["content"] = only.text
        elif result.content:
            content: list[Block] = []
            for index, part in enumerate(result.content):
                self._part(content, part, f"messages.{position}.content.{index}")
            block["content"] = content or ""
        if result.is_error:
            block["is_error"] = True
        return _marked(block, result.cache)

    def _check_answers(self) -> None:
        for call in self._calls:
            if not call.answered:
                raise GatewayError(
                    errors.INVALID_VALUE,
                    f"'{call.where}' (id '{call.client_id}') has no result: a message of role tool with this "
                    "tool_call_id must follow the assistant's message.",
                    param=call.where,
                )

    # other parts

    def _part(self, blocks: list[Block], part: Part, where: str) -> None:
        match part:
            case Text():
                _add_text(blocks, part.text, part.cache)
            case Refused():
                _add_text(blocks, part.text, None)
            case Image():
                if part.detail not in (None, "auto"):
                    self._omissions.tuning(f"{where}.image_url.detail")
                blocks.append(_marked(self._media(part.source, None, where, image=True), part.cache))
            case Document():
                blocks.append(_marked(self._document(part, where), part.cache))
            case Audio():
                raise refused(self._target, where, "Audio is not taken")
            case _:
                raise GatewayError(errors.INVALID_VALUE, f"'{where}' cannot stand in this message.", param=where)

    def _document(self, part: Document, where: str) -> Block:
        block = self._media(part.source, part.title or part.filename, where, image=False)
        described: Block = {}
        if part.context:
            described["context"] = part.context
        if part.citations is not None:
            described["citations"] = {"enabled": part.citations}
        if block["type"] == "document":
            return block | described
        for name in described:
            self._omissions.tuning(f"{where}.{name}", "is not taken for an image")
        return block

    def _media(self, source: MediaSource, title: str | None, where: str, *, image: bool) -> Block:
        """An image or a document, whichever its bytes are."""
        match source:
            case Bytes():
                kind = source.media_type
                if kind in _IMAGE_TYPES:
                    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": source.base64}}
                spelt: Block = {"type": "base64", "media_type": kind, "data": source.base64}
                if kind.startswith("text/") or kind in _TEXT_TYPES:
                    spelt = {"type": "text", "media_type": "text/plain", "data": _decoded(source.base64, where)}
                elif kind != "application/pdf":
                    raise refused(
                        self._target,
                        where,
                        f"A file of type {kind[:60]!r} is not taken (JPEG, PNG, GIF, WebP, PDF and text are)",
                    )
                return _document(spelt, title)
            case Url():
                if not source.url.lower().startswith("https://"):
                    raise refused(
                        self._target,
                        where,
                        "A URL other than https:// is not taken (a data URL with the bytes in base64 is)",
                    )
                spelt = {"type": "url", "url": source.url}
            case FileId():
                spelt = {"type": "file", "file_id": source.id}
            case _:
                assert_never(source)
        return {"type": "image", "source": spelt} if image else _document(spelt, title)

    # all of them

    def finish(self) -> Turns:
        self._check_answers()
        for _, where in self._shown:
            self._omissions.history(where)
        for turn in self._turns:
            while turn.role == "assistant" and turn.blocks and turn.blocks[-1]["type"] in _THINKING:
                turn.blocks.pop()  # an answer that was cut off while the model thought: the API refuses to have it back
                self._omissions.history(turn.thoughts)
        prefill = None
        if self._turns and self._turns[-1].role == "assistant":
            if self._blank is not None:  # leaving it out would make the answer before it the beginning of the next
                where = f"messages.{self._blank}"
                raise GatewayError(errors.INVALID_VALUE, f"'{where}' is empty.", param=f"{where}.content")
            prefill = self._prefill()
        messages: list[Block] = []
        for turn in self._turns:
            if not turn.content:
                continue
            if messages and messages[-1]["role"] == turn.role:  # what stood between them said nothing
                messages[-1]["content"] += turn.content
            else:
                messages.append({"role": turn.role, "content": turn.content})
        if not messages and self._system:  # a system prompt alone: it is all that is said
            messages.append({"role": "user", "content": self._system})
            self._system = []
        if not messages:
            raise GatewayError(errors.INVALID_VALUE, "'messages' say nothing: all of them are empty.", param="messages")
        return Turns(self._system, messages, prefill, self._loop_without_thought())

    def _prefill(self) -> str | None:
        """Where the beginning of the answer stands, if the last turn is one; the API wants no blank at its end."""
        last = self._turns[-1]
        if not last.blocks or last.blocks[-1]["type"].endswith(SERVER_BLOCKS):  # a paused turn: it may go on everywhere
            return None
        last.blocks[-1]["text"] = last.blocks[-1]["text"].rstrip()
        return f"messages.{last.where}"

    def _loop_without_thought(self) -> bool:
        """Budgeted thinking cannot go on in the middle of a turn that has none of the earlier thought in it."""
        if not self._turns or self._turns[-1].role != "user" or not self._turns[-1].results:
            return False
        for turn in reversed(self._turns):
            if turn.role == "user" and not turn.results:
                break
            if any(block["type"] in _THINKING for block in turn.blocks):
                return False
        return True


def _says_something(part: Part) -> bool:
    return bool(part.text.strip()) if isinstance(part, Text | Refused) else True


def _add_text(blocks: list[Block], text: str, cache: CacheMark | None) -> None:
    """Text, unless it is blank, which the API refuses; the cache mark of a blank goes to what stands before it."""
    if text.strip():
        blocks.append(_marked({"type": "text", "text": text}, cache))
    elif blocks and "cache_control" not in blocks[-1] and blocks[-1]["type"] not in _THINKING:
        _marked(blocks[-1], cache)


def _thought(part: Reasoning) -> Block | None:
    if part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if not part.signature:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _document(source: Block, title: str | None) -> Block:
    block: Block = {"type": "document", "source": source}
    if title:
        block["title"] = title
    return block


def _decoded(data: str, where: str) -> str:
    try:
        return base64.b64decode(data, validate=False).decode()
    except (binascii.Error, ValueError) as error:
        raise GatewayError(
            errors.INVALID_VALUE, f"'{where}' says that it is text, but it is not UTF-8 in base64.", param=where
        ) from error


def _marked(block: Block, cache: CacheMark | None) -> Block:
    if cache is not None:
        block["cache_control"] = cache_control(cache)
    return block


def cache_control(mark: CacheMark) -> Block:
    """A cache mark as Anthropic spells it."""
    return {"type": "ephemeral"} if mark.ttl is None else {"type": "ephemeral", "ttl": mark.ttl}
