"""A stream as OpenAI's own Python SDK joins it: what ``client.chat.completions.stream(...)`` makes of its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

LISTS = ("thinking_blocks", "annotations", "citations", "images")
"""Lists of a message that come in pieces, as ``tool_calls`` do."""


def accumulated(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The completion that the SDK makes of a stream's events. Raises what the SDK raises."""
    state = ChatCompletionStreamState()
    for event in events:
        chunk = ChatCompletionChunk.construct(**event)
        list(state.handle_chunk(chunk))
    # not `get_final_completion`, which raises wherever an answer was cut off by a limit or a filter
    return state.current_completion_snapshot.model_dump(mode="json", warnings=False)


def messages_of(completion: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Each choice's message and finish reason, without what only one of the two forms of an answer spells out: fields
    that say nothing, and the places of a list's entries."""
    return {choice["index"]: _plain(choice) for choice in completion["choices"]}


def _plain(choice: dict[str, Any]) -> dict[str, Any]:
    message = {name: value for name, value in choice["message"].items() if value and name != "parsed"}
    for name in LISTS:
        if name in message:
            message[name] = [_without(entry, "index") for entry in message[name]]
    if blocks := message.get("extra_content", {}).get("anthropic", {}).get("blocks"):
        entries = [_without(entry, "index") for entry in blocks]
        message["extra_content"] = {**message["extra_content"], "anthropic": {"blocks": entries}}
    if "tool_calls" in message:
        message["tool_calls"] = [
            _without(call, "index") | {"function": _without(call["function"], "parsed_arguments")}
            for call in message["tool_calls"]
        ]
    return message | {"finish_reason": choice["finish_reason"], "logprobs": choice.get("logprobs")}


def _without(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}
