"""/auth: registering, signing in, and keys.

Passwords are hashed in threads of their own, and a sign-in with an unknown address does the same work and gets the same
answer as one with a wrong password. A key of someone else does not exist, as far as anyone but an admin is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from inferxgate.accounts import keys, passwords, users
from inferxgate.accounts.callers import Caller
from inferxgate.errors import (
    FORBIDDEN,
    INVALID_CREDENTIALS,
    INVALID_TOKEN,
    INVALID_VALUE,
    KEY_NOT_FOUND,
    REGISTRATION_CLOSED,
    GatewayError,
)
from inferxgate.server.addresses import is_local_request
from inferxgate.server.endpoints import Call
from inferxgate.server.responses import Reply, json_reply
from inferxgate.server.schemas import ChangeKeyBody, LoginBody, NewKeyBody, RegisterBody, key_object, user_object
from inferxgate.store.protocol import OwnerMissing
from inferxgate.store.records import ApiKey, User

_FIELDS_OF_A_KEY: dict[str, Any] = dict.fromkeys(("name", "rate_limit_rpm", "allowed_models", "expires_at_ms"))
"""What a new key has where nothing else is asked for."""
_LATEST_S = 253_402_300_799
"""The end of the year 9999, the last that ISO 8601 can write."""


# --- people


async def register(call: Call) -> Reply:
    """A new user, where registration is open. The very first becomes admin."""
    body: RegisterBody = call.body
    parts = call.parts
    if not registration_is_open(call):
        raise GatewayError(
            REGISTRATION_CLOSED,
            "Registration is closed (auth.registration). Ask the operator for an account: inferxgate users create.",
        )
    client = parts.addresses.client(call.scope)
    parts.sign_ins.check_registration(client)
    email = users.validate_email(body.email)
    username = keys.validate_name(body.username, param="username")
    passwords.validate_password(body.password)

    password_hash = await parts.threads.hash_password(
        lambda: parts.sign_ins.claim_registration(client), passwords.hash_password, body.password
    )
    user = await parts.threads.in_store(
        users.register, parts.runtime.store, email=email, password_hash=password_hash, username=username
    )
    return json_reply({"token": _token(call, user), "user": user_object(user)}, status=201, secret=True)


def registration_is_open(call: Call) -> bool:
    """``auto`` is open only for someone at this very machine, of a server that nobody else can reach."""
    match call.parts.runtime.settings.auth.registration:
        case "open":
            return True
        case "auto":
            return call.parts.listens_on_loopback and is_local_request(call.scope)
        case _:
            return False


async def login(call: Call) -> Reply:
    """A token for an address and its password."""
    body: LoginBody = call.body
    parts = call.parts
    client = parts.addresses.client(call.scope)
    email = users.validate_email(body.email)
    if len(body.password.encode()) > passwords.LONGEST:
        raise GatewayError(INVALID_VALUE, f"The password may have at most {passwords.LONGEST} bytes.", param="password")
    parts.sign_ins.check(email, client)
    user = await parts.threads.in_store(parts.runtime.store.user_by_email, email)

    moment = 0

    def claim() -> None:
        nonlocal moment
        moment = parts.sign_ins.claim(email, client)

    right = await parts.threads.hash_password(claim, passwords.verify_login, user, body.password)
    if user is None or not right:
        raise GatewayError(INVALID_CREDENTIALS, "The e-mail address or the password is wrong.")
    parts.sign_ins.succeeded(email, client, moment)
    return json_reply(
        {
            "token": _token(call, user),
            "token_type": "bearer",
            "expires_in": parts.runtime.settings.auth.jwt_expires_seconds,
            "user": user_object(user),
        },
        secret=True,
    )


async def me(call: Call) -> Reply:
    """The user whose token it is."""
    return json_reply(user_object(await _user_of(call)))


# --- keys


async def list_keys(call: Call) -> Reply:
    """The caller's own keys; with ``all=true``, for an admin, everyone's."""
    caller = call.known_caller
    store = call.parts.runtime.store
    if call.flag("all"):
        if not caller.is_admin:
            raise GatewayError(FORBIDDEN, "Only an admin may list the keys of everyone.", param="all")
        found = await call.parts.threads.in_store(store.keys)
    elif caller.user_id is not None:
        found = await call.parts.threads.in_store(store.keys, user_id=caller.user_id)
    else:
        own = await call.parts.threads.in_store(store.key, caller.key_id or "")
        found = [own] if own is not None else []
    return json_reply({"object": "list", "data": await _key_objects(call, found)})


async def create_key(call: Call) -> Reply:
    """A new key, with its secret. It belongs to the caller, unless an admin says otherwise."""
    body: NewKeyBody = call.body
    user = await _user_of(call)
    changes = _changes(body)
    _check_rights(call, user, None, changes)
    key, secret = await call.parts.threads.in_store(
        keys.create_key,
        call.parts.runtime.store,
        keys_per_user=call.parts.runtime.settings.auth.keys_per_user,
        **_FIELDS_OF_A_KEY | {"user_id": user.id} | changes,
    )
    return json_reply({**key_object(key, 0), "key": secret}, status=201, secret=True)


async def show_key(call: Call) -> Reply:
    return json_reply((await _key_objects(call, [await _own_key(call)]))[0])


async def change_key(call: Call) -> Reply:
    """Change the fields given, and no others."""
    body: ChangeKeyBody = call.body
    key = await _own_key(call)
    changes = _changes(body)
    if changes.get("blocked", False) is None:
        raise GatewayError(INVALID_VALUE, "blocked must be true or false.", param="blocked")
    if changes:
        _check_rights(call, await _user_of(call), key, changes)
        try:
            changed = await call.parts.threads.in_store(call.parts.runtime.store.update_key, key.id, changes)
        except OwnerMissing:
            raise GatewayError(INVALID_VALUE, "There is no user with this id.", param="user_id") from None
        if changed is None:
            raise _no_such_key(key.id)
        call.parts.identity.forget()
        key = changed
    return json_reply((await _key_objects(call, [key]))[0])


async def revoke_key(call: Call) -> Reply:
    """End a key, for good and at once."""
    key = await _own_key(call)
    await call.parts.threads.in_store(keys.revoke_key, call.parts.runtime.store, key.id)
    call.parts.identity.forget()
    return json_reply({"id": key.id, "object": "key", "deleted": True})


# --- what they share


def _token(call: Call, user: User) -> str:
    return call.parts.tokens.issue(user, int(time.time()))


async def _user_of(call: Call) -> User:
    """The caller as a user, fresh from the store: a right may have gone since the credential was remembered."""
    user = await call.parts.threads.in_store(call.parts.runtime.store.user, call.known_caller.user_id or "")
    if user is None or user.disabled:
        raise GatewayError(INVALID_TOKEN, "The user of this token is gone.")
    return user


async def _own_key(call: Call) -> ApiKey:
    """The key that the path names, if the caller may know of it. Raises ``GatewayError`` 404 otherwise."""
    key_id = call.path_value("id")
    key = await call.parts.threads.in_store(call.parts.runtime.store.key, key_id)
    if key is None or key.revoked_at_ms is not None or not _may_see(call.known_caller, key):
        raise _no_such_key(key_id)
    return key


def _may_see(caller: Caller, key: ApiKey) -> bool:
    return caller.is_admin or (key.user_id is not None and key.user_id == caller.user_id)


def _no_such_key(key_id: str) -> GatewayError:
    return GatewayError(KEY_NOT_FOUND, f"There is no key {key_id[:100]!r}; GET /auth/keys lists yours.")


def _check_rights(call: Call, user: User, key: ApiKey | None, changes: Mapping[str, Any]) -> None:
    defaults = call.parts.runtime.settings.limits.of_keys
    users.check_rights(call.known_caller, user, current_key=key, changes=changes, defaults=defaults)


def _changes(body: NewKeyBody) -> dict[str, Any]:
    """The given fields under the names and in the units of the store, validated."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    if "name" in changes:
        changes["name"] = keys.validate_name(changes["name"])
    for limit in keys.LIMITS.keys() & changes.keys():
        changes[limit] = keys.validate_limit(changes[limit], param=limit)
    if "max_budget" in changes:
        changes["max_budget_nanos"] = keys.validate_budget(changes.pop("max_budget"))
    if "budget_period" in changes:
        changes["budget_period"] = keys.validate_period(changes["budget_period"])
    if "allowed_models" in changes:
        changes["allowed_models"] = keys.validate_models(changes["allowed_models"])
    if "expires_at" in changes:
        changes["expires_at_ms"] = parse_expiry(changes.pop("expires_at"), time.time())
    return changes


def parse_expiry(value: str | float | None, now_s: float) -> int | None:
    """UTC milliseconds from ISO 8601 or Unix seconds. Raises ``GatewayError`` 400 for the past and for nonsense."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise _bad_expiry("must be ISO 8601, such as 2026-12-31T23:59:59Z, or Unix seconds") from None
        if moment.tzinfo is None:
            raise _bad_expiry("needs a time zone, such as the Z in 2026-12-31T23:59:59Z")
        seconds = moment.timestamp()
    else:
        seconds = float(value)
    if not seconds <= _LATEST_S:
        raise _bad_expiry("is later than the year 9999; are these milliseconds?")
    if seconds <= now_s:
        raise _bad_expiry("is in the past")
    return int(seconds * 1000)


def _bad_expiry(what: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, f"expires_at {what}.", param="expires_at")


async def _key_objects(call: Call, found: list[ApiKey]) -> list[dict[str, Any]]:
    spend = await call.parts.threads.in_store(keys.spend_of, call.parts.runtime.store, found)
    return [key_object(key, spend[key.id]) for key in found]
