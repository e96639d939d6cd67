"""What a recorded OpenAI-shaped answer says, read from the recording alone: no code is shared with the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Said:
    """One choice of an answer."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Index to [id, name, arguments]."""
    reason: str | None = None


@dataclass
class Reading:
    """A whole answer, or all of a stream."""

    choices: dict[int, Said] = field(default_factory=dict)
    usage: dict[str, Any] | None = None


def of_whole(body: dict[str, Any]) -> Reading:
    """An answer's JSON."""
    reading = Reading(usage=body.get("usage") or None)
    for number, choice in enumerate(body["choices"]):
        said = reading.choices.setdefault(choice.get("index", number), Said())
        add(said, choice.get("message") or {})
        said.reason = choice.get("finish_reason")
    return reading


def of_stream(events: Iterator[dict[str, Any]]) -> Reading:
    """A stream's events, in order."""
    reading = Reading()
    for event in events:
        reading.usage = event.get("usage") or reading.usage
        for choice in event.get("choices") or ():
            said = reading.choices.setdefault(choice.get("index", 0), Said())
            add(said, choice.get("delta") or {})
            said.reason = choice.get("finish_reason") or said.reason
    return reading


def add(said: Said, message: dict[str, Any]) -> None:
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(json.dumps(part, sort_keys=True) for part in content)
    said.text += content or ""
    said.reasoning += message.get("reasoning_content") or message.get("reasoning") or ""
    said.refusal += message.get("refusal") or ""
    for number, call in enumerate(message.get("tool_calls") or ()):
        entry = said.calls.setdefault(
            call.get("index", number) if call.get("index") is not None else number, ["", "", ""]
        )
        function = call.get("function") or {}
        entry[0] = call.get("id") or entry[0]
        entry[1] = function.get("name") or entry[1]
        entry[2] += function.get("arguments") or ""


def events_of(text: str) -> Iterator[dict[str, Any]]:
    """The JSON of each event of a recorded stream. Recorded streams have one line of data an event."""
    for line in text.splitlines():
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            if data.startswith("[DONE]"):
                return
            if data:
                yield json.loads(data)
