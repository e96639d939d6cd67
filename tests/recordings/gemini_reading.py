"""What a recorded Gemini answer says, in a chat completion's terms, read from the recording alone.

No code is shared with the package. Where ``google-genai`` can parse an answer, the reading is held against what that
package makes of it (``sdk_reading``).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.genai import types

Json = dict[str, Any]

FAILED = {
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MALFORMED_RESPONSE",
    "MISSING_THOUGHT_SIGNATURE",
}
"""Finish reasons that are no answer; the client gets an error."""


@dataclass
class Call:
    name: str
    arguments: Json
    id: str | None
    """None: the provider gave none, so any will do that is the same each time."""
    signature: str | None


@dataclass
class Said:
    """One candidate."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    images: list[tuple[str, str]] = field(default_factory=list)
    cited: list[tuple[str | None, str | None, str | None]] = field(default_factory=list)
    """(address, title, the words of the answer that it stands for), in order."""
    signature: str | None = None
    """Of the text."""
    tokens: list[tuple[str, float, int]] = field(default_factory=list)
    """(token, logarithm of its probability, number of those at its place that are told)."""
    reason: str | None = None
    failed: str | None = None


@dataclass
class Reading:
    """A whole answer, or all of a stream."""

    choices: dict[int, Said] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    """prompt_tokens, completion_tokens, cached_tokens and reasoning_tokens."""
    blocked: str | None = None

    @property
    def failed(self) -> str | None:
        return next((said.failed for said in self.choices.values() if said.failed), None)


def bodies_of(response: Json) -> list[Json]:
    """The answer's bodies, in order: one, or one for each event of a stream."""
    if response["text"] is not None:
        return list(events_of(response["text"]))
    body = response["body"]
    return body if isinstance(body, list) else [body]


def events_of(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data:") and line.removeprefix("data:").strip():
            yield json.loads(line.removeprefix("data:"))


def of_bodies(bodies: list[Json]) -> Reading:
    reading = Reading()
    for body in bodies:
        for number, candidate in enumerate(body.get("candidates") or ()):
            said = reading.choices.setdefault(candidate.get("index", number), Said())
            for part in (candidate.get("content") or {}).get("parts") or ():
                add_part(said, part)
            add_sources(said, candidate.get("groundingMetadata") or {})
            add_tokens(said, candidate.get("logprobsResult") or {})
            finish(said, candidate.get("finishReason"))
        reading.blocked = (body.get("promptFeedback") or {}).get("blockReason") or reading.blocked
        usage = body.get("usageMetadata") or {}
        if "promptTokenCount" in usage or "candidatesTokenCount" in usage:
            reading.usage = usage_of(usage)
    return reading


def add_part(said: Said, part: Json) -> None:
    signature = part.get("thoughtSignature")
    match part:
        case {"functionCall": call}:
            said.calls.append(Call(call["name"], call.get("args") or {}, call.get("id"), signature))
        case {"thought": True}:
            said.reasoning += part.get("text", "")
        case {"inlineData": data}:
            said.images.append((data["mimeType"], data["data"]))
        case {"executableCode": code}:
            said.text += f"\n```{code['language'].lower()}\n{code['code'].rstrip(chr(10))}\n```\n"
        case {"codeExecutionResult": {"output": output}}:
            said.text += f"\n```\n{output.rstrip(chr(10))}\n```\n"
        case {"text": str(text)}:
            said.text += text
            said.signature = signature or said.signature


def add_sources(said: Said, grounding: Json) -> None:
    chunks = grounding.get("groundingChunks") or []
    used = set()
    for support in grounding.get("groundingSupports") or ():
        for index in support["groundingChunkIndices"]:
            used.add(index)
            said.cited.append((*source_of(chunks[index]), support["segment"]["text"]))
    said.cited += [(*source_of(chunk), None) for index, chunk in enumerate(chunks) if index not in used]


def add_tokens(said: Said, told: Json) -> None:
    for chosen, place in zip(told.get("chosenCandidates") or (), told.get("topCandidates") or (), strict=True):
        said.tokens.append((chosen["token"], chosen["logProbability"], len(place["candidates"])))


def source_of(chunk: Json) -> tuple[str | None, str | None]:
    source = chunk.get("web") or chunk.get("retrievedContext") or chunk.get("maps") or {}
    return source.get("uri"), source.get("title")


def finish(said: Said, reason: str | int | None) -> None:
    if reason is None:
        return
    if reason in FAILED:
        said.failed = str(reason)
    told = {"STOP": "stop", 1: "stop", "MAX_TOKENS": "length", 2: "length"}.get(reason, "content_filter")
    said.reason = "tool_calls" if told == "stop" and said.calls else told


def usage_of(usage: Json) -> dict[str, int]:
    thought = usage.get("thoughtsTokenCount", 0)
    return {
        "prompt_tokens": usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0),
        "completion_tokens": usage.get("candidatesTokenCount", 0) + thought,
        "cached_tokens": usage.get("cachedContentTokenCount", 0),
        "reasoning_tokens": thought,
    }


def sdk_reading(bodies: list[Json]) -> list[types.GenerateContentResponse] | None:
    """What ``google-genai`` parses; None where it cannot (enumerations as numbers, of an older client)."""
    parsed = []
    for body in bodies:
        usage = {name: value for name, value in body.get("usageMetadata", {}).items() if name != "serviceTier"}
        try:  # the package itself takes serviceTier out before it validates
            parsed.append(types.GenerateContentResponse.model_validate({**body, "usageMetadata": usage}))
        except (ValueError, AttributeError):
            return None
    return parsed


def same_signature(one: str | None, other: bytes | None) -> bool:
    """Whether a signature on the wire is the one that the package decoded; some were taken out of the recordings."""
    if one is not None and "REDACTED" in one:
        return True
    return (base64.b64decode(one) if one else None) == other
