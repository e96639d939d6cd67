"""Tools under names that a provider takes, and back.

Clients' tools have the names that their servers give them, with dots and slashes, longer than some providers take. A
name that fits goes as it is. Any other gets one that does, for this request: odd characters become ``_``, and where
that is too long or already somebody's, a digest of the client's name ends it. No two tools of a request share a name,
and the same tools get the same names every time, whatever their order. The definitions, the choice among them, the
calls and the results of the history change together, and the answer's calls are named back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from inferxgate import errors
from inferxgate.canonical.conversation import Conversation, Message, Part, ToolResult, ToolUse
from inferxgate.errors import GatewayError
from inferxgate.values import dataclass

JSON_ANSWER_TOOL = "inferxgate_json_answer"
"""The tool that a model is made to call where its answer must be JSON and it has no other way to promise that."""
JSON_ANSWER_DESCRIPTION = (
    "Gives the final answer, which has to be a JSON object. Call it instead of writing the answer as text: its input "
    "is the whole answer, with the properties that the conversation asks for."
)

_LONGEST_NEW = 64
"""Characters of a name that is made here: every provider takes as many."""
_DIGEST = 8


@dataclass(frozen=True, slots=True)
class NameRule:
    """What a provider takes as the name of a tool."""

    taken: re.Pattern[str]
    odd: re.Pattern[str]
    """A character that no name may have."""
    reserved: frozenset[str] = frozenset()
    """Names that mean something else in this dialect."""

    def fits(self, name: str) -> bool:
        return self.taken.fullmatch(name) is not None and name not in self.reserved


def fit_tool_names(conversation: Conversation, rule: NameRule) -> tuple[Conversation, Mapping[str, str]]:
    """The conversation with names that fit, and the client's name for each that was changed.

    Raises ``GatewayError`` (400) for a tool without a name.
    """
    for index, tool in enumerate(conversation.tools):
        if not tool.name:
            where = f"tools.{index}.function.name"
            raise GatewayError(errors.INVALID_VALUE, f"'{where}' is empty.", param=where)
    names = set(_names(conversation))
    new: dict[str, str] = {}
    used = {name for name in names if rule.fits(name)}
    for name in sorted(names - used):
        new[name] = _fitting(name, rule, used)
        used.add(new[name])
    if not new:
        return conversation, {}
    changed = replace(
        conversation,
        messages=tuple(_renamed(message, new) for message in conversation.messages),
        tools=tuple(replace(tool, name=new.get(tool.name, tool.name)) for tool in conversation.tools),
    )
    if (choice := conversation.tool_choice) is not None:
        changed = replace(
            changed, tool_choice=replace(choice, names=tuple(new.get(name, name) for name in choice.names))
        )
    return changed, {fitted: name for name, fitted in new.items()}


def _names(conversation: Conversation) -> Iterator[str]:
    """All that name a tool. A choice of one that is not there keeps its name, for the error that says so."""
    for tool in conversation.tools:
        yield tool.name
    for message in conversation.messages:
        for part in message.parts:
            if isinstance(part, ToolUse):
                yield part.name


def _fitting(name: str, rule: NameRule, used: set[str]) -> str:
    plain = rule.odd.sub("_", name)
    plain = plain if rule.taken.fullmatch(plain[:1]) else f"_{plain}"
    if len(plain) <= _LONGEST_NEW and plain not in used and rule.fits(plain):
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    digits = _DIGEST
    while (found := f"{plain[: _LONGEST_NEW - 1 - digits]}_{digest[:digits]}") in used:
        digits += 1
    return found


def _renamed(message: Message, new: Mapping[str, str]) -> Message:
    if not any(isinstance(part, ToolUse | ToolResult) for part in message.parts):
        return message
    return replace(message, parts=tuple(_part(part, new) for part in message.parts))


def _part(part: Part, new: Mapping[str, str]) -> Part:
    match part:
        case ToolUse():
            return replace(part, name=new.get(part.name, part.name))
        case ToolResult() if part.name is not None:
            return replace(part, name=new.get(part.name, part.name))
        case _:
            return part
