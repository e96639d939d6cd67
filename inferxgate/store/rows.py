"""A usage record as the database holds it: one tuple in the order of the table's columns.

A journal's line becomes a row without a ``UsageRecord`` in between: half of what a record costs on its way would go
into making it and taking it apart again. Only a line that is not just what this version writes (an older version's, a
damaged one, a number beyond what is kept) goes the long way, which knows what to make of it.
"""

from __future__ import annotations

from itertools import product
from operator import itemgetter
from types import NoneType
from typing import Any, TypeAlias

import orjson

from inferxgate.canonical.usage import BUCKETS
from inferxgate.store.lines import parse_line
from inferxgate.store.periods import LATEST_MS
from inferxgate.store.records import UsageRecord

UsageRow: TypeAlias = tuple[Any, ...]
"""The values of ``COLUMNS``, in order."""

_MOST_TOKENS = 10**12
_MOST_NANOS = 10**15
_MOST_STATUS = 999
# No request has a trillion tokens or costs a million dollars. What a provider reports is kept below, so that nonsense
# neither fails the batch that it is in nor overflows the sums of the years.

_TEXT, _TEXT_OR_NONE, _NUMBER, _NUMBER_OR_NONE = (str,), (str, NoneType), (int,), (int, NoneType)
_BEFORE_USAGE: dict[str, tuple[type, ...]] = {
    "id": _TEXT,
    "request_id": _TEXT,
    "started_at_ms": _NUMBER,
    "status": _TEXT,
    "http_status": _NUMBER,
    "error_code": _TEXT_OR_NONE,
    "key_id": _TEXT_OR_NONE,
    "user_id": _TEXT_OR_NONE,
    "end_user": _TEXT_OR_NONE,
    "model_asked": _TEXT,
    "model": _TEXT,
    "provider": _TEXT,
    "stream": (bool,),
}
_AFTER_USAGE: dict[str, tuple[type, ...]] = {
    "usage_source": _TEXT,
    "cost_nanos": _NUMBER_OR_NONE,
    "price_version": _TEXT_OR_NONE,
    "first_token_ms": _NUMBER_OR_NONE,
    "duration_ms": _NUMBER,
    "attempts": _NUMBER,
}
COLUMNS: tuple[str, ...] = (*_BEFORE_USAGE, *BUCKETS, *_AFTER_USAGE)
ID, STARTED, STATUS, HTTP_STATUS, KEY, USER, MODEL, PROVIDER, COST, FIRST_TOKEN, DURATION, ATTEMPTS = (
    COLUMNS.index(name)
    for name in (
        "id",
        "started_at_ms",
        "status",
        "http_status",
        "key_id",
        "user_id",
        "model",
        "provider",
        "cost_nanos",
        "first_token_ms",
        "duration_ms",
        "attempts",
    )
)
"""Where in a row they are."""
TOKENS = slice(len(_BEFORE_USAGE), len(_BEFORE_USAGE) + len(BUCKETS))
"""Where in a row the buckets are."""

_KINDS = frozenset(product(*_BEFORE_USAGE.values(), *(_NUMBER for _ in BUCKETS), *_AFTER_USAGE.values()))
"""The types that a row's values can have."""
_before_usage = itemgetter(*_BEFORE_USAGE)
_buckets = itemgetter(*BUCKETS)
_after_usage = itemgetter(*_AFTER_USAGE)
_FIELD_COUNT = len(_BEFORE_USAGE) + 1 + len(_AFTER_USAGE)


def storable(text: str) -> str:
    """Text as SQLite can hold it: a lone surrogate, which has no place in UTF-8, is written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def row_of(record: UsageRecord) -> UsageRow:
    """The row of a record; numbers that no request can have are kept within bounds."""
    usage = record.usage
    first, cost = record.first_token_ms, record.cost_nanos
    return (
        storable(record.id),
        storable(record.request_id),
        within(record.started_at_ms, LATEST_MS),
        record.status,
        within(record.http_status, _MOST_STATUS),
        _optional(record.error_code),
        record.key_id,
        record.user_id,
        _optional(record.end_user),
        storable(record.model_asked),
        storable(record.model),
        storable(record.provider),
        record.stream,
        *(within(getattr(usage, bucket), _MOST_TOKENS) for bucket in BUCKETS),
        record.usage_source,
        None if cost is None else within(cost, _MOST_NANOS),
        _optional(record.price_version),
        None if first is None else within(first, _MOST_TOKENS),
        within(record.duration_ms, _MOST_TOKENS),
        within(record.attempts, _MOST_TOKENS),
    )


def parse_row(line: bytes) -> UsageRow:
    """The row of a line.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` for one that is not ours: the store would refuse its batch.
    """
    fields = orjson.loads(line)
    try:
        usage = fields["usage"]
        row: UsageRow = (*_before_usage(fields), *_buckets(usage), *_after_usage(fields))
        if len(fields) == _FIELD_COUNT and len(usage) == len(BUCKETS) and _is_plain(row):
            return row
    except (KeyError, TypeError):
        pass  # an older version's, or not ours: the long way tells
    return row_of(parse_line(line))


def within(number: int, most: int) -> int:
    """The number, or the nearest one of 0 to ``most``."""
    return min(max(number, 0), most)


def _is_plain(row: UsageRow) -> bool:
    """Whether a row can be stored as it is."""
    if tuple(map(type, row)) not in _KINDS:
        return False
    tokens, cost, first = row[TOKENS], row[COST], row[FIRST_TOKEN]
    bounded: bool = (
        min(tokens) >= 0
        and max(tokens) <= _MOST_TOKENS
        and (cost is None or 0 <= cost <= _MOST_NANOS)
        and (first is None or 0 <= first <= _MOST_TOKENS)
        and 0 <= row[DURATION] <= _MOST_TOKENS
        and 0 <= row[ATTEMPTS] <= _MOST_TOKENS
        and 0 <= row[STARTED] <= LATEST_MS
        and 0 <= row[HTTP_STATUS] <= _MOST_STATUS
    )
    return bounded


def _optional(text: str | None) -> str | None:
    return None if text is None else storable(text)
