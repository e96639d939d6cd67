"""The store in one SQLite file.

A change to a user or a key is one transaction: read the row, make the changed record from it, write all of its columns.
So there is no statement put together from names, and two changes at once never undo each other.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferxgate.errors import StartError
from inferxgate.store import connections, files, migrations, retention, rollups, usage, usage_reports, verification
from inferxgate.store.connections import Database
from inferxgate.store.periods import period_start_ms
from inferxgate.store.protocol import EmailTaken, KeyLimitReached, OwnerMissing
from inferxgate.store.records import (
    ApiKey,
    BudgetPeriod,
    Refusal,
    UsageFilter,
    UsageRecord,
    UsageReport,
    User,
    Verification,
)
from inferxgate.store.retention import Space
from inferxgate.store.rollups import Spender
from inferxgate.store.rows import UsageRow, row_of, storable

_SHARED_LIMITS = ("rate_limit_rpm", "rate_limit_tpm", "max_budget_nanos", "budget_period")
_CHANGEABLE_OF_USER = frozenset(
    {"email", "username", "password_hash", "role", "disabled", "token_version", *_SHARED_LIMITS}
)
_CHANGEABLE_OF_KEY = frozenset(
    {
        "key_hash",
        "key_prefix",
        "name",
        "user_id",
        *_SHARED_LIMITS,
        "max_parallel_requests",
        "allowed_models",
        "expires_at_ms",
        "blocked",
        "revoked_at_ms",
    }
)

_ADD_USER = """
    INSERT INTO users (
        id, email, username, password_hash, role, disabled, token_version, rate_limit_rpm, rate_limit_tpm,
        max_budget_nanos, budget_period, created_at_ms
    ) VALUES (
        :id, :email, :username, :password_hash, :role, :disabled, :token_version, :rate_limit_rpm, :rate_limit_tpm,
        :max_budget_nanos, :budget_period, :created_at_ms
    )
"""
_CHANGE_USER = """
    UPDATE users SET
        email = :email, username = :username, password_hash = :password_hash, role = :role, disabled = :disabled,
        token_version = :token_version, rate_limit_rpm = :rate_limit_rpm, rate_limit_tpm = :rate_limit_tpm,
        max_budget_nanos = :max_budget_nanos, budget_period = :budget_period
    WHERE id = :id
"""
_ADD_KEY = """
    INSERT INTO keys (
        id, key_hash, key_prefix, name, user_id, rate_limit_rpm, rate_limit_tpm, max_parallel_requests,
        max_budget_nanos, budget_period, allowed_models, expires_at_ms, blocked, revoked_at_ms, created_at_ms,
        last_used_at_ms
    ) VALUES (
        :id, :key_hash, :key_prefix, :name, :user_id, :rate_limit_rpm, :rate_limit_tpm, :max_parallel_requests,
        :max_budget_nanos, :budget_period, :allowed_models, :expires_at_ms, :blocked, :revoked_at_ms, :created_at_ms,
        :last_used_at_ms
    )
"""
_CHANGE_KEY = """
    UPDATE keys SET
        key_hash = :key_hash, key_prefix = :key_prefix, name = :name, user_id = :user_id,
        rate_limit_rpm = :rate_limit_rpm, rate_limit_tpm = :rate_limit_tpm,
        max_parallel_requests = :max_parallel_requests, max_budget_nanos = :max_budget_nanos,
        budget_period = :budget_period, allowed_models = :allowed_models, expires_at_ms = :expires_at_ms,
        blocked = :blocked, revoked_at_ms = :revoked_at_ms
    WHERE id = :id
"""
_KEYS = """
    SELECT * FROM keys WHERE :include_revoked OR revoked_at_ms IS NULL
    ORDER BY created_at_ms, rowid
"""
_KEYS_OF_USER = """
    SELECT * FROM keys WHERE user_id = :user_id AND (:include_revoked OR revoked_at_ms IS NULL)
    ORDER BY created_at_ms, rowid
