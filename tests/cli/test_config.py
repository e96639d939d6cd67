"""``inferxgate config``, run as people and scripts run it."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

import pytest

from inferxgate.config import Settings
from inferxgate.config_listing import tables
from tests.support.process import without_rights
from tests.support.terminal import CommandLine, without_colour

CANARY = "canary-of-more-than-thirty-two-bytes"
SECRETS = f"""
[auth]
jwt_secret = "{CANARY}"
[providers.openai]
api_key = "sk-{CANARY}"
headers = {{ X-Org = "{CANARY}" }}
proxy = "http://me:{CANARY}@proxy.internal:3128"
[server]
port = 4000
"""


def configure(cli: CommandLine, text: str) -> None:
    cli.config_path.write_text(text)


# show


def test_show_names_every_setting_its_value_and_where_it_came_from(cli: CommandLine) -> None:
    configure(cli, "[server]\nport = 4000\ntrusted_proxies = ['10.0.0.1']\n")
    done = cli.run("config", "show", environment={"INFERXGATE_AUTH__KEYS_PER_USER": "3", "OPENAI_API_KEY": "sk-1"})
    lines = [re.split(r"  +", line) for line in done.out.splitlines()]
    assert done.code == 0
    assert lines[0] == ["SETTING", "VALUE", "FROM"]
    assert ["server.port", "4000", "file"] in lines
    assert ["server.trusted_proxies", '["10.0.0.1"]', "file"] in lines
    assert ["server.host", "127.0.0.1", "default"] in lines
    assert ["server.tls_key", "-", "default"] in lines
    assert ["auth.keys_per_user", "3", "environment INFERXGATE_AUTH__KEYS_PER_USER"] in lines
    assert ["providers.openai.api_key", "****", "environment OPENAI_API_KEY"] in lines
    assert done.err == f"Configuration file: {cli.config_path}\nData folder: {cli.data_dir}\n"


def test_show_has_all_declared_settings(cli: CommandLine) -> None:
    shown = cli.well("config", "show", "--json").json["settings"]
    assert shown.keys() == {each.name for table in tables() if table.entry is None for each in table.settings}


def test_show_as_json(cli: CommandLine) -> None:
    configure(cli, SECRETS)
    shown = cli.well("config", "show", "--json").json
    assert (shown["path"], shown["data_dir"]) == (str(cli.config_path), str(cli.data_dir))
    assert shown["settings"]["server.port"] == {"value": 4000, "origin": "file"}
    assert shown["settings"]["server.keepalive_seconds"] == {"value": 15, "origin": "default"}
    assert shown["settings"]["chat.model"] == {"value": None, "origin": "default"}
    assert shown["settings"]["auth.jwt_secret"] == {"value": "****", "origin": "file"}


def test_no_command_prints_a_secret(cli: CommandLine) -> None:
    configure(cli, SECRETS)
    for arguments in (["show"], ["show", "--json"], ["check"], ["check", "--json"], ["path"], ["path", "--json"]):
        done = cli.run("config", *arguments)
        assert done.code == 0
        assert CANARY not in done.out + done.err
    assert "http://****@proxy.internal:3128" in cli.well("config", "show").out


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_show_breaks_no_setting_on_a_terminal(cli: CommandLine, columns: int) -> None:
    environment = {"OPENROUTER_API_KEY": "sk-1", "GEMINI_API_KEY": "x"}
    with cli.on_terminal("config", "show", columns=columns, environment=environment) as terminal:
        assert terminal.end() == 0
        lines = without_colour(terminal.seen).splitlines()
    said = {name: rest.split() for name, _, rest in (line.partition(" = ") for line in lines)}
    assert said["server.port"] == ["3000", "#", "default"]
    assert said["providers.openrouter.first_byte_timeout_seconds"] == ["600", "#", "default"]
    assert said["providers.openrouter.api_key"] == ['"****"', "#", "environment", "OPENROUTER_API_KEY"]
    assert "# server.tls_cert is not set" in lines
    assert tomllib.loads("\n".join(line for line in lines if " = " in line))["server"]["host"] == "127.0.0.1"


def test_show_without_any_file(cli: CommandLine) -> None:
    cli.config_path.unlink()
    done = cli.run("config", "show", environment={"INFERXGATE_CONFIG": ""})
    assert done.code == 0
    assert done.err.startswith(f"Configuration file: none ({cli.folder}/.config/inferxgate/config.toml is not there)")


# path


def test_path_prints_the_path_alone(cli: CommandLine) -> None:
    done = cli.well("config", "path")
    assert (done.out, done.err) == (f"{cli.config_path}\n", f"Data folder: {cli.data_dir}\n")


def test_path_names_both_places_on_a_terminal(cli: CommandLine) -> None:
    with cli.on_terminal("config", "path", columns=200) as terminal:
        assert terminal.end() == 0
        assert terminal.seen == f"Configuration file:  {cli.config_path}\nData folder:         {cli.data_dir}\n"


def test_path_says_that_there_is_no_file_yet(cli: CommandLine) -> None:
    cli.config_path.unlink()
    done = cli.well("config", "path")
    assert done.out == f"{cli.config_path}\n"
    assert "'inferxgate config init' writes one" in done.err


def test_path_as_json(cli: CommandLine) -> None:
    assert cli.well("config", "path", "--json").json == {
        "path": str(cli.config_path),
        "exists": True,
        "data_dir": str(cli.data_dir),
    }


def test_path_follows_the_platform(cli: CommandLine) -> None:
    environment = {"INFERXGATE_CONFIG": "", "INFERXGATE_DATA_DIR": "", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d"}
    done = cli.run("config", "path", "--json", environment=environment)
    assert done.json == {"path": "/c/inferxgate/config.toml", "exists": False, "data_dir": "/d/inferxgate"}


def test_path_works_with_a_broken_file(cli: CommandLine) -> None:
    configure(cli, "[")
    assert cli.well("config", "path").out == f"{cli.config_path}\n"


def test_the_option_may_stand_before_or_behind_the_command(cli: CommandLine, tmp_path: Path) -> None:
    other = str(tmp_path / "other.toml")
    assert cli.well("--config", other, "config", "path").out == f"{other}\n"
    assert cli.well("config", "path", "--config", other).out == f"{other}\n"


# check


def test_check_says_ok(cli: CommandLine) -> None:
    done = cli.run("config", "check", environment={"OPENAI_API_KEY": "sk-1"})
    found = "Provider openai: https://api.openai.com/v1, api_key from OPENAI_API_KEY"
    assert (done.code, done.out, done.err) == (0, f"OK: {cli.config_path}\n{found}\n", "")


def test_check_names_the_providers_it_found(cli: CommandLine) -> None:
    configure(
        cli,
        """
