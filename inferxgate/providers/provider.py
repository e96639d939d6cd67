"""A provider as a value: where it is, how it is spoken to, and how a request to it is signed.

``Row`` holds the facts of a type of provider and is written once, in this room; ``Provider`` is one configured
provider: a row with its own name, address and credential. There is no inheritance: what two types share is a function.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

from inferxgate import errors
from inferxgate.dialects.quirks import Quirks
from inferxgate.errors import GatewayError
from inferxgate.providers.http import HttpRequest, Timeouts
from inferxgate.values import dataclass

if TYPE_CHECKING:  # the configuration reads the rows, and a command like `keys create` loads nothing it does not need
    from inferxgate.dialects.protocol import Call


def bearer(api_key: str) -> Mapping[str, str]:
    """The credential as most hosts take it."""
    return {"authorization": f"Bearer {api_key}"}


_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


def path_segment(name: str) -> str:
    """A model's or deployment's name as one segment of a URL's path.

    Raises ``GatewayError`` (400) for one that cannot stand there: nothing that a client names may lead elsewhere.
    """
    if not _SEGMENT.fullmatch(name):
        raise GatewayError(
            errors.INVALID_VALUE,
            "At this provider the name of a model has letters, digits and . _ : @ - only, and at most 128 of them.",
            param="model",
        )
    return quote(name, safe="")


def fixed_path(path: str) -> Callable[[Provider, Destination], str]:
    """The address of hosts that serve everything at one path after their base URL."""
    return lambda provider, _: provider.base_url + path


def listed_at(path: str) -> Callable[[Provider, str | None], str]:
    """The address of a list of models that is all on one page, at a path after the base URL."""
    return lambda provider, _: provider.base_url + path


@dataclass(frozen=True, slots=True)
class Destination:
    """What of a request an address may depend on."""

    model: str
    stream: bool


@dataclass(frozen=True, slots=True)
class Row:
    """What all providers of one type have in common."""

    type: str
    """The name in the configuration."""
    owner: str
    """What ``owned_by`` says in lists of models."""
    dialect: str
    """Name of the dialect that it speaks."""
    base_url: str | None
    """As the provider's own SDK spells it; None: each has its own, which the configuration must give."""
    url: Callable[[Provider, Destination], str]
    """The address of a chat request. Raises ``GatewayError`` (400) for a model name that cannot stand in one."""
    authorize: Callable[[str], Mapping[str, str]] = bearer
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request."""
    quirks: Quirks = field(default_factory=Quirks)
    key_variables: tuple[str, ...] = ()
    """Environment names of the credential, the first one set wins; as the provider's own SDK reads them."""
    url_variables: tuple[str, ...] = ()
    """Environment names of the base URL."""
    version_variables: tuple[str, ...] = ()
    """Environment names of the API's version."""
    price_id: str | None = None
    """The provider's id in the price package, where it has prices of its own."""
    hosts: tuple[str, ...] = ()
    """Further hosts of the vendor, beside the one of ``base_url`` and those below it."""
    spoken_by_others: bool = False
    """Whether this is the type of every server that speaks the vendor's API, whatever models it has."""
    models: tuple[str, ...] = ()
    """Models that it always has."""
    api_version: str | None = None
    """The API's version where the configuration names none; None: the type has no versions to choose from."""
    versioned: Callable[[str, str], Quirks] | None = None
    """The quirks at one base URL and version of the API, where they are not the same for all."""
    check_base_url: Callable[[str], object] | None = None
    """Raises ``ValueError`` for an address that cannot be right; the message goes on from the setting's name."""
    slashed_names: bool = False
    """Whether names of its models have slashes (``meta-llama/llama-4-scout``); without, such a name is never one."""
    state_of_any_credential: bool = False
    """Whether its own hosts take a model's signed thoughts back whatever the credential that they were made with."""
    own_names: bool = False
    """Whether names of models are the operator's own, so that nothing follows from them (Azure's deployments)."""
    list_url: Callable[[Provider, str | None], str] | None = None
    """The address of its own list of models; the second argument is what a further page is asked for with.

    None: it has no list, or none of what chats can name.
    """

    @property
    def self_hosted(self) -> bool:
        """Whether people run it themselves: it needs no credential, and what it costs is theirs to say."""
        return not self.key_variables


