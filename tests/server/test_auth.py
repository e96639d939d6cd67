"""/auth: registering, signing in, and keys, against a running gateway."""

from __future__ import annotations

import concurrent.futures
import statistics
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferxgate.accounts.keys import looks_like_key
from inferxgate.errors import GatewayError
from inferxgate.server.auth import parse_expiry
from tests.server.conftest import CHAT, PASSWORD, Person, World, bearer, opened

KEY_FIELDS = {
    "id",
    "key_prefix",
    "name",
    "user_id",
    "max_budget",
    "budget_period",
    "current_spend",
    "rate_limit_rpm",
    "rate_limit_tpm",
    "max_parallel_requests",
    "allowed_models",
    "expires_at",
    "blocked",
    "created_at",
    "last_used_at",
}


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@pytest.fixture
def person(world: World) -> Person:
    """Somebody without ceilings."""
    return world.person()


# --- registering


def test_the_first_to_register_is_admin_and_the_next_is_not(tmp_path: Path) -> None:
    with opened(tmp_path) as fresh:
        first = fresh.client.post("/auth/register", json={"email": "First@Example.com", "password": PASSWORD})
        assert first.status_code == 201
        assert first.headers["Cache-Control"] == "no-store"
        assert set(first.json()) == {"token", "user"}
        assert set(first.json()["user"]) == {"id", "email", "username", "role", "created_at"}
        assert (first.json()["user"]["email"], first.json()["user"]["role"]) == ("first@example.com", "admin")
        second = fresh.client.post(
            "/auth/register", json={"email": "b@example.com", "password": PASSWORD, "username": "Bea"}
        )
        assert (second.json()["user"]["username"], second.json()["user"]["role"]) == ("Bea", "user")
        assert fresh.get("/metrics", first.json()["token"]).status_code == 200
        assert fresh.get("/metrics", second.json()["token"]).status_code == 403
        taken = fresh.client.post("/auth/register", json={"email": "FIRST@example.com", "password": PASSWORD})
        assert error_of(taken) == (409, "email_taken", "email")


def test_of_two_first_users_at_once_one_is_admin(tmp_path: Path) -> None:
    with opened(tmp_path) as fresh, concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = pool.map(
            lambda number: fresh.client.post(
                "/auth/register", json={"email": f"u{number}@example.com", "password": PASSWORD}
            ).json()["user"]["role"],
            range(4),
        )
        assert sorted(answers) == ["admin", "user", "user", "user"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"email": "x" * 10_000 + "@example.com", "password": PASSWORD}, "email"),
        ({"email": "nobody", "password": PASSWORD}, "email"),
        ({"email": "a b@example.com", "password": PASSWORD}, "email"),
        ({"email": "a\r\nX-Evil: 1@example.com", "password": PASSWORD}, "email"),
        ({"email": "a@example.com", "password": "short"}, "password"),
        ({"email": "a@example.com", "password": "x" * 1025}, "password"),
        ({"email": "a@example.com", "password": "é" * 513}, "password"),
        ({"email": "a@example.com", "password": PASSWORD, "username": "a\nb"}, "username"),
        ({"email": "a@example.com", "password": PASSWORD, "role": "admin"}, "role"),
        ({"email": "a@example.com"}, "password"),
    ],
)
def test_a_bad_registration_is_told_which_field(world: World, body: dict[str, str], param: str) -> None:
    status, _, named = error_of(world.client.post("/auth/register", json=body))
    assert (status, named) == (400, param)


def test_a_password_longer_than_bcrypt_looks_at_is_not_cut(world: World) -> None:
    email, password = f"long{time.time_ns()}@example.com", "x" * 100
    assert world.client.post("/auth/register", json={"email": email, "password": password}).status_code == 201
    assert error_of(world.client.post("/auth/login", json={"email": email, "password": "x" * 99}))[0] == 401
    assert world.client.post("/auth/login", json={"email": email, "password": password}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "gateway.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
)
def test_auto_is_closed_to_what_may_come_from_elsewhere(world: World, headers: dict[str, str]) -> None:
    answer = world.client.post("/auth/register", json={"email": "a@b.example", "password": PASSWORD}, headers=headers)
    assert error_of(answer) == (403, "registration_closed", None)


