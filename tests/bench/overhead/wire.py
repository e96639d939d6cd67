"""The bytes of the benchmark: what is asked, and what the provider answers; all made once, before anything is measured.

The answers have the fields and the length that the providers' own have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

CHUNKS = 50
"""Pieces of text in a streamed answer."""
FEW_CHUNKS = 3
"""Pieces where the time to the first is measured."""
PACE_SECONDS = 0.01
"""From one event of a paced answer to the next."""
PROMPT_BYTES = 300_000

OPENAI_MODEL = "gpt-4o-mini"
ANTHROPIC_MODEL = "claude-sonnet-4-5"

PATHS: Mapping[str, str] = {
    "whole": "/whole/v1/chat/completions",
    "burst": "/burst/v1/chat/completions",
    "paced": "/paced/v1/chat/completions",
    "first": "/first/v1/chat/completions",
    "translated-whole": "/whole/v1/messages",
    "translated-burst": "/burst/v1/messages",
    "translated-paced": "/paced/v1/messages",
}
"""The names of models that clients ask for, and where the provider answers them, in which way."""

_TEXT = (
    "A gateway sits between your application and the providers of models: it knows who asks, chooses the way, sends the"
    " request on, and counts the tokens that were used for it."
)
_WORDS = ("A", " gateway", " sits", " between", " your", " application", " and", " the", " model")
_TOKENS_IN, _TOKENS_OUT = 42, 50


def dumps(value: object) -> bytes:
    """Without a space, as providers and their packages write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def request(model: str, *, key: str, path: str = "/v1/chat/completions", prompt_bytes: int = 0) -> bytes:
    """A whole HTTP request for a model of ``PATHS``, streamed where its name says so."""
    question = "Explain in two sentences what a gateway for language models does, and why a team would run one. "
    more = "Lorem ipsum dolor sit amet. " * (prompt_bytes // 28)
    body: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a technical writer of few words."},
            {"role": "user", "content": question + more},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if is_streamed(model):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = dumps(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def is_streamed(model: str) -> bool:
    return not model.endswith("whole")


def texts_of(model: str) -> int:
    """Pieces of text in the answer; 0: it is not streamed."""
    if not is_streamed(model):
        return 0
    return FEW_CHUNKS if model == "first" else CHUNKS


# --- what the provider answers


def openai_answer() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    answer = {
        "id": "chatcmpl-C7xQm3GdR5kT9vLwYbN2hJpZs8aEf",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": f"{OPENAI_MODEL}-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _openai_usage(),
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    return dumps(answer)


def openai_events(chunks: int) -> Sequence[bytes]:
    base = {
        "id": "chatcmpl-C7xQm3GdR5kT9vLwYbN2hJpZs8aEf",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": f"{OPENAI_MODEL}-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }

    def chunk(delta: Mapping[str, object], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _data(base | {"choices": [choice], "usage": None})

    first = chunk({"role": "assistant", "content": _word(0), "refusal": None})
    usage = _data(base | {"choices": [], "usage": _openai_usage()})
    later = [chunk({"content": _word(number)}) for number in range(1, chunks)]
    return [first, *later, chunk({}, "stop"), usage + b"data: [DONE]\n\n"]


def anthropic_answer() -> bytes:
    content = [{"type": "text", "text": _TEXT}]
    usage = _anthropic_usage(_TOKENS_OUT)
    return dumps(_anthropic_message() | {"content": content, "stop_reason": "end_turn", "usage": usage})


def anthropic_events(chunks: int) -> Sequence[bytes]:
    def delta(text: str) -> bytes:
        return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    begin = _event("message_start", message=_anthropic_message())
    begin += _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    end = _event("content_block_stop", index=0)
    end += _event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": _TOKENS_OUT},
    )
    return [begin, *(delta(_word(number)) for number in range(chunks)), end + _event("message_stop")]


def whole_response(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream_pieces(events: Sequence[bytes]) -> Sequence[bytes]:
    """What is written at each step: the head with the first event, the end with the last."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    pieces[0] = head + pieces[0]
    pieces[-1] += b"0\r\n\r\n"
    return pieces


def _openai_usage() -> dict[str, object]:
    return {
        "prompt_tokens": _TOKENS_IN,
        "completion_tokens": _TOKENS_OUT,
        "total_tokens": _TOKENS_IN + _TOKENS_OUT,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _anthropic_usage(output_tokens: int) -> dict[str, int]:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": _TOKENS_IN, **cached, "output_tokens": output_tokens}


def _anthropic_message() -> dict[str, object]:
    return {
        "id": "msg_01Qd8Zk5TnVbW2xGmLcR7yHs",
        "type": "message",
        "role": "assistant",
        "model": ANTHROPIC_MODEL,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _anthropic_usage(1),
    }


def _word(number: int) -> str:
    return _WORDS[number % len(_WORDS)]


def _data(value: object) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def _event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})
