"""Every route, every method, every kind of caller: what they are answered.

``TABLE`` is written by hand from the contract. A route of the server that is missing from it fails a test, and so does
a row for a route that does not exist.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from inferxgate.accounts import keys, users
from inferxgate.accounts.tokens import Tokens, load_or_create_secret
from tests.server.conftest import CHAT, Person, World, bearer

STRANGERS = (
    "no credential",
    "an empty bearer",
    "a basic authorization",
    "another vendor's key",
    "a mistyped key",
    "a key that never was",
    "a key in X-API-Key that never was",
    "a token in X-API-Key",
    "two contradicting bearers",
    "a revoked key",
    "a blocked key",
    "an expired key",
    "a rotated key's old secret",
    "a disabled user's key",
    "a deleted user's key",
    "an expired token",
    "a token signed by someone else",
    "a token without a signature",
    "a token that names another role",
    "a token from before the password changed",
    "a disabled user's token",
    "a deleted user's token",
)
"""All of these are nobody: 401 wherever a caller has to be known."""

KNOWN = (
    "a user",
    "a user with a lower-case scheme",
    "another user",
    "an admin",
    "a user's key",
    "a user's key in X-API-Key",
    "a user's key in X-API-Key beside a basic authorization",
    "nobody's key",
    "an admin's key",
)

Header = list[tuple[str, str]]


@dataclass
class Cast:
    """Everyone, with what they send, and what they own."""

    world: World
    headers: dict[str, Header]
    user: Person
    admin: Person

    def key_id(self) -> str:
        """A fresh key of ``a user``."""
        return self.world.key(self.user.user)[0].id

    def nobodys_key_id(self) -> str:
        return self.world.key()[0].id


def unsigned(token: str) -> str:
    """The token with the algorithm that needs no signature."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


def promoted(token: str) -> str:
    """The token saying that its holder is an admin, under the old signature."""
    head, claims, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    said["role"] = "admin"
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b'=').decode()}.{signature}"


def mistyped(secret: str) -> str:
    return secret[:20] + ("A" if secret[20] != "A" else "B") + secret[21:]


@pytest.fixture(scope="module")
def cast(world: World) -> Cast:
    store = world.store
    user, other, admin, changed = world.person(), world.person(), world.person("admin"), world.person()
    disabled, deleted = world.person(), world.person()
    headers: dict[str, Header] = {
        "no credential": [],
        "an empty bearer": [("Authorization", "Bearer")],
        "a basic authorization": [("Authorization", "Basic dXNlcjpwYXNz")],
        "another vendor's key": [("Authorization", "Bearer sk-proj-abcdefghijklmnop")],
        "a token in X-API-Key": [("X-API-Key", user.token)],
        "two contradicting bearers": [("Authorization", f"Bearer {user.token}"), ("Authorization", "Bearer x.y.z")],
        "an expired token": token_of(world.person(expires_seconds=-10).token),
        "a token signed by someone else": token_of(Tokens("x" * 40, 3600).issue(user.user, time.time())),
        "a token without a signature": token_of(unsigned(admin.token)),
        "a token that names another role": token_of(promoted(user.token)),
        "a token from before the password changed": token_of(changed.token),
        "a disabled user's token": token_of(disabled.token),
        "a deleted user's token": token_of(deleted.token),
        "a user": token_of(user.token),
        "a user with a lower-case scheme": [("authorization", f"bearer {user.token}")],
        "another user": token_of(other.token),
        "an admin": token_of(admin.token),
    }
    secret = keys.new_secret()
    headers["a key that never was"] = token_of(secret)
    headers["a key in X-API-Key that never was"] = [("X-API-Key", secret)]
    headers["a mistyped key"] = token_of(mistyped(world.secret(user.user)))
    revoked, secret = world.key(user.user)
    keys.revoke_key(store, revoked.id)
    headers["a revoked key"] = token_of(secret)
    blocked, secret = world.key(user.user)
    store.update_key(blocked.id, {"blocked": True})
    headers["a blocked key"] = token_of(secret)
    headers["an expired key"] = token_of(world.key(user.user, expires_at_ms=int(time.time() * 1000) - 1000)[1])
    rotated, secret = world.key(user.user)
    keys.rotate_key(store, rotated.id)
    headers["a rotated key's old secret"] = token_of(secret)
    headers["a disabled user's key"] = token_of(world.secret(disabled.user))
    headers["a deleted user's key"] = token_of(world.secret(deleted.user))
    secret = world.secret(user.user, rpm=0)
    headers["a user's key"] = token_of(secret)
    headers["a user's key in X-API-Key"] = [("X-API-Key", secret)]
    headers["a user's key in X-API-Key beside a basic authorization"] = [
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("X-API-Key", secret),
    ]
    headers["nobody's key"] = token_of(world.secret(rpm=0))
    headers["an admin's key"] = token_of(world.secret(admin.user, rpm=0))
    users.set_password(store, changed.user, "none")
    store.update_user(disabled.user.id, {"disabled": True})
    store.delete_user(deleted.user.id, now_ms=int(time.time() * 1000))
    assert set(headers) == {*STRANGERS, *KNOWN}
    return Cast(world, headers, user, admin)


