"""Which models there are and where names go, without asking anyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.provider import FakeProvider
from tests.support.terminal import CommandLine

CONFIG = """
[providers.openai]
api_key = "k"
[providers.local]
type = "openai"
base_url = "{url}"
models = ["llama-3.3-70b"]
[models.smart]
targets = ["openai/gpt-4o"]
[pricing."local/*"]
input = 0.2
output = 0.605
"""


@pytest.fixture
def configured(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, config=CONFIG.format(url="http://127.0.0.1:1/v1"))


def test_list_has_prices_and_windows(configured: CommandLine) -> None:
    lines = configured.well("models", "list").out.splitlines()
    assert lines[0].split() == ["MODEL", "PROVIDER", "CONTEXT", "MAX", "OUTPUT", "INPUT", "OUTPUT", "ABILITIES"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows["echo"] == ["echo", "$0.00", "$0.00"]
    assert rows["llama-3.3-70b"] == ["local", "$0.20", "$0.605"]
    assert rows["gpt-4o"] == ["openai", "128,000", "16,384", "$2.50", "$10.00"]
    assert rows["smart"] == rows["gpt-4o"]


def test_list_of_one_provider(configured: CommandLine) -> None:
    listed = configured.well("models", "list", "--provider", "local", "--json").json
    assert listed == [
        {
            "id": "llama-3.3-70b",
            "owned_by": listed[0]["owned_by"],
            "provider": "local",
            "target": "local/llama-3.3-70b",
            "context_window": None,
            "max_output_tokens": None,
            "input_price": 0.2,
            "output_price": 0.605,
            "abilities": {
                "sampling": True,
                "temperature_with_top_p": True,
                "prefill": True,
                "thinking": "none",
                "thinking_off": True,
                "forced_tools": True,
                "json_schema": True,
                "image_output": False,
            },
        }
    ]


def test_list_and_show_say_what_a_model_takes(tmp_path: Path) -> None:
    config = """
[providers.anthropic]
api_key = "k"
[providers.azure]
base_url = "https://my-resource.openai.azure.com"
deployments = { my-gpt = "gpt-4o", secret = "made-up" }
[catalog."anthropic/claude-opus-4-7"]
max_output_tokens = 1000
prefill = true
"""
    cli = CommandLine(tmp_path, config=config)
    lines = cli.well("models", "list").out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert rows["claude-opus-4-8"].endswith("thinks by effort, no sampling, no prefill")
    assert rows["claude-opus-4-8"].split()[2:4] == ["1,000,000", "128,000"]
    assert rows["claude-opus-4-7"].endswith("thinks by effort, no sampling")
    assert rows["claude-opus-4-7"].split()[3] == "1,000"
    assert rows["my-gpt"].split()[1:] == ["azure", "128,000", "16,384", "$2.50", "$10.00"]
    assert rows["secret"].split() == ["secret", "azure"]
    page = cli.well("models", "show", "claude-opus-5-5").out
    assert "Maximum output  128,000 tokens\n" in page
    assert "thinks by effort, always thinks, no sampling, no prefill, no forced tools\n" in page
    assert cli.well("models", "show", "azure/gpt-4o", "--json").json["input_price"] is None, "it may be any model"


def test_list_of_a_provider_that_is_not_there(configured: CommandLine) -> None:
    line = configured.fails("models", "list", "--provider", "opnai")
    assert line == "There is no provider 'opnai' in the configuration; there are openai, local, echo"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("smart", "openai/gpt-4o"),
        ("gpt-4o", "openai/gpt-4o"),
        ("local/anything", "local/anything"),
        ("llama-3.3-70b", "local/llama-3.3-70b"),
        ("echo", "echo/echo"),
    ],
)
def test_show_says_where_a_name_goes(configured: CommandLine, name: str, target: str) -> None:
    page = configured.well("models", "show", name).out
    assert f"Goes to         {target}\n" in page
    shown = configured.well("models", "show", name, "--json").json
    assert (shown["id"], shown["target"]) == (name, target)


def test_a_price_that_nobody_knows_is_unknown(tmp_path: Path) -> None:
    config = '[providers.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["m"]\n'
    cli = CommandLine(tmp_path, config=config)
    page = cli.well("models", "show", "m").out
    assert "Input           unknown\n" in page
    assert "Price from      nowhere; set [pricing] to have costs\n" in page
    assert cli.well("models", "show", "m", "--json").json["input_price"] is None
    assert cli.well("models", "list", "--provider", "local").out.splitlines()[1].split() == ["m", "local"]


def test_a_provider_without_a_list_of_models(tmp_path: Path) -> None:
    config = '[providers.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
    done = CommandLine(tmp_path, config=config).well("models", "list", "--provider", "local")
    assert done.out == ""
    assert "name them in providers.local.models" in done.err


def test_an_unknown_name_is_one_line(cli: CommandLine) -> None:
    assert "There is no model 'gtp-4o'" in cli.fails("models", "show", "gtp-4o")


def test_nobody_is_asked_and_nothing_is_written(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        cli = CommandLine(tmp_path, config=CONFIG.format(url=provider.base_url))
        cli.well("models", "list")
        cli.well("models", "show", "llama-3.3-70b")
        assert provider.connections == 0
    assert not cli.data_dir.exists()
