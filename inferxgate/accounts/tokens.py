"""The tokens that people get at sign-in: JWTs, signed with HS256 and accepted with nothing else.

A token says who and until when. What its holder may do is asked of the store each time it is resolved, so the ``role``
in it is for clients to read and never believed; ``ver`` ties it to the password that it was issued for.

The library is loaded with the first token: it is dear, with the cryptography that it takes in where that is there, and
a gateway that only keys come to never needs it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from inferxgate.errors import INVALID_TOKEN, GatewayError, StartError
from inferxgate.store.files import locked_folder, make_private_folder
from inferxgate.store.records import User
from inferxgate.values import dataclass

SHORTEST_SECRET = 32
"""Bytes: as long as the digest of HS256 (RFC 7518, section 3.2)."""

_ALGORITHM = "HS256"
_REQUIRED = ("sub", "iat", "exp", "role", "ver")
_FILE = "jwt_secret"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    user_id: str
    token_version: int
    expires_at_ms: int


class Tokens:
    """Issues and verifies tokens with one secret."""

    def __init__(self, secret: str, expires_seconds: int) -> None:
        """Raises ``StartError`` for a secret that is shorter than 32 bytes."""
        if len(secret.encode("utf-8", "surrogateescape")) < SHORTEST_SECRET:
            raise StartError(
                f"auth.jwt_secret must have at least {SHORTEST_SECRET} bytes; make one with"
                " 'openssl rand -base64 48', or leave it out to have one made in the data folder"
            )
        self._secret = secret.encode("utf-8", "surrogateescape")
        self.expires_seconds = expires_seconds
        """How long a new token is valid."""

    def issue(self, user: User, now_s: float) -> str:
        """A token for this user, valid from now on."""
        import jwt

        issued = int(now_s)
        claims = {
            "sub": user.id,
            "iat": issued,
            "exp": issued + self.expires_seconds,
            "role": user.role,
            "ver": user.token_version,
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def verify(self, token: str) -> Claims:
        """What the token says. Raises ``GatewayError`` (``invalid_token``) for one that is not ours or has expired."""
        import jwt

        try:
            claims = jwt.decode(token, self._secret, algorithms=[_ALGORITHM], options={"require": list(_REQUIRED)})
        except jwt.ExpiredSignatureError:
            raise GatewayError(INVALID_TOKEN, "The token has expired; sign in again.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            # The last two come of what is not even base64 of JSON, or of JSON that is nested a thousand deep.
            raise _not_ours() from None
        user_id, version, expires = claims["sub"], claims["ver"], claims["exp"]
        if not isinstance(user_id, str) or not isinstance(version, int) or not isinstance(expires, int):
            raise _not_ours()
        return Claims(user_id, version, expires * 1000)


def _not_ours() -> GatewayError:
    return GatewayError(INVALID_TOKEN, "The token is malformed or was not issued here; sign in again.")


def load_or_create_secret(data_dir: Path) -> str:
    """The secret in the file ``jwt_secret`` (0600), made at the first start. Two processes at once agree on one.

    Raises ``StartError`` where the file can be neither read nor made, or holds no proper secret.
    """
    make_private_folder(data_dir)
    path = data_dir / _FILE
    try:
        secret = _read(path)
        if secret is None:
            with locked_folder(data_dir):
                secret = _read(path)
                if secret is None:
                    secret = _create(path)
    except OSError as error:
        raise StartError(f"cannot use {path}: {error.strerror}; make it readable, or set auth.jwt_secret") from error
    except UnicodeDecodeError:
        raise _useless(path) from None
    if len(secret.encode()) < SHORTEST_SECRET:
        raise _useless(path)
    return secret


def _useless(path: Path) -> StartError:
    return StartError(
        f"{path} holds no secret of {SHORTEST_SECRET} bytes or more; delete it to have a new one made (everybody has to"
        " sign in again), or set auth.jwt_secret"
    )


def _read(path: Path) -> str | None:
    try:
        secret = path.read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    found = path.stat()
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        path.chmod(0o600)
    return secret


def _create(path: Path) -> str:
    """Write a new secret beside its place and move it there whole; the folder is locked."""
    secret = secrets.token_urlsafe(48)
    descriptor, beside = tempfile.mkstemp(prefix=f".{_FILE}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
            os.fchmod(file.fileno(), 0o600)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise
    return secret
