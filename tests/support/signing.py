"""Providers that sign what they think, and refuse what another model, or another credential, has signed.

Stricter than any of them: whatever is opaque is checked, in all turns; thoughts that a loop of tool calls began with
must be there; and no message may say nothing. Each asks for its tool twice, then says that it is done.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from tests.support.provider import FakeProvider, Reply, SeenRequest, error_body, json_reply, sse_reply

Json = dict[str, Any]

STAND_IN = base64.b64encode(b"skip_thought_signature_validator").decode()
TOOL: Json = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


class Refused(Exception):
    """What the provider does not take."""


class SigningProvider(FakeProvider):
    """Anthropic, Gemini and a host of OpenAI's dialect that encrypts its reasoning, at one address."""

    def __init__(self) -> None:
        super().__init__(self.answer_signed)
        self.down: dict[str, int] = {}
        """The status that a credential gets instead of an answer."""
        self.served: list[str] = []
        """The credentials with which answers were given, in their order."""
        self.refused: list[str] = []
        """Why requests were refused."""

    def answer_signed(self, request: SeenRequest) -> Reply:
        headers, body = request.headers, request.json()
        credential = headers.get("x-api-key") or headers.get("x-goog-api-key") or headers["authorization"][7:]
        if (status := self.down.get(credential)) is not None:
            return json_reply(error_body("down"), status=status, headers={"retry-after": "0"})
        speak = _claude if "/messages" in request.path else _gemini if ":" in request.path else _openai
        model = body.get("model") or request.path.rpartition("/")[2].partition(":")[0]
        try:
            whole, events = speak(body, f"{credential}/{model}", len(self.requests))
        except Refused as error:
            self.refused.append(str(error))
            return json_reply(error_body(str(error)), status=400)
        self.served.append(credential)
        streamed = body.get("stream") or "stream" in request.path
        return sse_reply(events, cuts=len(self.served)) if streamed else json_reply(whole)


def _check(*, holds: bool, why: str) -> None:
    if not holds:
        raise Refused(why)


def _signed(by: str, turn: int) -> str:
    return base64.b64encode(f"{by} signed {turn}".encode()).decode()


def _is_of(signature: object, by: str) -> bool:
    return isinstance(signature, str) and base64.b64decode(signature).decode().startswith(f"{by} signed ")


# --- Anthropic


def _claude(body: Json, by: str, answer: int) -> tuple[Json, list[Any]]:
    results, thinks, loop_thinks = 0, body.get("thinking", {}).get("type") == "enabled", None
    for number, message in enumerate(body["messages"]):
        _check(holds=bool(message["content"]), why=f"messages.{number} is empty")
        blocks = message["content"] if isinstance(message["content"], list) else []
        results += sum(block["type"] == "tool_result" for block in blocks)
        for block in blocks:
            if block["type"] in ("thinking", "redacted_thinking"):
                opaque = block.get("signature") or block.get("data")
                _check(holds=_is_of(opaque, by), why=f"messages.{number}: Invalid `signature` in `thinking` block")
        if message["role"] == "assistant" and loop_thinks is None:
            loop_thinks = blocks[0]["type"] in ("thinking", "redacted_thinking")
    _check(holds=loop_thinks is not False or not thinks, why="Expected `thinking`, but found `tool_use`")
    return _claude_says(by, results, answer, thinks=thinks)


def _claude_says(by: str, turn: int, answer: int, *, thinks: bool) -> tuple[Json, list[Any]]:
    content: list[Json] = [{"type": "text", "text": "done"}]
    if turn < 2:
        content = [{"type": "tool_use", "id": f"toolu_{answer}", "name": "look", "input": {"at": f"place {turn}"}}]
    if thinks:
        thought = {"type": "thinking", "thinking": f"thought {turn}", "signature": _signed(by, turn)}
        content = [thought, {"type": "redacted_thinking", "data": _signed(by, turn)}, *content]
    usage = {"input_tokens": 5, "output_tokens": 5}
    reason = "end_turn" if turn == 2 else "tool_use"
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "usage": usage}
    events: list[Any] = [{"type": "message_start", "message": {**head, "content": [], "stop_reason": None}}]
    for index, block in enumerate(content):
        events += _claude_block(index, block)
    events += [{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}, {"type": "message_stop"}]
    named = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    return {**head, "content": content, "stop_reason": reason}, named


