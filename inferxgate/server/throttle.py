"""How often someone may fail to sign in, and how many accounts one client may open."""

from __future__ import annotations

from inferxgate.errors import TOO_MANY_ATTEMPTS, GatewayError
from inferxgate.server.addresses import throttle_name
from inferxgate.workers.attempts import Attempts

_WINDOW_SECONDS = 300.0
_PER_ADDRESS = 10
"""Failures for one e-mail address: 120 guesses an hour are no use against eight characters."""
_PER_CLIENT = 50
"""Failures from one client address, behind which a whole office may sit."""
_REGISTRATIONS = 100
_REGISTRATION_WINDOW_SECONDS = 3600.0


class SignIns:
    """Failed sign-ins by e-mail address and by client, and registrations by client."""

    def __init__(self) -> None:
        self._by_address = Attempts(_PER_ADDRESS, _WINDOW_SECONDS)
        self._by_client = Attempts(_PER_CLIENT, _WINDOW_SECONDS)
        self._registrations = Attempts(_REGISTRATIONS, _REGISTRATION_WINDOW_SECONDS)

    def check(self, email: str, client: str) -> None:
        """Raises ``GatewayError`` 429 where either has failed too often."""
        waits = (self._by_address.check(email), self._by_client.check(throttle_name(client)))
        _refuse("Too many failed attempts to sign in.", max((w for w in waits if w is not None), default=None))

    def failed(self, email: str, client: str) -> None:
        self._by_address.failed(email)
        self._by_client.failed(throttle_name(client))

    def succeeded(self, email: str) -> None:
        """Forget the failures of an address. Its client's stay: one good account must not buy guesses at others."""
        self._by_address.succeeded(email)

    def check_registration(self, client: str) -> None:
        _refuse("Too many accounts were registered from here.", self._registrations.check(throttle_name(client)))

    def registered(self, client: str) -> None:
        """Count one try to register, whatever came of it: an answer of "taken" is worth something to a stranger."""
        self._registrations.failed(throttle_name(client))


def _refuse(message: str, wait_seconds: float | None) -> None:
    if wait_seconds is not None:
        minutes = max(1, round(wait_seconds / 60))
        raise GatewayError(
            TOO_MANY_ATTEMPTS,
            f"{message} Try again in about {minutes} minute{'s' if minutes > 1 else ''}.",
            retry_after_seconds=wait_seconds,
        )
