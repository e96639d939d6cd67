"""Settings from real files and given environments: what wins, what is refused, and what the one line says."""

from __future__ import annotations

import copy
import itertools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from inferxgate.catalog.abilities import Abilities
from inferxgate.config import Settings, config_file, data_folder, database_path, leaves, load_settings
from inferxgate.config_listing import as_toml
from inferxgate.config_sections import FactSettings, ServerSettings
from inferxgate.config_sources import ConfigFile, dotted, environment_name, overlay
from inferxgate.dialects.quirks import Quirks
from inferxgate.errors import StartError
from inferxgate.providers.provider import Row
from inferxgate.providers.registry import ROWS
from inferxgate.runtime_models import build_catalog, build_provider
from tests.support.configuration import SECRET, Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# What holds where nothing is set


def test_the_defaults_are_those_of_the_contract(folder: Folder) -> None:
    loaded = folder.load()
    server, auth = loaded.settings.server, loaded.settings.auth
    assert (server.host, server.port, server.workers, server.public_metrics) == ("127.0.0.1", 3000, 1, False)
    assert (server.max_body_mb, server.keepalive_seconds, server.shutdown_seconds) == (32, 15, 30)
    assert (server.trusted_proxies, server.cors_origins) == ([], [])
    assert (auth.registration, auth.jwt_secret, auth.jwt_expires_seconds, auth.keys_per_user) == (
        "auto",
        None,
        86_400,
        20,
    )
    limits = loaded.settings.limits
    assert (limits.requests_per_minute, limits.tokens_per_minute, limits.parallel_requests) == (60, 0, 0)
    assert (limits.reserve_output_tokens, limits.allow_unpriced, limits.budget_alerts) == (
        4096,
        False,
        [0.5, 0.8, 0.95],
    )
    assert loaded.settings.media.fetch_urls is False
    assert loaded.settings.storage.database_url == "sqlite:///inferxgate.db"
    assert (loaded.settings.providers, loaded.settings.models, loaded.settings.pricing) == ({}, {}, {})
    assert set(loaded.origins.values()) == {"default"}


def test_settings_made_by_hand_take_nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", '{"port": 1}')
    monkeypatch.setenv("INFERXGATE_SERVER__PORT", "2")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    made = Settings(server=ServerSettings(port=4))
    assert (made.server.port, made.providers) == (4, {})


# Which source wins

WHOLES = {
    "server.port": (0, 65_535),
    "server.max_body_mb": (1, 1024),
    "auth.keys_per_user": (1, 1_000_000),
    "limits.requests_per_minute": (0, 10**9),
    "providers.openai.timeout_seconds": (1, 86_400),
    "providers.my-vllm.idle_timeout_seconds": (1, 86_400),
}


@st.composite
def three_sources(draw: st.DrawFn) -> dict[str, dict[str, int]]:
    """For each source, the settings that it sets."""
    values = {name: st.integers(*bounds) for name, bounds in WHOLES.items()}
    return {source: draw(st.fixed_dictionaries({}, optional=values)) for source in ("file", "environment", "flags")}


def as_file(values: Mapping[str, object]) -> str:
    return "".join(f"{name} = {as_toml(value)}\n" for name, value in values.items())


def as_environment(values: Mapping[str, object]) -> dict[str, str]:
    return {environment_name(name.split(".")): str(value) for name, value in values.items()}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(three_sources())
def test_flags_win_over_the_environment_and_that_over_the_file(
    folder: Folder, sources: dict[str, dict[str, int]]
) -> None:
    file = 'providers.my-vllm.type = "openai"\n' + as_file(sources["file"])
    loaded = folder.load(file, environ=as_environment(sources["environment"]), flags=sources["flags"])
    merged = {**sources["file"], **sources["environment"], **sources["flags"]}
    for loc, field, value in leaves(loaded.settings):
        name = dotted(loc)
        if name in merged:
            assert value == merged[name]
        elif name != "providers.my-vllm.type":
            assert value == field.get_default(call_default_factory=True)
        origin = loaded.origins[name]
        if name in sources["flags"]:
            assert origin == "flag"
        elif name in sources["environment"]:
            assert origin == f"environment {environment_name(loc)}"
        else:
            assert origin == ("file" if name in sources["file"] or name == "providers.my-vllm.type" else "default")


def test_a_flag_that_was_not_given_is_none(folder: Folder) -> None:
    loaded = folder.load("server.port = 1", flags={"server.port": None, "server.host": "::1"})
    assert (loaded.settings.server.port, loaded.settings.server.host) == (1, "::1")


def test_a_value_that_is_overridden_may_refer_to_nothing(folder: Folder) -> None:
    loaded = folder.load('[auth]\njwt_secret = "${NOT_SET}"', environ={"INFERXGATE_AUTH__JWT_SECRET": SECRET})
    assert loaded.settings.auth.jwt_secret == SecretStr(SECRET)


# The environment


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.0/8,::1", ["10.0.0.0/8", "::1"]),
        (" 10.0.0.1 , 10.0.0.2,", ["10.0.0.1", "10.0.0.2"]),
        ('["10.0.0.1"]', ["10.0.0.1"]),
        ("[]", []),
        (",", []),
    ],
)
def test_lists_come_as_json_or_with_commas(folder: Folder, text: str, meant: list[str]) -> None:
    loaded = folder.load('server.trusted_proxies = ["192.0.2.1"]', environ={"INFERXGATE_SERVER__TRUSTED_PROXIES": text})
    assert loaded.settings.server.trusted_proxies == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0.5,0.8", [0.5, 0.8]),
        (" 0.9 , 0.25, 1, 0.9", [0.25, 0.9, 1]),
        ("[0.95, 0.5]", [0.5, 0.95]),
        ("0.5", [0.5]),
        ("[]", []),
    ],
)
def test_alerts_come_in_any_order_and_form(folder: Folder, text: str, meant: list[float]) -> None:
    loaded = folder.load(environ={"INFERXGATE_LIMITS__BUDGET_ALERTS": text})
    assert loaded.settings.limits.budget_alerts == meant