_MOST_SIGNED = 100


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider."""

    name: str
    row: Row
    base_url: str
    """Without a slash at the end."""
    api_key: str | None = field(default=None, repr=False)
    other_keys: tuple[str, ...] = field(default=(), repr=False)
    """Further credentials, each of which would do as well."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request; may hold secrets."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """For streams; whole answers have ``total_seconds`` too."""
    total_seconds: float = 600.0
    """The bound on a whole answer."""
    quirks: Quirks = field(default_factory=Quirks)
    """The row's, with what the configuration says otherwise."""
    api_version: str | None = None
    """Azure's ``api-version``, or ``v1``."""
    models: tuple[str, ...] = ()
    """Models that the configuration says it has."""
    price_id: str | None = None
    """The provider's id in the price package, where its models are the vendor's (see ``addresses``)."""
    deployments: Mapping[str, str] = field(default_factory=dict)
    """The vendor's name of the model behind a name that is the operator's own."""
    discover: bool = False
    """Whether the models of its own list are served too."""
    bearer: bool = False
    """Whether the credential is a token to be sent as ``Authorization: Bearer``, whatever the row says of keys."""
    credential: str = field(init=False)
    """What the credential goes by where it must not be seen: a short digest; empty where there is none."""
    _whole_timeouts: Timeouts = field(init=False, repr=False, compare=False)
    """For whole answers."""
    _signed: dict[tuple[object, ...], Mapping[str, str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """The headers of calls, by what they ask for: every request but the first of its kind has the same ones."""

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(self.api_key.encode(), digest_size=6).hexdigest() if self.api_key else ""
        object.__setattr__(self, "credential", digest)
        object.__setattr__(self, "_whole_timeouts", replace(self.timeouts, total_seconds=self.total_seconds))

    @property
    def listed_id(self) -> str | None:
        """The id in the price package under which its models are listed; None: it has other models, or names."""
        return None if self.row.own_names else self.price_id

    def with_each_key(self) -> tuple[Provider, ...]:
        """This provider once for each of its credentials, the preferred one first."""
        keys = (self.api_key or "", *self.other_keys)
        if len(keys) == 1:
            return (self,)
        return tuple(replace(self, api_key=key, other_keys=tuple(each for each in keys if each != key)) for key in keys)

    def vendor_model(self, model: str) -> str | None:
        """The vendor's name of a model, by which its price and abilities are known; None: nobody knows."""
        return self.deployments.get(model, None if self.row.own_names else model)

    def request(self, call: Call, *, model: str, stream: bool) -> HttpRequest:
        """The signed request for one call."""
        name = (stream, *call.headers.items())
        headers = self._signed.get(name)
        if headers is None:
            if len(self._signed) >= _MOST_SIGNED:
                self._signed.clear()
            headers = self._signed[name] = MappingProxyType(self._headers(call, stream=stream))
        return HttpRequest(
            method="POST",
            url=self.row.url(self, Destination(model, stream)),
            headers=headers,
            body=call.body,
            timeouts=self.timeouts if stream else self._whole_timeouts,
        )

    def _headers(self, call: Call, *, stream: bool) -> dict[str, str]:
        headers = {"accept": "text/event-stream" if stream else "application/json", **self.row.headers, **call.headers}
        if self.api_key:
            headers.update((bearer if self.bearer else self.row.authorize)(self.api_key))
        headers.update(self.headers)
        return headers

    def list_request(self, after: str | None = None) -> HttpRequest:
        """The signed request for its own list of models, or for the page that comes ``after`` another.

        Raises ``ValueError`` where its row has no such list.
        """
        if self.row.list_url is None:
            raise ValueError(f"{self.row.type} has no list of models")
        headers = {"accept": "application/json", **self.row.headers}
        if self.api_key:
            headers.update((bearer if self.bearer else self.row.authorize)(self.api_key))
        headers.update(self.headers)
        return HttpRequest("GET", self.row.list_url(self, after), headers, b"", self._list_timeouts())

    def secrets(self) -> tuple[str, ...]:
        """What must never appear in a message or a log."""
        values = {self.api_key or "", *self.other_keys, *self.headers.values()}
        values |= {value.partition(" ")[2] for value in values}  # what follows "Bearer" or another scheme
        return tuple(sorted((value for value in values if len(value) >= 8), key=len, reverse=True))

    def _list_timeouts(self) -> Timeouts:
        """For a page of a list of models: shorter than for answers, because no model has to think."""
        times = self.timeouts
        return Timeouts(
            times.connect_seconds,
            min(times.first_byte_seconds, 30.0),
            min(times.idle_seconds, 15.0),
            min(self.total_seconds, 60.0),
        )
