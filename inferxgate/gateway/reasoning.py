"""Reasoning state across turns: put away with an answer, put back into a request whose client left it out.

The carriers are those that a client could have used itself (``thinking_blocks`` on the message,
``extra_content.google.thought_signature`` on the call), so dialects see no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from inferxgate.canonical.chat import ChatRequest, Choice, Thought
from inferxgate.dialects.openai_answers import thinking_block
from inferxgate.workers.reasoning import Thoughts, Turn

Json = dict[str, Any]


def turn_of(choice: Choice, provider: str) -> Turn | None:
    """What has to come back with the tool calls of a choice; None where nothing has to."""
    blocks = tuple(
        (thought.text, thought.signature, thought.redacted, thought.thought_signature)
        for _, thought in sorted(choice.thoughts.items())
        if thought.signature or thought.redacted or thought.thought_signature
    )
    signatures = {call.id: call.signature for _, call in sorted(choice.tool_calls.items())}
    if not signatures or not (blocks or any(signatures.values())):
        return None
    return Turn(provider, blocks, signatures)


def restored(request: ChatRequest, provider: str, recall: Callable[[str], Thoughts | None]) -> ChatRequest:
    """The request with the thoughts that ``provider`` signed put back where its client left them out.

    Nothing is looked up for calls that carry their thought; a request without gaps is returned as it is.
    """
    messages = request.source.body["messages"]
    mended = [_mended(message, provider, recall) for message in messages]
    if all(new is old for new, old in zip(mended, messages, strict=True)):
        return request
    body = {**request.source.body, "messages": mended}
    return replace(request, source=replace(request.source, body=body))


def _mended(message: Json, provider: str, recall: Callable[[str], Thoughts | None]) -> Json:
    calls = message.get("tool_calls")
    if message.get("role") != "assistant" or not isinstance(calls, list):
        return message
    new: Json = dict(message)
    new["tool_calls"] = list(calls)
    has_thought = _has_thought(message.get("thinking_blocks"))
    for index, call in enumerate(calls):
        if not isinstance(call, dict) or not isinstance(call.get("id"), str):
            continue
        if has_thought and _has_signature(call):
            continue
        thoughts = recall(call["id"])
        if thoughts is None or thoughts.provider != provider:
            continue
        if thoughts.blocks and not has_thought:
            new["thinking_blocks"] = [thinking_block(Thought(*block)) for block in thoughts.blocks]
        if thoughts.signature and not _has_signature(call):
            new["tool_calls"][index] = {**call, "extra_content": {"google": {"thought_signature": thoughts.signature}}}
    return message if new == message else new


def _has_thought(blocks: object) -> bool:
    """Whether what came back has a signature in it: text alone, all that some clients keep, is refused."""
    return isinstance(blocks, list) and any(
        isinstance(block, dict) and (block.get("signature") or block.get("data") or _has_signature(block))
        for block in blocks
    )


def _has_signature(carrier: Mapping[str, Any]) -> bool:
    return bool(carrier.get("extra_content") or carrier.get("provider_specific_fields"))
