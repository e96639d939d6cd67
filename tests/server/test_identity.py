"""Who is calling: what is remembered, for how long, and what happens while the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from inferxgate.accounts import keys, users
from inferxgate.accounts.callers import Caller
from inferxgate.accounts.tokens import Tokens
from inferxgate.config_sections import LimitSettings
from inferxgate.errors import GatewayError
from inferxgate.server.identity import Identity, RawHeaders
from inferxgate.store.records import ApiKey, Role, User
from inferxgate.store.sqlite import SQLiteStore
from inferxgate.workers.limits import Scope
from tests.server.conftest import CHAT, World, bearer
from tests.server.serving import until

TOKENS = Tokens("x" * 48, 3600)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore.open(tmp_path / "inferxgate.db")
    yield opened
    opened.close()


@pytest.fixture
async def identity(store: SQLiteStore) -> AsyncIterator[Identity]:
    async with watching(store) as running:
        yield running


@contextlib.asynccontextmanager
async def watching(store: SQLiteStore) -> AsyncIterator[Identity]:
    running = Identity(store, TOKENS, defaults=LimitSettings().of_keys)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


def key_header(secret: str) -> RawHeaders:
    return [(b"x-api-key", secret.encode())]


def bearer_header(credential: str) -> RawHeaders:
    return [(b"host", b"localhost"), (b"authorization", b"Bearer " + credential.encode())]


def add_key(store: SQLiteStore, owner: User | None = None, *, expires_at_ms: int | None = None) -> tuple[str, str]:
    """Id and secret."""
    key, secret = keys.create_key(
        store,
        name=None,
        user_id=owner.id if owner else None,
        rate_limit_rpm=None,
        allowed_models=None,
        expires_at_ms=expires_at_ms,
        keys_per_user=None,
    )
    return key.id, secret


def add_user(store: SQLiteStore, email: str = "a@example.com", role: Role = "user") -> User:
    return users.register(store, email=email, password_hash="none", username=None, role=role)


async def until_forgotten(identity: Identity, headers: RawHeaders) -> None:
    await until(lambda: identity.known(headers) is None)


async def settled(identity: Identity, headers: RawHeaders) -> Caller:
    """The caller, remembered for good: the first reading of the change stamp forgets everyone once."""
    async with asyncio.timeout(10):
        while True:
            caller = await identity.look_up(headers)
            await asyncio.sleep(0.05)
            if identity.known(headers) == caller:
                return caller


async def test_a_key_is_remembered_once_it_was_looked_up(store: SQLiteStore, identity: Identity) -> None:
    key_id, secret = add_key(store)
    assert identity.known(key_header(secret)) is None
    caller = await settled(identity, key_header(secret))
    assert (caller.kind, caller.key_id, caller.scopes) == ("key", key_id, (Scope("key", key_id, 60),))
    assert identity.known(bearer_header(secret)) == caller


async def test_a_token_is_remembered_until_it_expires(store: SQLiteStore, identity: Identity) -> None:
    user = add_user(store)
    headers = bearer_header(Tokens("x" * 48, 2).issue(user, time.time()))
    assert (await identity.look_up(headers)).user_id == user.id
    await until_forgotten(identity, headers)
    await asyncio.sleep(2)
    with pytest.raises(GatewayError, match="expired"):
        await identity.look_up(headers)


async def test_a_key_ends_when_it_expires(store: SQLiteStore, identity: Identity) -> None:
    _, secret = add_key(store, expires_at_ms=int(time.time() * 1000) + 1_000)
    await identity.look_up(key_header(secret))
    await until_forgotten(identity, key_header(secret))
    await asyncio.sleep(1)
    with pytest.raises(GatewayError, match="expired"):
        await identity.look_up(key_header(secret))


async def test_a_no_is_not_remembered(store: SQLiteStore, identity: Identity) -> None:
    user = add_user(store)
    store.update_user(user.id, {"disabled": True})
    _, secret = add_key(store, user)
    with pytest.raises(GatewayError):
        await identity.look_up(key_header(secret))
    store.update_user(user.id, {"disabled": False})
    assert (await identity.look_up(key_header(secret))).user_id == user.id


async def test_a_change_by_anyone_is_noticed(store: SQLiteStore, identity: Identity, tmp_path: Path) -> None:
    owner = add_user(store, role="admin")
    key_id, secret = add_key(store, owner)
    assert (await settled(identity, key_header(secret))).is_admin
    elsewhere = SQLiteStore.open(tmp_path / "inferxgate.db")
    elsewhere.update_user(owner.id, {"role": "user"})
    await until_forgotten(identity, key_header(secret))
    assert not (await settled(identity, key_header(secret))).is_admin
    keys.revoke_key(elsewhere, key_id)
    elsewhere.close()
    await until_forgotten(identity, key_header(secret))
    with pytest.raises(GatewayError, match="revoked"):
        await identity.look_up(key_header(secret))


async def test_known_callers_stay_known_while_the_store_is_away(
    store: SQLiteStore, identity: Identity, tmp_path: Path
) -> None:
    _, secret = add_key(store)
    _, fresh = add_key(store)
    caller = await settled(identity, key_header(secret))
    (tmp_path / "inferxgate.db").rename(tmp_path / "away")
    await until(lambda: identity.store_failure is not None)
    assert identity.known(key_header(secret)) == caller
    with pytest.raises(GatewayError) as raised:
        await identity.look_up(key_header(fresh))
    assert (raised.value.status, raised.value.code) == (503, "store_unavailable")
    assert raised.value.retry_after_seconds
    with pytest.raises(GatewayError) as raised:  # what cannot be a key is told so without the store
        await identity.look_up(key_header("ix-api-key-nonsense"))
    assert raised.value.status == 401
    (tmp_path / "away").rename(tmp_path / "inferxgate.db")
    await until(lambda: identity.store_failure is None)
    assert (await identity.look_up(key_header(fresh))).kind == "key"


async def test_a_change_during_a_look_up_is_not_overlooked(tmp_path: Path) -> None:
    """The answer that was read before a revocation must not be remembered after it."""

    class SlowStore(SQLiteStore):
        """A store on a slow disk: what it has read arrives late."""

        def user(self, user_id: str) -> User | None:
            found = super().user(user_id)
            reading.set()
            go_on.wait()
            return found

    reading, go_on = threading.Event(), threading.Event()
    store = SlowStore.open(tmp_path / "inferxgate.db")
    assert isinstance(store, SlowStore)
    identity = Identity(store, TOKENS, defaults=LimitSettings().of_keys)
    owner = add_user(store)
    _, secret = add_key(store, owner)
    asking = asyncio.create_task(identity.look_up(key_header(secret)))
    await until(reading.is_set)
    store.update_user(owner.id, {"disabled": True})
    identity.forget()
    go_on.set()
    await asking
    assert identity.known(key_header(secret)) is None
    with pytest.raises(GatewayError):
        await identity.look_up(key_header(secret))
    await identity.stop()
    store.close()


async def test_many_at_once_ask_the_store_once(tmp_path: Path) -> None:
    class CountingStore(SQLiteStore):
        asked = 0

        def key_by_hash(self, key_hash: str) -> ApiKey | None:
            type(self).asked += 1
            time.sleep(0.05)
            return super().key_by_hash(key_hash)

    store = CountingStore.open(tmp_path / "inferxgate.db")
    identity = Identity(store, TOKENS, defaults=LimitSettings().of_keys)
    _, secret = add_key(store)
    callers = await asyncio.gather(*[identity.look_up(key_header(secret)) for _ in range(50)])
    assert len(set(callers)) == 1
    assert CountingStore.asked == 1
    await identity.stop()
    store.close()


async def test_one_who_stops_waiting_does_not_stop_the_others(store: SQLiteStore, identity: Identity) -> None:
    _, secret = add_key(store)
    waiting = [asyncio.create_task(identity.look_up(key_header(secret))) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert len({await task for task in waiting[1:]}) == 1


async def test_no_credential_is_told_of_keys_and_of_tokens(identity: Identity) -> None:
    with pytest.raises(GatewayError) as raised:
        await identity.look_up([])
    assert raised.value.code == "invalid_api_key"
    assert "X-API-Key: ix-api-key-" in raised.value.message
    assert "the token of POST /auth/login" in raised.value.message


async def test_a_token_in_the_header_of_keys_is_told_where_it_belongs(identity: Identity, store: SQLiteStore) -> None:
    user = users.register(store, email="ann@example.com", password_hash="x", username=None)
    token = TOKENS.issue(user, int(time.time()))
    with pytest.raises(GatewayError) as raised:
        await identity.look_up(key_header(token))
    assert (raised.value.status, raised.value.code) == (401, "invalid_token")
    assert "'Authorization: Bearer <token>'" in raised.value.message
    assert token not in raised.value.message


# --- the same in a running gateway


def test_a_new_key_works_at_once(world: World) -> None:
    for _ in range(5):
        assert world.get("/v1/models", world.secret()).status_code == 200


def test_a_revocation_by_the_command_line_is_in_force_within_a_second(world: World) -> None:
    key, secret = world.key(rpm=0)
    assert world.get("/v1/models", secret).status_code == 200
    world.process.run("keys", "revoke", key.id)
    time.sleep(1)
    answer = world.get("/v1/models", secret)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_disabled_user_and_a_changed_role_are_in_force_within_a_second(world: World) -> None:
    admin, _ = world.person("admin"), world.person("admin")  # the last one could not be demoted
    secret = world.secret(admin.user)
    for credential in (admin.token, secret):
        assert world.get("/metrics", credential).status_code == 200
    world.process.run("users", "role", admin.user.email, "user")
    time.sleep(1)
    for credential in (admin.token, secret):
        assert world.get("/metrics", credential).status_code == 403
    world.process.run("users", "disable", admin.user.email)
    time.sleep(1)
    for credential in (admin.token, secret):
        assert world.get("/v1/models", credential).status_code == 401
    world.process.run("users", "enable", admin.user.email)
    time.sleep(1)
    assert world.get("/v1/models", secret).status_code == 200


def test_a_revocation_over_http_is_in_force_at_once(world: World) -> None:
    owner = world.person()
    key, secret = world.key(owner.user)
    assert world.get("/v1/models", secret).status_code == 200
    assert world.client.delete(f"/auth/keys/{key.id}", headers=owner.headers).status_code == 200
    assert world.get("/v1/models", secret).status_code == 401


def test_a_good_key_is_never_told_that_it_is_bad(world: World) -> None:
    """The store's file goes away and comes back under a running gateway."""
    secret, fresh = world.secret(rpm=0), world.secret(rpm=0)
    path = world.process.data_dir / "inferxgate.db"
    assert world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret)).status_code == 200
    time.sleep(1)  # the keys just made are changes too, and make everyone be looked up once more
    assert world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret)).status_code == 200
    path.rename(path.with_name("away"))
    try:
        time.sleep(1)
        assert world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret)).status_code == 200
        answer = world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(fresh))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        health = world.client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert str(path) not in health.text
    finally:
        path.with_name("away").rename(path)
    time.sleep(1)
    assert world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(fresh)).status_code == 200