def test_a_number_in_a_list_is_named_by_its_place(folder: Folder) -> None:
    line = folder.refused(environ={"INFERXGATE_LIMITS__BUDGET_ALERTS": "0.5, half"})
    assert line.endswith("limits.budget_alerts (item 2) must be a number")


@pytest.mark.parametrize(
    ("text", "meant"), [("true", True), ("1", True), ("ON", True), ("yes", True), ("False", False), ("0", False)]
)
def test_truth_in_the_environment(folder: Folder, text: str, *, meant: bool) -> None:
    loaded = folder.load(environ={"INFERXGATE_SERVER__PUBLIC_METRICS": text})
    assert loaded.settings.server.public_metrics is meant


def test_an_empty_variable_counts_as_not_set(folder: Folder) -> None:
    empty = {"INFERXGATE_SERVER__PORT": "", "OPENAI_API_KEY": "", "INFERXGATE_NO__SUCH": ""}
    loaded = folder.load("server.port = 7", environ=empty)
    assert (loaded.settings.server.port, loaded.settings.providers) == (7, {})


def test_names_ignore_case(folder: Folder) -> None:
    assert folder.load(environ={"inferxgate_Server__Port": "7"}).settings.server.port == 7


def test_one_setting_by_two_names_is_refused(folder: Folder) -> None:
    line = folder.refused(environ={"INFERXGATE_SERVER__PORT": "7", "inferxgate_server__port": "8"})
    assert line == "The environment variables INFERXGATE_SERVER__PORT and inferxgate_server__port both set server.port"


@pytest.mark.parametrize("spelt", ["my-vllm", "My_VLLM", "MY-VLLM"])
def test_a_variable_finds_the_section_of_the_file(folder: Folder, spelt: str) -> None:
    file = f'[providers.{spelt}]\ntype = "openai"\nbase_url = "http://one/v1"'
    environ = {"INFERXGATE_PROVIDERS__MY_VLLM__BASE_URL": "http://two/v1"}
    loaded = folder.load(file, environ=environ)
    assert loaded.settings.providers.keys() == {spelt}
    assert loaded.settings.providers[spelt].base_url == "http://two/v1"
    assert loaded.origins[f"providers.{spelt}.type"] == "file"


def test_a_variable_that_could_mean_two_sections_is_refused(folder: Folder) -> None:
    file = 'providers.my_a.type = "openai"\nproviders.my-a.type = "openai"'
    line = folder.refused(file, environ={"INFERXGATE_PROVIDERS__MY_A__API_KEY": "sk-1"})
    assert line == "The environment variable INFERXGATE_PROVIDERS__MY_A__API_KEY could mean 'my_a' or 'my-a'"


def test_a_provider_can_be_configured_without_a_file(folder: Folder) -> None:
    environ = {
        "INFERXGATE_PROVIDERS__MY_VLLM__TYPE": "openai",
        "INFERXGATE_PROVIDERS__MY_VLLM__BASE_URL": "http://127.0.0.1:8000/v1/",
        "INFERXGATE_PROVIDERS__MY_VLLM__HEADERS": '{"X-One": "1"}',
        "INFERXGATE_MODELS__SMART__TARGETS": "my-vllm/llama",
        "INFERXGATE_PRICING__LLAMA__INPUT": "0.5",
        "INFERXGATE_PRICING__LLAMA__OUTPUT": "1",
    }
    loaded = folder.load(environ=environ)
    provider = loaded.settings.providers["my-vllm"]
    assert (provider.type, provider.base_url) == ("openai", "http://127.0.0.1:8000/v1")
    assert provider.headers == {"X-One": SecretStr("1")}
    assert [each.model for each in loaded.settings.models["smart"].targets] == ["my-vllm/llama"]
    assert (loaded.settings.pricing["llama"].input, loaded.settings.pricing["llama"].output) == (0.5, 1)
    assert loaded.origins["providers.my-vllm.headers.X-One"] == "environment INFERXGATE_PROVIDERS__MY_VLLM__HEADERS"


def test_headers_are_laid_over_each_other_one_by_one(folder: Folder) -> None:
    file = '[providers.openai.headers]\nX-One = "1"\nX-Two = "2"'
    loaded = folder.load(file, environ={"INFERXGATE_PROVIDERS__OPENAI__HEADERS__X_TWO": "3"})
    assert loaded.settings.providers["openai"].headers == {"X-One": SecretStr("1"), "X-Two": SecretStr("3")}
    assert loaded.origins["providers.openai.headers.X-One"] == "file"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("INFERXGATE_SERVER__PROT", "; did you mean INFERXGATE_SERVER__PORT?"),
        ("INFERXGATE__SERVER__PORT", "; did you mean INFERXGATE_SERVER__PORT?"),
        ("INFERXGATE_SERVER__PORT__X", "; did you mean INFERXGATE_SERVER__PORT?"),
        ("INFERXGATE_PROVIDERS__A__BASE_URI", "; did you mean INFERXGATE_PROVIDERS__A__BASE_URL?"),
        ("INFERXGATE_SERVER__FRONT_DOOR", ""),
        ("INFERXGATE_SERVR__PORT", "; did you mean INFERXGATE_SERVER__PORT?"),
        ("INFERXGATE_QQ__ZZ", ""),
    ],
)
def test_an_unknown_name_with_a_double_underscore_is_refused(folder: Folder, name: str, hint: str) -> None:
    assert folder.refused(environ={name: "1"}) == f"environment variable {name}: there is no such setting{hint}"


