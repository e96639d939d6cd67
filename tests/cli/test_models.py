"""Which models there are and where names go, without asking anyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferxgate.workers.health import CircuitKey
from tests.support.health import digest, health_in
from tests.support.provider import FakeProvider
from tests.support.terminal import CommandLine, without_colour

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
    assert lines[0].split() == ["MODEL", "PROVIDER", "CONTEXT", "MAX", "OUTPUT", "INPUT", "OUTPUT", "FLAGS"]
    table, aliases = lines[1 : lines.index("")], lines[lines.index("") + 1 :]
    rows = {line.split()[0]: line.split()[1:] for line in table}
    assert rows["echo"] == ["echo", "$0.00", "$0.00"]
    assert rows["llama-3.3-70b"] == ["local", "$0.20", "$0.605"]
    assert rows["gpt-4o"] == ["openai", "128,000", "16,384", "$2.50", "$10.00"]
    assert rows["smart"] == rows["gpt-4o"]
    assert [line.split() for line in aliases] == [["ALIAS", "STRATEGY", "TARGET"], ["smart", "openai/gpt-4o"]]


def test_list_of_one_provider(configured: CommandLine) -> None:
    listed = configured.well("models", "list", "--provider", "local", "--json").json
    assert listed == [
        {
            "id": "llama-3.3-70b",
            "owned_by": listed[0]["owned_by"],
            "provider": "local",
            "target": "local/llama-3.3-70b",
            "targets": ["local/llama-3.3-70b"],
            "strategy": "ordered",
            "discovered": False,
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
                "json_with_tools": True,
                "image_output": False,
            },
            "health": [],
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
    done = cli.well("models", "list")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()}
    assert rows["claude-opus-4-8"] == ["anthropic", "1,000,000", "128,000", "$5.00", "$25.00", "tsp"]
    assert rows["claude-opus-4-7"] == ["anthropic", "1,000,000", "1,000", "$5.00", "$25.00", "ts"]
    assert rows["claude-sonnet-4-5"][-1] == "tb"
    assert rows["my-gpt"] == ["azure", "128,000", "16,384", "$2.50", "$10.00"]
    assert rows["secret"] == ["azure"]
    assert done.err.splitlines()[0] == "Flags: t thinks; T always thinks"
    legend = " ".join(done.err.splitlines()[1:])
    assert legend.startswith("Not taken: s temperature, top_p, top_k; b temperature together with top_p; p prefill;")
    page = cli.well("models", "show", "claude-opus-5-5").out
    assert "Maximum output  128,000 tokens\n" in page
    assert "Abilities       always thinks (asked for by effort)\n" in page
    assert "Not taken       temperature, top_p, top_k; prefill; forced tool calls\n" in page
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
    why = 'nowhere: base_url is not openai\'s; set [pricing."local/*"], or providers.local.vendor_models = true'
    assert f"Price from      {why} if its prices hold there\n" in page
    assert cli.well("models", "show", "m", "--json").json["input_price"] is None
    assert cli.well("models", "list", "--provider", "local").out.splitlines()[1].split() == ["m", "local"]


@pytest.mark.parametrize(
    ("section", "name", "why"),
    [
        (
            "[providers.ollama]",
            "ollama/m",
            'ollama is a server of your own; set [pricing."ollama/*"], with input = 0 and output = 0 where it is free',
        ),
        ("[providers.huggingface]", "huggingface/m", 'no price list of its own; set [pricing."huggingface/*"]'),
        (
            "[providers.openai]\nbase_url = 'https://openrouter.ai/api/v1'",
            "openai/m",
            'base_url is not of openai but of openrouter; set providers.openai.type = "openrouter", or set [pricing',
        ),
        (
            "[providers.openai]\nvendor_models = false",
            "openai/gpt-4o",
            "providers.openai.vendor_models is false; set [",
        ),
        ("[providers.openai]", "openai/gpt-99", 'has none; set [pricing."openai/gpt-99"]'),
        (
            "[providers.azure]\nbase_url = 'https://r.openai.azure.com'",
            "azure/mine",
            "providers.azure.deployments does not say which model 'mine' is",
        ),
    ],
)
def test_why_a_price_is_unknown_is_said(tmp_path: Path, section: str, name: str, why: str) -> None:
    page = CommandLine(tmp_path, config=section).well("models", "show", name).out
    [line] = [line for line in page.splitlines() if line.startswith("Price from ")]
    assert line.startswith("Price from      nowhere: ")
    assert why in line


def test_what_makes_a_local_server_free_does(tmp_path: Path) -> None:
    config = '[providers.ollama]\n[pricing."ollama/*"]\ninput = 0\noutput = 0\n'
    shown = CommandLine(tmp_path, config=config).well("models", "show", "ollama/m", "--json").json
    assert (shown["input_price"], shown["output_price"]) == (0, 0)


@pytest.mark.parametrize(
    ("environment", "model"),
    [
        ({"ANTHROPIC_BASE_URL": "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY": "k"}, "claude-sonnet-4-5"),
        ({"ANTHROPIC_BASE_URL": "https://llm.example.com", "ANTHROPIC_API_KEY": "k"}, "claude-sonnet-4-5"),
        (
            {"GEMINI_BASE_URL": "https://Generativelanguage.googleapis.com/v1beta/", "GEMINI_API_KEY": "k"},
            "gemini-2.5-flash",
        ),
        ({"OPENAI_BASE_URL": "https://eu.api.openai.com/v1", "OPENAI_API_KEY": "k"}, "gpt-4o"),
        ({"OPENAI_BASE_URL": "https://llm.example.com/v1", "OPENAI_API_KEY": "k"}, "gpt-4o"),
    ],
)
def test_another_spelling_of_the_vendors_address_loses_nothing(
    tmp_path: Path, environment: dict[str, str], model: str
) -> None:
    cli = CommandLine(tmp_path, environment=environment)
    listed = {entry["id"]: entry for entry in cli.well("models", "list", "--json").json}
    assert listed[model]["context_window"]
    assert listed[model]["input_price"] > 0


def test_a_server_that_speaks_openais_api_has_no_models_but_its_own(tmp_path: Path) -> None:
    environment = {"OPENAI_BASE_URL": "http://localhost:11434/v1", "OPENAI_API_KEY": "ollama"}
    cli = CommandLine(tmp_path, environment=environment)
    assert [entry["id"] for entry in cli.well("models", "list", "--json").json] == ["echo"]
    shown = cli.well("models", "show", "gpt-4o", "--json").json
    assert (shown["context_window"], shown["input_price"]) == (128_000, None), (
        "what a model is does not hang on its price"
    )


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_list_breaks_no_name_on_a_terminal(tmp_path: Path, columns: int) -> None:
    environment = {"ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k", "OPENROUTER_API_KEY": "k"}
    cli = CommandLine(tmp_path, environment=environment)
    names = {entry["id"] for entry in cli.well("models", "list", "--json").json}
    with cli.on_terminal("models", "list", columns=columns) as terminal:
        assert terminal.end() == 0
        lines = without_colour(terminal.seen).splitlines()
    rows = [line for line in lines if "$" in line]
    assert {line.split()[0] for line in rows} <= names
    if columns >= 80:
        assert all(len(line) <= columns for line in lines)
        assert {line.split()[0] for line in rows} >= {"claude-sonnet-4-5", "gemini-3.1-flash-image-preview"}
    left_out = [line for line in lines if line.startswith("No room for: ")]
    assert left_out == (
        [] if columns == 120 else ["No room for: Provider, Context, Max output, Flags; --json has all."]
    )


def test_flags_are_explained_where_they_are_shown(tmp_path: Path) -> None:
    cli = CommandLine(tmp_path, environment={"ANTHROPIC_API_KEY": "k"})
    with cli.on_terminal("models", "list") as terminal:
        assert terminal.end() == 0
        lines = without_colour(terminal.seen).splitlines()
    assert "Flags: t thinks; T always thinks" in lines
    assert all(len(line) <= 80 for line in lines)


def test_a_provider_without_a_list_of_models(tmp_path: Path) -> None:
    config = '[providers.local]\ntype = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
    done = CommandLine(tmp_path, config=config).well("models", "list", "--provider", "local")
    assert done.out == ""
    assert "name them in providers.local.models" in done.err
    assert "set providers.local.discover = true" in done.err


SEVERAL = """
[routing]
max_parallel_requests = 300
[providers.openai]
api_keys = ["first-key", "other-key"]
max_parallel_requests = 20
[providers.local]
type = "openai"
base_url = "http://127.0.0.1:1/v1"
models = ["llama"]
[models.smart]
strategy = "weighted"
fallback_on = ["context_length", "content_filter"]
targets = [
  { model = "openai/gpt-4o", weight = 3, params = { temperature = 0 }, timeout_seconds = 9 },
  "local/llama",
]
"""


@pytest.fixture
def several(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, config=SEVERAL)


def make_ill(cli: CommandLine) -> None:
    with health_in(cli.data_dir) as health:
        health.set_aside(CircuitKey("openai", "", digest("other-key")), "upstream_auth_error")
        health.cool(CircuitKey("local", "llama", ""), "upstream_rate_limited", 7_300)
        health.failed(CircuitKey("openai", "gpt-4o-mini", digest("first-key")), "upstream_error")
        health.failed(CircuitKey("openai", "gpt-4o-mini", digest("other-key")), "upstream_error")


def test_aliases_are_listed_with_each_of_their_targets(several: CommandLine) -> None:
    out = several.well("models", "list").out
    assert [line.split("  ") for line in out.partition("\n\n")[2].splitlines()] == [
        ["ALIAS", "STRATEGY", "TARGET"],
        ["smart", "weighted", "openai/gpt-4o (weight 3)"],
        ["", "", "", "", "", "", "", "", " local/llama (weight 1)"],
    ]
    assert "STATE" not in out, "all is well"
    [smart] = [each for each in several.well("models", "list", "--json").json if each["id"] == "smart"]
    assert (smart["targets"], smart["strategy"]) == (["openai/gpt-4o", "local/llama"], "weighted")


def test_aliases_for_many_names_are_listed_by_their_pattern(tmp_path: Path) -> None:
    pattern = '[models."my-*"]\ntargets = ["local/*", "openai/gpt-*"]\n[models."no-*"]\ntargets = ["none-*"]\n'
    cli = CommandLine(tmp_path, config=SEVERAL + pattern)
    assert [line.split() for line in cli.well("models", "list").out.partition("\n\n")[2].splitlines()[3:]] == [
        ["my-*", "ordered", "local/*"],
        ["openai/gpt-*"],
    ]
    assert "my-*" not in cli.well("models", "list", "--provider", "openai").out


def test_the_list_says_which_targets_are_left_alone(several: CommandLine) -> None:
    make_ill(several)
    models, _, aliases = several.well("models", "list").out.partition("\n\n")
    state = models.index("STATE")
    states = {line.split()[0]: line[state:] for line in models.splitlines()}
    assert states["llama"] == "cooling 2 h"
    assert states["gpt-4o"] == "1 of 2 keys set aside"
    assert states["gpt-4o-mini"] == "1 of 2 keys open 60 min, 1 of 2 keys set aside"
    assert states["smart"] == "2 of 2 targets, see below"
    assert states["echo"] == ""
    assert [line.split("  ")[-1] for line in aliases.splitlines()] == ["STATE", "1 of 2 keys set aside", "cooling 2 h"]
    listed = {each["id"]: each["health"] for each in several.well("models", "list", "--json").json}
    assert [(each["state"], each["code"]) for each in listed["llama"]] == [("cooling", "upstream_rate_limited")]
    assert [each["state"] for each in listed["smart"]] == ["set_aside", "cooling"]
    assert listed["echo"] == []
    with several.on_terminal("models", "list") as terminal:
        assert terminal.end() == 0
    assert max(map(len, without_colour(terminal.seen).splitlines())) <= 80


def test_a_page_has_all_targets_of_an_alias(several: CommandLine) -> None:
    make_ill(several)
    head, first, second = several.well("models", "show", "smart").out.split("\n\n")
    assert "Strategy        weighted: by chance, by their weights\n" in head
    assert "Goes on for     every failure of a provider and prompts that are too long and refused content\n" in head
    assert "In all at once  300 requests in the whole gateway\n" in head
    assert head.endswith("Request         'inferxgate chat --explain -m smart PROMPT' shows it")
    for line in (
        "1. openai/gpt-4o",
        "   Weight          3 of 4 (75%)",
        '   Sets            {"temperature":0}',
        "   Context window  128,000 tokens",
        "   Input           $2.50 per million tokens",
        "   Keys            2; the next where the provider limits or refuses one",
        "   State           1 of 2 keys set aside (upstream_auth_error)",
        "   At once         20 requests at the provider",
        "   Times out       connecting 10 s, first byte 600 s, silence 300 s; whole answers 9 s",
    ):
        assert line in first.splitlines()
    assert second.startswith("2. local/llama\n")
    assert "   Price from      nowhere: base_url is not openai's; set " in second
    shown = several.well("models", "show", "smart", "--json").json
    assert (shown["fallback_on"], shown["max_parallel_requests"]) == (["content_filter", "context_length"], 300)
    one, two = shown["details"]
    assert (one["target"], one["weight"], one["params"], one["input_price"]) == (
        "openai/gpt-4o",
        3,
        {"temperature": 0},
        2.5,
    )
    assert (one["timeouts"]["total_seconds"], two["timeouts"]["total_seconds"]) == (9, 600)
    assert [each["health"] and each["health"]["state"] for each in one["credentials"]] == [None, "set_aside"]
    assert two["credentials"][0]["health"]["state"] == "cooling"


def test_a_page_of_one_target_says_how_it_fares(several: CommandLine) -> None:
    assert "State  " not in several.well("models", "show", "local/llama").out
    make_ill(several)
    page = several.well("models", "show", "local/llama").out
    assert "State           cooling 2 h (upstream_rate_limited)\n" in page
    assert "Keys            none is sent\n" in page


def test_memory_that_cannot_be_read_is_a_note(several: CommandLine) -> None:
    make_ill(several)
    (several.data_dir / "workers" / "data.mdb").write_bytes(b"no database" * 1_000)
    done = several.well("models", "list")
    assert done.err.startswith("How the targets fare cannot be read: ")
    assert "gpt-4o" in done.out


def test_an_unknown_name_is_one_line(cli: CommandLine) -> None:
    assert "There is no model 'gtp-4o'" in cli.fails("models", "show", "gtp-4o")


def test_nobody_is_asked_and_nothing_is_written(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        cli = CommandLine(tmp_path, config=CONFIG.format(url=provider.base_url))
        cli.well("models", "list")
        cli.well("models", "show", "llama-3.3-70b")
        assert provider.connections == 0
    assert not cli.data_dir.exists()
