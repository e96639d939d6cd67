"""Reasoning state of an answer: what of it has to come back with the next turn, and what it will be known by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from inferxgate.canonical.chat import Choice
from inferxgate.dialects.openai_state import block_word
from inferxgate.gateway.routing import Target
from inferxgate.workers.reasoning import Maker, Turn

_MOST_MARKS = 16
"""Of one answer. Any of them tells its maker."""


def maker_of(target: Target) -> Maker:
    """Who answers when a target is asked."""
    return Maker(target.provider.name, target.provider.credential, target.model)


def mark_of(word: str) -> str:
    """What a piece of opaque state goes by, so that nothing of it need be kept."""
    return hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def marks_of(words: Iterable[str]) -> tuple[str, ...]:
    """The marks of an answer's state."""
    return tuple(dict.fromkeys(mark_of(word) for word in words))[:_MOST_MARKS]


def turn_of(choice: Choice, maker: Maker) -> Turn | None:
    """What is to be kept of a choice; None where it has no opaque state.

    The thoughts themselves have to come back only with the calls they led to: without calls none of them is kept.
    """
    words = [word for word in _words(choice) if word]
    if not words:
        return None
    signatures = {call.id: call.signature for _, call in sorted(choice.tool_calls.items())}
    blocks = tuple(
        (thought.text, thought.signature, thought.redacted, thought.thought_signature)
        for _, thought in sorted(choice.thoughts.items())
        if signatures and (thought.signature or thought.redacted or thought.thought_signature)
    )
    return Turn(maker, blocks, signatures, marks_of(words))


def _words(choice: Choice) -> Iterator[str | None]:
    for _, thought in sorted(choice.thoughts.items()):
        yield from (thought.signature, thought.redacted, thought.thought_signature)
    yield choice.text_signature
    yield from (call.signature for _, call in sorted(choice.tool_calls.items()))
    yield from (image.signature for image in choice.images)
    yield from (block_word(server.block) for server in choice.server_blocks)