def test_other_names_are_none_of_our_business(folder: Folder) -> None:
    others = {"INFERXGATE_URL": "x", "INFERXGATE_SERVER": "x", "INFERXGATE": "x", "X_INFERXGATE_A__B": "x", "A__B": "x"}
    assert set(folder.load(environ=others).origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("INFERXGATE_SERVER__PORT", "many", "server.port must be a whole number"),
        ("INFERXGATE_SERVER__PORT", "1_000", "server.port must be a whole number"),
        ("INFERXGATE_SERVER__PORT", "9" * 5000, "server.port must be a whole number"),
        ("INFERXGATE_SERVER__KEEPALIVE_SECONDS", "nan", "server.keepalive_seconds must be a number"),
        ("INFERXGATE_SERVER__PUBLIC_METRICS", "perhaps", "server.public_metrics must be true or false"),
        ("INFERXGATE_SERVER__CORS_ORIGINS", "[", "server.cors_origins must be a list"),
        ("INFERXGATE_SERVER__CORS_ORIGINS", "[" * 100_000, "server.cors_origins must be a list"),
        ("INFERXGATE_SERVER__CORS_ORIGINS", "[1]", "server.cors_origins (item 1) must be text"),
        ("INFERXGATE_PROVIDERS__OPENAI__HEADERS", "X: 1", "providers.openai.headers must be a table"),
        ("INFERXGATE_PROVIDERS__OPENAI__API_KEY", "\udcff", "providers.openai.api_key must"),
        ("INFERXGATE_AUTH__JWT_SECRET", "\udcff" * 40, "auth.jwt_secret must"),
        ("OPENAI_BASE_URL", "api.openai.com", "providers.openai.base_url must be an http or https URL with a host"),
        ("OPENAI_API_KEY", "sk-1\n", "providers.openai.api_key must not be empty, and must not hold spaces"),
    ],
)
def test_a_wrong_value_names_its_variable(folder: Folder, name: str, text: str, line: str) -> None:
    said = folder.refused(environ={name: text})
    assert said.startswith(f"environment variable {name}: {line}")


# The providers' own names


def test_the_providers_own_names_work_without_any_file(folder: Folder) -> None:
    loaded = folder.load(environ={"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})
    provider = loaded.settings.providers["openai"]
    assert (provider.api_key, provider.base_url) == (SecretStr("sk-1"), "http://127.0.0.1:1/v1")
    assert loaded.origins["providers.openai.api_key"] == "environment OPENAI_API_KEY"


def test_a_section_without_a_key_takes_the_providers_variable(folder: Folder) -> None:
    loaded = folder.load('[providers.openai]\nbase_url = "http://a/v1"', environ={"OPENAI_API_KEY": "sk-1"})
    provider = loaded.settings.providers["openai"]
    assert (provider.api_key, provider.base_url) == (SecretStr("sk-1"), "http://a/v1")


def test_a_sections_own_key_stays_its_key(folder: Folder) -> None:
    loaded = folder.load('[providers.openai]\napi_key = "sk-file"', environ={"OPENAI_API_KEY": "sk-env"})
    assert loaded.settings.providers["openai"].api_key == SecretStr("sk-file")
    assert loaded.origins["providers.openai.api_key"] == "file"


def test_our_own_name_wins_over_the_providers(folder: Folder) -> None:
    environ = {"OPENAI_API_KEY": "sk-1", "INFERXGATE_PROVIDERS__OPENAI__API_KEY": "sk-2"}
    assert folder.load(environ=environ).settings.providers["openai"].api_key == SecretStr("sk-2")


def test_another_section_does_not_take_the_vendors_key(folder: Folder) -> None:
    file = '[providers.my-vllm]\ntype = "openai"\nbase_url = "http://a/v1"'
    loaded = folder.load(file, environ={"OPENAI_API_KEY": "sk-1"})
    assert loaded.settings.providers["my-vllm"].api_key is None


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.key_variables], ids=lambda row: row.type)
def test_the_key_of_each_known_host_makes_its_provider(folder: Folder, row: Row) -> None:
    for variable in row.key_variables:
        address = {} if row.base_url else dict.fromkeys(row.url_variables, "https://r.openai.azure.com/")
        loaded = folder.load(environ={variable: "key-1", **address})
        assert loaded.settings.providers.keys() == {row.type}
        assert loaded.settings.providers[row.type].api_key == SecretStr("key-1")
        assert loaded.origins[f"providers.{row.type}.api_key"] == f"environment {variable}"


def test_azures_own_names_work_without_any_file(folder: Folder) -> None:
    environ = {
        "AZURE_OPENAI_API_KEY": "key-1",
        "AZURE_OPENAI_ENDPOINT": "https://my-resource.openai.azure.com/",
        "AZURE_OPENAI_API_VERSION": "2025-01-01-preview",
    }
    provider = folder.load(environ=environ).settings.providers["azure"]
    assert (provider.base_url, provider.api_version) == (
        "https://my-resource.openai.azure.com",
        "2025-01-01-preview",
    )