def token_of(credential: str) -> Header:
    return list(bearer(credential).items())


def everyone(status: int) -> dict[str, int]:
    return dict.fromkeys((*STRANGERS, *KNOWN), status)


def known(status: int, **others: int) -> dict[str, int]:
    """``status`` for known callers, 401 for all others; ``others`` by a part of their names."""
    expected = dict.fromkeys(STRANGERS, 401) | dict.fromkeys(KNOWN, status)
    for part, other in others.items():
        for name in KNOWN:
            if part.replace("_", " ") in name:
                expected[name] = other
    return expected


ADMINS = known(403, an_admin=200)
PEOPLE = known(200, key=403)


@dataclass(frozen=True)
class Row:
    """One route and method, with who gets which status."""

    method: str
    path: str
    expected: dict[str, int]
    body: Any = None
    query: str = ""
    value: Callable[[Cast], str] | None = None
    """What stands in the path's place."""


TABLE = (
    Row("POST", "/v1/chat/completions", known(200), CHAT),
    Row("GET", "/v1/models", known(200)),
    Row("GET", "/v1/models/{id}", known(200), value=lambda _: "echo"),
    Row("GET", "/health", everyone(200)),
    Row("GET", "/health/live", everyone(200)),
    Row("GET", "/openapi.json", everyone(200)),
    Row("GET", "/metrics", ADMINS),
    Row("GET", "/stats", known(200)),
    # An empty body gets past the question of who asks, and no further.
    Row("POST", "/auth/register", everyone(400), {}),
    Row("POST", "/auth/login", everyone(400), {}),
    Row("GET", "/auth/me", PEOPLE),
    Row("GET", "/auth/keys", known(200)),
    Row("GET", "/auth/keys", ADMINS, query="?all=true"),
    Row("POST", "/auth/keys", known(201, key=403), {"name": "table"}),
    Row("GET", "/auth/keys/{id}", known(200, another=404, key=403), value=Cast.key_id),
    Row("PATCH", "/auth/keys/{id}", known(200, another=404, key=403), {"name": "x"}, value=Cast.key_id),
    Row("PATCH", "/auth/keys/{id}", known(403, admin=200, another=404, key=403), {"blocked": True}, value=Cast.key_id),
    Row("DELETE", "/auth/keys/{id}", known(200, another=404, key=403), value=Cast.key_id),
    Row("GET", "/auth/keys/{id}", known(404, admin=200, key=403), value=Cast.nobodys_key_id),
    Row("PATCH", "/auth/keys/{id}", known(404, admin=200, key=403), {"name": "x"}, value=Cast.nobodys_key_id),
    Row("DELETE", "/auth/keys/{id}", known(404, admin=200, key=403), value=Cast.nobodys_key_id),
    Row("GET", "/auth/keys/{id}", known(404, key=403), value=lambda _: "key_that_never_was"),
)
CONTRACT_CODES = {
    401: {"invalid_api_key", "invalid_token"},
    403: {"forbidden"},
    404: {"key_not_found"},
    405: {"method_not_allowed"},
}


