"""What tokens cost: rates per bucket, and the sum that turns a usage into money.

Money is integer nano-dollars. A rate is kept in nano-dollars per million tokens, which holds every published price
exactly; a request's cost is the exact sum over its buckets, rounded half to even once. An unknown price is None, never
a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from inferxgate.canonical.usage import BUCKETS, Usage

NANOS_PER_DOLLAR = 1_000_000_000
_MILLION = 1_000_000

_PARENTS: Mapping[str, str] = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_5m_tokens",
    "audio_input_tokens": "input_tokens",
    "image_input_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "audio_output_tokens": "output_tokens",
    "image_output_tokens": "output_tokens",
}
"""A bucket for which a vendor publishes no price of its own is charged as the one it is a kind of."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of one model, in nano-dollars per million tokens, from some size of prompt on."""

    by_bucket: tuple[int, ...]
    """In the order of ``BUCKETS``."""
    above_prompt_tokens: int = -1
    """These rates hold for requests whose whole prompt has more tokens than this."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model at one provider."""

    tiers: tuple[Rates, ...]
    """By growing ``above_prompt_tokens``; the first holds from nothing on."""
    version: str
    """Where the figures are from, for the record."""
    request_nanos: int = 0
    """A fee for each request that was answered, in nano-dollars (Perplexity's search models)."""

    def cost_nanos(self, usage: Usage) -> int:
        """What this usage costs, in nano-dollars."""
        rates = self.tiers[0]
        if len(self.tiers) > 1:
            prompt = usage.prompt_tokens
            rates = [tier for tier in self.tiers if tier.above_prompt_tokens < prompt][-1]
        total = sum(getattr(usage, bucket) * rate for bucket, rate in zip(BUCKETS, rates.by_bucket, strict=True))
        return self.request_nanos + _divide_half_even(total, _MILLION)

    def worst_case_nanos(self, prompt_tokens: int, output_tokens: int) -> int:
        rates = [tier for tier in self.tiers if tier.above_prompt_tokens < prompt_tokens][-1].by_bucket
        total = prompt_tokens * rates[BUCKETS.index("input_tokens")] + output_tokens * rates[6]
        return self.request_nanos + -(-total // _MILLION)

    def dollars_per_million(self, bucket: str) -> float:
        """The lowest tier's rate of one bucket, for people."""
        return self.tiers[0].by_bucket[BUCKETS.index(bucket)] / NANOS_PER_DOLLAR


def rates_of(dollars_per_million: Mapping[str, Decimal | float], *, above_prompt_tokens: int = -1) -> Rates:
    """Rates from prices in dollars per million tokens by bucket; ``input_tokens`` and ``output_tokens`` must be there.

    A bucket without a price takes that of the bucket it is a kind of.
    """
    filled: dict[str, int] = {}
    for bucket in (*("input_tokens", "output_tokens"), *_PARENTS):
        price = dollars_per_million.get(bucket)
        if price is None:
            filled[bucket] = filled[_PARENTS[bucket]]
        else:
            filled[bucket] = int((Decimal(str(price)) * NANOS_PER_DOLLAR).to_integral_value())
    return Rates(tuple(filled[bucket] for bucket in BUCKETS), above_prompt_tokens)


FREE = Price((Rates((0,) * len(BUCKETS)),), "free")


def _divide_half_even(numerator: int, denominator: int) -> int:
    quotient, remainder = divmod(numerator, denominator)
    twice = remainder * 2
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient
