"""What tokens cost: exact sums, rounded half to even once."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.catalog.pricing import FREE, NANOS_PER_DOLLAR, Price, rates_of


def price(**dollars: float | Decimal) -> Price:
    return Price((rates_of(dollars),), "test")


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        (Usage(), 0),
        (Usage(input_tokens=1_000_000), 2_500_000_000),
        (Usage(input_tokens=1000, output_tokens=100), 2_500_000 + 1_000_000),
        (Usage(input_tokens=40, cache_read_tokens=60), 100_000 + 75_000),
        (Usage(output_tokens=10, reasoning_tokens=90), 1_000_000),
    ],
)
def test_each_bucket_has_its_rate(usage: Usage, nanos: int) -> None:
    gpt_4o = price(input_tokens=2.5, cache_read_tokens=1.25, output_tokens=10)
    assert gpt_4o.cost_nanos(usage) == nanos


def test_a_bucket_without_a_price_is_charged_as_what_it_is_a_kind_of() -> None:
    plain = price(input_tokens=2, output_tokens=4)
    assert plain.cost_nanos(Usage(cache_read_tokens=10, cache_write_5m_tokens=10, audio_input_tokens=10)) == 60_000
    assert plain.cost_nanos(Usage(reasoning_tokens=10, image_output_tokens=10)) == 80_000
    with_write = price(input_tokens=2, cache_write_5m_tokens=3, output_tokens=4)
    assert with_write.cost_nanos(Usage(cache_write_1h_tokens=10)) == 30_000


@pytest.mark.parametrize(("tokens", "nanos"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)])
def test_halves_are_rounded_to_even(tokens: int, nanos: int) -> None:
    half_a_nano = Decimal("0.0005")  # dollars per million tokens: half a nano-dollar a token
    assert price(input_tokens=half_a_nano, output_tokens=0).cost_nanos(Usage(input_tokens=tokens)) == nanos


def test_the_whole_prompt_decides_the_tier() -> None:
    low = rates_of({"input_tokens": 1, "output_tokens": 2})
    high = rates_of({"input_tokens": 2, "output_tokens": 4}, above_prompt_tokens=200)
    tiered = Price((low, high), "test")
    assert tiered.cost_nanos(Usage(input_tokens=200, output_tokens=1)) == 200 * 1000 + 2000
    assert tiered.cost_nanos(Usage(input_tokens=1, cache_read_tokens=200, output_tokens=1)) == 201 * 2000 + 4000


def test_a_fee_for_each_request_is_added() -> None:
    fee = Price((rates_of({"input_tokens": 1, "output_tokens": 1}),), "test", request_nanos=Fraction(12_000_000))
    assert fee.cost_nanos(Usage(input_tokens=1)) == 12_001_000


@given(tokens=st.integers(0, 600), fee=st.fractions(0, 10))
def test_a_prompt_alone_costs_what_its_usage_costs(tokens: int, fee: Fraction) -> None:
    half_a_nano = Decimal("0.0005")
    low = rates_of({"input_tokens": half_a_nano, "output_tokens": 2})
    high = rates_of({"input_tokens": 2, "output_tokens": 4}, above_prompt_tokens=200)
    for priced in (Price((low,), "test", request_nanos=fee), Price((low, high), "test", request_nanos=fee)):
        assert priced.input_nanos(tokens) == priced.cost_nanos(Usage(input_tokens=tokens))


def test_echo_is_free() -> None:
    assert FREE.cost_nanos(Usage(*range(len(BUCKETS)))) == 0


COUNTS = st.integers(0, 10_000_000)
ANY_DOLLARS = st.decimals(0, 1000, places=15, allow_nan=False)
OUTPUTS = ("output_tokens", "reasoning_tokens", "audio_output_tokens", "image_output_tokens")


@given(
    counts=st.lists(COUNTS, min_size=len(BUCKETS), max_size=len(BUCKETS)),
    dollars=st.lists(ANY_DOLLARS, min_size=len(BUCKETS), max_size=len(BUCKETS)),
    fee=ANY_DOLLARS,
    discount=st.decimals(0, 1, places=4),
)
def test_the_cost_is_the_exact_sum_rounded_once(
    counts: list[int], dollars: list[Decimal], fee: Decimal, discount: Decimal
) -> None:
    rates = rates_of(dict(zip(BUCKETS, dollars, strict=True)))
    made = Price((rates,), "test", Fraction(fee) * NANOS_PER_DOLLAR).discounted(discount)
    tokens = sum(count * Fraction(rate) for count, rate in zip(counts, dollars, strict=True))
    exact = (tokens / 1_000_000 + Fraction(fee)) * (1 - Fraction(discount)) * NANOS_PER_DOLLAR
    assert made.cost_nanos(Usage(*counts)) == round(exact)  # which rounds halves to even


@given(prompt=COUNTS, output=COUNTS, dollars_in=ANY_DOLLARS, dollars_out=ANY_DOLLARS)
def test_the_worst_case_of_a_flat_price_is_both_counts_at_their_rates(
    prompt: int, output: int, dollars_in: Decimal, dollars_out: Decimal
) -> None:
    flat = price(input_tokens=dollars_in, output_tokens=dollars_out)
    exact = (prompt * Fraction(dollars_in) + output * Fraction(dollars_out)) * 1000
    assert flat.worst_case_nanos(prompt, output) == math.ceil(exact)
    assert flat.worst_case_nanos(prompt, output) >= flat.cost_nanos(
        Usage(input_tokens=prompt // 2, reasoning_tokens=output // 2, output_tokens=output - output // 2)
    )


def test_the_worst_case_has_the_fee_and_the_tier_that_the_prompt_reaches() -> None:
    low = rates_of({"input_tokens": 1, "output_tokens": 2})
    high = rates_of({"input_tokens": 2, "output_tokens": 4}, above_prompt_tokens=200)
    tiered = Price((low, high), "test", Fraction(5))
    assert tiered.worst_case_nanos(0, 0) == 5
    assert tiered.worst_case_nanos(200, 10) == 5 + 200 * 1000 + 10 * 2000
    assert tiered.worst_case_nanos(201, 10) == 5 + 201 * 2000 + 10 * 4000


@given(
    prompt=st.tuples(COUNTS, COUNTS, COUNTS),
    output=st.lists(COUNTS, min_size=4, max_size=4),
    dollars=st.lists(ANY_DOLLARS, min_size=7, max_size=7),
)
def test_the_worst_case_covers_every_kind_of_answer_and_of_media(
    prompt: tuple[int, int, int], output: list[int], dollars: list[Decimal]
) -> None:
    names = (*("input_tokens", "audio_input_tokens", "image_input_tokens"), *OUTPUTS)
    text, audio, image = prompt
    usage = Usage(**dict(zip(names, (*prompt, *output), strict=True)))
    made = price(**dict(zip(names, dollars, strict=True)))
    assert made.worst_case_nanos(text, sum(output), image_tokens=image, audio_tokens=audio) >= made.cost_nanos(usage)


def test_a_part_of_a_nano_dollar_is_reserved_whole() -> None:
    assert price(input_tokens=Decimal("0.0005"), output_tokens=0).worst_case_nanos(1, 0) == 1


@given(st.lists(COUNTS, min_size=len(BUCKETS), max_size=len(BUCKETS)))
def test_totals_are_the_sum_of_the_buckets(counts: list[int]) -> None:
    assert Usage(*counts).total_tokens == sum(counts)