def _claude_block(index: int, block: Json) -> Iterator[Json]:
    empty: Json = {"text": "", "thinking": "", "input": {}, "signature": ""}
    begun = {name: empty.get(name, value) for name, value in block.items()}
    yield {"type": "content_block_start", "index": index, "content_block": begun}
    deltas: dict[str, list[Json]] = {
        "text": [{"type": "text_delta", "text": block.get("text")}],
        "tool_use": [{"type": "input_json_delta", "partial_json": json.dumps(block.get("input"))}],
        "thinking": [
            {"type": "thinking_delta", "thinking": block.get("thinking")},
            {"type": "signature_delta", "signature": block.get("signature")},
        ],
        "redacted_thinking": [],
    }
    for delta in deltas[block["type"]]:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


# --- Gemini


def _gemini(body: Json, by: str, _: int) -> tuple[Json, list[Any]]:
    turn = 0
    for number, content in enumerate(body["contents"]):
        parts = content["parts"]
        _check(holds=bool(parts), why=f"contents.{number} is empty")
        turn += sum("functionResponse" in part for part in parts)
        calls = [part for part in parts if "functionCall" in part]
        missing = bool(calls) and "thoughtSignature" not in calls[0]
        _check(holds=not missing, why="Function call is missing a thought_signature")
        for part in parts:
            signature = part.get("thoughtSignature", STAND_IN)
            _check(holds=signature == STAND_IN or _is_of(signature, by), why="Thought signature is not valid")
    parts = [{"text": "done", "thoughtSignature": _signed(by, turn)}]
    if turn < 2:
        call = {"functionCall": {"name": "look", "args": {"at": f"place {turn}"}}}
        parts = [{"text": f"thought {turn}", "thought": True}, call | {"thoughtSignature": _signed(by, turn)}]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 10}
    whole = {"responseId": "r", "candidates": [candidate], "usageMetadata": usage}
    return whole, [whole]


# --- OpenAI's dialect


def _openai(body: Json, by: str, answer: int) -> tuple[Json, list[Any]]:
    turn = 0
    for number, message in enumerate(body["messages"]):
        others = json.dumps({**message, "reasoning_details": None}).replace('"signature": ""', "")
        _check(holds="signature" not in others, why=f"messages.{number} has signatures")
        _check(holds=bool(message.get("content") or message.get("tool_calls")), why=f"messages.{number} is empty")
        for detail in message.get("reasoning_details", ()):
            _check(holds=_is_of(detail["data"], by), why="The encrypted content could not be verified")
        turn += message["role"] == "tool"
    said: Json = {"role": "assistant", "content": "done" if turn == 2 else None}
    said["reasoning_details"] = [{"type": "reasoning.encrypted", "data": _signed(by, turn), "index": 0}]
    if turn < 2:
        function = {"name": "look", "arguments": json.dumps({"at": f"place {turn}"})}
        said["tool_calls"] = [{"index": 0, "id": f"call_{answer}", "type": "function", "function": function}]
    reason = "stop" if turn == 2 else "tool_calls"
    whole = {"id": "c", "object": "chat.completion", "created": 0, "model": "m"}
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    events = [
        {**whole, "choices": [{"index": 0, "delta": said, "finish_reason": None}]},
        {**whole, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]},
        "[DONE]",
    ]
    choice = {"index": 0, "message": said, "finish_reason": reason}
    return {**whole, "choices": [choice], "usage": usage}, events
