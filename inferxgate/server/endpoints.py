"""What a route is: a path, a method, who may call it, and what runs. Authorisation hangs on this and on nothing else.

An endpoint cannot be declared without saying who may call it, so a route that someone forgets to guard does not exist.
The same declarations are what ``/openapi.json`` is written from.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from pydantic import BaseModel
from starlette.types import ASGIApp, Scope

from inferxgate.accounts.callers import Caller
from inferxgate.errors import FORBIDDEN, INVALID_VALUE, GatewayError
from inferxgate.values import dataclass

if TYPE_CHECKING:
    from inferxgate.accounts.tokens import Tokens
    from inferxgate.runtime import Runtime
    from inferxgate.server.addresses import Addresses
    from inferxgate.server.identity import Identity
    from inferxgate.server.responses import Reply
    from inferxgate.server.threads import Threads
    from inferxgate.server.throttle import SignIns


class Who(enum.Enum):
    """Who may call a route."""

    EVERYONE = "everyone"
    ANY = "any key or token"
    PERSON = "a person's token"
    ADMIN = "an admin's key or token"


@dataclass(slots=True)
class Draining:
    """Whether the server is on its way down."""

    started: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with; built once, when the server starts."""

    runtime: Runtime
    identity: Identity
    tokens: Tokens
    addresses: Addresses
    sign_ins: SignIns
    threads: Threads
    draining: Draining
    listens_on_loopback: bool
    missing_workers: Callable[[], int] = lambda: 0
    """How many of the gateway's processes do not serve at this moment."""
    mistaken: Callable[[], bool] = lambda: False
    """Whether the configuration file cannot be used as it is now, so that an older one is in force."""


@dataclass(slots=True)
class Call:
    """One request on its way into a handler, already allowed."""

    parts: Parts
    scope: Scope
    caller: Caller | None
    """Who is calling: always known except on routes for everyone."""
    body: Any = None
    """The parsed body, of the model that the endpoint declares."""

    @property
    def known_caller(self) -> Caller:
        if self.caller is None:
            raise AssertionError("this route is for known callers only")
        return self.caller

    def path_value(self, name: str) -> str:
        return str(self.scope["path_params"][name])

    def query(self, name: str) -> str | None:
        """The last value given for a query parameter. Raises ``GatewayError`` 400 for invalid UTF-8."""
        values = self._queries().get(name)
        return values[-1] if values else None

    def flag(self, name: str) -> bool:
        """A query parameter that is ``true`` or ``false``, false where it is absent."""
        value = self.query(name)
        if value is None or value.lower() in ("false", "0"):
            return False
        if value.lower() in ("true", "1"):
            return True
        raise GatewayError(INVALID_VALUE, f"{name} must be true or false.", param=name)

    def _queries(self) -> dict[str, list[str]]:
        raw: bytes = self.scope.get("query_string", b"")
        if not raw:
            return {}
        try:
            return parse_qs(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError:
            raise GatewayError(INVALID_VALUE, "The query string is malformed.") from None


Handler = Callable[[Call], Awaitable["Reply"]]


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter, for the interface's description."""

    name: str
    about: str
    kind: str = "string"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    who: Who
    about: str
    handler: Handler | None = None
    app: ASGIApp | None = None
    """Instead of a handler: a plain ASGI application, where speed asks for it."""
    body: type[BaseModel] | None = None
    """The model of the request's JSON body, validated before the handler runs."""
    answer: type[BaseModel] | None = None
    """The model of a successful answer; None where it is not JSON."""
    answer_type: str = "application/json"
    status: int = 200
    queries: Sequence[Query] = ()
    errors: Collection[int] = ()
    """Error statuses of this endpoint's own, besides those that its kind brings along."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """Where no model describes the request's body: its JSON schema."""


def check_allowed(who: Who, caller: Caller) -> None:
    """Raises ``GatewayError`` 403 where a known caller may not call a route."""
    match who:
        case Who.EVERYONE | Who.ANY:
            return
        case Who.PERSON:
            if caller.kind == "jwt":
                return
            raise GatewayError(
                FORBIDDEN, "This route is for people: sign in at /auth/login and send that token instead of a key."
            )
        case Who.ADMIN:
            if caller.is_admin:
                return
            raise GatewayError(FORBIDDEN, "This route is for admins.")
