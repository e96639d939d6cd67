"""What models thought before they called a tool, kept for clients that do not bring it back.

Anthropic and Gemini demand the signed thought that led to a tool call back with the call's result, and refuse the turn
without it. Clients that know the fields return them; the many that drop unknown fields still return the call's id. So
the thought is kept under caller and id, for hours at most and within a bound of bytes, in memory only: it is the one
thing of a conversation's content that outlives its request.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What belongs to one tool call."""

    provider: str
    """The configured provider that signed it: no other one accepts it."""
    blocks: tuple[tuple[str, str | None, str | None, str | None], ...] = ()
    """Blocks of thought in their order: text, signature, opaque data in place of text, Gemini's signature."""
    signature: str | None = None
    """The call's own signature (Gemini)."""

    def size(self) -> int:
        """Bytes, roughly."""
        return 200 + sum(len(part or "") for block in self.blocks for part in block) + len(self.signature or "")


class ReasoningMemory:
    """A bounded map from caller and tool call id to thoughts."""

    def __init__(
        self, keep_seconds: float, *, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``keep_seconds`` 0 keeps nothing."""
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], tuple[float, Thoughts]] = OrderedDict()
        self._bytes = 0

    def remember(self, subject: str, call_ids: Sequence[str], thoughts: Sequence[Thoughts]) -> None:
        """Keep the thoughts of a turn's calls, each under its id."""
        if not self._keep_seconds:
            return
        until = self._clock() + self._keep_seconds
        for call_id, thought in zip(call_ids, thoughts, strict=True):
            self._forget((subject, call_id))
            if thought.size() > self._max_bytes:
                continue
            self._entries[subject, call_id] = (until, thought)
            self._bytes += thought.size()
        self._trim()

    def recall(self, subject: str, call_id: str) -> Thoughts | None:
        """The thoughts of one call, unless they are too old or were crowded out."""
        entry = self._entries.get((subject, call_id))
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def _trim(self) -> None:
        now = self._clock()
        while self._entries:
            key, (until, _) = next(iter(self._entries.items()))  # the oldest
            if until > now and self._bytes <= self._max_bytes:
                return
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[1].size()
