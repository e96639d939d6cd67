"""What models thought before they called a tool, kept for clients that do not bring it back.

Anthropic and Gemini demand the signed thought that led to a tool call back with the call's result, and refuse the turn
without it. Clients that know the fields return them; the many that drop unknown fields still return the call's id. So
the thought is kept under caller and id, for hours at most and within a bound of bytes: it is the one thing of a
conversation's content that outlives its request.

With it is kept who made it, because hardly any of it means something to others. State that the client carries itself is
known by a digest of it, its mark, and nothing else of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Maker:
    """Who gave an answer."""

    provider: str
    """Its configured name."""
    credential: str = ""
    """What its credential goes by (``Provider.credential``); empty where there is none, or nobody knows which."""
    model: str = ""
    """The provider's own name for the model; empty where nobody knows."""


Block = tuple[str, str | None, str | None, str | None]
"""A block of thought: text, signature, opaque data in place of text, Gemini's signature."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What has to come back with the tool calls of one answer, and what it will be known by."""

    maker: Maker
    blocks: tuple[Block, ...]
    """In their order; none where no call needs them."""
    signatures: Mapping[str, str | None]
    """By the id of each call: its own signature (Gemini)."""
    marks: tuple[str, ...] = ()
    """Digests of the opaque state in the answer, by which whoever carries it can ask for its maker."""


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What belongs to one tool call."""

    maker: Maker
    blocks: tuple[Block, ...] = ()
    signature: str | None = None


class ReasoningMemory(Protocol):
    """A bounded map from caller and tool call id to thoughts, and from caller and opaque state to its maker.

    Never raises: what it cannot keep is not kept.
    """

    def remember(self, tenant: str, turns: Sequence[Turn]) -> None:
        """Keep what belongs to the calls of one answer."""

    def recall(self, tenant: str, call_id: str) -> Thoughts | None:
        """The thoughts of one call, unless they are too old or were crowded out."""

    def made_by(self, tenant: str, mark: str) -> Maker | None:
        """Who made what goes by this mark, unless it is too old or was crowded out."""


class NoReasoning:
    """Keeps nothing."""

    def remember(self, tenant: str, turns: Sequence[Turn]) -> None:
        pass

    def recall(self, tenant: str, call_id: str) -> Thoughts | None:
        return None

    def made_by(self, tenant: str, mark: str) -> Maker | None:
        return None
