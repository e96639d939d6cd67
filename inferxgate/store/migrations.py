"""The schema, as numbered steps that are applied once each and never edited afterwards.

Every applied step is written down with a checksum of its statements. Opening a store compares that list with this
module's: nothing to do is one small query; a step that is missing is applied; a step that this version does not know
(the store was used by a newer one) or knows differently stops the start with a line that says so, and nothing is
changed.

All missing steps are applied in one transaction, with the folder locked, so that of two processes that start at once
one does the work and the other finds it done.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from inferxgate.errors import StartError
from inferxgate.store.connections import transaction
from inferxgate.store.files import locked_folder
from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    statements: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """Of the statements; how they are laid out does not matter."""
        return sha256("\n".join(" ".join(statement.split()) for statement in self.statements).encode()).hexdigest()


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "users, keys and usage",
        (
            """
            CREATE TABLE users (
                id TEXT NOT NULL PRIMARY KEY,
                email TEXT NOT NULL UNIQUE,
                username TEXT,
                password_hash TEXT NOT NULL,
                role TEXT NOT NULL CHECK (role IN ('admin', 'user')),
                disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
                token_version INTEGER NOT NULL,
                rate_limit_rpm INTEGER CHECK (rate_limit_rpm >= 0),
                created_at_ms INTEGER NOT NULL
            )
            """,
            """
            CREATE TABLE keys (
                id TEXT NOT NULL PRIMARY KEY,
                key_hash TEXT NOT NULL UNIQUE,
                key_prefix TEXT NOT NULL,
                name TEXT,
                user_id TEXT REFERENCES users (id) ON DELETE SET NULL,
                rate_limit_rpm INTEGER CHECK (rate_limit_rpm >= 0),
                allowed_models TEXT,
                expires_at_ms INTEGER,
                blocked INTEGER NOT NULL CHECK (blocked IN (0, 1)),
                revoked_at_ms INTEGER,
                created_at_ms INTEGER NOT NULL,
                last_used_at_ms INTEGER
            )
            """,
            "CREATE INDEX keys_by_user ON keys (user_id, created_at_ms)",
            # A key without a user is a key all the same: one that outlived its user would go on working.
            """
            CREATE TRIGGER users_leave_no_live_key BEFORE DELETE ON users
            WHEN EXISTS (SELECT 1 FROM keys WHERE user_id = OLD.id AND revoked_at_ms IS NULL)
            BEGIN
                SELECT RAISE (ABORT, 'the user still has keys that are not revoked');
            END
            """,
            # The change stamp moves by triggers, so that no way to change a user or a key can forget it. When a key was
            # last used says nothing about who may what, and must not make every worker forget what it knows.
            "CREATE TABLE change_stamp (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL)",
            "INSERT INTO change_stamp (id, value) VALUES (1, 1)",
            """
            CREATE TRIGGER stamp_user_added AFTER INSERT ON users
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
            """
            CREATE TRIGGER stamp_user_changed AFTER UPDATE ON users
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
            """
            CREATE TRIGGER stamp_user_deleted AFTER DELETE ON users
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
            """
            CREATE TRIGGER stamp_key_added AFTER INSERT ON keys
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
            """
            CREATE TRIGGER stamp_key_changed AFTER UPDATE OF id, key_hash, key_prefix, name, user_id, rate_limit_rpm,
                allowed_models, expires_at_ms, blocked, revoked_at_ms, created_at_ms ON keys
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
            """
            CREATE TRIGGER stamp_key_deleted AFTER DELETE ON keys
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
            # Usage outlives the keys and users that it names, so nothing here refers to their tables.
            """
            CREATE TABLE usage (
                id TEXT NOT NULL PRIMARY KEY,
                request_id TEXT NOT NULL,
                started_at_ms INTEGER NOT NULL,
                status TEXT NOT NULL,
                http_status INTEGER NOT NULL,
                error_code TEXT,
                key_id TEXT,
                user_id TEXT,
                end_user TEXT,
                model_asked TEXT NOT NULL,
                model TEXT NOT NULL,
                provider TEXT NOT NULL,
                stream INTEGER NOT NULL,
                input_tokens INTEGER NOT NULL,
                cache_read_tokens INTEGER NOT NULL,
                cache_write_5m_tokens INTEGER NOT NULL,
                cache_write_1h_tokens INTEGER NOT NULL,
                audio_input_tokens INTEGER NOT NULL,
                image_input_tokens INTEGER NOT NULL,
                output_tokens INTEGER NOT NULL,
                reasoning_tokens INTEGER NOT NULL,
                audio_output_tokens INTEGER NOT NULL,
                image_output_tokens INTEGER NOT NULL,
                usage_source TEXT NOT NULL,
                cost_nanos INTEGER,
                price_version TEXT,
                first_token_ms INTEGER,
                duration_ms INTEGER NOT NULL
            )
            """,
            "CREATE INDEX usage_by_time ON usage (started_at_ms)",
            "CREATE INDEX usage_by_user ON usage (user_id, started_at_ms) WHERE user_id IS NOT NULL",
            "CREATE INDEX usage_by_key ON usage (key_id, started_at_ms) WHERE key_id IS NOT NULL",
            # What each key has spent, kept as a sum, because adding up years of usage is too slow to do per question.
            "CREATE TABLE key_spend (key_id TEXT NOT NULL PRIMARY KEY, cost_nanos INTEGER NOT NULL) WITHOUT ROWID",
            # '' stands for no key and no user here: NULLs would never be equal, and every count a new row.
            """
            CREATE TABLE refusals (
                minute_ms INTEGER NOT NULL,
                key_id TEXT NOT NULL,
                user_id TEXT NOT NULL,
                reason TEXT NOT NULL,
                source TEXT NOT NULL,
                count INTEGER NOT NULL,
                PRIMARY KEY (minute_ms, key_id, user_id, reason, source)
            ) WITHOUT ROWID
            """,
        ),
    ),
    Migration(
        2,
        "limits of tokens, of requests at once and of money",
        (
            "ALTER TABLE users ADD COLUMN rate_limit_tpm INTEGER CHECK (rate_limit_tpm >= 0)",
            "ALTER TABLE users ADD COLUMN max_budget_nanos INTEGER CHECK (max_budget_nanos > 0)",
            """
            ALTER TABLE users ADD COLUMN budget_period TEXT NOT NULL DEFAULT 'total'
            CHECK (budget_period IN ('total', 'day', 'week', 'month'))
            """,
            "ALTER TABLE keys ADD COLUMN rate_limit_tpm INTEGER CHECK (rate_limit_tpm >= 0)",
            "ALTER TABLE keys ADD COLUMN max_parallel_requests INTEGER CHECK (max_parallel_requests >= 0)",
            "ALTER TABLE keys ADD COLUMN max_budget_nanos INTEGER CHECK (max_budget_nanos > 0)",
            """
            ALTER TABLE keys ADD COLUMN budget_period TEXT NOT NULL DEFAULT 'total'
            CHECK (budget_period IN ('total', 'day', 'week', 'month'))
            """,
            "DROP TRIGGER stamp_key_changed",
            """
            CREATE TRIGGER stamp_key_changed AFTER UPDATE OF id, key_hash, key_prefix, name, user_id, rate_limit_rpm,
                rate_limit_tpm, max_parallel_requests, max_budget_nanos, budget_period, allowed_models, expires_at_ms,
                blocked, revoked_at_ms, created_at_ms ON keys
            BEGIN UPDATE change_stamp SET value = value + 1; END
            """,
        ),
    ),
    Migration(
        3,
        "usage rolled up by hour and day, and what users have spent",
        (
            # Who, of whom, what and how it ended: said once here, and by a number in every hour and day that has it.
            # '' stands for no key and no user: NULLs would never be equal, and every record a series of its own.
            """
            CREATE TABLE usage_series (
                id INTEGER PRIMARY KEY,
                key_id TEXT NOT NULL,
                user_id TEXT NOT NULL,
                model TEXT NOT NULL,
                provider TEXT NOT NULL,
                status TEXT NOT NULL,
                UNIQUE (key_id, user_id, model, provider, status)
            )
            """,
            "CREATE INDEX usage_series_by_user ON usage_series (user_id)",
            """
            CREATE TABLE usage_rollups (
                span_hours INTEGER NOT NULL CHECK (span_hours IN (1, 24)),
                start_ms INTEGER NOT NULL,
                series_id INTEGER NOT NULL REFERENCES usage_series (id),
                requests INTEGER NOT NULL,
                input_tokens INTEGER NOT NULL,
                cache_read_tokens INTEGER NOT NULL,
                cache_write_5m_tokens INTEGER NOT NULL,
                cache_write_1h_tokens INTEGER NOT NULL,
                audio_input_tokens INTEGER NOT NULL,
                image_input_tokens INTEGER NOT NULL,
                output_tokens INTEGER NOT NULL,
                reasoning_tokens INTEGER NOT NULL,
                audio_output_tokens INTEGER NOT NULL,
                image_output_tokens INTEGER NOT NULL,
                cost_nanos INTEGER NOT NULL,
                unpriced_requests INTEGER NOT NULL,
                duration_ms INTEGER NOT NULL,
                first_tokens INTEGER NOT NULL,
                first_token_ms INTEGER NOT NULL,
                duration_histogram BLOB NOT NULL,
                first_token_histogram BLOB NOT NULL,
                PRIMARY KEY (span_hours, start_ms, series_id)
            ) WITHOUT ROWID
            """,
            """
            INSERT INTO usage_series (key_id, user_id, model, provider, status)
            SELECT DISTINCT coalesce(key_id, ''), coalesce(user_id, ''), model, provider, status FROM usage
            """,
            """
            INSERT INTO usage_rollups
            SELECT
                1, started_at_ms / 3600000 * 3600000, usage_series.id, count(*), sum(input_tokens),
                sum(cache_read_tokens), sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(audio_input_tokens),
                sum(image_input_tokens), sum(output_tokens), sum(reasoning_tokens), sum(audio_output_tokens),
                sum(image_output_tokens), coalesce(sum(cost_nanos), 0),
                sum(
                    cost_nanos IS NULL AND input_tokens + cache_read_tokens + cache_write_5m_tokens
                    + cache_write_1h_tokens + audio_input_tokens + image_input_tokens + output_tokens
                    + reasoning_tokens + audio_output_tokens + image_output_tokens > 0
                ),
                sum(duration_ms), count(first_token_ms), coalesce(sum(first_token_ms), 0), histogram(duration_ms),
                histogram(first_token_ms)
            FROM usage CROSS JOIN usage_series
                ON usage_series.key_id = coalesce(usage.key_id, '')
                AND usage_series.user_id = coalesce(usage.user_id, '') AND usage_series.model = usage.model
                AND usage_series.provider = usage.provider AND usage_series.status = usage.status
            GROUP BY started_at_ms / 3600000, usage_series.id
            """,
            """
            INSERT INTO usage_rollups
            SELECT
                24, start_ms / 86400000 * 86400000, series_id, sum(requests), sum(input_tokens), sum(cache_read_tokens),
                sum(cache_write_5m_tokens), sum(cache_write_1h_tokens), sum(audio_input_tokens),
                sum(image_input_tokens), sum(output_tokens), sum(reasoning_tokens), sum(audio_output_tokens),
                sum(image_output_tokens), sum(cost_nanos), sum(unpriced_requests), sum(duration_ms), sum(first_tokens),
                sum(first_token_ms), histogram_total(duration_histogram), histogram_total(first_token_histogram)
            FROM usage_rollups WHERE span_hours = 1
            GROUP BY start_ms / 86400000, series_id
            """,
            # Records and hours are deleted at some age. From these moments on, both are whole; a day is never deleted.
            """
            CREATE TABLE usage_kept (
                id INTEGER PRIMARY KEY CHECK (id = 1),
                records_since_ms INTEGER NOT NULL,
                hours_since_ms INTEGER NOT NULL
            )
            """,
            "INSERT INTO usage_kept (id, records_since_ms, hours_since_ms) VALUES (1, 0, 0)",
            "CREATE TABLE user_spend (user_id TEXT NOT NULL PRIMARY KEY, cost_nanos INTEGER NOT NULL) WITHOUT ROWID",
            """
            INSERT INTO user_spend (user_id, cost_nanos)
            SELECT user_id, sum(cost_nanos) FROM usage WHERE user_id IS NOT NULL AND cost_nanos > 0 GROUP BY user_id
            """,
        ),
    ),
    Migration(4, "attempts", ("ALTER TABLE usage ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1",)),
)


def migrate(connection: sqlite3.Connection, path: Path, *, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database at ``path`` up to date. Raises ``StartError`` and ``sqlite3.Error``."""
    if not _missing(connection, path, migrations) and _in_wal_mode(connection):
        return
    with locked_folder(path.parent):
        # Holds for a file that is still empty, and for no other: deleting old usage can then give space back.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise StartError(
                f"the file system of {path} lacks what the database needs (WAL); put it on a local disk with"
                " storage.database_url"
            )
        with transaction(connection):
            for migration in _missing(connection, path, migrations):
                _apply(connection, migration)