[providers.anthropic]
api_key = "x"
[providers.ollama]
base_url = "http://127.0.0.1:11434"
""",
    )
    environment = {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com", "AZURE_OPENAI_API_KEY": "y"}
    done = cli.run("config", "check", environment=environment)
    assert sorted(done.out.splitlines()[1:]) == [
        "Provider anthropic: https://api.anthropic.com, api_key from file",
        "Provider azure: https://mine.openai.azure.com, api_key from AZURE_OPENAI_API_KEY",
        "Provider ollama: http://127.0.0.1:11434/v1, no api_key",
    ]
    told = cli.run("config", "check", "--json", environment=environment).json["providers"]
    ollama = {"name": "ollama", "type": "ollama", "base_url": "http://127.0.0.1:11434/v1"}
    assert {**ollama, "api_key_from": None, "api_keys": 0} in told


def test_check_counts_the_credentials_of_a_provider(cli: CommandLine) -> None:
    configure(cli, '[providers.openai]\napi_keys = ["${A}", "${B}"]\n[providers.groq]\napi_keys = ["${A}"]\n')
    environment = {"A": CANARY, "B": "b"}
    done = cli.run("config", "check", environment=environment)
    assert sorted(done.out.splitlines()[1:]) == [
        "Provider groq: https://api.groq.com/openai/v1, api_key from file",
        "Provider openai: https://api.openai.com/v1, 2 api_keys from file",
    ]
    told = cli.run("config", "check", "--json", environment=environment).json["providers"]
    assert {(each["name"], each["api_key_from"], each["api_keys"]) for each in told} == {
        ("groq", "file", 1),
        ("openai", "file", 2),
    }


def test_check_fails_with_one_line(cli: CommandLine) -> None:
    configure(cli, "[server]\n\nprot = 1\n")
    line = cli.fails("config", "check")
    assert line == f"{cli.config_path}, line 3: server.prot is not a setting; did you mean server.port?"


@pytest.mark.parametrize("command", [["config", "show"], ["keys", "list"], ["chat", "hi"]])
def test_every_command_refuses_a_wrong_configuration(cli: CommandLine, command: list[str]) -> None:
    configure(cli, "[server]\nport = 'x'\n")
    assert cli.fails(*command) == f"{cli.config_path}, line 2: server.port must be a whole number"


def test_a_name_in_the_file_cannot_speak_to_the_terminal(cli: CommandLine) -> None:
    configure(cli, '["\\u001b[31mred\\nline"]\n')
    assert '"\\u001b[31mred\\u000aline" is not a setting' in cli.fails("config", "check")


def test_a_folder_in_place_of_the_file(cli: CommandLine) -> None:
    line = cli.fails("config", "check", "--config", str(cli.folder))
    assert line == f"{cli.folder} is a directory, not a configuration file"


def test_a_file_that_may_not_be_read(cli: CommandLine) -> None:
    cli.config_path.chmod(0)
    cli.prefix = without_rights()
    assert cli.fails("config", "check") == f"Cannot read the configuration file {cli.config_path}: Permission denied"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("server.host = '0.0.0.0'", "server.host is 0.0.0.0: other machines can reach the gateway, without TLS"),
        ("server.host = '::'\nauth.registration = 'open'", "auth.registration is open"),
        ("server.host = '::'\nserver.public_metrics = true", "server.public_metrics is on"),
        ("server.cors_origins = ['*']", "server.cors_origins has *"),
        ("", "no provider is configured: only echo answers"),
        ("[providers.openai]", "providers.openai has no api_key"),
        ("[providers.anthropic]", "providers.anthropic has no api_key"),
        (
            "[providers.openai]\napi_key = 'x'\nbase_url = 'http://10.0.0.1/v1'",
            "its api_key crosses the network in the clear",
        ),
        ("[providers.openai]\napi_key = 'x'", "holds secrets and others may read it; 'chmod 600' keeps it to yourself"),
        ("[providers.openai]\napi_keys = ['x']", "holds secrets and others may read it"),
    ],
)
def test_check_warns_of_what_is_seldom_meant(cli: CommandLine, text: str, warning: str) -> None:
    configure(cli, text)
    cli.config_path.chmod(0o644)
    done = cli.well("config", "check")
    assert done.out.startswith(f"OK: {cli.config_path}\n")
    assert warning in done.err
    assert any(warning in each for each in cli.well("config", "check", "--json").json["warnings"])


def test_check_warns_of_a_proxy_that_fetching_does_not_use(cli: CommandLine) -> None:
    warning = "media.fetch_urls is on: URLs are fetched directly, and not through the proxy"
    proxy = {"HTTPS_PROXY": f"http://user:{CANARY}@proxy.internal:3128"}
    configure(cli, "media.fetch_urls = true")
    cli.config_path.chmod(0o600)
    done = cli.run("config", "check", environment=proxy)
    assert warning in done.err
    assert CANARY not in done.err
    assert warning not in cli.well("config", "check").err
    configure(cli, "")
    assert warning not in cli.run("config", "check", environment=proxy).err


@pytest.mark.parametrize("target", ["anthropic/claude", "nowhere/m"])
def test_check_warns_of_an_alias_that_leads_nowhere(cli: CommandLine, target: str) -> None:
    configure(cli, f'[models.a]\ntargets = ["{target}"]\n[models.b]\ntargets = ["echo/echo"]\n')
    err = cli.well("config", "check").err
    assert f"models.a.targets names {target}, and there is no provider {target.partition('/')[0]}\n" in err
    assert "models.b" not in err


KEYLESS = "providers.{0} has no api_key ({1} gives it one): it is asked without a credential"


@pytest.mark.parametrize(
    ("environment", "warning"),
    [
        (
            {"AZURE_OPENAI_API_KEY": "x"},
            "AZURE_OPENAI_API_KEY is set and AZURE_OPENAI_ENDPOINT is not: without it there is no provider azure",
        ),
        (
            {"AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com"},
            KEYLESS.format("azure", "AZURE_OPENAI_API_KEY"),
        ),
        ({"OPENAI_BASE_URL": "https://eu.api.openai.com/v1"}, KEYLESS.format("openai", "OPENAI_API_KEY")),
        ({"OPENAI_BASE_URL": "https://llm.example.com/v1"}, KEYLESS.format("openai", "OPENAI_API_KEY")),
        (
            {"GEMINI_BASE_URL": "https://proxy.example.com"},
            KEYLESS.format("gemini", "GEMINI_API_KEY or GOOGLE_API_KEY"),
        ),
        (
            {"GEMINI_API_KEY": "x", "GOOGLE_API_KEY": "y"},
            "GEMINI_API_KEY and GOOGLE_API_KEY are both set, to different keys: GEMINI_API_KEY is taken",
        ),
        ({"OPENAI_BASE_URL": "http://localhost:8000/v1"}, None),
        ({"GEMINI_API_KEY": "x", "GOOGLE_API_KEY": "x"}, None),
        ({"GOOGLE_API_KEY": "x"}, None),
        ({"AZURE_OPENAI_API_VERSION": "v1", "OPENAI_API_KEY": "x"}, None),
    ],
)
def test_check_warns_of_halves_in_the_environment(
    cli: CommandLine, environment: dict[str, str], warning: str | None
) -> None:
    done = cli.run("config", "check", environment=environment)
    expected = [] if warning is None else [f"Warning: {warning}"]
    assert [line for line in done.err.splitlines() if "no provider is configured" not in line] == expected


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[providers.mistral]", KEYLESS.format("mistral", "MISTRAL_API_KEY")),
        ("[providers.work]\ntype = 'groq'", "providers.work has no api_key: it is asked without a credential"),
        (
            "[providers.x]\ntype = 'openai'\nbase_url = 'http://gpu:8000'",
            (
                "providers.x.base_url has no path: openai has its API under /v1,"
                " so write http://gpu:8000/v1 if it does here"
            ),
        ),
        (
            "[providers.ollama]\nbase_url = 'https://gpu.example.com/ollama'",
            "providers.ollama.base_url does not end with /v1, under which ollama speaks OpenAI's API",
        ),
        (
            "[providers.x]\ntype = 'openai'\nbase_url = 'http://gpu:8000/v1/chat/completions'",
            (
                "providers.x.base_url ends with /chat/completions, which the gateway adds itself where it belongs:"
                " leave it out"
            ),
        ),
        ("[providers.ollama]\nbase_url = 'http://gpu:11434'", None),
        ("[providers.openai]\napi_key = '${K}'\nbase_url = 'https://API.OpenAI.com/'", None),
        ("[providers.x]\ntype = 'anthropic'\napi_key = '${K}'\nbase_url = 'https://proxy.example.com'", None),
        ("[providers.azure]\napi_key = '${K}'\nbase_url = 'https://r.services.ai.azure.com/models'", None),
        ("[providers.x]\ntype = 'azure'\napi_key = '${AZURE_OPENAI_API_KEY}'\nbase_url = 'https://r'", None),
    ],
)
def test_check_warns_of_a_provider_that_cannot_answer_as_it_is(
    cli: CommandLine, text: str, warning: str | None
) -> None:
    configure(cli, text)
    more = {"AZURE_OPENAI_API_KEY": "x"} if "type = 'azure'" in text else {}
    done = cli.run("config", "check", environment={"K": "x", **more})
    assert done.code == 0
    assert done.err.splitlines() == ([] if warning is None else [f"Warning: {warning}"])


@pytest.mark.parametrize(
    ("pattern", "warning"),
    [
        ("antropic/*", 'there is no provider antropic; did you mean pricing."anthropic/*"?'),
        ("elsewhere/m", "there is no provider elsewhere"),
        ("claude-*", 'it has to be provider/model, as in pricing."anthropic/claude-*"'),
        ("claude-sonnet-4-5", 'it has to be provider/model, as in pricing."anthropic/claude-sonnet-4-5"'),
        ("anthropic/claude-*", None),
        ("echo/*", None),
        ("*", None),
        ("*/claude-*", None),
        ("anth*", None),
        ("[ab]*/x", None),
    ],
)
def test_check_warns_of_patterns_that_match_nothing(cli: CommandLine, pattern: str, warning: str | None) -> None:
    for section, line in (("pricing", "input = 1\noutput = 1"), ("catalog", "context_window = 9")):
        configure(cli, f'[{section}."{pattern}"]\n{line}\n[providers.anthropic]\napi_key = "${{K}}"\n')
        err = cli.run("config", "check", environment={"K": "x"}).err
        if warning is None:
            assert err == ""
        else:
            assert f" matches nothing: {warning.replace('pricing', section)}\n" in err


def test_check_warns_of_variables_that_nothing_reads(cli: CommandLine) -> None:
    environment = {
        "COHERE_API_KEY": f"sk-{CANARY}",
        "REPLICATE_API_TOKEN": f"r8-{CANARY}",
        "AWS_BEARER_TOKEN_BEDROCK": "",
        "INFERXGATE_SERVER_PORT": "1",
        "INFERXGATE_PROVIDERS_X": "1",
        "INFERXGATE_URL": "http://localhost",
        "INFERXGATE_API_KEY": CANARY,
    }
    done = cli.run("config", "check", environment=environment)
    assert done.code == 0
    assert CANARY not in done.err
    assert [line for line in done.err.splitlines() if "not used" in line or "not read" in line] == [
        "Warning: not used, since this version has no such provider yet: COHERE_API_KEY, REPLICATE_API_TOKEN",
        (
            "Warning: INFERXGATE_PROVIDERS_X is not read: a setting's name has two underscores,"
            " as in INFERXGATE_PROVIDERS__X"
        ),
        (
            "Warning: INFERXGATE_SERVER_PORT is not read: a setting's name has two underscores,"
            " as in INFERXGATE_SERVER__PORT"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\ntls_cert = 'bad.pem'\ntls_key = 'bad.pem'", "tls_key {folder}/bad.pem cannot be used"),
        ("[providers.openai]\nca_file = 'bad.pem'", "({folder}/bad.pem) cannot be used: no certificates in PEM form"),
    ],
)
def test_check_opens_the_certificates(cli: CommandLine, text: str, message: str) -> None:
    (cli.folder / "bad.pem").write_text("not a pem\n")
    configure(cli, text)
    assert message.format(folder=cli.folder) in cli.fails("config", "check")


def test_check_does_not_warn_without_reason(cli: CommandLine) -> None:
    configure(
        cli,
        '[providers.openai]\napi_key = "${KEY}"\n[providers.a]\ntype = "openai"\nbase_url = "http://localhost:1/v1"',
    )
    cli.config_path.chmod(0o644)
    assert cli.run("config", "check", environment={"KEY": "sk-1"}).err == ""


# init


def test_init_writes_a_file_that_changes_nothing(cli: CommandLine) -> None:
    file = cli.folder / "new" / "folder" / "config.toml"
    done = cli.well("config", "init", "--config", str(file))
    assert done.out == f"{file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert cli.well("config", "check", "--config", str(file)).out == f"OK: {file}\n"
    shown = cli.well("config", "show", "--json", "--config", str(file)).json["settings"]
    assert {each["origin"] for each in shown.values()} == {"default"}


def test_init_names_every_setting_with_its_default(cli: CommandLine) -> None:
    file = cli.folder / "init.toml"
    cli.well("config", "init", "--config", str(file))
    settings = re.sub(r"^#(?=[\[\w])", "", file.read_text(), flags=re.MULTILINE)
    values = tomllib.loads(settings)
    for table in tables():
        section = values[table.name] if table.entry is None else values[table.name][table.entry]
        assert section.keys() == {each.loc[-1] for each in table.settings}
        for each in table.settings:
            assert section[each.loc[-1]] == (each.examples[0] if each.default is None else each.default)


def test_init_gives_examples_that_hold(cli: CommandLine) -> None:
    file = cli.folder / "init.toml"
    cli.well("config", "init", "--config", str(file))
    settings = re.sub(r"^#(?=[\[\w])(?!tls_|ca_file|api_version)", "", file.read_text(), flags=re.MULTILINE)
    file.write_text(settings)
    environment = {"IX_JWT_SECRET": CANARY, "OPENAI_API_KEY": "sk-1"}
    done = cli.run("config", "show", "--json", "--config", str(file), environment=environment)
    assert done.code == 0, done.err
    assert set(Settings.model_fields) == {name.partition(".")[0] for name in done.json["settings"]}


def test_init_keeps_what_is_there(cli: CommandLine) -> None:
    configure(cli, "# mine\n")
    assert cli.fails("config", "init") == f"{cli.config_path} is there already; --force writes over it"
    assert cli.config_path.read_text() == "# mine\n"
    cli.well("config", "init", "--force")
    assert "[server]" in cli.config_path.read_text()
    assert stat.S_IMODE(cli.config_path.stat().st_mode) == 0o600
    assert [path.name for path in cli.folder.iterdir()] == ["config.toml"]


def test_init_writes_through_a_link(cli: CommandLine) -> None:
    link = cli.folder / "link.toml"
    link.symlink_to(cli.config_path)
    cli.well("config", "init", "--force", "--config", str(link))
    assert link.is_symlink()
    assert "[server]" in cli.config_path.read_text()


def test_init_as_json(cli: CommandLine) -> None:
    file = cli.folder / "init.toml"
    assert cli.well("config", "init", "--json", "--config", str(file)).json == {"path": str(file)}


def test_init_where_it_cannot_write(cli: CommandLine) -> None:
    assert "Is a directory" in cli.fails("config", "init", "--force", "--config", str(cli.folder))
    assert "Not a directory" in cli.fails("config", "init", "--config", str(cli.config_path / "x" / "config.toml"))
    assert [path.name for path in cli.folder.iterdir()] == ["config.toml"]


def test_wrong_usage_is_code_two(cli: CommandLine) -> None:
    cli.fails("config", "show", "--nonsense", code=2)
    cli.fails("config", "nonsense", code=2)
