"""A usage record as one line of JSON: what journals and the workers' shared memory hold until the store has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple

import orjson

from inferxgate.canonical.usage import Usage
from inferxgate.store.records import UsageRecord


def build_line(record: UsageRecord | Mapping[str, object]) -> bytes:
    """The record, or its fields, as JSON, with a line feed at its end and nowhere else."""
    fields = _fields(record) if isinstance(record, UsageRecord) else record
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


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
