"""From a credential to the caller behind it, by asking the store. A no never says more than its holder may know.

A credential that was once valid is told why it is no longer; one that never was is told only that it is unknown.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

from inferxgate.accounts.callers import Caller
from inferxgate.accounts.keys import hash_secret, looks_like_key
from inferxgate.accounts.scopes import scopes_of_key, scopes_of_user
from inferxgate.errors import INVALID_API_KEY, INVALID_TOKEN, GatewayError
from inferxgate.store.protocol import Store
from inferxgate.store.records import User

if TYPE_CHECKING:
    from inferxgate.accounts.tokens import Tokens


def resolve_key(store: Store, secret: str, *, defaults: Mapping[str, int], now_ms: int) -> Caller:
    """The holder of a key. Raises ``GatewayError`` (``invalid_api_key``) and ``StoreUnavailable``."""
    if not looks_like_key(secret):
        raise _bad_key("Invalid API key provided.")
    key_hash = hash_secret(secret)
    key = store.key_by_hash(key_hash)
    if key is None or not hmac.compare_digest(key.key_hash, key_hash):
        raise _bad_key("Invalid API key provided.")
    if key.revoked_at_ms is not None:
        raise _bad_key("This API key has been revoked.")
    if key.blocked:
        raise _bad_key("This API key is blocked; ask an admin of this gateway.")
    if key.expires_at_ms is not None and key.expires_at_ms <= now_ms:
        raise _bad_key("This API key has expired.")
    owner = _owner(store, key.user_id)
    return Caller(
        kind="key",
        key_id=key.id,
        user_id=key.user_id,
        role=owner.role if owner is not None else "user",
        scopes=scopes_of_key(key, owner, defaults),
        allowed_models=key.allowed_models,
        expires_at_ms=key.expires_at_ms,
    )


def resolve_token(store: Store, tokens: Tokens, token: str, *, defaults: Mapping[str, int], now_ms: int) -> Caller:
    """The person who signed in. Raises ``GatewayError`` (``invalid_token``) and ``StoreUnavailable``."""
    claims = tokens.verify(token)
    if claims.expires_at_ms <= now_ms:
        raise _bad_token("The token has expired; sign in again.")
    user = store.user(claims.user_id)
    if user is None or user.disabled:
        raise _bad_token("The user of this token is disabled or deleted; ask an admin of this gateway.")
    if user.token_version != claims.token_version:
        raise _bad_token("The password has been changed since this token was issued; sign in again.")
    return Caller(
        kind="jwt",
        key_id=None,
        user_id=user.id,
        role=user.role,
        scopes=scopes_of_user(user, defaults),
        allowed_models=None,
        expires_at_ms=claims.expires_at_ms,
    )


def _owner(store: Store, user_id: str | None) -> User | None:
    """The user of a key; None for a key of nobody. Raises ``GatewayError`` where the user may no longer come in."""
    if user_id is None:
        return None
    owner = store.user(user_id)
    if owner is None or owner.disabled:
        raise _bad_key("The user of this API key is disabled or deleted; ask an admin of this gateway.")
    return owner


def _bad_key(message: str) -> GatewayError:
    return GatewayError(INVALID_API_KEY, message)


def _bad_token(message: str) -> GatewayError:
    return GatewayError(INVALID_TOKEN, message)
