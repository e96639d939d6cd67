"""How often someone may fail to sign in, and how many accounts one client may open, over all workers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from inferxgate.errors import STORE_UNAVAILABLE, TOO_MANY_ATTEMPTS, GatewayError
from inferxgate.server.addresses import throttle_name
from inferxgate.workers.attempts import Attempts, Rule, Subject, TooManyAttempts
from inferxgate.workers.shared import SharedUnavailable

_PER_ADDRESS = Rule("sign-ins of an address", 10, 300.0)
"""Failures for one e-mail address: 120 guesses an hour are no use against eight characters."""
_PER_CLIENT = Rule("sign-ins of a client", 50, 300.0)
"""Failures from one client address, behind which a whole office may sit."""
_REGISTRATIONS = Rule("registrations", 100, 3600.0)
_RETRY_AFTER_SECONDS = 5

log = logging.getLogger(__name__)


class SignIns:
    """Failed sign-ins by e-mail address and by client, and registrations by client.

    A sign-in counts as failed from the moment before its password is looked at until it has turned out right; one
    whose worker is killed meanwhile stays counted. Where nothing can be counted nobody signs in (503): passwords could
    be guessed without end otherwise. Every method raises ``GatewayError``.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def check(self, email: str, client: str) -> None:
        """Raises 429 where either has failed too often."""
        with _refusing("Too many failed attempts to sign in."):
            self._attempts.check(*_subjects(email, client))

    def claim(self, email: str, client: str) -> int:
        """Count a sign-in as failed, until it has succeeded; its moment. Raises 429 where either may not try."""
        with _refusing("Too many failed attempts to sign in."):
            return self._attempts.claim(*_subjects(email, client))

    def succeeded(self, email: str, client: str, moment: int) -> None:
        """Forget the failures of an address. Its client's stay: one good account must not buy guesses at others."""
        of_address, of_client = _subjects(email, client)
        with _refusing():
            self._attempts.forget(of_address)
            self._attempts.withdraw(of_client, moment)

    def check_registration(self, client: str) -> None:
        with _refusing("Too many accounts were registered from here."):
            self._attempts.check((_REGISTRATIONS, throttle_name(client)))

    def claim_registration(self, client: str) -> None:
        """Count one try to register, whatever comes of it: an answer of "taken" is worth something to a stranger."""
        with _refusing("Too many accounts were registered from here."):
            self._attempts.claim((_REGISTRATIONS, throttle_name(client)))


def _subjects(email: str, client: str) -> tuple[Subject, Subject]:
    return (_PER_ADDRESS, email), (_PER_CLIENT, throttle_name(client))


@contextlib.contextmanager
def _refusing(message: str = "") -> Iterator[None]:
    try:
        yield
    except TooManyAttempts as error:
        minutes = max(1, round(error.wait_seconds / 60))
        raise GatewayError(
            TOO_MANY_ATTEMPTS,
            f"{message} Try again in about {minutes} minute{'s' if minutes > 1 else ''}.",
            retry_after_seconds=error.wait_seconds,
        ) from None
    except SharedUnavailable as error:
        log.error("no sign-in can be counted: %s", error)
        raise GatewayError(
            STORE_UNAVAILABLE,
            "Sign-ins cannot be counted now, so none is accepted; the operator sees the reason in the log.",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        ) from error
