"""Users and keys put straight into the store, for tests whose subject is another command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inferxgate.accounts import keys, users
from inferxgate.accounts.passwords import hash_password
from inferxgate.store.records import ApiKey, Role, User
from inferxgate.store.sqlite import SQLiteStore
from tests.support.terminal import CommandLine

PASSWORD = "correct horse"
_HASH = hash_password(PASSWORD)


@contextmanager
def opened(cli: CommandLine) -> Iterator[SQLiteStore]:
    """The store that the command line works on."""
    store = SQLiteStore.open(cli.data_dir / "inferxgate.db")
    try:
        yield store
    finally:
        store.close()


def add_user(cli: CommandLine, email: str = "ann@example.com", *, role: Role | None = None) -> User:
    """A user whose password is ``PASSWORD``; the first is admin."""
    with opened(cli) as store:
        return users.register(store, email=email, password_hash=_HASH, username=None, role=role)


def add_key(
    cli: CommandLine, name: str | None = None, *, user: User | None = None, rpm: int | None = None
) -> tuple[ApiKey, str]:
    """A key and its secret."""
    with opened(cli) as store:
        return keys.create_key(
            store,
            name=name,
            user_id=user.id if user else None,
            rate_limit_rpm=rpm,
            allowed_models=None,
            expires_at_ms=None,
            keys_per_user=None,
        )


def all_keys(cli: CommandLine) -> list[ApiKey]:
    """Every key, the revoked ones too."""
    with opened(cli) as store:
        return store.keys(include_revoked=True)


def live_names(cli: CommandLine) -> list[str | None]:
    """The names of the keys that are not revoked."""
    return [key.name for key in all_keys(cli) if key.revoked_at_ms is None]


def all_users(cli: CommandLine) -> list[User]:
    """Every user, oldest first."""
    with opened(cli) as store:
        return store.users()