@pytest.mark.parametrize("variable", ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_API_VERSION"])
def test_half_a_provider_in_the_environment_is_none(folder: Folder, variable: str) -> None:
    assert folder.load(environ={variable: "v1"}).settings.providers == {}
    line = folder.refused("[providers.azure]", environ={variable: "v1"})
    assert line == "ix.toml, line 1: providers.azure needs a base_url: azure has no address that is the same for all"
    named = {"INFERXGATE_PROVIDERS__AZURE__BASE_URL": "https://a.openai.azure.com", variable: "v1"}
    assert folder.load(environ=named).settings.providers.keys() == {"azure"}


def test_servers_of_ones_own_are_there_only_where_a_section_says_so(folder: Folder) -> None:
    local = {"ollama", "vllm", "llamacpp", "lmstudio"}
    assert {row.type for row in ROWS.values() if not row.key_variables} == local
    file = "".join(f"[providers.{name}]\n" for name in local)
    providers = [build_provider(*each) for each in folder.load(file).settings.providers.items()]
    assert {provider.name for provider in providers} == local
    assert all(provider.base_url.startswith("http://127.0.0.1:") for provider in providers)


# What a section comes to


def test_a_section_inherits_what_its_type_is(folder: Folder) -> None:
    file = """
        [providers.work]
        type = "mistral"
        api_key = "key-1"
        [providers.proxied]
        type = "groq"
        base_url = "https://proxy.internal/groq"
        stream_usage = false
    """
    work, proxied = [build_provider(*each) for each in folder.load(file).settings.providers.items()]
    assert (work.base_url, work.quirks, work.price_id) == (ROWS["mistral"].base_url, ROWS["mistral"].quirks, "mistral")
    assert proxied.quirks == replace(ROWS["groq"].quirks, stream_usage=False)
    assert proxied.price_id == "groq", "a proxy's clients pay the vendor's prices"


def test_whose_models_they_are_can_be_said(folder: Folder) -> None:
    file = """
        [providers.proxied]
        type = "openai"
        base_url = "https://proxy.internal/v1"
        vendor_models = true
        [providers.openai]
        base_url = "https://vllm.example.com/v1"
        vendor_models = false
    """
    proxied, own = [build_provider(*each) for each in folder.load(file).settings.providers.items()]
    assert (proxied.price_id, proxied.listed_id) == ("openai", "openai")
    assert (own.price_id, own.listed_id) == (None, None)
    for name, base_url, what in (
        ("azure", "https://r.openai.azure.com", "deployments"),
        ("perplexity", "https://api.perplexity.ai", "models"),
    ):
        mistake = folder.refused(f'[providers.{name}]\nbase_url = "{base_url}"\ndiscover = true')
        assert mistake.endswith(
            f"line 3: providers.{name}.discover is no setting of {name}: name its {what}, which cannot be listed"
        )
    mistake = folder.refused("[providers.ollama]\nvendor_models = true")
    assert mistake.endswith(
        "providers.ollama.vendor_models is no setting of ollama, which has no price list of its own"
    )


def test_an_azure_section_has_its_version_deployments_and_token(folder: Folder) -> None:
    file = """
        [providers.azure]
        base_url = "https://my-resource.openai.azure.com"
        api_version = "2024-02-01"
        api_key = "token-1"
        auth = "bearer"
        deployments = { my-gpt = "gpt-4o" }
        models = ["other"]
    """
    loaded = folder.load(file)
    assert loaded.origins["providers.azure.deployments.my-gpt"] == "file"
    provider = build_provider("azure", loaded.settings.providers["azure"])
    assert (provider.api_version, provider.bearer, provider.models) == ("2024-02-01", True, ("other", "my-gpt"))
    assert provider.quirks == Quirks(stream_usage=False)
    assert (provider.price_id, provider.listed_id) == ("azure", None)
    assert (provider.vendor_model("my-gpt"), provider.vendor_model("gpt-4o")) == ("gpt-4o", None)


def test_facts_and_policies(folder: Folder) -> None:
    file = """
        params.unsupported = "STRICT"
        reasoning.keep_hours = 0
        [catalog."anthropic/claude-x"]
        max_output_tokens = 9
        sampling = false
        thinking = "adaptive"
    """
    settings = folder.load(file).settings
    assert (settings.params.unsupported, settings.reasoning.keep_hours) == ("strict", 0)
    abilities = build_catalog(settings).abilities("anthropic/claude-x", "anthropic", "claude-x")
    assert (abilities.max_output_tokens, abilities.sampling, abilities.thinking) == (9, False, "adaptive")


def test_every_ability_can_be_overridden() -> None:
    assert {*FactSettings.model_fields} - {"context_window"} == {field.name for field in fields(Abilities)}


# References


def test_a_string_may_name_variables_and_files(folder: Folder) -> None:
    (folder.path / "secret").write_text(f"{SECRET}\r\n")
    file = """
        auth.jwt_secret = "${file:secret}"
        providers.openai.base_url = "https://${HOST}/${VERSION}"
        providers.openai.headers = { X-One = "${HOST}" }
        providers.openai.models = ["${VERSION}"]
        server.port = "${PORT}"
        server.public_metrics = "${OPEN}"
        server.trusted_proxies = "${PROXIES}"
        chat.model = "$HOST $${HOST} $$ ${EMPTY}."
    """
    environ = {"HOST": "a.example", "VERSION": "v1", "PORT": "8", "OPEN": "yes", "PROXIES": "10.0.0.1,::1", "EMPTY": ""}
    loaded = folder.load(file, environ=environ)
    openai, server = loaded.settings.providers["openai"], loaded.settings.server
    assert loaded.settings.auth.jwt_secret == SecretStr(SECRET)
    assert openai.base_url == "https://a.example/v1"
    assert openai.headers == {"X-One": SecretStr("a.example")}
    assert openai.models == ["v1"]
    assert (server.port, server.public_metrics, server.trusted_proxies) == (8, True, ["10.0.0.1", "::1"])
    assert loaded.settings.chat.model == "$HOST ${HOST} $$ ."


def test_what_a_reference_leads_to_is_not_read_for_references(folder: Folder) -> None:
    loaded = folder.load('chat.model = "${A}"', environ={"A": "${B}"})
    assert loaded.settings.chat.model == "${B}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("${NOT_SET}", "needs the environment variable NOT_SET, which is not set"),
        ("${file:nowhere}", "needs the file nowhere, which cannot be read: No such file or directory"),
        ("${file:.}", "which cannot be read: Is a directory"),
        ("${file:latin1}", "needs the file latin1, which is not UTF-8"),
        ("${file:/dev/zero}", "needs the file /dev/zero, which is larger than 65536 bytes"),
        ("${a b}", "has '${a b}', which names neither a variable nor a file (${file:/path})"),
        ("${A:-x}", "has '${A:-x}', which names neither a variable nor a file"),
        ("${", "has a '${' without its '}'"),
    ],
)
def test_a_reference_to_nothing_names_what_is_missing(folder: Folder, text: str, line: str) -> None:
    (folder.path / "latin1").write_bytes(b"\xff")
    said = folder.refused(f'\n[auth]\njwt_secret = "{text}"')
    assert said.startswith("ix.toml, line 3: auth.jwt_secret ")
    assert line in said