def test_auto_is_closed_where_others_can_reach_the_server(tmp_path: Path) -> None:
    with opened(tmp_path, "", "--host", "0.0.0.0") as exposed:
        answer = exposed.client.post("/auth/register", json={"email": "a@b.example", "password": PASSWORD})
        assert error_of(answer) == (403, "registration_closed", None)


@pytest.mark.parametrize(("setting", "status"), [("open", 201), ("closed", 403)])
def test_open_and_closed_are_so_for_everyone(tmp_path: Path, setting: str, status: int) -> None:
    with opened(tmp_path, f'[auth]\nregistration = "{setting}"\n') as gateway:
        for number, headers in enumerate(({}, {"Host": "gateway.example", "X-Forwarded-For": "9.9.9.9"})):
            answer = gateway.client.post(
                "/auth/register", json={"email": f"u{number}@b.example", "password": PASSWORD}, headers=headers
            )
            assert answer.status_code == status


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_web_page_cannot_post_here_unasked(world: World, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = b'{"email": "a@b.example", "password": "12345678"}'
    for path in ("/auth/register", "/auth/login"):
        assert error_of(world.client.post(path, content=body, headers=headers))[:2] == (400, "invalid_content_type")


# --- signing in


def test_signing_in(world: World) -> None:
    someone = world.person(password=True)
    answer = world.client.post("/auth/login", json={"email": someone.user.email.upper(), "password": PASSWORD})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    content = answer.json()
    assert set(content) == {"token", "token_type", "expires_in", "user"}
    assert (content["token_type"], content["expires_in"]) == ("bearer", 86_400)
    me = world.get("/auth/me", content["token"])
    assert me.json() == content["user"]
    assert "password" not in me.text


def test_a_wrong_address_looks_like_a_wrong_password(world: World) -> None:
    someone, disabled = world.person(password=True), world.person(password=True)
    world.store.update_user(disabled.user.id, {"disabled": True})
    answers = [
        world.client.post("/auth/login", json={"email": email, "password": password})
        for email, password in (
            (someone.user.email, "wrong password"),
            ("nobody@example.com", PASSWORD),
            (disabled.user.email, PASSWORD),
        )
    ]
    assert {error_of(answer) for answer in answers} == {(401, "invalid_credentials", None)}
    assert len({answer.content for answer in answers}) == 1


def test_a_wrong_address_takes_as_long_as_a_wrong_password(world: World) -> None:
    """Both hash once. Without that, an unknown address would be answered a hundred times faster."""
    someone = world.person(password=True)

    def seconds(email: str) -> float:
        began = time.perf_counter()
        assert world.client.post("/auth/login", json={"email": email, "password": "wrong password"}).status_code == 401
        return time.perf_counter() - began

    known = statistics.median(seconds(someone.user.email) for _ in range(5))
    unknown = statistics.median(seconds(f"nobody{number}@example.com") for number in range(5))
    assert 0.1 < known / unknown < 10


@pytest.mark.parametrize("workers", [1, 3])
def test_an_address_is_throttled_also_for_tries_at_once(tmp_path: Path, workers: int) -> None:
    with opened(tmp_path, "", "--workers", str(workers)) as gateway, concurrent.futures.ThreadPoolExecutor(20) as pool:
        someone, other = gateway.person(password=True), gateway.person(password=True)

        def sign_in(who: Person, password: str) -> httpx.Response:
            body = {"email": who.user.email, "password": password}
            return httpx.post(gateway.url + "/auth/login", json=body, timeout=120)  # over a connection of its own

        answers = pool.map(lambda _: sign_in(someone, "wrong password"), range(24))
        assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 14}
        answer = sign_in(someone, PASSWORD)
        assert error_of(answer)[:2] == (429, "too_many_attempts")
        assert 0 < int(answer.headers["Retry-After"]) <= 300
        # Someone else's address is not theirs to close.
        assert sign_in(other, PASSWORD).status_code == 200