def named(row: Row) -> str:
    return f"{row.method} {row.path}{row.query}"


@pytest.mark.parametrize("row", TABLE, ids=named)
def test_who_may_call_what(cast: Cast, row: Row) -> None:
    wrong = []
    for kind, status in row.expected.items():
        answer = ask(cast, row, kind)
        if answer.status_code != status:
            wrong.append(f"{kind}: {answer.status_code} instead of {status}: {answer.text[:200]}")
        if status >= 400:
            error = answer.json()["error"]
            assert set(error) == {"type", "message", "code", "param"}
            if status in CONTRACT_CODES:
                assert error["code"] in CONTRACT_CODES[status], (kind, error)
        assert ("X-RateLimit-Limit" in answer.headers) == (kind in KNOWN), kind
        assert "X-Request-Id" in answer.headers
    assert not wrong, "\n".join(wrong)


def ask(cast: Cast, row: Row, kind: str) -> httpx.Response:
    path = row.path
    if row.value is not None:
        path = path.replace("{id}", row.value(cast))
    return cast.world.client.request(row.method, path + row.query, headers=cast.headers[kind], json=row.body)


def described(world: World) -> set[tuple[str, str]]:
    paths = world.client.get("/openapi.json").json()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_the_table_has_every_route_and_no_other(world: World) -> None:
    assert {(row.method, row.path) for row in TABLE} == described(world)


@pytest.mark.parametrize("path", sorted({row.path for row in TABLE}))
def test_what_a_path_does_not_take_is_405_for_everyone(cast: Cast, path: str) -> None:
    methods = {row.method for row in TABLE if row.path == path}
    takes = methods | ({"HEAD"} if "GET" in methods else set()) | {"OPTIONS"}
    concrete = path.replace("{id}", "echo")
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - takes:
        for kind in ("no credential", "a mistyped key", "a user's key", "an admin"):
            answer = cast.world.client.request(method, concrete, headers=cast.headers[kind])
            assert answer.status_code == 405, (method, kind)
            assert set(re.split(r",\s*", answer.headers["Allow"])) == takes
            if method != "HEAD":
                assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", sorted({row.path for row in TABLE}))
def test_options_says_what_a_path_takes(cast: Cast, path: str) -> None:
    methods = {row.method for row in TABLE if row.path == path}
    for kind in ("no credential", "a user's key"):
        answer = cast.world.client.options(path.replace("{id}", "echo"), headers=cast.headers[kind])
        assert (answer.status_code, answer.content) == (204, b"")
        assert methods <= set(re.split(r",\s*", answer.headers["Allow"]))


@pytest.mark.parametrize("row", [row for row in TABLE if row.method == "GET"], ids=named)
def test_head_is_get_without_the_body(cast: Cast, row: Row) -> None:
    head = Row("HEAD", row.path, row.expected, query=row.query, value=row.value)
    for kind in ("no credential", "a user", "nobody's key", "an admin"):
        answer = ask(cast, head, kind)
        assert (answer.status_code, answer.content) == (row.expected[kind], b"")
        assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize("host", ["x/health?", "localhost#/health", "a b", "/health?x=", "[::1", "", "x:y:z"])
def test_a_bent_host_opens_nothing(cast: Cast, host: str) -> None:
    """The Host header advisory: where the path was taken from a rebuilt URL, this got past the check."""
    for path in ("/metrics", "/stats", "/auth/keys", "/v1/models"):
        with httpx.Client(base_url=cast.world.url) as client:
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code in (400, 401), (path, host)


def test_the_secrets_file_is_the_servers_own(world: World) -> None:
    path = world.process.data_dir / "jwt_secret"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_secret(world.process.data_dir) == path.read_text().strip()
