"""Users from the shell."""

from __future__ import annotations

from typing import Any

import pytest

from inferxgate.accounts.passwords import verify_password
from inferxgate.cli.values import now_ms
from inferxgate.store.records import User
from tests.cli.records import PASSWORD, add_key, add_user, all_keys, all_users, opened
from tests.support.stores import new_record
from tests.support.terminal import CommandLine, without_colour


def stored(cli: CommandLine, email: str) -> User:
    return next(user for user in all_users(cli) if user.email == email)


def test_the_first_user_is_admin_and_every_later_one_a_user(cli: CommandLine) -> None:
    for email in ("ann@example.com", "bob@example.com"):
        cli.well("users", "create", email, "--password-stdin", stdin=PASSWORD)
    assert [(user.email, user.role) for user in all_users(cli)] == [
        ("ann@example.com", "admin"),
        ("bob@example.com", "user"),
    ]


def test_a_role_that_is_said_decides(cli: CommandLine) -> None:
    for email, role in (("ann@example.com", "user"), ("bob@example.com", "admin")):
        cli.well("users", "create", email, "--role", role, "--password-stdin", stdin=PASSWORD)
    assert [user.role for user in all_users(cli)] == ["user", "admin"]


@pytest.mark.parametrize(
    ("piped", "password"),
    [
        (b"correct horse\n", "correct horse"),
        (b"correct horse", "correct horse"),
        (b"correct horse\r\n", "correct horse"),
        (b" spaces around \n", " spaces around "),
        ("Pässwörter 🐎\n".encode(), "Pässwörter 🐎"),
        (b"first line\nsecond line\n", "first line"),
    ],
)
def test_the_password_is_the_first_line(cli: CommandLine, piped: bytes, password: str) -> None:
    cli.well("users", "create", "ann@example.com", "--password-stdin", stdin=piped)
    hashed = stored(cli, "ann@example.com").password_hash
    assert verify_password(password, hashed)
    assert password not in hashed


@pytest.mark.parametrize(
    ("arguments", "piped", "message"),
    [
        (["ann@example.com"], b"", "There is no terminal to ask for the password: pipe it in with --password-stdin"),
        (["ann@example.com", "--password-stdin"], b"", "nothing on standard input"),
        (["ann@example.com", "--password-stdin"], b"\xff\xfe34567890", "no UTF-8"),
        (["ann@example.com", "--password-stdin"], b"short\n", "at least 8 characters"),
        (["ann@example.com", "--password-stdin"], b"x" * 1025, "at most 1024 bytes"),
        (["ann", "--password-stdin"], b"correct horse", "name@example.com"),
        (["a" * 10_000 + "@example.com", "--password-stdin"], b"correct horse", "at most 254 characters"),
        (["ann@example.com", "--username", "a\x07b", "--password-stdin"], b"correct horse", "control characters"),
        (["ann@example.com", "--role", "god", "--password-stdin"], b"correct horse", "'god' is not one of"),
    ],
)
def test_what_cannot_be_a_user_is_wrong_usage(
    cli: CommandLine, arguments: list[str], piped: bytes, message: str
) -> None:
    assert message in cli.fails("users", "create", *arguments, code=2, stdin=piped)
    assert all_users(cli) == []