def test_paths_of_the_file_start_from_its_folder(folder: Folder) -> None:
    (folder.path / "ca.pem").write_text("")
    loaded = folder.load('[providers.openai]\nca_file = "ca.pem"')
    assert loaded.settings.providers["openai"].ca_file == folder.path / "ca.pem"


# What is refused, and the line that says so


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # unknown settings
        ("[server]\nprot = 1", "line 2: server.prot is not a setting; did you mean server.port?"),
        ("port = 1", "line 1: port is not a setting; did you mean server.port?"),
        ("\n[sever]\nport = 1", "line 2: sever is not a setting; did you mean server?"),
        ("server.zz = 1", "line 1: server.zz is not a setting"),
        ("[providers.a]\ntype = 'openai'\nurl = 'x'", "line 3: providers.a.url is not a setting"),
        ('[pricing."a/*"]\noutput = 1\ninptu = 1', 'line 3: pricing."a/*".inptu is not a setting; did you mean'),
        ('["a\\nb"]', 'line 1: "a\\u000ab" is not a setting'),
        # wrong types
        ("server = 1", "line 1: server must be a table"),
        ("providers = []", "line 1: providers must be a table"),
        ("[[server]]\nport = 1", "line 1: server must be a table"),
        ("[server]\nport = '3000'", "line 2: server.port must be a whole number"),
        ("[server]\nport = 3.0", "line 2: server.port must be a whole number"),
        ("[server]\nport = true", "line 2: server.port must be a whole number"),
        ("[server]\nport = 1979-05-27", "line 2: server.port must be a whole number"),
        ("[server]\nport = 65536", "line 2: server.port must be 65535 or less"),
        ("[server]\nport = -1", "line 2: server.port must be 0 or more"),
        ("[server]\nhost = 1", "line 2: server.host must be text"),
        ("[server]\npublic_metrics = 1", "line 2: server.public_metrics must be true or false"),
        ("[server]\nkeepalive_seconds = true", "line 2: server.keepalive_seconds must be a number"),
        ("[server]\nkeepalive_seconds = -1", "line 2: server.keepalive_seconds must be 0 or more"),
        ("[server]\nkeepalive_seconds = inf", "line 2: server.keepalive_seconds must be a finite number"),
        ("[server]\ntls_cert = 1", "line 2: server.tls_cert must be a path"),
        ("[server]\ncors_origins = 'x'", "line 2: server.cors_origins must be a list"),
        ("[server]\nlog_level = 'warn'", "did you mean warning?"),
        ("[auth]\nregistration = 'yes'", "line 2: auth.registration must be 'open', 'closed' or 'auto'"),
        ("[limits]\nrequests_per_minute = -1", "line 2: limits.requests_per_minute must be 0 or more"),
        ("[limits]\ntokens_per_minute = 1.5", "line 2: limits.tokens_per_minute must be a whole number"),
        ("[limits]\nparallel_requests = -1", "line 2: limits.parallel_requests must be 0 or more"),
        ("[limits]\nreserve_output_tokens = 0", "line 2: limits.reserve_output_tokens must be 1 or more"),
        ("[limits]\nallow_unpriced = 1", "line 2: limits.allow_unpriced must be true or false"),
        ("[limits]\nbudget_alerts = 0.5", "line 2: limits.budget_alerts must be a list"),
        ("[limits]\nbudget_alerts = [0.5, 80]", "line 2: limits.budget_alerts (item 2) must be 1 or less"),
        ("[limits]\nbudget_alerts = [0]", "line 2: limits.budget_alerts (item 1) must be more than 0"),
        ("[limits]\nbudget_alerts = ['half']", "line 2: limits.budget_alerts (item 1) must be a number"),
        ("[models.a]", "line 1: models.a.targets is missing"),
        ("[models.a]\ntargets = []", "line 2: models.a.targets must not be empty"),
        ("[pricing.a]\ninput = 1", "line 1: pricing.a.output is missing"),
        ("[pricing.a]\ninput = -1\noutput = 1", "line 2: pricing.a.input must be 0 or more"),
        ("[pricing.a]\noutput = 1\ndiscount = 0.1", "line 1: pricing.a.input is missing"),
        ("[pricing.a]\ndiscount = 15", "line 2: pricing.a.discount must be 1 or less"),
        ("\n[pricing.a]", "line 2: pricing.a says nothing: set input and output"),
        # wrong values
        ("[server]\nhost = '127.0.0.1:80'", "line 2: server.host must be an address or a host name alone"),
        ("[server]\nhost = '[::1]'", "line 2: server.host must be an address or a host name alone"),
        ("[server]\nhost = ''", "line 2: server.host must be an address or a host name alone"),
        (
            "[server]\ntrusted_proxies = [\n'10.0.0.1',\n'x']",
            "line 2: server.trusted_proxies (item 2) must be an address",
        ),
        ("[server]\ncors_origins = ['https://a/']", "line 2: server.cors_origins (item 1) must be an origin"),
        ("[server]\ntls_cert = 'ix.toml'", "line 2: server.tls_cert needs server.tls_key beside it"),
        ("[server]\ntls_key = 'ix.toml'", "line 2: server.tls_key needs server.tls_cert beside it"),
        ("[server]\ntls_cert = 'ix.toml'\ntls_key = 'x'", "line 3: server.tls_key must name a file: x is no such file"),
        ("[server]\ntls_cert = 'ix.toml'\ntls_key = '.'", "line 3: server.tls_key must name a file: "),
        ("[auth]\njwt_secret = 'short'", "line 2: auth.jwt_secret must have 32 bytes or more"),
        ("[storage]\ndatabase_url = 'sqlite:///:memory:'", "line 2: storage.database_url must name a SQLite file"),
        ("[storage]\ndatabase_url = 'inferxgate.db'", "line 2: storage.database_url must name a SQLite file"),
        ("[storage]\ndatabase_url = 'sqlite:///a?mode=ro'", "line 2: storage.database_url must name a SQLite file"),
        ("[providers.echo]", "line 1: providers.echo cannot be configured: echo is built in"),
        ("[providers.a]\ntype = 'echo'", "line 2: providers.a.type cannot be configured: echo is built in"),
        (
            "[providers.a]\ntype = 'opnai'",
            "line 2: providers.a.type is of no type that this version has; did you mean openai?",
        ),
        ("[providers.a]", "line 1: providers.a is of no type that this version has"),
        ("[providers.'a/b']\ntype = 'openai'", 'line 1: providers."a/b" must be named by letters'),
        ("[models.'']\ntargets = ['x']", 'line 1: models."" must be a name of 1 to 200 printable characters'),
        ("[providers.openai]\napi_key = ''", "line 2: providers.openai.api_key must not be empty"),
        ("[providers.openai]\nheaders.'a b' = 'x'", "line 2: providers.openai.headers must hold names of headers"),
        ("[providers.openai]\nheaders.Host = 'x'", "line 2: providers.openai.headers must not hold Host"),
        ('[providers.openai]\nheaders.a = "x\\r\\ny"', "line 2: providers.openai.headers must not hold line breaks"),
        (
            "[providers.openai]\nheaders = { A = '1', a = '2' }",
            "line 2: providers.openai.headers must not hold one header",
        ),
        ("[providers.openai]\nproxy = 'socks5://a'", "line 2: providers.openai.proxy must be the URL of an HTTP proxy"),
        ("[params]\nunsupported = 'warn'", "line 2: params.unsupported must be 'drop' or 'strict'"),
        ("[reasoning]\nkeep_hours = -1", "line 2: reasoning.keep_hours must be 0 or more"),
        ("[catalog.a]\nmax_output_tokens = 0", "line 2: catalog.a.max_output_tokens must be 1 or more"),
        (
            "[catalog.a]\nsamplng = false",
            "line 2: catalog.a.samplng is not a setting; did you mean catalog.a.sampling?",
        ),
        ("[catalog.a]\nthinking = 'much'", "line 2: catalog.a.thinking must be 'none', 'budget', "),
        ("[catalog.'']\nprefill = false", 'line 1: catalog."" must be a name of 1 to 200 printable characters'),
        ("[providers.openai]\nauth = 'basic'", "line 2: providers.openai.auth must be 'key' or 'bearer'"),
        (
            "[providers.openai]\napi_version = 'v1'",
            "line 2: providers.openai.api_version is no setting of openai, which has no versions to choose from",
        ),
        ("[providers.azure]\napi_version = 'v1'", "line 1: providers.azure needs a base_url"),
        (
            "[providers.azure]\nbase_url = 'https://a.openai.azure.com'\napi_version = '../v1'",
            "line 3: providers.azure.api_version must be a date such as 2024-10-21",
        ),
        (
            "[providers.azure]\nbase_url = 'http://a.openai.azure.com'",
            "line 2: providers.azure.base_url must begin with https://",
        ),
        (
            "[providers.azure]\nbase_url = 'https://evil.example.openai.azure.com'",
            "line 2: providers.azure.base_url must name one resource, as https://my-resource.openai.azure.com does",
        ),
        (
            "[providers.azure]\nbase_url = 'https://a.openai.azure.com/openai/deployments/x'",
            "line 2: providers.azure.base_url must be the resource's address alone",
        ),
        (
            "[providers.azure]\nbase_url = 'https://a.openai.azure.com'\ndeployments = { a = '' }",
            "line 3: providers.azure.deployments must be a name of 1 to 200",
        ),
        ("[server]\nworkers = 0", "line 2: server.workers must be 1 or more"),
        ("[server]\nworkers = 1000", "line 2: server.workers must be 256 or less"),
        # settings of later versions
        ("[providers.bedrock]", "line 1: providers.bedrock is of no type that this version has"),
        ("[models.a]\ntargets = ['a/b', 'a/b']", "line 2: models.a.targets must not hold a/b twice"),
        ("[models.a]\ntargets = ['a/*']", "line 1: models.a has a target with a *, which stands for what a * in"),
        ("[models.'a*b*']\ntargets = ['a/*']", "must have one * at most"),
        ("[models.a]\ntargets = ['a', {weight = 2}]", "line 2: models.a.targets.model is missing"),
        ("[models.a]\ntargets = [{model = 'a', weight = 0}]", "line 2: models.a.targets.weight must be 1 or more"),
        ("[models.a]\ntargets = [{model = 'a', wait = 1}]", "line 2: models.a.targets.wait is not a setting"),
        ("[models.a]\ntargets = [{model = 'a', params = {stream = true}}]", "must not hold stream, which is the"),
        ("[models.a]\ntargets = ['a']\nstrategy = 'best'", "line 3: models.a.strategy must be 'ordered', 'weighted'"),
        ("[providers.openai]\napi_key = 'a'\napi_keys = ['b']", "line 3: providers.openai.api_keys must not stand"),
        ("[providers.openai]\napi_keys = ['b', 'b']", "line 2: providers.openai.api_keys must not hold one cred"),
        ("[storage]\ndatabase_url = 'postgresql://u:p@h/d'", "other databases are not available in this version"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_setting(folder: Folder, text: str, line: str) -> None:
    said = folder.refused(text)
    assert said.startswith("ix.toml, ")
    assert line in said


def test_a_wrong_flag_is_named_as_an_option(folder: Folder) -> None:
    line = folder.refused("server.port = 1", flags={"server.port": 99_999, "server.log_level": "info"})
    assert line == "--port must be 65535 or less"


def test_the_place_is_that_of_the_source_in_force(folder: Folder) -> None:
    line = folder.refused("server.port = 1", environ={"INFERXGATE_SERVER__PORT": "x"})
    assert line.startswith("environment variable INFERXGATE_SERVER__PORT: ")


def test_further_mistakes_are_counted(folder: Folder) -> None:
    line = folder.refused("[server]\nport = 'x'\nhost = 1\nwhat = 1")
    assert line == "ix.toml, line 4: server.what is not a setting (and 2 more to mend)"


BASE_URLS = [
    "ftp://a/v1", "a.example/v1", "http://", "http:///v1", "http://a b/", "http://a:99999/", "http://a:0/", "http://a:x/",
    "http://u@a/", "http://u:p@a/", "http://a/?x=1", "http://a/v1#f", "http://a/v1?", "http://a\\@b/", "http://[::1/",
    "//a", "http://a%2eb/", "http://a\n/", "http://{a}/",
]  # fmt: skip


@pytest.mark.parametrize("url", BASE_URLS)
def test_a_base_url_is_an_address_and_nothing_else(folder: Folder, url: str) -> None:
    line = folder.refused(f"[providers.openai]\nbase_url = {as_toml(url)}")
    assert line.startswith("ix.toml, line 2: providers.openai.base_url must")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://127.0.0.1:8000/v1",
        "http://[::1]:80",
        "http://localhost",
        "http://a-b_c.d/x/y",
    ],
)
def test_a_base_url_loses_its_last_slash(folder: Folder, url: str) -> None:
    loaded = folder.load(f'[providers.openai]\nbase_url = "{url}/"')
    assert loaded.settings.providers["openai"].base_url == url


