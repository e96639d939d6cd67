"""Passwords, as bcrypt hashes. Slow on purpose (a quarter of a second): never call this on the event loop.

bcrypt looks at 72 bytes and stops at a NUL; so that nothing is cut in silence, it is given the SHA-256 of the password
in base64, which is 44 characters without a NUL whatever the password is.
"""

from __future__ import annotations

import base64
import hashlib

import bcrypt

from inferxgate.errors import INVALID_VALUE, GatewayError
from inferxgate.store.records import User

ROUNDS = 12
"""bcrypt's cost: two to the power of this many rounds."""
SHORTEST = 8
"""Characters."""
LONGEST = 1024
"""Bytes in UTF-8."""

HASH_OF_NOBODY = "$2b$12$ntQZ.OTgxtQeU8q2jMcGTusL211EdyK0RY6NFCjKP2Ya87o4zHP/6"
"""Of a password that nobody has kept, at the cost that all others have."""


def hash_password(password: str) -> str:
    """The hash to store. Raises ``GatewayError`` (``invalid_value``) for a password that cannot be one."""
    validate_password(password)
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(ROUNDS)).decode("ascii")


def validate_password(value: object) -> str:
    """The password, if it can be one. Raises ``GatewayError`` (``invalid_value``)."""
    if not isinstance(value, str):
        raise _invalid("The password must be a string.")
    if len(value) < SHORTEST:
        raise _invalid(f"The password must have at least {SHORTEST} characters.")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise _invalid("The password contains something that is not a character.") from None
    if size > LONGEST:
        raise _invalid(f"The password may have at most {LONGEST} bytes.")
    return value


def verify_password(password: str, password_hash: str) -> bool:
    """Whether this is the password of that hash; False for a hash that is none."""
    try:
        return bcrypt.checkpw(_digest(password), password_hash.encode("utf-8"))
    except ValueError:
        return False


def verify_nothing(password: str) -> bool:
    """Take as long as ``verify_password`` and say no, so that nobody learns from the time who has an account."""
    verify_password(password, HASH_OF_NOBODY)
    return False


def verify_login(user: User | None, password: str) -> bool:
    """Whether ``user`` may sign in with this password: a no takes equally long for every reason."""
    if user is None:
        return verify_nothing(password)
    return verify_password(password, user.password_hash) and not user.disabled


def _digest(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest())


def _invalid(message: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, message, param="password")