def test_an_address_has_one_user(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    line = cli.fails("users", "create", "ANN@example.com", "--password-stdin", stdin=PASSWORD)
    assert line == "There is a user ann@example.com already; 'inferxgate users passwd' sets a new password"


def test_a_terminal_is_asked_twice_and_shows_nothing(cli: CommandLine) -> None:
    with cli.on_terminal("users", "create", "ann@example.com") as terminal:
        terminal.expect("Password: ")
        terminal.press("correct horse\n")
        terminal.expect("The same again: ")
        terminal.press("correct horse\n")
        assert terminal.end() == 0
        assert "correct" not in terminal.seen
        assert "Created ann@example.com" in terminal.seen
    assert verify_password(PASSWORD, stored(cli, "ann@example.com").password_hash)


@pytest.mark.parametrize(("second", "message"), [("wrong horse\n", "differ"), ("\x04", "No password was given")])
def test_a_slip_at_the_terminal_creates_nothing(cli: CommandLine, second: str, message: str) -> None:
    with cli.on_terminal("users", "create", "ann@example.com") as terminal:
        terminal.expect("Password: ")
        terminal.press("correct horse\n")
        terminal.expect("The same again: ")
        terminal.press(second)
        assert terminal.end() == 1
        assert message in terminal.seen
    assert all_users(cli) == []


def test_a_password_that_is_too_short_is_told_before_it_is_typed_again(cli: CommandLine) -> None:
    with cli.on_terminal("users", "create", "ann@example.com") as terminal:
        terminal.expect("Password: ")
        terminal.press("short\n")
        assert terminal.end() == 2
        assert "at least 8 characters" in terminal.seen
        assert "again" not in terminal.seen
    assert all_users(cli) == []


def test_list_and_show(cli: CommandLine) -> None:
    assert "users create" in cli.well("users", "list").err
    cli.well("users", "create", "ann@example.com", "--username", "Ann", "--password-stdin", stdin=PASSWORD)
    add_key(cli, "laptop", user=stored(cli, "ann@example.com"))
    lines = cli.well("users", "list").out.splitlines()
    assert lines[0].split() == [*("E-MAIL", "USERNAME", "ROLE", "RPM", "TPM", "BUDGET", "KEYS", "CREATED", "STATE")]
    assert lines[1].split() == [
        *("ann@example.com", "Ann", "admin", "60", "unlimited", "none", "1", "just", "now", "active")
    ]
    shown = cli.well("users", "show", "ann@example.com", "--json").json
    assert list(shown) == [
        *("id", "email", "username", "role", "created_at"),
        *("rate_limit_rpm", "rate_limit_tpm", "max_budget", "budget_period", "current_spend", "disabled"),
    ]
    assert cli.well("users", "list", "--json").json == [shown]
    page = cli.well("users", "show", shown["id"]).out
    assert "Keys      laptop" in page
    assert "hash" not in page


def test_a_budget_is_shown_beside_what_is_spent(cli: CommandLine) -> None:
    user = add_user(cli, "ann@example.com")
    with opened(cli) as store:
        store.add_usage(
            [
                new_record(user_id=user.id, cost_nanos=3_200_000_000, started_at_ms=now_ms()),
                new_record(user_id=user.id, cost_nanos=1_000_000_000, started_at_ms=now_ms() - 40 * 86_400_000),
            ],
            [],
        )
    assert "Budget    none\nSpent     $4.20\n" in cli.well("users", "show", "ann@example.com").out
    changed = cli.well("users", "update", "ann@example.com", "--budget", "10", "--budget-period", "month", "--json")
    assert changed.json["current_spend"] == 3.2
    assert "Spent     $3.20 of $10 a month\n" in cli.well("users", "show", "ann@example.com").out


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["update", "--rpm", "1"], ["disable"], ["enable"], ["passwd", "--password-stdin"], ["delete", "--yes"]],
)
def test_an_unknown_user(cli: CommandLine, arguments: list[str]) -> None:
    line = cli.fails("users", arguments[0], "nobody@example.com", *arguments[1:], stdin=PASSWORD)
    assert line == "There is no user 'nobody@example.com'; 'inferxgate users list' shows all"


def test_the_ceiling_of_requests(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    for text, value in (("30", 30), ("0", 0), ("default", None)):
        cli.well("users", "update", "ann@example.com", "--rpm", text)
        assert stored(cli, "ann@example.com").rate_limit_rpm == value
    assert "nothing to change" in cli.fails("users", "update", "ann@example.com", code=2)


def test_every_ceiling_is_changed_by_itself(cli: CommandLine) -> None:
    expected = {**cli.well("users", "show", add_user(cli, "ann@example.com").id, "--json").json}
    steps: list[tuple[list[str], dict[str, Any]]] = [
        (["--tpm", "500"], {"rate_limit_tpm": 500}),
        (["--rpm", "7", "--budget", "10"], {"rate_limit_rpm": 7, "max_budget": 10}),
        (["--budget-period", "month"], {"budget_period": "month"}),
        (["--budget", "0.000000001"], {"max_budget": 0.000000001}),
        (["--tpm", "default", "--budget", "12.50"], {"rate_limit_tpm": None, "max_budget": 12.5}),
    ]
    for arguments, changes in steps:
        expected.update(changes)
        assert cli.well("users", "update", "ann@example.com", *arguments, "--json").json == expected
    page = cli.well("users", "show", "ann@example.com").out
    assert "RPM       7\nTPM       unlimited (default)\nBudget    $12.50 a month\n" in page
    cli.well("users", "update", "ann@example.com", "--budget", "none")
    assert "Budget    none\n" in cli.well("users", "show", "ann@example.com").out
    assert "sets one" in cli.well("users", "update", "ann@example.com", "--budget-period", "day").err


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--tpm", "x", "--tpm must be a whole number from 0 (unlimited) to 1,000,000,000, or 'default', not 'x'"),
        ("--budget", "0", "--budget must be more than 0 dollars; 'none' is no budget"),
        ("--budget-period", "year", "--budget-period: 'year' is not one of 'total', 'day', 'week', 'month'"),
    ],
)
def test_what_a_ceiling_cannot_be_is_wrong_usage(cli: CommandLine, option: str, value: str, line: str) -> None:
    assert cli.fails("users", "update", "ann@example.com", option, value, code=2).startswith(line)
    assert not cli.data_dir.exists()