def test_no_message_repeats_a_value(folder: Folder) -> None:
    canary = "canary-5f2c"
    paths = ["auth.registration", "server.host", "server.port", "storage.database_url", "providers.openai.base_url"]
    for path in [*paths, "providers.openai.proxy", "server.log_level", "server.keepalive_seconds", "server.tls_cert.x"]:
        assert canary not in folder.refused(f'{path} = "{canary}:{canary}@{canary}"')
        assert canary not in folder.refused(f'{path} = "${{CANARY}}"', environ={"CANARY": f"{canary} {canary}"})
    assert canary not in folder.refused(f'auth.jwt_secret = "{canary}"')
    assert canary not in folder.refused(f'providers.openai.headers.a = "{canary}\\n"')


# The file itself


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"[server\nport = 1", "ix.toml, line 1: not TOML: "),
        (b"[server]\nport =", "ix.toml, line 2: not TOML: "),
        (b'a = 1\nb = "', "ix.toml, line 2: not TOML: "),
        (b"[server]\nport = 1\nport = 2\n", "ix.toml, line "),
        (b"a = 1\nb = '\xff'", "ix.toml, line 2: not UTF-8, as TOML has to be"),
        (b"a = " + b"[" * 100_000, "ix.toml: nested too deeply"),
        (b"a = " + b"9" * 10_000, "ix.toml: not TOML: "),
        (b"#" * (4 * 2**20 + 1), "ix.toml is larger than 4194304 bytes"),
    ],
)
def test_a_file_that_is_no_toml(folder: Folder, data: bytes, line: str) -> None:
    folder.file.write_bytes(data)
    with pytest.raises(StartError) as stopped:
        load_settings(config_path=folder.file, flags={}, environ={"INFERXGATE_DATA_DIR": str(folder.path)})
    said = str(stopped.value).replace(f"{folder.path}{os.sep}", "")
    assert said.startswith(line)
    assert "\n" not in said
    assert len(said) < 200


