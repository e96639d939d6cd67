"""What is said of a change, and what of it a running server leaves as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferxgate.config import Settings
from inferxgate.config_changes import difference, held
from tests.support.configuration import SECRET, Folder

BEFORE = f"""
[auth]
jwt_secret = "{SECRET}"
[limits]
requests_per_minute = 5
[providers.one]
type = "openai"
base_url = "http://127.0.0.1:1/v1"
api_key = "sk-canary-first"
[providers.two]
type = "openai"
base_url = "http://127.0.0.1:2/v1"
[models.smart]
targets = ["one/m"]
[pricing."one/*"]
input = 1
output = 2
[pricing."*"]
discount = 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def read(folder: Folder, text: str) -> Settings:
    return folder.load(text).settings


@pytest.mark.parametrize(
    ("replaced", "by", "words"),
    [
        ("", "", ""),
        ("sk-canary-first", "sk-canary-other", "providers one changed"),
        ("[models.smart]", "[models.clever]", "models +clever, -smart"),
        ('"one/*"', '"one/m.1"', 'pricing +"one/m.1", -"one/*"'),
        ("discount = 0.5", "discount = 0.4", 'pricing "*" changed'),
        ("requests_per_minute = 5", "tokens_per_minute = 5", "limits.requests_per_minute, limits.tokens_per_minute"),
        ('["one/m"]', '["two/m"]\nstrategy = "weighted"', "models smart changed"),
    ],
)
def test_a_change_is_told_by_names_alone(folder: Folder, replaced: str, by: str, words: str) -> None:
    told = difference(read(folder, BEFORE), read(folder, BEFORE.replace(replaced, by)))
    assert told.removesuffix(" changed" if words.startswith("limits") else "") == words
    assert "canary" not in told


def test_an_order_that_decides_is_a_change(folder: Folder) -> None:
    head, one, all_of_them = BEFORE.partition('[pricing."one/*"]')
    first, star, rest = all_of_them.partition('[pricing."*"]')
    turned = head + star + rest + one + first
    assert difference(read(folder, BEFORE), read(folder, turned)) == "pricing in another order"


def test_several_changes_are_told_in_one_line_of_bounded_length(folder: Folder) -> None:
    many = "".join(f'[models.alias{number}]\ntargets = ["one/m"]\n' for number in range(1000))
    told = difference(read(folder, BEFORE), read(folder, BEFORE.replace("= 5", "= 6") + many))
    names = ", ".join(f"+alias{number}" for number in range(8))
    assert told == f"models {names} and 992 more; limits.requests_per_minute changed"


def test_what_needs_a_restart_is_held_and_named_and_the_rest_is_not(folder: Folder) -> None:
    started = read(folder, BEFORE)
    changed = read(
        folder,
        BEFORE.replace(SECRET, SECRET[::-1]).replace("= 5", "= 6")
        + "[server]\nport = 77\nkeepalive_seconds = 3\n[storage]\nkeep_days = 3\n[reasoning]\nkeep_hours = 0\n",
    )
    settings, named = held(started, changed)
    assert named == ["server.port", "auth.jwt_secret", "storage.keep_days", "reasoning.keep_hours"]
    assert (settings.server.port, settings.server.keepalive_seconds) == (started.server.port, 3)
    assert settings.auth == started.auth
    assert (settings.storage, settings.reasoning) == (started.storage, started.reasoning)
    assert settings.limits.requests_per_minute == 6
    assert difference(started, settings) == "server.keepalive_seconds, limits.requests_per_minute changed"


def test_nothing_is_held_of_what_is_as_it_was(folder: Folder) -> None:
    settings = read(folder, BEFORE)
    assert held(settings, settings) == (settings, [])
