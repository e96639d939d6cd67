"""The answer as an OpenAI client reads it: whole or streamed, from events as they came or from what they mean.

An event of the client's own dialect goes out as the provider wrote it; a translated one is written from its chunks.
What OpenAI's form has no place for travels in the fields that clients of this field already know:
``reasoning_content`` and ``thinking_blocks`` for thought and its signatures,
``extra_content.google.thought_signature`` for Gemini's, ``annotations`` for citations of URLs, ``citations`` for those
of documents, ``images`` for images, ``extra_content.anthropic.blocks`` for what tools that Anthropic runs itself said.

In a translated stream every entry of such a list has an ``index``, its place in the message's list, as those of
``tool_calls`` have: OpenAI's SDKs, and who else joins deltas as they do, then make the whole answer's message of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

import orjson

from inferxgate.canonical.chat import (
    ChatResponse,
    Choice,
    Chunk,
    Citation,
    Finish,
    ImageOutput,
    Logprobs,
    Piece,
    ReasoningDelta,
    ReasoningSeal,
    RefusalDelta,
    ServerBlock,
    Start,
    TextDelta,
    TextSeal,
    Thought,
    Token,
    ToolCall,
    ToolCallDelta,
    UsageReport,
)
from inferxgate.canonical.usage import Usage
from inferxgate.dialects.failures import dumps
from inferxgate.dialects.protocol import Event
from inferxgate.framing.sse import build_event

DONE = b"data: [DONE]\n\n"
_TEXT = b'"content":'
_NO_TEXT = b'"content":""'

Json = dict[str, Any]


# --- whole answers ------------------------------------------------------------------------------------------------


def build_response(response: ChatResponse, *, answer_id: str, created_s: int, model: str) -> Json:
    """A whole answer. ``answer_id`` and ``model`` stand where the provider gave none; ``created_s`` is Unix seconds."""
    answer: Json = {
        "id": response.id or answer_id,
        "object": "chat.completion",
        "created": created_s,
        "model": response.model or model,
        "choices": [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": _logprobs(choice.logprobs),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in sorted(response.choices.items())
        ],
    }
    if response.usage is not None:
        answer["usage"] = build_usage(response.usage)
    return answer


def _message(choice: Choice) -> Json:
    message: Json = {"role": "assistant", "content": choice.text or None, "refusal": choice.refusal or None}
    if not choice.text and not choice.tool_calls and not choice.refusal:
        message["content"] = ""
    if choice.reasoning:
        message["reasoning_content"] = choice.reasoning
    if choice.thoughts:
        message["thinking_blocks"] = [thinking_block(thought) for _, thought in sorted(choice.thoughts.items())]
    if choice.tool_calls:
        message["tool_calls"] = [_tool_call(call) for _, call in sorted(choice.tool_calls.items())]
    for citation in choice.citations:
        name, value = _cited(citation)
        message.setdefault(name, []).append(value)
    if choice.images:
        message["images"] = [_image(image) for image in choice.images]
    if choice.text_signature:
        message["extra_content"] = _google(choice.text_signature)
    if choice.server_blocks:
        message.setdefault("extra_content", {}).update(_anthropic([_server_block(b) for b in choice.server_blocks]))
    return message


def thinking_block(thought: Thought) -> Json:
    """An entry of ``thinking_blocks``. Its ``signature`` is Anthropic's; Gemini's stands where its others do."""
    if thought.redacted is not None:
        return {"type": "redacted_thinking", "data": thought.redacted}
    block: Json = {"type": "thinking", "thinking": thought.text, "signature": thought.signature or ""}
    if thought.thought_signature is not None:
        block["extra_content"] = _google(thought.thought_signature)
    return block


def _tool_call(call: ToolCall) -> Json:
    built: Json = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    if call.signature:
        built["extra_content"] = _google(call.signature)
    return built


def _google(signature: str) -> Json:
    return {"google": {"thought_signature": signature}}


def _anthropic(blocks: list[Json]) -> Json:
    return {"anthropic": {"blocks": blocks}}


def _server_block(server: ServerBlock) -> Json:
    """A block, and how much of the message's other lists and text stood before it."""
    before = {"thinking_blocks": server.thoughts, "content": server.characters, "tool_calls": server.calls}
    return {"block": server.block, "before": before}