def _in_wal_mode(connection: sqlite3.Connection) -> bool:
    mode: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
    return mode == "wal"


def _missing(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> Sequence[Migration]:
    """The steps that are still to be applied, after a look at those that were."""
    applied = _applied(connection, path)
    newest = len(migrations)
    if len(applied) > newest:
        raise StartError(
            f"the database {path} was made by a newer version of inferxgate (its schema is {len(applied)}, this version"
            f" knows {newest}); use that version, or restore a backup from before it"
        )
    for migration, checksum in zip(migrations, applied, strict=False):
        if migration.checksum != checksum:
            raise StartError(
                f"the database {path} has another schema {migration.number} than this version of inferxgate; use the"
                " version that made it, or restore a backup"
            )
    return migrations[len(applied) :]


def _applied(connection: sqlite3.Connection, path: Path) -> list[str]:
    """The checksums of the applied steps, in order."""
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "inferxgate_migrations" in names:
        rows = connection.execute("SELECT checksum FROM inferxgate_migrations ORDER BY number").fetchall()
        return [row[0] for row in rows]
    if names:
        raise StartError(
            f"{path} is a database of another program; move it away, or name another place with storage.database_url"
        )
    return []


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS inferxgate_migrations"
        " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at_ms INTEGER NOT NULL)"
    )
    for statement in migration.statements:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO inferxgate_migrations (number, name, checksum, applied_at_ms) VALUES (?, ?, ?, ?)",
        (migration.number, migration.name, migration.checksum, time.time_ns() // 1_000_000),
    )