"""
_REVOKE_KEYS_OF_USER = "UPDATE keys SET revoked_at_ms = ? WHERE user_id = ? AND revoked_at_ms IS NULL"


class SQLiteStore:
    """``inferxgate.store.protocol.Store`` in one file. Usable from any thread, beside other processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> SQLiteStore:
        """Open the store at ``path``; create it (0600, its folder 0700) or bring its schema up to date where needed.

        Raises ``StartError`` with what to do: not a database, damaged, in the place of a folder, not writable, locked
        for long, or made by a newer version. A file that is there is never replaced.
        """
        files.prepare(path)
        try:
            writer = connections.connect(path)
            try:
                migrations.migrate(writer, path)
                return cls(Database(path, writer))
            except (sqlite3.Error, StartError):
                writer.close()
                raise
        except sqlite3.Error as error:
            raise _not_opened(path, error) from error

    def close(self) -> None:
        """Let go of the file. Every later call raises ``StoreUnavailable``."""
        self._database.close()

    def change_stamp(self) -> int:
        with self._database.reading() as connection:
            stamp: int = connection.execute("SELECT value FROM change_stamp").fetchone()[0]
            return stamp

    # Users

    def add_user(self, user: User, *, first_is_admin: bool) -> User:
        with self._database.writing() as connection:
            if _owner_of_email(connection, user.email) is not None:
                raise EmailTaken(user.email)
            if first_is_admin and connection.execute("SELECT 1 FROM users LIMIT 1").fetchone() is None:
                user = dataclasses.replace(user, role="admin")
            connection.execute(_ADD_USER, _user_row(user))
            return user

    def user(self, user_id: str) -> User | None:
        with self._database.reading() as connection:
            return _find_user(connection, user_id)

    def user_by_email(self, email: str) -> User | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM users WHERE email = ?", (storable(email),)).fetchone()
            return None if row is None else _user(row)

    def users(self) -> list[User]:
        with self._database.reading() as connection:
            return [_user(row) for row in connection.execute("SELECT * FROM users ORDER BY created_at_ms, rowid")]

    def update_user(self, user_id: str, changes: Mapping[str, Any]) -> User | None:
        _require_changeable(changes, _CHANGEABLE_OF_USER)
        with self._database.writing() as connection:
            user = _find_user(connection, user_id)
            if user is None:
                return None
            user = dataclasses.replace(user, **changes)
            if _owner_of_email(connection, user.email) not in (None, user.id):
                raise EmailTaken(user.email)
            connection.execute(_CHANGE_USER, _user_row(user))
            return user

    def delete_user(self, user_id: str, *, now_ms: int) -> bool:
        with self._database.writing() as connection:
            connection.execute(_REVOKE_KEYS_OF_USER, (now_ms, storable(user_id)))
            return connection.execute("DELETE FROM users WHERE id = ?", (storable(user_id),)).rowcount > 0

    # Keys

    def add_key(self, key: ApiKey, *, keys_per_user: int | None) -> None:
        with self._database.writing() as connection:
            _require_owner(connection, key)
            if keys_per_user is not None and key.user_id is not None:
                counted = "SELECT count(*) FROM keys WHERE user_id = ? AND revoked_at_ms IS NULL"
                if connection.execute(counted, (key.user_id,)).fetchone()[0] >= keys_per_user:
                    raise KeyLimitReached(key.user_id)
            connection.execute(_ADD_KEY, _key_row(key))

    def key(self, key_id: str) -> ApiKey | None:
        with self._database.reading() as connection:
            return _find_key(connection, key_id)

    def key_by_hash(self, key_hash: str) -> ApiKey | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM keys WHERE key_hash = ?", (storable(key_hash),)).fetchone()
            return None if row is None else _key(row)

    def keys(self, *, user_id: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        with self._database.reading() as connection:
            if user_id is None:
                rows = connection.execute(_KEYS, {"include_revoked": include_revoked})
            else:
                wanted = {"user_id": storable(user_id), "include_revoked": include_revoked}
                rows = connection.execute(_KEYS_OF_USER, wanted)
            return [_key(row) for row in rows]

    def update_key(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey | None:
        _require_changeable(changes, _CHANGEABLE_OF_KEY)
        with self._database.writing() as connection:
            key = _find_key(connection, key_id)
            if key is None:
                return None
            key = dataclasses.replace(key, **changes)
            _require_owner(connection, key)
            connection.execute(_CHANGE_KEY, _key_row(key))
            return key

    def spend_by_key(self, key_ids: Sequence[str], *, now_ms: int) -> dict[str, int]:
        with self._database.reading() as connection, connections.snapshot(connection):
            asked = {key_id: _budget_period(connection, key_id) for key_id in key_ids}
            spends = {
                period: rollups.spend_since(connection, "key", period_start_ms(period, now_ms))
                for period in set(asked.values())
            }
            return {key_id: nanos for key_id in asked if (nanos := spends[asked[key_id]].get(key_id)) is not None}

    def spend_since(self, kind: Spender, since_ms: int) -> dict[str, int]:
        with self._database.reading() as connection:
            return rollups.spend_since(connection, kind, since_ms)

    # Usage

    def add_usage(self, records: Sequence[UsageRecord], refusals: Sequence[Refusal]) -> None:
        if records or refusals:
            with self._database.writing() as connection:
                usage.add_rows(connection, [row_of(record) for record in records])
                usage.add_refusals(connection, refusals)

    def add_usage_rows(self, rows: Sequence[UsageRow]) -> None:
        if rows:
            with self._database.writing() as connection:
                usage.add_rows(connection, rows)

    def usage_report(self, which: UsageFilter) -> UsageReport:
        with self._database.reading() as connection, connections.snapshot(connection):
            return usage_reports.report(connection, which)

    def verify_usage(self) -> Verification:
        with self._database.reading() as connection:
            return verification.verify(connection)

    def recent_usage(self, which: UsageFilter, *, limit: int) -> list[UsageRecord]:
        with self._database.reading() as connection:
            return usage.recent(connection, which, limit)

    def usage_records(self, record_ids: Sequence[str]) -> list[UsageRecord]:
        with self._database.reading() as connection, connections.snapshot(connection):
            return usage.records_of(connection, [storable(each) for each in record_ids])

    def refusals_by_reason(self, which: UsageFilter) -> dict[str, int]:
        with self._database.reading() as connection:
            return usage.refusals_by_reason(connection, which)

    # Retention

    def space(self) -> Space:
        with self._database.reading() as connection:
            return retention.space(connection)

    def delete_records(self, *, before_ms: int, limit: int) -> int:
        with self._database.writing() as connection:
            return retention.delete_records(connection, before_ms, limit)

    def delete_refusals(self, *, before_ms: int, limit: int) -> int:
        with self._database.writing() as connection:
            return retention.delete_refusals(connection, before_ms, limit)

    def delete_hours(self, *, before_ms: int, limit: int) -> int:
        with self._database.writing() as connection:
            return retention.delete_hours(connection, before_ms, limit)

    def give_back(self) -> int:
        with self._database.writing() as connection:
            return retention.give_back(connection)


def _not_opened(path: Path, error: sqlite3.Error) -> StartError:
    match connections.code_of(error):
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return files.damaged(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StartError(f"the database {path} is locked by another process; end that process and try again")
        case sqlite3.SQLITE_FULL:
            return StartError(f"the database {path} cannot be opened: the disk is full; make room and try again")
        case _:
            cause = connections.cause_of(error)
            return StartError(f"the database {path} cannot be opened: {cause}; check the file and its folder")


def _require_changeable(changes: Mapping[str, Any], changeable: frozenset[str]) -> None:
    unknown = sorted(set(changes) - changeable)
    if unknown:
        raise ValueError(f"cannot be changed: {', '.join(unknown)}")


def _require_owner(connection: sqlite3.Connection, key: ApiKey) -> None:
    if key.user_id is not None and _find_user(connection, key.user_id) is None:
        raise OwnerMissing(key.user_id)


def _owner_of_email(connection: sqlite3.Connection, email: str) -> str | None:
    row = connection.execute("SELECT id FROM users WHERE email = ?", (storable(email),)).fetchone()
    return None if row is None else row[0]


def _find_user(connection: sqlite3.Connection, user_id: str) -> User | None:
    row = connection.execute("SELECT * FROM users WHERE id = ?", (storable(user_id),)).fetchone()
    return None if row is None else _user(row)


def _budget_period(connection: sqlite3.Connection, key_id: str) -> BudgetPeriod:
    """What a key's budget is for; all time for a key that there is not, whose spend is known all the same."""
    row = connection.execute("SELECT budget_period FROM keys WHERE id = ?", (storable(key_id),)).fetchone()
    return "total" if row is None else row[0]


def _find_key(connection: sqlite3.Connection, key_id: str) -> ApiKey | None:
    row = connection.execute("SELECT * FROM keys WHERE id = ?", (storable(key_id),)).fetchone()
    return None if row is None else _key(row)


def _user_row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": storable(user.email),
        "username": None if user.username is None else storable(user.username),
        "password_hash": user.password_hash,
        "role": user.role,
        "disabled": user.disabled,
        "token_version": user.token_version,
        **{limit: getattr(user, limit) for limit in _SHARED_LIMITS},
        "created_at_ms": user.created_at_ms,
    }


def _user(row: sqlite3.Row) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        username=row["username"],
        password_hash=row["password_hash"],
        role=row["role"],
        disabled=bool(row["disabled"]),
        token_version=row["token_version"],
        **{limit: row[limit] for limit in _SHARED_LIMITS},
        created_at_ms=row["created_at_ms"],
    )


def _key_row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "key_hash": key.key_hash,
        "key_prefix": key.key_prefix,
        "name": None if key.name is None else storable(key.name),
        "user_id": None if key.user_id is None else storable(key.user_id),
        **{limit: getattr(key, limit) for limit in _SHARED_LIMITS},
        "max_parallel_requests": key.max_parallel_requests,
        "allowed_models": None if key.allowed_models is None else json.dumps(key.allowed_models),
        "expires_at_ms": key.expires_at_ms,
        "blocked": key.blocked,
        "revoked_at_ms": key.revoked_at_ms,
        "created_at_ms": key.created_at_ms,
        "last_used_at_ms": key.last_used_at_ms,
    }


def _key(row: sqlite3.Row) -> ApiKey:
    models = row["allowed_models"]
    return ApiKey(
        id=row["id"],
        key_hash=row["key_hash"],
        key_prefix=row["key_prefix"],
        name=row["name"],
        user_id=row["user_id"],
        **{limit: row[limit] for limit in _SHARED_LIMITS},
        max_parallel_requests=row["max_parallel_requests"],
        allowed_models=None if models is None else tuple(json.loads(models)),
        expires_at_ms=row["expires_at_ms"],
        blocked=bool(row["blocked"]),
        revoked_at_ms=row["revoked_at_ms"],
        created_at_ms=row["created_at_ms"],
        last_used_at_ms=row["last_used_at_ms"],
    )