def _cited(citation: Citation) -> tuple[str, Json]:
    """The field that a citation goes to, and its value: OpenAI's annotations know only URLs."""
    if citation.url is None:
        return "citations", {"title": citation.title, "text": citation.text}
    return "annotations", {
        "type": "url_citation",
        "url_citation": {
            "url": citation.url,
            "title": citation.title or "",
            "start_index": citation.start_index or 0,
            "end_index": citation.end_index or 0,
        },
    }


def _image(image: ImageOutput) -> Json:
    built: Json = {"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{image.base64}"}}
    if image.signature:
        built["extra_content"] = _google(image.signature)
    return built


def _logprobs(tokens: Sequence[Token]) -> Json | None:
    if not tokens:
        return None
    return {
        "content": [_token(token) | {"top_logprobs": [_token(other) for other in token.top]} for token in tokens],
        "refusal": None,
    }


def _token(token: Token) -> Json:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}


def build_usage(usage: Usage) -> Json:
    """OpenAI's usage: cached tokens count as prompt, reasoning as completion."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
    }


# --- streams ------------------------------------------------------------------------------------------------------


class StreamBuilder:
    """Writes a stream for one client: usage only where asked for and then last."""

    def __init__(self, *, include_usage: bool, answer_id: str = "", created_s: int = 0, model: str = "") -> None:
        """``answer_id``, ``created_s`` and ``model`` stand in translated events, where the provider gave none."""
        self._include_usage = include_usage
        self._base: Json = {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
        }
        self._begun: dict[int, _Deltas] = {}
        self._reasons: dict[int, str] = {}
        """Finish reasons of translated choices. They go out last: Gemini may give one before the last of the text."""
        self._seals: dict[int, TextSeal] = {}
        """Signatures of translated texts: the last is the true one, and whoever joins deltas would string them all."""
        self._usage_event: Json | None = None
        self._frames: dict[int, tuple[str, str, bytes, bytes]] = {}
        """By choice, what stands before and after a text, for the answer's id and model."""

    def build_all(self, events: Iterable[Event], pieces: list[bytes]) -> None:
        """Append the bytes of each event; where one cannot be written (``GatewayError``), those before it stand."""
        for event in events:
            raw = event.raw
            if event.plain and raw is not None and "usage" not in event.body and b"\n" not in raw and b"\r" not in raw:
                pieces.append(b"data: %b\n\n" % raw)
            else:
                pieces.append(self.build(event))

    def build(self, event: Event) -> bytes:
        """The bytes for one event, possibly none."""
        raw = event.raw
        if raw is None:
            return b"".join([self._translated(chunk) for chunk in event.chunks])
        return self._forwarded(event, raw)

    def finish(self) -> bytes:
        """The last bytes of a stream that ended well."""
        seals = b"".join([self._choice(index, seal, None) for index, seal in sorted(self._seals.items())])
        ends = seals + b"".join([self._choice(index, None, reason) for index, reason in sorted(self._reasons.items())])
        if self._include_usage and self._usage_event is not None:
            return ends + build_event(dumps(self._usage_event)) + DONE
        return ends + DONE

    def _forwarded(self, event: Event, raw: bytes) -> bytes:
        """An event of the client's own dialect.

        One with empty ``choices``, or null, is never passed on by itself: it is the usage, which goes last. An opening
        without either, at which clients have stumbled, does not come this far (see ``StreamParser``).
        """
        body = event.body
        if not body.get("usage"):
            if "usage" in body and not self._include_usage:
                return build_event(_without_null_usage(raw, body))
            return build_event(raw)
        self._usage_event = {**body, "choices": []}
        if not body.get("choices"):
            return b""
        return build_event(_without_usage(body))

    def _translated(self, chunk: Chunk) -> bytes:
        if isinstance(chunk, TextDelta) and chunk.choice in self._begun:
            return self._text(chunk)
        match chunk:
            case Start():
                self._base["id"] = chunk.id or self._base["id"]
                self._base["model"] = chunk.model or self._base["model"]
                return b""
            case UsageReport():
                self._usage_event = {**self._base, "choices": [], "usage": build_usage(chunk.usage)}
                return b""
            case Finish():
                self._reasons[chunk.choice] = chunk.reason
                return b""
            case TextSeal():
                self._seals[chunk.choice] = chunk
                return b""
            case _:
                return self._choice(chunk.choice, chunk, None)

    def _text(self, chunk: TextDelta) -> bytes:
        """What nearly every event is, written around its text without being put together each time."""
        frame = self._frames.get(chunk.choice)
        if frame is None or frame[0] is not self._base["id"] or frame[1] is not self._base["model"]:
            choice = {"index": chunk.choice, "delta": {"content": ""}, "logprobs": None, "finish_reason": None}
            before, _, after = build_event(orjson.dumps({**self._base, "choices": [choice]})).rpartition(_NO_TEXT)
            frame = self._frames[chunk.choice] = (self._base["id"], self._base["model"], before, after)
        return b"".join((frame[2], _TEXT, orjson.dumps(chunk.text), frame[3]))

    def _choice(self, index: int, piece: Piece | None, reason: str | None) -> bytes:
        delta: Json = {}
        if (deltas := self._begun.get(index)) is None:
            deltas = self._begun[index] = _Deltas()
            delta = {"role": "assistant", "content": ""}
        logprobs = _logprobs(piece.tokens) if isinstance(piece, Logprobs) else None
        if piece is not None:
            delta |= deltas.delta(piece)
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return build_event(orjson.dumps({**self._base, "choices": [choice]}))


