"""The declarations of settings, and the lists that are made from them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.config_listing import as_toml, masked, settings_in_force, tables
from inferxgate.config_sources import dotted, from_text, read_file
from inferxgate.providers.registry import ROWS
from tests.support.configuration import SECRET, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_every_setting_has_a_help_and_is_declared_once() -> None:
    settings = [setting for table in tables() for setting in table.settings]
    assert all(setting.help.endswith((".", "?")) for setting in settings)
    assert len({setting.name for setting in settings}) == len(settings)
    assert len({setting.environment for setting in settings}) == len(settings)
    assert all(setting.examples for setting in settings if setting.default is None)


def test_every_setting_can_be_set_by_its_environment_name(folder: Folder) -> None:
    as_json = ("list of text", "list of numbers", "list of secrets", "list of text or tables", "table of text")
    by_hand: Mapping[str, Callable[[Any], str]] = dict.fromkeys(as_json, json.dumps)
    (folder.path / "some.pem").write_text("")
    environ = {"INFERXGATE_PROVIDERS__NAME__TYPE": "openai"}
    for table in tables():
        for setting in table.settings:
            value = setting.examples[0] if setting.examples else setting.default
            text = by_hand.get(setting.type, str)(value)
            environ[setting.environment] = str(folder.path / "some.pem") if setting.type == "path" else text
    environ["INFERXGATE_AUTH__JWT_SECRET"] = SECRET
    environ["INFERXGATE_PROVIDERS__NAME__TYPE"] = "azure"  # the one that takes every setting
    both = environ.pop("INFERXGATE_PROVIDERS__NAME__API_KEY"), environ.pop("INFERXGATE_PROVIDERS__NAME__API_KEYS")
    for name, text in zip(("API_KEY", "API_KEYS"), both, strict=True):  # either, but not the two together
        loaded = folder.load(environ={**environ, f"INFERXGATE_PROVIDERS__NAME__{name}": text})
        set_by_name = {name for name, origin in loaded.origins.items() if origin.startswith("environment ")}
        assert loaded.origins.keys() - set_by_name <= {"providers.name.api_key", "providers.name.api_keys"}
        assert len(set_by_name) == sum(len(table.settings) for table in tables()) - 1


def test_nothing_secret_is_in_the_list_of_settings_in_force(folder: Folder) -> None:
    file = f"""
        auth.jwt_secret = "{SECRET}"
        [providers.openai]
        api_key = "sk-canary"
        headers = {{ X-Secret = "canary-header" }}
        proxy = "http://user:canary@proxy.internal:3128"
    """
    loaded = folder.load(file)
    shown = {each.name: each.value for each in settings_in_force(loaded)}
    assert "canary" not in json.dumps(shown) + repr(loaded)
    assert SECRET not in json.dumps(shown) + repr(loaded)
    assert shown["auth.jwt_secret"] == shown["providers.openai.api_key"] == "****"
    assert shown["providers.openai.headers.X-Secret"] == "****"
    assert shown["providers.openai.proxy"] == "http://****@proxy.internal:3128"
    assert shown["providers.openai.base_url"] == ROWS["openai"].base_url
    assert shown.keys() == loaded.origins.keys()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(TEXTS, TEXTS | st.integers() | st.booleans() | st.lists(TEXTS), max_size=4))
def test_what_is_written_as_toml_reads_the_same(values: dict[str, object]) -> None:
    text = "".join(f"{dotted((name,))} = {as_toml(value)}\n" for name, value in values.items())
    assert tomllib.loads(text) == values


@given(st.lists(st.text("abc./-*: ", min_size=1).map(str.strip).filter(bool)))
def test_lists_read_the_same_both_ways(items: list[str]) -> None:
    assert from_text(json.dumps(items), list[str]) == items
    assert from_text(", ".join(items), list[str]) == items


@given(TEXTS, TEXTS)
def test_no_password_stays_in_a_masked_url(user: str, password: str) -> None:
    shown = masked(f"http://{user}:canary{password.replace('/', '').replace('?', '').replace('#', '')}@host:1/x")
    if not set(user) & set("/?#"):
        assert "canary" not in str(shown)


def test_reading_twice_gives_the_same(folder: Folder) -> None:
    file = '[providers.b]\ntype = "openai"\n[providers.a]\ntype = "openai"'
    first, second = folder.load(file), folder.load(file)
    assert first == second
    assert list(first.settings.providers) == ["b", "a"]
    assert read_file(folder.file).values == tomllib.loads(file)
