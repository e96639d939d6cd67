"""A usage record as one line of JSON: what journals and the workers' shared memory hold until the store has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import orjson

from inferxgate.canonical.usage import Usage
from inferxgate.store.records import UsageRecord


def build_line(record: UsageRecord | Mapping[str, object]) -> bytes:
    """The record, or its fields, as JSON, with a line feed at its end and nowhere else."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def parse_line(line: bytes) -> UsageRecord:
    """The record of a line.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` for one that is not ours: the store would refuse its batch.
    """
    fields = orjson.loads(line)
    record = UsageRecord(**{**fields, "usage": Usage(**fields["usage"])})
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