class _Deltas:
    """Writes the pieces of one choice; knows the place of each in the lists of its message."""

    def __init__(self) -> None:
        self._blocks: dict[int, int] = {}
        """The place of each block of thought. One that says nothing has none, so that there are no gaps."""
        self._entries: Counter[str] = Counter()

    def delta(self, piece: Piece) -> Json:
        match piece:
            case TextDelta():
                return {"content": piece.text}
            case ReasoningDelta():
                return {"reasoning_content": piece.text, "thinking_blocks": [self._thought(piece.block, piece.text)]}
            case ReasoningSeal(redacted=str(data)):
                index = self._blocks.setdefault(piece.block, len(self._blocks))
                return {"thinking_blocks": [{"index": index, "type": "redacted_thinking", "data": data}]}
            case ReasoningSeal():
                block = self._thought(piece.block, "")
                if piece.signature is not None:
                    block["signature"] = piece.signature
                if piece.thought_signature is not None:
                    block["extra_content"] = _google(piece.thought_signature)
                return {"thinking_blocks": [block]}
            case TextSeal():
                return {"extra_content": _google(piece.signature)}
            case RefusalDelta():
                return {"refusal": piece.text}
            case ToolCallDelta():
                return {"tool_calls": [_tool_delta(piece)]}
            case Citation():
                name, value = _cited(piece)
                return self._entry(name, value)
            case ImageOutput():
                return self._entry("images", _image(piece))
            case Logprobs():
                return {}  # they stand beside the delta
            case ServerBlock():
                return {"extra_content": _anthropic(self._entry("blocks", _server_block(piece))["blocks"])}
            case _:
                assert_never(piece)

    def _thought(self, block: int, text: str) -> Json:
        """A piece of a block of thought. The first has an empty signature, as a whole block without one has."""
        if (index := self._blocks.get(block)) is not None:
            return {"index": index, "type": "thinking", "thinking": text}
        self._blocks[block] = index = len(self._blocks)
        return {"index": index, "type": "thinking", "thinking": text, "signature": ""}

    def _entry(self, name: str, value: Json) -> Json:
        index = self._entries[name]
        self._entries[name] += 1
        return {name: [{"index": index, **value}]}


def _tool_delta(chunk: ToolCallDelta) -> Json:
    delta: Json = {"index": chunk.index}
    if chunk.id is not None:
        delta |= {"id": chunk.id, "type": "function"}
    delta["function"] = {"arguments": chunk.arguments}
    if chunk.name is not None:
        delta["function"]["name"] = chunk.name
    if chunk.signature is not None:
        delta["extra_content"] = _google(chunk.signature)
    return delta


def _without_usage(body: Mapping[str, Any]) -> bytes:
    return dumps({name: value for name, value in body.items() if name != "usage"})


def _without_null_usage(raw: bytes, body: Mapping[str, Any]) -> bytes:
    """An event without the null that OpenAI puts into every event once usage is asked for.

    Where it is surely the one at the top (there is no other), it is cut out of the raw bytes; that is the usual case.
    """
    if raw.count(b'"usage"') == 1 and b',"usage":null' in raw:
        return raw.replace(b',"usage":null', b"")
    return _without_usage(body)
