"""A running gateway, and everyone who might knock at its door."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from inferxgate.accounts import keys, users
from inferxgate.accounts.passwords import hash_password
from inferxgate.accounts.tokens import Tokens, load_or_create_secret
from inferxgate.store.records import ApiKey, Role, User
from inferxgate.store.sqlite import SQLiteStore
from tests.support.process import GatewayProcess

PASSWORD = "correct horse battery"


@dataclass
class Person:
    """A user with a valid token."""

    user: User
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class World:
    """A gateway process, and the same store opened from outside, as the command line does."""

    def __init__(self, process: GatewayProcess) -> None:
        self.process = process
        self.url = process.url
        self.store = SQLiteStore.open(process.data_dir / "inferxgate.db")
        self.tokens = Tokens(load_or_create_secret(process.data_dir), 3600)
        self.client = httpx.Client(base_url=process.url, timeout=30)
        self._count = 0
        self._password_hash: str | None = None

    def person(self, role: Role = "user", *, password: bool = False, expires_seconds: int = 3600) -> Person:
        """A new user. Only with ``password`` can they sign in: hashing one takes a quarter of a second."""
        self._count += 1
        password_hash = "none"
        if password:
            self._password_hash = password_hash = self._password_hash or hash_password(PASSWORD)
        user = users.register(
            self.store,
            email=f"{role}{self._count}-{time.time_ns()}@example.com",
            password_hash=password_hash,
            username=None,
            role=role,
        )
        tokens = Tokens(load_or_create_secret(self.process.data_dir), expires_seconds)
        return Person(user, tokens.issue(user, time.time()))

    def key(
        self,
        owner: User | None = None,
        *,
        rpm: int | None = None,
        models: tuple[str, ...] | None = None,
        expires_at_ms: int | None = None,
        name: str | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its secret."""
        return keys.create_key(
            self.store,
            name=name,
            user_id=owner.id if owner else None,
            rate_limit_rpm=rpm,
            allowed_models=models,
            expires_at_ms=expires_at_ms,
            keys_per_user=None,
        )

    def secret(self, owner: User | None = None, *, rpm: int | None = None) -> str:
        return self.key(owner, rpm=rpm)[1]

    def get(self, path: str, credential: str) -> httpx.Response:
        return self.client.get(path, headers=bearer(credential))

    def close(self) -> None:
        self.client.close()
        self.store.close()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One gateway for a module's tests; they share nothing but it."""
    with opened(tmp_path_factory.mktemp("gateway")) as opened_world:
        yield opened_world


@contextmanager
def opened(folder: Path, config: str = "", *arguments: str) -> Iterator[World]:
    """A gateway with the given configuration, for one test."""
    with GatewayProcess(folder, config=config, arguments=arguments) as process:
        opened_world = World(process)
        try:
            yield opened_world
        finally:
            opened_world.close()