def test_the_list_of_users_fits_a_terminal(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    cli.well("users", "update", "ann@example.com", "--budget", "10.50", "--budget-period", "month")
    with cli.on_terminal("users", "list", columns=80) as terminal:
        assert terminal.end() == 0
        seen = without_colour(terminal.seen)
    assert "$10.50 a month" in seen
    assert max(len(line) for line in seen.splitlines()) <= 80


def test_disable_and_enable(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    add_user(cli, "bob@example.com")
    cli.well("users", "disable", "bob@example.com")
    assert stored(cli, "bob@example.com").disabled
    assert cli.well("users", "list").out.splitlines()[2].endswith("disabled")
    cli.well("users", "enable", "bob@example.com")
    assert not stored(cli, "bob@example.com").disabled


def test_a_new_password_ends_older_tokens(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    before = stored(cli, "ann@example.com")
    cli.well("users", "passwd", "ann@example.com", "--password-stdin", stdin="another horse\n")
    after = stored(cli, "ann@example.com")
    assert verify_password("another horse", after.password_hash)
    assert after.token_version == before.token_version + 1


def test_a_new_role(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    add_user(cli, "bob@example.com")
    cli.well("users", "role", "bob@example.com", "admin")
    cli.well("users", "role", "ann@example.com", "user")
    assert [user.role for user in all_users(cli)] == ["user", "admin"]


@pytest.mark.parametrize("arguments", [["disable"], ["delete", "--yes"], ["role", "user"]])
def test_the_last_active_admin_stays_unless_forced(cli: CommandLine, arguments: list[str]) -> None:
    add_user(cli, "ann@example.com")
    add_user(cli, "bob@example.com", role="admin")
    cli.well("users", "disable", "bob@example.com")
    command, *more = arguments
    line = cli.fails("users", command, "ann@example.com", *more)
    assert line == "ann@example.com is the only active admin: make another one first, or add --force"
    assert stored(cli, "ann@example.com").role == "admin"
    cli.well("users", command, "bob@example.com", *more)  # who cannot sign in is no admin to keep
    cli.well("users", command, "ann@example.com", *more, "--force")


def test_delete_revokes_the_keys_and_asks_first(cli: CommandLine) -> None:
    add_user(cli, "ann@example.com")
    add_user(cli, "bob@example.com")
    add_key(cli, user=stored(cli, "bob@example.com"))
    assert "add --yes" in cli.fails("users", "delete", "bob@example.com", code=2)
    for answer, code in (("n\n", 1), ("\n", 1), ("y\n", 0)):
        with cli.on_terminal("users", "delete", "bob@example.com") as terminal:
            terminal.expect("Delete bob@example.com and revoke 1 key? [y/N] ")
            terminal.press(answer)
            assert terminal.end() == code
    assert [user.email for user in all_users(cli)] == ["ann@example.com"]
    assert [key.revoked_at_ms is None for key in all_keys(cli)] == [False]


def test_delete_as_json(cli: CommandLine) -> None:
    add_user(cli)
    bob = add_user(cli, "bob@example.com")
    done = cli.well("users", "delete", bob.id, "--yes", "--json")
    assert done.json == {"id": bob.id, "email": "bob@example.com", "deleted": True, "revoked_keys": 0}
