"""A usage record as JSON: what journals and the workers' shared memory hold until the store has it.

Journals have a line for each, with its fields by name: a release reads what an older one left. The shared memory is
begun anew where it has another form, and hardly anything that every request puts there is ever read, so it has the
fields' values alone.
"""

from __future__ import annotations

from dataclasses import astuple, fields
from operator import attrgetter
from typing import TypeAlias, cast

import orjson

from inferxgate.canonical.usage import Usage, amounts
from inferxgate.store.records import Status, UsageRecord, UsageSource

RecordValues: TypeAlias = tuple[
    str,
    str,
    int,
    Status,
    int,
    str | None,
    str | None,
    str | None,
    str | None,
    str,
    str,
    str,
    bool,
    tuple[int, ...],
    UsageSource,
    int | None,
    str | None,
    int | None,
    int,
    int,
]
"""The values of a record's fields in their order; those of its usage likewise, as far as they are not 0."""
_USAGE = [field.name for field in fields(UsageRecord)].index("usage")
_BEFORE_USAGE = attrgetter(*[field.name for field in fields(UsageRecord)][:_USAGE])
_AFTER_USAGE = attrgetter(*[field.name for field in fields(UsageRecord)][_USAGE + 1 :])


def values_of(record: UsageRecord) -> RecordValues:
    return cast(RecordValues, (*_BEFORE_USAGE(record), amounts(record.usage), *_AFTER_USAGE(record)))


def build_values(values: RecordValues) -> bytes:
    """A record's values as JSON, with no line feed."""
    return orjson.dumps(values)


def parse_values(data: bytes) -> UsageRecord:
    """The record of those values. Raises what ``parse_line`` raises."""
    values = orjson.loads(data)
    values[_USAGE] = Usage(*values[_USAGE])
    return _checked(UsageRecord(*values))


def build_line(record: UsageRecord) -> bytes:
    """The record as JSON, with a line feed at its end and nowhere else."""
    return orjson.dumps(_fields(record), option=orjson.OPT_APPEND_NEWLINE)


def _fields(record: UsageRecord) -> dict[str, object]:
    """The record's fields by name: faster spelt out than found by orjson one by one, since slots have no dictionary."""
    usage = record.usage
    return {
        "id": record.id,
        "request_id": record.request_id,
        "started_at_ms": record.started_at_ms,
        "status": record.status,
        "http_status": record.http_status,
        "error_code": record.error_code,
        "key_id": record.key_id,
        "user_id": record.user_id,
        "end_user": record.end_user,
        "model_asked": record.model_asked,
        "model": record.model,
        "provider": record.provider,
        "stream": record.stream,
        "usage": {
            "input_tokens": usage.input_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_write_5m_tokens": usage.cache_write_5m_tokens,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens,
            "audio_input_tokens": usage.audio_input_tokens,
            "image_input_tokens": usage.image_input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_output_tokens": usage.audio_output_tokens,
            "image_output_tokens": usage.image_output_tokens,
        },
        "usage_source": record.usage_source,
        "cost_nanos": record.cost_nanos,
        "price_version": record.price_version,
        "first_token_ms": record.first_token_ms,
        "duration_ms": record.duration_ms,
        "attempts": record.attempts,
    }


def parse_line(line: bytes) -> UsageRecord:
    """The record of a line.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` for one that is not ours: the store would refuse its batch.
    """
    found = orjson.loads(line)
    return _checked(UsageRecord(**{**found, "usage": Usage(**found["usage"])}))


def _checked(record: UsageRecord) -> UsageRecord:
    texts = (record.id, record.request_id, record.status, record.model_asked, record.model, record.provider)
    numbers = (record.started_at_ms, record.http_status, record.duration_ms, record.attempts, *astuple(record.usage))
    no_texts = (record.error_code, record.key_id, record.user_id, record.end_user, record.price_version)
    if not (
        all(isinstance(text, str) for text in (*texts, record.usage_source))
        and all(isinstance(number, int) for number in (*numbers, record.stream))
        and all(text is None or isinstance(text, str) for text in no_texts)
        and all(number is None or isinstance(number, int) for number in (record.cost_nanos, record.first_token_ms))
    ):
        raise TypeError("a field has the wrong type")
    return record
