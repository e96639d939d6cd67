"""The gateway's own price table says what the package says that it is made from: every name, every price, any day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import price_table
import pytest
from genai_prices import types
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.catalog.listed import DailyBetween, FromDay, ListedPrices, Tiered, find_model, parse_condition
from inferxgate.catalog.price_list import packaged, parse_price_list

BY_ID = {provider.id: provider for provider in providers}


def test_the_table_is_made_from_the_package_that_is_installed() -> None:
    """Where it is not: ``.venv/bin/python .ci/price_table.py`` writes it anew."""
    assert price_table.TABLE.read_bytes() == price_table.table()


def plain(price: ListedPrices | types.ModelPrice) -> dict[str, Any]:
    said = price.dollars if isinstance(price, ListedPrices) else vars(price)
    return {name: exact(value) for name, value in said.items() if value is not None}


def exact(value: Any) -> Decimal | tuple[Decimal, list[tuple[int, Decimal]]]:
    if isinstance(value, (Tiered, types.TieredPrices)):
        return value.base, [(tier.start, tier.price) for tier in value.tiers]
    assert isinstance(value, Decimal)
    return value


def words_of(rule: Any) -> Iterator[str]:
    for value in vars(rule).values():
        if isinstance(value, str):
            yield value
        else:
            for each in value:
                yield from words_of(each)


def names_of(provider: types.Provider) -> Iterator[str]:
    for model in provider.models:
        yield model.id
        yield f"{model.id}-20251211"
        for word in words_of(model.match):
            yield word
            yield f"{word}-latest"


NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
TIMES = [NOW, NOW.replace(hour=1), NOW.replace(hour=17, minute=30), NOW - timedelta(days=40), NOW + timedelta(days=400)]


@pytest.mark.parametrize("provider", providers, ids=lambda provider: provider.id)
def test_every_name_has_the_packages_prices(provider: types.Provider) -> None:
    table = packaged().providers
    for name in {*names_of(provider)}:
        theirs = provider.find_model(name, all_providers=providers)
        ours = find_model(table, provider.id, name)
        assert (ours and ours.id) == (theirs and theirs.id), name
        if ours and theirs:
            assert ours.context_window == theirs.context_window
            assert ours.deprecated == bool(theirs.deprecated)
            for at in TIMES:
                assert plain(ours.prices_at(at)) == plain(theirs.get_prices(at)), (name, at)


DECADE = timedelta(days=3_650)
ZONED = st.builds(lambda span, zone: (NOW + span).astimezone(zone), st.timedeltas(-DECADE, DECADE), st.timezones())
DAYS = st.dates((NOW - DECADE).date(), (NOW + DECADE).date())
ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
CLOCKS = st.times(timezones=ZONES).map(lambda at: at.replace(microsecond=0))


@given(DAYS, ZONED)
def test_a_price_begins_on_its_day_as_in_the_package(day: date, at: datetime) -> None:
    condition = parse_condition({"start_date": day.isoformat()})
    assert isinstance(condition, FromDay)
    assert condition.holds(at) == types.StartDateConstraint(day).active(at)


@given(CLOCKS, CLOCKS, ZONED)
def test_a_price_of_the_night_holds_when_the_packages_does(start: time, end: time, at: datetime) -> None:
    condition = parse_condition({"start_time": start.isoformat(), "end_time": end.isoformat()})
    assert isinstance(condition, DailyBetween)
    assert condition.holds(at) == types.TimeOfDateConstraint(start, end).active(at)


def test_the_table_would_pass_as_a_file_of_newer_prices() -> None:
    head, *lines = map(orjson.loads, price_table.TABLE.read_bytes().splitlines())
    file = [{"id": each["id"], "models": models} for each, models in zip(head["providers"], lines, strict=True)]
    read = parse_price_list(orjson.dumps(file)).providers
    assert {name: [model.prices for model in each.models] for name, each in read.items()} == {
        name: [model.prices for model in each.models] for name, each in packaged().providers.items()
    }


def test_providers_are_read_when_they_are_asked_for() -> None:
    packaged.cache_clear()
    table = packaged().providers
    assert find_model(table, "openai", "gpt-4o") is not None
    assert {name for name, provider in table.items() if "models" in vars(provider)} == {"openai"}
    assert find_model(table, "nobody", "gpt-4o") is None
    assert set(table) == set(BY_ID)