def test_others_are_answered_while_passwords_are_hashed(world: World) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(world.client.post, "/auth/login", json={"email": f"h{n}@example.com", "password": PASSWORD})
            for n in range(8)
        ]
        with httpx.Client(base_url=world.url) as client:
            while not all(each.done() for each in waiting):
                assert client.get("/health/live").status_code == 200
        assert {each.result().status_code for each in waiting} == {401}


# --- keys


def create(world: World, who: Person, **fields: Any) -> httpx.Response:
    return world.client.post("/auth/keys", json=fields, headers=who.headers)


def test_a_key_is_shown_once_and_works(world: World, person: Person) -> None:
    answer = create(world, person, name="laptop", rate_limit_rpm=7, allowed_models=["echo", "gpt-*"])
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json()
    secret = made.pop("key")
    assert looks_like_key(secret)
    assert set(made) == KEY_FIELDS
    assert secret.startswith(made["key_prefix"])
    assert (made["name"], made["rate_limit_rpm"], made["allowed_models"]) == ("laptop", 7, ["echo", "gpt-*"])
    assert (made["user_id"], made["current_spend"], made["blocked"]) == (person.user.id, 0, False)
    used = world.client.post("/v1/chat/completions", json=CHAT, headers=bearer(secret))
    assert (used.status_code, used.headers["X-RateLimit-Limit"], used.headers["X-RateLimit-Remaining"]) == (
        200,
        "7",
        "6",
    )
    shown = world.client.get(f"/auth/keys/{made['id']}", headers=person.headers)
    listed = world.client.get("/auth/keys", headers=person.headers)
    for text in (shown.text, listed.text):
        assert secret not in text
        assert "key_hash" not in text
    assert shown.json()["id"] in {each["id"] for each in listed.json()["data"]}


def test_everyone_lists_their_own(world: World) -> None:
    someone, other, admin = world.person(), world.person(), world.person("admin")
    own, secret = world.key(someone.user)
    theirs, _ = world.key(other.user)
    nobodys, nobodys_secret = world.key()

    def listed(credential: str, query: str = "") -> set[str]:
        answer = world.get(f"/auth/keys{query}", credential)
        assert answer.json()["object"] == "list"
        return {each["id"] for each in answer.json()["data"]}

    assert listed(someone.token) == listed(secret) == {own.id}
    assert listed(nobodys_secret) == {nobodys.id}
    assert listed(admin.token) == set()
    assert {own.id, theirs.id, nobodys.id} <= listed(admin.token, "?all=true")
    assert error_of(world.get("/auth/keys?all=true", someone.token))[:2] == (403, "forbidden")
    assert error_of(world.get("/auth/keys?all=maybe", someone.token)) == (400, "invalid_value", "all")


def test_patch_changes_only_the_fields_given(world: World, person: Person) -> None:
    made = create(world, person, name="before", rate_limit_rpm=5, allowed_models=["echo"]).json()
    path = f"/auth/keys/{made['id']}"
    changed = world.client.patch(path, json={"name": "after"}, headers=person.headers)
    assert changed.status_code == 200
    del made["key"]
    assert changed.json() == made | {"name": "after"}
    assert world.client.patch(path, json={}, headers=person.headers).json() == changed.json()
    assert world.client.patch(path, json={"name": None}, headers=person.headers).json()["name"] is None


LIMITS: dict[str, Any] = {
    "rate_limit_rpm": 5,
    "rate_limit_tpm": 1000,
    "max_parallel_requests": 2,
    "max_budget": 10.000000001,
    "budget_period": "month",
}


