"""Rows: a journal's line gives the row that its record gives, and what is not ours is told before the store sees it."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.store.lines import build_line, build_values, parse_values, values_of
from inferxgate.store.records import UsageRecord
from inferxgate.store.rows import COLUMNS, parse_row, row_of
from tests.support.stores import new_record

NUMBERS = st.one_of(st.integers(0, 10**6), st.sampled_from((-1, 10**12, 10**12 + 1, 10**15 + 1, 2**62 + 1, 2**63)))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
RECORDS = st.builds(
    new_record,
    id=TEXTS,
    started_at_ms=NUMBERS,
    http_status=st.sampled_from((0, 200, 499, -1, 10**18)),
    error_code=st.one_of(st.none(), TEXTS),
    key_id=st.one_of(st.none(), TEXTS),
    user_id=st.one_of(st.none(), TEXTS),
    end_user=st.one_of(st.none(), TEXTS),
    stream=st.booleans(),
    usage=st.builds(Usage, **dict.fromkeys(BUCKETS, NUMBERS)),
    cost_nanos=st.one_of(st.none(), NUMBERS),
    price_version=st.one_of(st.none(), TEXTS),
    first_token_ms=st.one_of(st.none(), NUMBERS),
    duration_ms=NUMBERS,
    attempts=NUMBERS,
)
FIELDS: dict[str, Any] = orjson.loads(build_line(new_record()))


@given(record=RECORDS)
def test_a_line_gives_the_row_of_its_record(record: UsageRecord) -> None:
    line = build_line(record)
    assert parse_row(line) == row_of(record)
    assert line == orjson.dumps(record) + b"\n", "no field is left out"
    assert parse_values(build_values(values_of(record))) == record


def test_a_row_has_the_records_fields_in_the_columns_order() -> None:
    record = new_record(usage=Usage(*range(10, 20)), first_token_ms=7, attempts=3)
    fields = {**dataclasses.asdict(record), **dataclasses.asdict(record.usage)}
    assert row_of(record) == tuple(fields[column] for column in COLUMNS)


def test_a_line_from_before_attempts_were_counted_has_one() -> None:
    before = {name: value for name, value in FIELDS.items() if name != "attempts"}
    assert parse_row(orjson.dumps(before)) == parse_row(orjson.dumps(FIELDS | {"attempts": 1}))


@pytest.mark.parametrize("value", [[], {}, 1.5])
@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("usage", "stream")])
def test_a_field_of_another_type_is_not_ours(name: str, value: object) -> None:
    """Not one may come as far as the store, which would refuse the whole batch each time."""
    with pytest.raises(TypeError):
        parse_row(orjson.dumps(FIELDS | {name: value}))


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("value", [None, "7", 1.5, []])
def test_a_count_of_another_type_is_not_ours(bucket: str, value: object) -> None:
    with pytest.raises(TypeError):
        parse_row(orjson.dumps(FIELDS | {"usage": FIELDS["usage"] | {bucket: value}}))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"7",
        b'{"id":',
        orjson.dumps(FIELDS | {"surplus": 1}),
        orjson.dumps(FIELDS | {"usage": {}, "id": None}),
        orjson.dumps(FIELDS | {"usage": FIELDS["usage"] | {"surplus": 1}}),
        orjson.dumps(FIELDS | {"usage": [1] * len(BUCKETS)}),
        orjson.dumps({name: value for name, value in FIELDS.items() if name != "model"}),
    ],
)
def test_what_is_no_record_is_not_ours(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse_row(line)
