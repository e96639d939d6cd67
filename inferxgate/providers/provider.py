"""A provider as a value: where it is, how it is spoken to, and how a request to it is signed.

``Row`` holds the facts of a type of provider and is written once, in this room; ``Provider`` is one configured
provider: a row with its own name, address and credential. There is no inheritance: what two types share is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inferxgate.providers.http import HttpRequest, Timeouts

if TYPE_CHECKING:  # the configuration reads the rows, and a command like `keys create` loads nothing it does not need
    from inferxgate.dialects.protocol import Call


def bearer(api_key: str) -> Mapping[str, str]:
    """The credential as most hosts take it."""
    return {"authorization": f"Bearer {api_key}"}


@dataclass(frozen=True, slots=True)
class Row:
    """What all providers of one type have in common."""

    type: str
    """The name in the configuration."""
    owner: str
    """What ``owned_by`` says in lists of models."""
    dialect: str
    base_url: str
    """As the provider's own SDK spells it."""
    paths: Mapping[str, str]
    """The path of each operation, after the base URL."""
    authorize: Callable[[str], Mapping[str, str]] = bearer
    key_variables: tuple[str, ...] = ()
    """Environment names of the credential, the first one set wins; as the provider's own SDK reads them."""
    url_variables: tuple[str, ...] = ()
    """Environment names of the base URL."""
    price_id: str | None = None
    """The provider's id in the price package; holds only for the row's own base URL."""
    models: tuple[str, ...] = ()
    """Models that it always has."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider."""

    name: str
    row: Row
    base_url: str
    """Without a slash at the end."""
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request; may hold secrets."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """For streams; whole answers have ``total_seconds`` too."""
    total_seconds: float = 600.0
    """The bound on a whole answer."""
    stream_usage: bool = True
    """Whether a stream may be asked for its usage (``stream_options``); some hosts refuse unknown fields."""
    models: tuple[str, ...] = ()
    """Models that the configuration says it has."""
    price_id: str | None = None
    """The provider's id in the price package, where its address is the vendor's own."""

    def request(self, call: Call, *, stream: bool) -> HttpRequest:
        """The signed request for one call."""
        headers = {"accept": "text/event-stream" if stream else "application/json", **call.headers}
        if self.api_key:
            headers.update(self.row.authorize(self.api_key))
        headers.update(self.headers)
        return HttpRequest(
            method="POST",
            url=self.base_url + self.row.paths[call.operation],
            headers=headers,
            body=call.body,
            timeouts=self.timeouts if stream else self._whole_timeouts(),
        )

    def secrets(self) -> tuple[str, ...]:
        """What must never appear in a message or a log."""
        values = {self.api_key or "", *self.headers.values()}
        values |= {value.partition(" ")[2] for value in values}  # what follows "Bearer" or another scheme
        return tuple(sorted((value for value in values if len(value) >= 8), key=len, reverse=True))

    def _whole_timeouts(self) -> Timeouts:
        times = self.timeouts
        return Timeouts(times.connect_seconds, times.first_byte_seconds, times.idle_seconds, self.total_seconds)