def test_every_limit_is_kept_and_changed_by_itself(world: World, person: Person) -> None:
    made = create(world, person, **LIMITS).json()
    assert made.items() >= LIMITS.items()
    path = f"/auth/keys/{made['id']}"
    stored = world.store.key(made["id"])
    assert stored is not None
    assert (stored.max_budget_nanos, stored.budget_period) == (10_000_000_001, "month")
    assert world.get(path, person.token).json().items() >= LIMITS.items()
    admin = world.person("admin")
    changed = {"rate_limit_tpm": 7, "max_parallel_requests": 1, "max_budget": 0.000000001, "budget_period": "total"}
    expected = dict(LIMITS)
    for name, value in changed.items():
        answer = world.client.patch(path, json={name: value}, headers=person.headers)
        expected[name] = value
        assert answer.json().items() >= expected.items()
    cleared = dict.fromkeys(LIMITS)
    answer = world.client.patch(path, json=cleared, headers=admin.headers)
    assert answer.json().items() >= (cleared | {"budget_period": "total"}).items()
    assert create(world, person, **cleared).json().items() >= (cleared | {"budget_period": "total"}).items()


def test_what_is_wrong_with_a_budget_is_told_with_what_to_do(world: World, person: Person) -> None:
    message = create(world, person, max_budget=0).json()["error"]["message"]
    assert message == (
        "'max_budget' must be more than 0 dollars. Null is no budget; a key that may spend nothing is one to block or"
        " to revoke."
    )


def test_a_user_stays_within_their_own_budget(world: World, person: Person) -> None:
    world.store.update_user(person.user.id, {"max_budget_nanos": 10 * 10**9, "budget_period": "month"})
    refused = create(world, person, max_budget=10.01, budget_period="month")
    assert error_of(refused) == (403, "forbidden", "max_budget")
    assert "$10 a month" in refused.json()["error"]["message"]
    assert error_of(create(world, person, max_budget=1, budget_period="day")) == (403, "forbidden", "budget_period")
    for fields in ({}, {"max_budget": 10}, {"max_budget": 10, "budget_period": "month"}):
        assert create(world, person, **fields).status_code == 201


def test_a_lower_limit_is_in_force_at_once(world: World, person: Person) -> None:
    made = create(world, person, rate_limit_rpm=10).json()
    assert world.get("/v1/models", made["key"]).headers["X-RateLimit-Limit"] == "10"
    world.client.patch(f"/auth/keys/{made['id']}", json={"rate_limit_rpm": 3}, headers=person.headers)
    assert world.get("/v1/models", made["key"]).headers["X-RateLimit-Limit"] == "3"