def test_a_byte_order_mark_and_windows_line_ends_are_fine(folder: Folder) -> None:
    folder.file.write_bytes(b"\xef\xbb\xbf[server]\r\nport = 5\r\nprot = 5\r\n")
    with pytest.raises(StartError, match=r"line 3: server\.prot"):
        load_settings(config_path=folder.file, flags={}, environ={"INFERXGATE_DATA_DIR": str(folder.path)})


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="is a directory, not a configuration file"):
        load_settings(config_path=tmp_path, flags={}, environ={})


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "no.toml"
    for flag, environ in ((missing, {}), (None, {"INFERXGATE_CONFIG": str(missing)})):
        with pytest.raises(StartError, match=r"There is no configuration file .*no\.toml; 'inferxgate config init'"):
            load_settings(config_path=flag, flags={}, environ=environ)


def test_the_flag_wins_over_the_variable(folder: Folder) -> None:
    assert config_file(Path("a.toml"), environ={"INFERXGATE_CONFIG": "b.toml"}) == Path("a.toml")
    assert config_file(None, environ={"INFERXGATE_CONFIG": "b.toml"}) == Path("b.toml")
    assert config_file(None, environ={"INFERXGATE_CONFIG": "~/b.toml"}) == Path.home() / "b.toml"
    assert folder.load(environ={"INFERXGATE_CONFIG": "/nowhere"}).path == folder.file


