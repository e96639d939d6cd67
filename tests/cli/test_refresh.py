"""``models refresh`` asks providers, and ``models list`` has what they said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import provider_section, without_rights
from tests.support.provider import FakeProvider, error_body
from tests.support.terminal import CommandLine, only_line

SECRET = "sk-canary-1f4d9b7c2e"


@pytest.fixture
def host() -> Iterator[FakeProvider]:
    with FakeProvider(api_key=SECRET) as running:
        running.models = ("llama-9", "known-before", "qwen/qwen9")
        yield running


def config(host: FakeProvider, **settings: object) -> str:
    return provider_section("local", host.base_url, discover=True, models=["known-before"], **settings)


def test_what_a_provider_lists_is_listed_from_then_on(tmp_path: Path, host: FakeProvider) -> None:
    cli = CommandLine(tmp_path, config=config(host))
    assert [each["id"] for each in cli.well("models", "list", "--json").json] == ["echo", "known-before"]
    assert host.connections == 0
    done = cli.well("models", "refresh")
    assert (done.out, done.err) == ("local: 3 models\n", "")
    assert len(host.requests) == 1
    listed = {each["target"]: each for each in cli.well("models", "list", "--json").json}
    assert {target: each["discovered"] for target, each in listed.items()} == {
        "echo/echo": False,
        "local/known-before": False,
        "local/llama-9": True,
        "local/qwen/qwen9": True,
    }
    assert listed["local/llama-9"]["id"] == "local/llama-9"
    done = cli.well("models", "list")
    assert "local/llama-9" in done.out
    assert "Known from their providers' own lists alone: 2; 'inferxgate models refresh' asks anew.\n" in done.err
    assert cli.well("models", "show", "local/qwen/qwen9", "--json").json["discovered"] is True
    assert "local/llama-9" in cli.well("models", "prices").out
    assert len(host.requests) == 1, "only refresh asks"
    assert (cli.data_dir / "models.json").stat().st_mode & 0o777 == 0o600
    assert SECRET not in (cli.data_dir / "models.json").read_text()


def test_what_is_no_longer_listed_is_gone(tmp_path: Path, host: FakeProvider) -> None:
    cli = CommandLine(tmp_path, config=config(host))
    cli.well("models", "refresh")
    host.models = ("llama-10",)
    assert cli.well("models", "refresh", "--json").json == [{"provider": "local", "models": 1, "error": None}]
    listed = [each["target"] for each in cli.well("models", "list", "--json").json]
    assert listed == ["echo/echo", "local/known-before", "local/llama-10"]


def test_one_that_fails_is_told_and_keeps_its_list(tmp_path: Path, host: FakeProvider) -> None:
    with FakeProvider() as other:
        other.models = ("other-1",)
        sections = config(host) + provider_section("other", other.base_url, discover=True, api_key=SECRET)
        cli = CommandLine(tmp_path, config=sections + provider_section("third", other.base_url))
        assert cli.well("models", "refresh").out == "local: 3 models\nother: 1 model\n"
        other.reply_json(error_body(f"Incorrect API key provided: {SECRET}."), status=401)
        done = cli.run("models", "refresh")
        assert done.code == 1
        lines = done.out.splitlines()
        assert lines[0] == "local: 3 models"
        assert lines[1].startswith("other: The provider other refused the gateway's own credential")
        assert lines[1].endswith("Look at providers.other.api_key.")
        assert len(lines) == 2
        assert only_line(done.err).startswith("Not refreshed: other; what they listed before stays.")
        other.reply_body(b"<html>Sign in</html>", headers={"content-type": "text/html"})
        as_json = cli.run("models", "refresh", "--provider", "other", "--json")
        assert as_json.code == 1
        [answer] = as_json.json
        assert (answer["provider"], answer["models"]) == ("other", None)
        assert "something that is not JSON" in answer["error"]
        assert SECRET not in done.out + done.err + as_json.out + as_json.err
        assert "other/other-1" in cli.well("models", "list").out
        assert len(other.requests) == 3


def test_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    section = provider_section("local", "http://127.0.0.1:1/v1", discover=True)
    done = CommandLine(tmp_path, config=section).run("models", "refresh")
    assert done.code == 1
    assert done.out.startswith("local: The provider local at 127.0.0.1:1 could not be reached")
    assert not (tmp_path / "data" / "models.json").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "No provider is to be asked: set 'discover = true' in its section of the configuration"),
        (("--provider", "lokal"), "There is no provider 'lokal' in the configuration; there are local"),
        (("--provider", "local"), "providers.local.discover is false, so its list is not used: set it to true first"),
    ],
)
def test_there_may_be_nobody_to_ask(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    cli = CommandLine(tmp_path, config=provider_section("local", "http://127.0.0.1:1/v1"))
    assert cli.fails("models", "refresh", *arguments) == line


def test_a_list_of_another_address_is_not_used(tmp_path: Path, host: FakeProvider) -> None:
    cli = CommandLine(tmp_path, config=config(host))
    cli.well("models", "refresh")
    cli.config_path.write_text(config(host).replace(host.base_url, "http://127.0.0.1:1/v1"))
    assert "llama-9" not in cli.well("models", "list").out


def test_a_damaged_list_is_ignored_and_written_anew(tmp_path: Path, host: FakeProvider) -> None:
    cli = CommandLine(tmp_path, config=config(host))
    cli.well("models", "refresh")
    file = cli.data_dir / "models.json"
    file.write_bytes(file.read_bytes()[:-9])
    done = cli.well("models", "list")
    assert "llama-9" not in done.out
    assert f"{file} is ignored" in done.err
    assert "llama-9" in (cli.well("models", "refresh"), cli.well("models", "list"))[1].out


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, host: FakeProvider) -> None:
    cli = CommandLine(tmp_path, config=config(host))
    cli.prefix = without_rights()
    cli.data_dir.mkdir()
    cli.data_dir.chmod(0o500)
    line = cli.fails("models", "refresh")
    assert str(cli.data_dir) in line
