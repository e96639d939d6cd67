"""What tokens cost: rates per bucket, and the sum that turns a usage into money.

Money is integer nano-dollars. Rates are exact fractions of a nano-dollar a token; a price brings its rates to one
denominator when it is made, so that a request's cost is one sum of integers, rounded half to even once. An unknown
price is None, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import field
from decimal import Decimal
from fractions import Fraction
from operator import mul

from inferxgate.canonical.usage import BUCKETS, Usage, amounts
from inferxgate.values import dataclass

NANOS_PER_DOLLAR = 1_000_000_000
_MILLION = 1_000_000

Dollars = Decimal | float

PARENTS: Mapping[str, str] = {
    "cache_read_tokens": "input_tokens",
    "cache_write_5m_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_5m_tokens",
    "audio_input_tokens": "input_tokens",
    "image_input_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "audio_output_tokens": "output_tokens",
    "image_output_tokens": "output_tokens",
}
"""A bucket that has no price of its own is charged as the one it is a kind of."""

_INPUT = BUCKETS.index("input_tokens")
_IMAGE, _AUDIO = BUCKETS.index("image_input_tokens"), BUCKETS.index("audio_input_tokens")
_OUTPUTS = [BUCKETS.index(name) for name in BUCKETS if PARENTS.get(name, name) == "output_tokens"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of one model from some size of prompt on."""

    by_bucket: tuple[Fraction, ...]
    """Nano-dollars a token, in the order of ``BUCKETS``."""
    above_prompt_tokens: int = -1
    """These rates hold for all tokens of a request whose whole prompt has more tokens than this."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one model at one provider."""

    tiers: tuple[Rates, ...]
    """By growing ``above_prompt_tokens``; the first holds from nothing on."""
    version: str
    """Where the figures are from, for the record."""
    request_nanos: Fraction = Fraction()
    """A fee for each request that was answered, in nano-dollars (Perplexity's search models)."""
    _denominator: int = field(init=False, repr=False, compare=False)
    _scaled: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """The rates of each tier as multiples of one part in ``_denominator`` of a nano-dollar."""
    _scaled_request: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact = [self.request_nanos, *(rate for tier in self.tiers for rate in tier.by_bucket)]
        common = math.lcm(*(rate.denominator for rate in exact))
        scaled = tuple(tuple(int(rate * common) for rate in tier.by_bucket) for tier in self.tiers)
        object.__setattr__(self, "_denominator", common)
        object.__setattr__(self, "_scaled", scaled)
        object.__setattr__(self, "_scaled_request", int(self.request_nanos * common))

    def cost_nanos(self, usage: Usage) -> int:
        """What this usage costs, in nano-dollars: the exact sum, rounded half to even."""
        rates = self._rates(usage.prompt_tokens) if len(self.tiers) > 1 else self._scaled[0]
        total = sum(map(mul, amounts(usage), rates))
        return _divide_half_even(self._scaled_request + total, self._denominator)

    def input_nanos(self, tokens: int) -> int:
        """What a prompt of plain text costs alone: ``cost_nanos`` of its tokens."""
        rates = self._rates(tokens) if len(self.tiers) > 1 else self._scaled[0]
        return _divide_half_even(self._scaled_request + tokens * rates[_INPUT], self._denominator)

    def worst_case_nanos(
        self, text_tokens: int, output_tokens: int, *, image_tokens: int = 0, audio_tokens: int = 0
    ) -> int:
        """What a request costs that uses this much and nothing cached, in nano-dollars, rounded up.

        The rates are those of the tier that the prompt reaches: of input for text, of images and of audio where these
        are dearer, and of the dearest kind for the answer (which may be all thought, speech or images).
        """
        rates = self._scaled[0]
        if len(self.tiers) > 1:
            rates = self._rates(text_tokens + image_tokens + audio_tokens)
        text = rates[_INPUT]
        total = self._scaled_request + text_tokens * text + output_tokens * max(map(rates.__getitem__, _OUTPUTS))
        if image_tokens:
            total += image_tokens * max(text, rates[_IMAGE])
        if audio_tokens:
            total += audio_tokens * max(text, rates[_AUDIO])
        return -(-total // self._denominator)

    def discounted(self, discount: Dollars) -> Price:
        """The same price with a part of it taken off, the fee for the request included. ``discount``: 0 to 1."""
        left = 1 - _exact(discount)
        tiers = (Rates(tuple(rate * left for rate in tier.by_bucket), tier.above_prompt_tokens) for tier in self.tiers)
        return Price(tuple(tiers), self.version, self.request_nanos * left)

    def dollars_per_million(self, bucket: str, *, tier: int = 0) -> float:
        """One bucket's rate, for people: of the lowest tier, or of another by its place in ``tiers``."""
        return float(self.tiers[tier].by_bucket[BUCKETS.index(bucket)] * _MILLION / NANOS_PER_DOLLAR)

    def dollars_per_request(self) -> float:
        """The fee for a request, for people."""
        return float(self.request_nanos / NANOS_PER_DOLLAR)

    def _rates(self, prompt_tokens: int) -> tuple[int, ...]:
        reached = [tier.above_prompt_tokens < prompt_tokens for tier in self.tiers]
        return self._scaled[max(0, sum(reached) - 1)]


def rates_of(dollars_per_million: Mapping[str, Dollars], *, above_prompt_tokens: int = -1) -> Rates:
    """Rates from prices in dollars per million tokens by bucket; ``input_tokens`` and ``output_tokens`` must be there.

    A bucket without a price takes that of the bucket it is a kind of.
    """
    filled: dict[str, Fraction] = {}
    for bucket in (*("input_tokens", "output_tokens"), *PARENTS):
        price = dollars_per_million.get(bucket)
        if price is None:
            filled[bucket] = filled[PARENTS[bucket]]
        else:
            filled[bucket] = _exact(price) * NANOS_PER_DOLLAR / _MILLION
    return Rates(tuple(filled[bucket] for bucket in BUCKETS), above_prompt_tokens)


FREE = Price((Rates((Fraction(),) * len(BUCKETS)),), "free")


@dataclass(frozen=True, slots=True)
class Published:
    """What a price list says of one model, before the buckets that it does not name are filled in."""

    tiers: Mapping[int, Mapping[str, Dollars]]
    """Dollars per million tokens by bucket, by the size of prompt above which they hold; -1 is there."""
    request_dollars: Dollars = 0

    def priced(self, version: str) -> Price:
        """The price, each bucket filled in."""
        tiers = (rates_of(self.tiers[start], above_prompt_tokens=start) for start in sorted(self.tiers))
        return Price(tuple(tiers), version, _exact(self.request_dollars) * NANOS_PER_DOLLAR)


@dataclass(frozen=True, slots=True)
class Override:
    """What the configuration says of a price.

    With input and output it is a whole price, and nothing of the price list is left; without, what it says is laid over
    the price list's. A discount comes off last, and off everything.
    """

    dollars: Mapping[str, Dollars]
    """Dollars per million tokens by bucket."""
    request_dollars: Dollars | None = None
    discount: Dollars = 0
    name: str = field(init=False, compare=False)
    """Tells one override from another in records: two that say the same share it."""

    def __post_init__(self) -> None:
        said = {**self.dollars, "discount": self.discount}
        if self.request_dollars is not None:
            said["request"] = self.request_dollars
        exact = json.dumps({name: str(_exact(value)) for name, value in said.items()}, sort_keys=True)
        object.__setattr__(self, "name", f"config:{hashlib.sha256(exact.encode()).hexdigest()[:8]}")

    @property
    def whole(self) -> bool:
        """Whether it needs no price list."""
        return "input_tokens" in self.dollars and "output_tokens" in self.dollars

    def applied(self, published: Published | None, version: str) -> Price | None:
        """The price that holds; None where it needs a price that nobody knows. ``version`` is the price list's."""
        if self.whole:
            base = Published({-1: self.dollars}, self.request_dollars or 0)
            return base.priced(self.name).discounted(self.discount)
        if published is None:
            return None
        tiers = {start: {**dollars, **self.dollars} for start, dollars in published.tiers.items()}
        fee = published.request_dollars if self.request_dollars is None else self.request_dollars
        return Published(tiers, fee).priced(f"{version}, {self.name}").discounted(self.discount)


def _exact(number: Dollars) -> Fraction:
    """The number as it was written: a float stands for the shortest decimal that means it."""
    return Fraction(number if isinstance(number, Decimal) else Decimal(str(number)))


def _divide_half_even(numerator: int, denominator: int) -> int:
    quotient, remainder = divmod(numerator, denominator)
    twice = remainder * 2
    if twice > denominator or (twice == denominator and quotient % 2):
        quotient += 1
    return quotient


def plain_dollars(nanos: int) -> str:
    """Nano-dollars as plain decimal dollars: ``0.000123``, never ``1.23e-4``."""
    whole, rest = divmod(nanos, NANOS_PER_DOLLAR)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