@pytest.mark.parametrize(
    "fields",
    [{"rate_limit_rpm": 61}, {"rate_limit_rpm": 0}, {"user_id": "someone"}, {"user_id": None}],
)
def test_no_user_gets_above_their_ceiling(world: World, person: Person, fields: dict[str, Any]) -> None:
    assert error_of(create(world, person, **fields)) == (403, "forbidden", next(iter(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {"rate_limit_rpm": 6},
        {"rate_limit_rpm": None},
        {"rate_limit_tpm": 0},
        {"rate_limit_tpm": 101},
        {"max_parallel_requests": None},
        {"max_budget": 5.01},
        {"max_budget": None},
        {"budget_period": "day"},
        {"allowed_models": ["echo", "other"]},
        {"allowed_models": None},
        {"expires_at": "2999-01-01T00:00:00Z"},
        {"expires_at": None},
        {"blocked": False},
        {"user_id": None},
    ],
)
def test_no_user_raises_an_existing_key(world: World, person: Person, fields: dict[str, Any]) -> None:
    soon = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    limits = {"rate_limit_rpm": 5, "rate_limit_tpm": 100, "max_parallel_requests": 2, "max_budget": 5}
    made = create(world, person, allowed_models=["echo"], expires_at=soon, budget_period="week", **limits).json()
    answer = world.client.patch(f"/auth/keys/{made['id']}", json=fields, headers=person.headers)
    assert error_of(answer) == (403, "forbidden", next(iter(fields)))


def test_an_admin_may_all_that(world: World, person: Person) -> None:
    admin, other = world.person("admin"), world.person()
    made = create(world, person, rate_limit_rpm=5).json()
    path = f"/auth/keys/{made['id']}"
    fields = {"rate_limit_rpm": 1000, "rate_limit_tpm": 0, "blocked": True, "user_id": other.user.id}
    fields |= {"max_parallel_requests": 50, "max_budget": 1_000_000, "budget_period": "day"}
    assert world.client.patch(path, json=fields, headers=admin.headers).json().items() >= fields.items()
    assert world.get("/v1/models", made["key"]).status_code == 401
    assert world.client.patch(path, json={"blocked": False}, headers=admin.headers).status_code == 200
    assert world.get("/v1/models", made["key"]).status_code == 200
    answer = world.client.patch(path, json={"user_id": "nobody"}, headers=admin.headers)
    assert error_of(answer) == (400, "invalid_value", "user_id")
    assert error_of(create(world, admin, user_id="nobody")) == (400, "invalid_value", "user_id")
    assert create(world, admin, user_id=other.user.id).json()["user_id"] == other.user.id
    assert error_of(world.client.patch(path, json={"blocked": None}, headers=admin.headers)) == (
        400,
        "invalid_value",
        "blocked",
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": "a\r\nX-Evil: 1"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "\x00"}, "name"),
        ({"rate_limit_rpm": -1}, "rate_limit_rpm"),
        ({"rate_limit_rpm": 10**10}, "rate_limit_rpm"),
        ({"rate_limit_rpm": 10**30}, "rate_limit_rpm"),
        ({"allowed_models": []}, "allowed_models"),
        ({"allowed_models": [""]}, "allowed_models"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": 1e300}, "expires_at"),
        ({"expires_at": -1}, "expires_at"),
        ({"rate_limit_tpm": -1}, "rate_limit_tpm"),
        ({"max_parallel_requests": 10**10}, "max_parallel_requests"),
        ({"max_budget": 0}, "max_budget"),
        ({"max_budget": -5.5}, "max_budget"),
        ({"max_budget": 0.0000000001}, "max_budget"),
        ({"max_budget": 1e300}, "max_budget"),
        ({"max_budget": "10"}, "max_budget"),
        ({"budget_period": "year"}, "budget_period"),
        ({"what": 1}, "what"),
    ],
)
def test_a_bad_key_is_told_which_field(world: World, person: Person, fields: dict[str, Any], param: str) -> None:
    status, _, named = error_of(create(world, person, **fields))
    assert (status, named) == (400, param)
    made = world.key(person.user)[0]
    answer = world.client.patch(f"/auth/keys/{made.id}", json=fields, headers=person.headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_user_owns_so_many_keys_and_no_more(tmp_path: Path) -> None:
    with opened(tmp_path, "[auth]\nkeys_per_user = 2\n") as gateway:
        someone = gateway.person()
        made = [create(gateway, someone) for _ in range(3)]
        assert [answer.status_code for answer in made] == [201, 201, 403]
        assert made[2].json()["error"]["code"] == "forbidden"
        gateway.client.delete(f"/auth/keys/{made[0].json()['id']}", headers=someone.headers)
        assert create(gateway, someone).status_code == 201


def test_a_revoked_key_is_gone(world: World, person: Person) -> None:
    made = create(world, person).json()
    path = f"/auth/keys/{made['id']}"
    assert world.client.delete(path, headers=person.headers).json() == {
        "id": made["id"],
        "object": "key",
        "deleted": True,
    }
    for method in ("GET", "DELETE"):
        assert error_of(world.client.request(method, path, headers=person.headers))[:2] == (404, "key_not_found")
    assert error_of(world.client.patch(path, json={"name": "x"}, headers=person.headers))[:2] == (404, "key_not_found")


def test_when_a_key_expires() -> None:
    now = datetime(2026, 11, 23, 20, 40, tzinfo=UTC).timestamp()
    assert parse_expiry(None, now) is None
    assert parse_expiry("2026-11-23T22:40:00+01:00", now) == parse_expiry("2026-11-23T21:40:00Z", now)
    assert parse_expiry(now + 60, now) == parse_expiry(int(now) + 60, now) == int(now + 60) * 1000
    for nonsense in ("", "soon", "2026-11-23", "2026-13-01T00:00:00Z", now, now * 1000, float("nan"), float("inf")):
        with pytest.raises(GatewayError):
            parse_expiry(nonsense, now)
