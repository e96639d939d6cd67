"""Stores and what is in them, for tests: real SQLite files, and records with every field at some value."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inferxgate.accounts.keys import hash_secret, new_secret, prefix_of
from inferxgate.canonical.usage import Usage
from inferxgate.ids import new_id
from inferxgate.store.records import ApiKey, Refusal, UsageFilter, UsageRecord, User
from inferxgate.store.sqlite import SQLiteStore

NOON_MS = 1_795_348_800_000
"""2026-11-22T12:00:00Z."""
MINUTE_MS = 60_000
DAY_MS = 86_400_000
EVER = UsageFilter(since_ms=0, until_ms=2**53)


@contextlib.contextmanager
def new_store() -> Iterator[SQLiteStore]:
    """An empty store in a folder of its own: for property tests, whose examples must not see each other."""
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore.open(Path(folder) / "inferxgate.db")
        try:
            yield store
        finally:
            store.close()


def new_user(**fields: Any) -> User:
    user_id = fields.pop("id", None) or new_id("user_")
    values: dict[str, Any] = {
        "email": f"{user_id}@example.com",
        "username": None,
        "password_hash": "$2b$04$none",
        "role": "user",
        "disabled": False,
        "token_version": 1,
        "rate_limit_rpm": None,
        "rate_limit_tpm": None,
        "max_budget_nanos": None,
        "budget_period": "total",
        "created_at_ms": NOON_MS,
    }
    return User(id=user_id, **{**values, **fields})


def new_key(secret: str | None = None, **fields: Any) -> ApiKey:
    secret = secret or new_secret()
    values: dict[str, Any] = {
        "id": new_id("key_"),
        "key_hash": hash_secret(secret),
        "key_prefix": prefix_of(secret),
        "name": None,
        "user_id": None,
        "rate_limit_rpm": None,
        "rate_limit_tpm": None,
        "max_parallel_requests": None,
        "max_budget_nanos": None,
        "budget_period": "total",
        "allowed_models": None,
        "expires_at_ms": None,
        "blocked": False,
        "revoked_at_ms": None,
        "created_at_ms": NOON_MS,
        "last_used_at_ms": None,
    }
    return ApiKey(**{**values, **fields})


def new_record(**fields: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "id": new_id("usage_"),
        "request_id": new_id("req_"),
        "started_at_ms": NOON_MS,
        "status": "ok",
        "http_status": 200,
        "error_code": None,
        "key_id": None,
        "user_id": None,
        "end_user": None,
        "model_asked": "smart",
        "model": "small-1",
        "provider": "local",
        "stream": False,
        "usage": Usage(input_tokens=10, output_tokens=5),
        "usage_source": "provider",
        "cost_nanos": 1_500,
        "price_version": "1",
        "first_token_ms": None,
        "duration_ms": 250,
    }
    return UsageRecord(**{**values, **fields})


def new_refusal(**fields: Any) -> Refusal:
    values: dict[str, Any] = {
        "source": "worker_1",
        "minute_ms": NOON_MS,
        "key_id": None,
        "user_id": None,
        "reason": "rate_limit_exceeded",
        "count": 1,
    }
    return Refusal(**{**values, **fields})
