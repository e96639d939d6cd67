"""Keys from the shell: made, listed, changed, rotated and revoked on the store itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from dataclasses import replace
from typing import Any

import pytest

from inferxgate.accounts.keys import hash_secret, looks_like_key, new_secret, revoke_key
from inferxgate.cli.failures import CommandFailed
from inferxgate.cli.references import find_key
from inferxgate.cli.values import now_ms
from tests.cli.records import add_key, add_user, all_keys, all_users, live_names, opened
from tests.support.stores import new_record
from tests.support.terminal import CommandLine, without_colour

FIELDS = [
    *("id", "key_prefix", "name", "user_id", "max_budget", "budget_period", "current_spend"),
    *("rate_limit_rpm", "rate_limit_tpm", "max_parallel_requests", "allowed_models", "expires_at"),
    *("blocked", "created_at", "last_used_at"),
]


def test_create_prints_the_secret_alone(cli: CommandLine) -> None:
    done = cli.well("keys", "create")
    secret = done.out.removesuffix("\n")
    assert looks_like_key(secret)
    assert "keep it safe" in done.err
    assert secret not in done.err
    (key,) = all_keys(cli)
    assert key.key_hash == hash_secret(secret)
    assert (key.user_id, key.name, key.rate_limit_rpm, key.allowed_models, key.expires_at_ms) == (None,) * 5


def test_the_secret_is_nowhere_in_the_data_folder(cli: CommandLine) -> None:
    secret = cli.well("keys", "create", "--name", "canary").out.strip()
    for path in cli.data_dir.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_a_key_for_nobody_makes_no_user(cli: CommandLine) -> None:
    cli.well("keys", "create")
    assert all_users(cli) == []


def test_create_with_everything(cli: CommandLine) -> None:
    owner = add_user(cli)
    before = time.time_ns() // 1_000_000
    arguments = ["--name", "Zoë's laptop", "--rpm", "5", "--models", "echo, gpt-*", "--expires", "30d", "--json"]
    arguments += ["--tpm", "1000", "--parallel", "3", "--budget", "10.50", "--budget-period", "month"]
    made = cli.well("keys", "create", "--user", "Ann@Example.com", *arguments).json
    assert looks_like_key(made["key"])
    assert made["name"] == "Zoë's laptop"
    assert (made["user_id"], made["rate_limit_rpm"], made["allowed_models"]) == (owner.id, 5, ["echo", "gpt-*"])
    assert (made["rate_limit_tpm"], made["max_parallel_requests"]) == (1000, 3)
    assert (made["max_budget"], made["budget_period"], made["current_spend"]) == (10.5, "month", 0)
    (key,) = all_keys(cli)
    assert key.max_budget_nanos == 10_500_000_000
    assert key.expires_at_ms is not None
    assert 0 <= key.expires_at_ms - before - 30 * 86_400_000 < 60_000


def test_json_has_the_fields_of_the_interface(cli: CommandLine) -> None:
    made = cli.well("keys", "create", "--json").json
    assert [field for field in made if field not in ("key", "revoked_at")] == FIELDS
    (listed,) = cli.well("keys", "list", "--json").json
    assert listed == cli.well("keys", "show", made["id"], "--json").json
    assert listed == {name: value for name, value in made.items() if name != "key"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rpm", "-5"], "--rpm must be a whole number from 0 (unlimited) to 1,000,000,000, or 'default', not '-5'"),
        (["--rpm", "9999999999"], "--rpm must be a whole number from 0"),
        (
            ["--tpm", "lots"],
            "--tpm must be a whole number from 0 (unlimited) to 1,000,000,000, or 'default', not 'lots'",
        ),
        (["--parallel", "-1"], "--parallel must be a whole number from 0"),
        (["--budget", "ten"], "--budget must be dollars, such as 10 or 10.50, or 'none', not 'ten'"),
        (["--budget", "0"], "--budget must be more than 0 dollars; 'none' is no budget"),
        (["--budget", "5", "--budget-period", "year"], "--budget-period: 'year' is not one of 'total', 'day', 'week'"),
        (["--budget-period", "day"], "--budget-period needs --budget beside it"),
        (["--budget", "none", "--budget-period", "day"], "--budget-period needs --budget beside it"),
        (["--name", "two\nlines"], "--name must not contain line breaks"),
        (["--name", "x" * 201], "at most 200 characters"),
        (["--name", b"\xff"], "control characters"),
        (["--models", ","], "--models must name from 1"),
        (["--expires", "yesterday"], "--expires takes a span"),
        (["--expires", "2001-01-01"], "has passed already"),
    ],
)
def test_what_a_key_cannot_be_is_wrong_usage(cli: CommandLine, arguments: list[str | bytes], message: str) -> None:
    assert message in cli.fails("keys", "create", *arguments, code=2)
    assert not cli.data_dir.exists()


def test_a_key_for_an_unknown_user(cli: CommandLine) -> None:
    line = cli.fails("keys", "create", "--user", "bob@example.com")
    assert line == "There is no user 'bob@example.com'; 'inferxgate users list' shows all"
    assert all_keys(cli) == []


def test_list_when_there_is_none(cli: CommandLine) -> None:
    done = cli.well("keys", "list")
    assert (done.out, "keys create" in done.err) == ("", True)
    assert cli.well("keys", "list", "--json").json == []


def test_list_shows_live_keys_and_with_all_the_others(cli: CommandLine) -> None:
    ann = add_user(cli)
    for name in ("one", "two"):
        add_key(cli, name)
    add_key(cli, "hers", user=ann, rpm=0)
    cli.well("keys", "revoke", "two")
    lines = cli.well("keys", "list").out.splitlines()
    assert lines[0].split() == [*("KEY", "NAME", "USER", "RPM", "TPM", "PARALLEL", "SPENT", "LAST", "USED", "STATE")]
    assert [line.split()[1] for line in lines[1:]] == ["one", "hers"]
    assert lines[2].split()[2:] == ["ann@example.com", *["unlimited"] * 3, "$0.00", "never", "active"]
    everyone = cli.well("keys", "list", "--all").out.splitlines()[1:]
    assert [line.split()[-1] for line in everyone] == ["active", "revoked", "active"]
    (hers,) = cli.well("keys", "list", "--user", "ann@example.com", "--json").json
    assert hers["name"] == "hers"


def test_a_key_is_found_by_id_prefix_name_and_secret(cli: CommandLine) -> None:
    key, secret = add_key(cli, "laptop")
    add_key(cli, "other")
    prefix = key.key_prefix
    for word in (key.id, prefix, f"{prefix}...", prefix[:14], "laptop", secret):
        with opened(cli) as store:
            assert find_key(store, word) == key, word
    assert cli.well("keys", "show", secret, "--json").json["id"] == key.id


def test_a_word_that_means_several_keys_is_refused_with_their_names(cli: CommandLine) -> None:
    _, secret = add_key(cli, "twin")
    add_key(cli, "twin")
    line = cli.fails("keys", "revoke", "twin")
    for key in all_keys(cli):
        assert key.id in line
        assert key.key_prefix in line
    assert "give the id" in line
    assert live_names(cli) == ["twin", "twin"]
    cli.well("keys", "revoke", secret)
    cli.well("keys", "revoke", "twin")  # only one of the two is still alive
    assert live_names(cli) == []


def test_a_key_named_like_another_ones_id_does_not_take_its_place(cli: CommandLine) -> None:
    victim, _ = add_key(cli)
    add_key(cli, victim.id)
    cli.well("keys", "revoke", victim.id)
    assert live_names(cli) == [victim.id]


@pytest.mark.parametrize("word", ["nothing", "ix-api-key-", "key_0", ""])
def test_a_word_that_means_no_key(cli: CommandLine, word: str) -> None:
    add_key(cli)
    with opened(cli) as store, pytest.raises(CommandFailed, match="There is no key"):
        find_key(store, word)


@pytest.mark.parametrize("command", [["show"], ["update", "--rpm", "1"], ["revoke"], ["rotate"]])
def test_an_unknown_secret_is_not_repeated(cli: CommandLine, command: list[str]) -> None:
    secret = new_secret()
    line = cli.fails("keys", command[0], secret, *command[1:])
    assert line == "There is no key with this secret; 'inferxgate keys list --all' shows all"


def test_update_changes_what_is_named_and_nothing_else(cli: CommandLine) -> None:
    before = cli.well(
        "keys", "create", "--name", "k", "--rpm", "5", "--models", "echo", "--expires", "1d", "--json"
    ).json
    del before["key"]
    steps: list[tuple[list[str], dict[str, Any]]] = [
        (["--rpm", "7"], {"rate_limit_rpm": 7}),
        (["--rpm", "default"], {"rate_limit_rpm": None}),
        (["--rpm", "0"], {"rate_limit_rpm": 0}),
        (["--tpm", "500", "--parallel", "2"], {"rate_limit_tpm": 500, "max_parallel_requests": 2}),
        (["--tpm", "default"], {"rate_limit_tpm": None}),
        (["--parallel", "default"], {"max_parallel_requests": None}),
        (["--budget", "10"], {"max_budget": 10}),
        (["--budget-period", "week"], {"budget_period": "week"}),
        (["--budget", "0.000000001"], {"max_budget": 0.000000001}),
        (["--budget", "none"], {"max_budget": None}),
        (["--models", "all"], {"allowed_models": None}),
        (["--expires", "never"], {"expires_at": None}),
        (["--expires", "2099-01-01"], {"expires_at": "2099-01-01T00:00:00Z"}),
        (["--block"], {"blocked": True}),
        (["--unblock"], {"blocked": False}),
        (["--name", "renamed"], {"name": "renamed"}),
    ]
    expected = dict(before)
    for arguments, changes in steps:
        expected.update(changes)
        assert cli.well("keys", "update", before["id"], *arguments, "--json").json == expected


def test_update_says_what_it_did_or_that_there_was_nothing_to_do(cli: CommandLine) -> None:
    add_key(cli, "k")
    done = cli.well("keys", "update", "k", "--block")
    assert done.out == ""
    assert done.err.startswith("Changed key_")
    assert "State      blocked" in cli.well("keys", "show", "k").out
    assert "nothing to change" in cli.fails("keys", "update", "k", code=2)


def test_rotate_prints_a_new_secret_and_keeps_all_else(cli: CommandLine) -> None:
    before, old = add_key(cli, "k", rpm=5)
    new = cli.well("keys", "rotate", "k").out.strip()
    assert looks_like_key(new)
    assert new != old
    (after,) = all_keys(cli)
    assert after == replace(before, key_hash=hash_secret(new), key_prefix=new[:19])


@pytest.mark.parametrize("command", [["revoke"], ["rotate"], ["update", "--rpm", "1"]])
def test_a_revoked_key_stays_revoked(cli: CommandLine, command: list[str]) -> None:
    add_key(cli, "k")
    with opened(cli) as store:
        revoke_key(store, all_keys(cli)[0].id)
    assert "was revoked already" in cli.fails("keys", command[0], "k", *command[1:])
    assert live_names(cli) == []


def test_names_cannot_command_the_terminal(cli: CommandLine) -> None:
    key, _ = add_key(cli)
    with opened(cli) as store:
        store.update_key(key.id, {"name": "\x1b]0;pwned\x07 \x9b31m"})
    with cli.on_terminal("keys", "list", columns=120) as terminal:
        assert terminal.end() == 0
        assert "\x1b]0" not in terminal.seen
        assert "\x9b" not in terminal.seen
        assert "\\x1b]0;pwned" in terminal.seen


def test_two_keys_made_at_once_on_an_empty_folder_both_live(cli: CommandLine) -> None:
    running = [
        cli.start("keys", "create", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    secrets = []
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        secrets.append(out.decode().strip())
    assert {hash_secret(secret) for secret in secrets} == {key.key_hash for key in all_keys(cli)}


@pytest.mark.parametrize("what", ["folder", "nonsense"])
def test_a_store_that_cannot_be_opened_is_one_line_and_left_alone(cli: CommandLine, what: str) -> None:
    cli.data_dir.mkdir()
    path = cli.data_dir / "inferxgate.db"
    if what == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"this is no database at all, but a letter to a friend. " * 100)
        before = hashlib.sha256(path.read_bytes()).digest()
    line = cli.fails("keys", "create")
    assert str(path) in line
    if what == "nonsense":
        assert hashlib.sha256(path.read_bytes()).digest() == before


def test_json_is_json_also_on_a_terminal(cli: CommandLine) -> None:
    add_key(cli, "k")
    with cli.on_terminal("keys", "show", "k", "--json") as terminal:
        assert terminal.end() == 0
        assert json.loads(terminal.seen)["name"] == "k"


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_what_one_copies_from_the_list_is_never_broken(cli: CommandLine, columns: int) -> None:
    ann = add_user(cli, "annabel.longname@department.example.com")
    key, _ = add_key(cli, "the laptop that Annabel has at home", user=ann)
    with cli.on_terminal("keys", "list", columns=columns) as terminal:
        assert terminal.end() == 0
        seen = without_colour(terminal.seen)
    (line,) = [line for line in seen.splitlines() if line.startswith(key.key_prefix)]
    assert ann.email in line
    assert line.rstrip().endswith("active")
    assert "Last used" not in seen.partition("No room for: ")[0]


@pytest.mark.parametrize(("columns", "there"), [(80, ["Spent", "Last used"]), (62, ["Spent"]), (50, [])])
def test_a_narrow_terminal_gives_up_the_last_use_and_then_the_cost(
    cli: CommandLine, columns: int, there: list[str]
) -> None:
    add_key(cli, "laptop", user=add_user(cli, "a@example.com"))
    with cli.on_terminal("keys", "list", columns=columns) as terminal:
        assert terminal.end() == 0
        seen = without_colour(terminal.seen).partition("No room for: ")[0]
    assert [title for title in ("Spent", "Last used") if title in seen] == there
    assert max(len(line) for line in seen.splitlines()) <= max(columns, 58)


def test_a_limit_above_the_ceiling_of_the_owner_is_told(cli: CommandLine) -> None:
    add_user(cli)
    cli.well("users", "update", "ann@example.com", "--rpm", "10")
    done = cli.well("keys", "create", "--name", "k", "--user", "ann@example.com", "--rpm", "5000")
    assert (
        "Warning: ann@example.com has a ceiling of 10 requests a minute, so the key's own 5,000 is not reached"
        in done.err
    )
    assert "RPM        5,000 (10: ceiling of the user)\n" in cli.well("keys", "show", "k").out
    assert " 10 (ceiling) " in cli.well("keys", "list").out
    assert "own unlimited" in cli.well("keys", "update", "k", "--rpm", "0").err
    for more in (["--rpm", "10"], ["--rpm", "default"], ["--name", "k"]):
        assert "Warning" not in cli.well("keys", "update", "k", *more).err
    assert "RPM        60 (default) (10: ceiling of the user)\n" in cli.well("keys", "show", "k").out


def test_a_limit_of_tokens_above_the_ceiling_of_the_owner_is_told(cli: CommandLine) -> None:
    add_user(cli)
    cli.well("users", "update", "ann@example.com", "--tpm", "1000")
    err = cli.well("keys", "create", "--name", "k", "--user", "ann@example.com", "--tpm", "0", "--parallel", "9").err
    assert err.count("Warning") == 1
    assert (
        "Warning: ann@example.com has a ceiling of 1,000 tokens a minute, so the key's own unlimited is not reached;"
        " 'inferxgate users update ann@example.com --tpm NUMBER' changes the ceiling."
    ) in err
    assert "TPM        unlimited (1,000: ceiling of the user)\n" in cli.well("keys", "show", "k").out


def test_a_budget_is_shown_beside_what_is_spent(cli: CommandLine) -> None:
    key, _ = add_key(cli, "laptop", user=add_user(cli, "a@example.com"))
    with opened(cli) as store:
        store.add_usage([new_record(key_id=key.id, cost_nanos=3_200_000_000, started_at_ms=now_ms())], [])
    assert "Budget     none\nSpent      $3.20\n" in cli.well("keys", "show", "laptop").out
    cli.well("keys", "update", "laptop", "--budget", "10", "--budget-period", "month")
    assert "Budget     $10 a month\nSpent      $3.20 of $10 a month\n" in cli.well("keys", "show", "laptop").out
    with cli.on_terminal("keys", "list", columns=80) as terminal:
        assert terminal.end() == 0
        seen = without_colour(terminal.seen)
    assert "$3.20 of $10 a month" in seen
    assert max(len(line) for line in seen.splitlines()) <= 80


@pytest.mark.parametrize("command", ["keys", "users"])
@pytest.mark.parametrize(("columns", "told"), [(60, True), (200, False)])
def test_columns_that_a_narrow_terminal_leaves_out_are_named(
    cli: CommandLine, command: str, columns: int, *, told: bool
) -> None:
    add_key(cli, "a key with a name", user=add_user(cli, "someone@example.com"))
    with cli.on_terminal(command, "list", columns=columns) as terminal:
        assert terminal.end() == 0
        assert ("No room for: " in without_colour(terminal.seen)) == told


def test_a_period_without_a_budget_is_told(cli: CommandLine) -> None:
    add_key(cli, "k")
    assert "--budget DOLLARS sets one" in cli.well("keys", "update", "k", "--budget-period", "day").err
    assert "Note" not in cli.well("keys", "update", "k", "--budget", "1", "--budget-period", "day").err


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (["--budget", "10.01", "--budget-period", "month"], True),
        (["--budget", "10.01", "--budget-period", "day"], True),
        (["--budget", "10", "--budget-period", "day"], False),
        (["--budget", "10", "--budget-period", "month"], False),
        (["--budget", "500"], False),  # in total: reached after some months
    ],
)
def test_a_budget_that_is_never_reached_is_told(cli: CommandLine, budget: list[str], *, told: bool) -> None:
    add_user(cli)
    cli.well("users", "update", "ann@example.com", "--budget", "10", "--budget-period", "month")
    err = cli.well("keys", "create", "--user", "ann@example.com", *budget).err
    assert ("Warning: ann@example.com has a budget of $10 a month for all keys together" in err) is told


def test_a_name_that_is_taken_is_told(cli: CommandLine) -> None:
    assert "Note" not in cli.well("keys", "create", "--name", "twin").err
    for command in (["create", "--name", "twin"], ["update", "other", "--name", "twin"]):
        if command[0] == "update":
            assert "Note" not in cli.well("keys", "create", "--name", "other").err
        done = cli.well("keys", *command)
        assert "called 'twin'; to show or revoke one of them, give its id." in done.err
    assert "Note" not in cli.well("keys", "create").err
    assert "Note" not in cli.well("keys", "create").err
