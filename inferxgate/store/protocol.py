"""What a store can do. SQLite stands behind it today; PostgreSQL can stand beside it.

Every method is synchronous and may be called from any thread; the server calls them off its event loop. Every method
raises ``StoreUnavailable`` when the store cannot be read or written now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from inferxgate.store.records import ApiKey, Refusal, UsageFilter, UsageRecord, UsageReport, User, Verification
from inferxgate.store.retention import Prunable
from inferxgate.store.rows import UsageRow


class EmailTaken(Exception):
    """Another user has this address."""


class KeyLimitReached(Exception):
    """The user owns as many keys as they may."""


class OwnerMissing(Exception):
    """There is no user with the id that a key names as its owner."""


class Store(Prunable, Protocol):
    """Users, keys, usage, and a stamp that changes whenever who-may-what changes."""

    def change_stamp(self) -> int:
        """A number that grows with every change to users and keys, by any process."""

    # Users

    def add_user(self, user: User, *, first_is_admin: bool) -> User:
        """Store a user; with ``first_is_admin``, the very first one becomes admin whatever its role says.

        Decided in one transaction, so that of two first users only one is admin. Raises ``EmailTaken``.
        """

    def user(self, user_id: str) -> User | None: ...

    def user_by_email(self, email: str) -> User | None: ...

    def users(self) -> list[User]:
        """All users, oldest first."""

    def update_user(self, user_id: str, changes: Mapping[str, Any]) -> User | None:
        """Change the named fields of ``User``; the changed user, or None if there is none. Raises ``EmailTaken``."""

    def delete_user(self, user_id: str, *, now_ms: int) -> bool:
        """Delete a user and revoke their keys; their usage stays. False if there was none."""

    # Keys

    def add_key(self, key: ApiKey, *, keys_per_user: int | None) -> None:
        """Store a key; with ``keys_per_user``, only while its owner has fewer that are not revoked.

        Raises ``KeyLimitReached`` and ``OwnerMissing``.
        """

    def key(self, key_id: str) -> ApiKey | None: ...

    def key_by_hash(self, key_hash: str) -> ApiKey | None: ...

    def keys(self, *, user_id: str | None = None, include_revoked: bool = False) -> list[ApiKey]:
        """Keys of one user or of all, oldest first."""

    def update_key(self, key_id: str, changes: Mapping[str, Any]) -> ApiKey | None:
        """Change the named fields of ``ApiKey``; the changed key, or None if there is none. Raises ``OwnerMissing``."""

    def spend_by_key(self, key_ids: Sequence[str], *, now_ms: int) -> dict[str, int]:
        """Nano-dollars spent by each of these keys within its budget's current period, by when requests started.

        A key without any is absent.
        """

    def spend_since(self, kind: Literal["key", "user"], since_ms: int) -> dict[str, int]:
        """Nano-dollars by key or user id, of requests that started at ``since_ms`` or later.

        ``since_ms`` is 0 for all time, or a midnight in UTC; ``ValueError`` for another moment. Who has spent nothing
        is absent.
        """

    # Usage

    def add_usage(self, records: Sequence[UsageRecord], refusals: Sequence[Refusal]) -> None:
        """Store all of it or nothing. A record whose id is known already is passed over.

        Of refusals of the same source, minute, caller and reason the highest count stands. Also moves
        ``last_used_at_ms`` of the keys forward.
        """

    def add_usage_rows(self, rows: Sequence[UsageRow]) -> None:
        """The same of records that are rows already, which is much cheaper."""

    def usage_report(self, which: UsageFilter) -> UsageReport:
        """Usage of a span, in all and by group, from one moment's state of the store."""

    def verify_usage(self) -> Verification:
        """Compare records, hours, days and spend with each other. Takes long; others go on reading and writing."""

    def recent_usage(self, which: UsageFilter, *, limit: int) -> list[UsageRecord]:
        """The newest records first."""

    def usage_records(self, record_ids: Sequence[str]) -> list[UsageRecord]:
        """Those of these records that are stored."""

    def refusals_by_reason(self, which: UsageFilter) -> dict[str, int]: ...

    def close(self) -> None: ...