def test_a_file_can_be_a_pipe(folder: Folder) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"[server]\nport = 9\nprot = 1\n")
    os.close(theirs)
    with pytest.raises(StartError, match=r"line 3: server\.prot"):
        load_settings(config_path=Path(f"/dev/fd/{ours}"), flags={}, environ={"INFERXGATE_DATA_DIR": str(folder.path)})
    os.close(ours)


@pytest.mark.parametrize(
    ("loc", "line"),
    [
        (("server", "port"), 3),
        (("server", "trusted_proxies"), 4),
        (("server", "log_level"), 12),
        (("server", "host"), 2),
        (("providers", "my.vllm", "headers", "A"), 16),
        (("providers", "my.vllm", "base_url"), 15),
        (("providers", "my.vllm", "api_key"), 14),
        (("models", "a", "targets"), 18),
        (("nothing",), None),
    ],
)
def test_the_line_of_a_setting_is_found_however_it_is_written(loc: tuple[str, ...], line: int | None) -> None:
    text = '''# [server]
[server]
  "port" = 1   # port
trusted_proxies = [ # log_level = 1
  "log_level = 1",

  """
log_level = 2
[nothing]
"""
]
log_level = "info"

[providers."my.vllm"]
"base\\u005furl" = \'\'\'http://a\'\'\'
headers.A = "x\x85y\u2028z"
[models]
a.targets = ["x"]
'''
    assert ConfigFile(Path("x"), text, tomllib.loads(text)).line_of(loc) == line


# The data folder and the database


def test_the_data_folder_is_named_but_not_made(tmp_path: Path) -> None:
    folder = data_folder(environ={"INFERXGATE_DATA_DIR": str(tmp_path / "data")})
    assert folder == tmp_path / "data"
    assert not folder.exists()


def test_the_data_folder_may_not_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StartError, match="INFERXGATE_DATA_DIR names another"):
        data_folder(environ={"INFERXGATE_DATA_DIR": str(tmp_path / "data")})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///inferxgate.db", "/data/inferxgate.db"),
        ("sqlite:///sub/a b.db", "/data/sub/a b.db"),
        ("sqlite:////var/lib/ix.db", "/var/lib/ix.db"),
    ],
)
def test_the_database_is_relative_to_the_data_folder(folder: Folder, url: str, path: str) -> None:
    loaded = folder.load(f"storage.database_url = {as_toml(url)}")
    assert database_path(loaded.settings, Path("/data")) == Path(path)


# How layers are laid over each other

TREES = st.recursive(st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
TABLES = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


def setting(tree: object, loc: tuple[str, ...]) -> object:
    """What stands at a place; None where nothing does."""
    for part in loc:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


@given(TABLES, TABLES)
def test_of_two_layers_the_stronger_one_holds_setting_by_setting(
    weaker: dict[str, Any], stronger: dict[str, Any]
) -> None:
    merged, before = copy.deepcopy(weaker), copy.deepcopy(stronger)
    overlay(merged, stronger)
    assert stronger == before
    for loc in [loc for size in (1, 2, 3) for loc in itertools.product("abc", repeat=size)]:
        said, below = setting(stronger, loc), setting(weaker, loc)
        outdone = any(isinstance(setting(stronger, loc[:end]), int) for end in range(1, len(loc)))
        if said is None:
            assert setting(merged, loc) == (None if outdone else below)
        elif not isinstance(said, dict):
            assert setting(merged, loc) == said
    overlay(merged, {"a": {"b": 9}})
    assert setting(stronger, ("a", "b")) == setting(before, ("a", "b")), "the layers share no table"


def test_what_only_the_stronger_layer_has_comes_last() -> None:
    patterns: dict[str, Any] = {"pricing": {"openai/*": {"input": 1}, "*": {"input": 2}}}
    overlay(patterns, {"pricing": {"anthropic/*": {"input": 3}, "*": {"output": 4}}})
    assert list(patterns["pricing"]) == ["openai/*", "*", "anthropic/*"]
    assert patterns["pricing"]["*"] == {"input": 2, "output": 4}
