"""How many tokens a request used, in buckets that never overlap, so that a cost is a plain sum over them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import astuple
from operator import attrgetter

from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts in disjoint buckets: each token of a request is in exactly one of them."""

    input_tokens: int = 0
    """Prompt text that was neither read from nor written to a cache."""
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    """Written to a cache that lives for five minutes (or whose life the provider does not say)."""
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    output_tokens: int = 0
    """Visible text and tool calls."""
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Bucket by bucket."""
        return Usage(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    @property
    def prompt_tokens(self) -> int:
        """All input, as OpenAI counts it (cached tokens included)."""
        return (
            self.input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.audio_input_tokens
            + self.image_input_tokens
        )

    @property
    def completion_tokens(self) -> int:
        """All output, as OpenAI counts it (reasoning included)."""
        return self.output_tokens + self.reasoning_tokens + self.audio_output_tokens + self.image_output_tokens

    @property
    def total_tokens(self) -> int:
        return sum(amounts(self))


NO_USAGE = Usage()

BUCKETS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Usage))
"""The names of all buckets, in order."""

amounts: Callable[[Usage], tuple[int, ...]] = attrgetter(*BUCKETS)
"""The tokens in each bucket, in that order."""
