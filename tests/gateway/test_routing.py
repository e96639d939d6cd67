"""From names to targets, in the contract's order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferxgate.accounts.callers import OPERATOR, Caller
from inferxgate.catalog.catalog import Catalog
from inferxgate.errors import GatewayError
from inferxgate.gateway.routing import Alias, Router
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS

CATALOG = Catalog()
VENDOR = "https://api.openai.com/v1"
OPENAI = Provider(name="openai", row=ROW, base_url=VENDOR, price_id="openai")
WORK = Provider(name="work", row=ROW, base_url=VENDOR, price_id="openai")
ANTHROPIC = Provider(name="anthropic", row=ROWS["anthropic"], base_url="https://a", price_id="anthropic")
GEMINI = Provider(name="gemini", row=ROWS["gemini"], base_url="https://g", price_id="google")
ROUTER = Provider(name="openrouter", row=ROWS["openrouter"], base_url="https://o", price_id="openrouter")
XAI = Provider(name="xai", row=ROWS["xai"], base_url="https://x", price_id="x-ai")
GROQ = Provider(name="groq", row=ROWS["groq"], base_url="https://q", price_id="groq")
TOGETHER = Provider(name="together", row=ROWS["together"], base_url="https://t", price_id="together")
FIREWORKS = Provider(name="fireworks", row=ROWS["fireworks"], base_url="https://f", price_id="fireworks")
_AT_FIREWORKS = "fireworks/accounts/fireworks/models/deepseek-v3p2"
AZURE = Provider(
    name="azure",
    row=ROWS["azure"],
    base_url="https://r.openai.azure.com",
    price_id="azure",
    models=("my-gpt",),
    deployments={"my-gpt": "gpt-4o"},
)
VLLM = Provider(name="my-vllm", row=ROW, base_url="http://127.0.0.1:8000/v1", models=("llama3",))


def router(*providers: Provider, **aliases: str) -> Router:
    return Router(providers, {name: Alias.of(target) for name, target in aliases.items()}, CATALOG)


@pytest.mark.parametrize(
    ("providers", "name", "target"),
    [
        ((OPENAI, VLLM), "openai/gpt-4o", "openai/gpt-4o"),
        ((OPENAI, VLLM), "my-vllm/gpt-4o", "my-vllm/gpt-4o"),
        ((OPENAI, VLLM), "my-vllm/meta/llama3:8b", "my-vllm/meta/llama3:8b"),
        ((VLLM, OPENAI), "gpt-4o", "openai/gpt-4o"),
        ((VLLM, OPENAI), "gpt-99-not-yet-known", "openai/gpt-99-not-yet-known"),
        ((WORK, VLLM), "gpt-4o", "work/gpt-4o"),
        ((WORK, VLLM), "llama3", "my-vllm/llama3"),
        ((VLLM,), "whatever", "my-vllm/whatever"),
        ((VLLM,), "meta/whatever", "my-vllm/meta/whatever"),
        ((VLLM, ROUTER, ANTHROPIC, GEMINI), "claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ((VLLM, ROUTER, ANTHROPIC, GEMINI), "claude-next", "anthropic/claude-next"),
        ((VLLM, ANTHROPIC, GEMINI), "gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ((VLLM, ANTHROPIC, GEMINI), "gemini-next", "gemini/gemini-next"),
        ((VLLM, ANTHROPIC, GEMINI), "gemini/models/gemini-2.5-pro", "gemini/models/gemini-2.5-pro"),
        ((VLLM, ROUTER), "anthropic/claude-opus-4.7", "openrouter/anthropic/claude-opus-4.7"),
        ((VLLM, ROUTER, ANTHROPIC), "anthropic/claude-opus-4.7", "anthropic/claude-opus-4.7"),
        ((XAI, ROUTER), "x-ai/grok-4.5", "openrouter/x-ai/grok-4.5"),
        ((GROQ, GEMINI), "openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ((GEMINI, TOGETHER), "google/gemma-2b-it", "together/google/gemma-2b-it"),
        ((GEMINI, FIREWORKS), "accounts/fireworks/models/deepseek-v3p2", _AT_FIREWORKS),
        ((ANTHROPIC, GEMINI), "models/gemini-2.5-pro", "gemini/models/gemini-2.5-pro"),
        ((AZURE, VLLM), "my-gpt", "azure/my-gpt"),
        ((AZURE, VLLM), "azure/gpt-4o", "azure/gpt-4o"),
        ((AZURE,), "gpt-4o", "azure/gpt-4o"),
        ((), "echo", "echo/echo"),
        ((VLLM,), "echo", "echo/echo"),
        ((), "echo/echo", "echo/echo"),
    ],
)
def test_names_lead_to_targets(providers: tuple[Provider, ...], name: str, target: str) -> None:
    assert router(*providers).plan(name).targets[0].name == target


@pytest.mark.parametrize(
    "model", ["claude-sonnet-4-5", "gpt-4o", "o4-mini", "moderation", "gemini-2.5-pro", "grok-4.5"]
)
def test_no_vendor_serves_a_name_with_a_prefix_that_nobody_has(model: str) -> None:
    everyone = [
        Provider(name=name, row=row, base_url="https://a", price_id=row.price_id)
        for name, row in ROWS.items()
        if not row.own_names
    ]
    with pytest.raises(GatewayError, match=f"There is no model 'dead/{model}'"):
        router(*everyone).plan(f"dead/{model}")


def test_an_alias_comes_first() -> None:
    assert router(OPENAI, VLLM, **{"gpt-4o": "my-vllm/llama3"}).plan("gpt-4o").targets[0].name == "my-vllm/llama3"
    assert router(OPENAI, smart="gpt-5").plan("smart").targets[0].name == "openai/gpt-5"


def test_adding_a_provider_does_not_move_a_name() -> None:
    for name in ("gpt-4o", "o3"):
        assert router(OPENAI).plan(name) == router(OPENAI, VLLM, WORK).plan(name)
    assert router(VLLM).plan("llama3") == router(VLLM, OPENAI).plan("llama3")


@pytest.mark.parametrize(
    ("providers", "name", "hint"),
    [
        ((), "gpt-4o", "Configured providers: echo"),
        ((OPENAI, VLLM), "lama3", "Did you mean llama3?"),
        ((OPENAI, VLLM), "opnai/gpt-4o", "Did you mean openai/gpt-4o?"),
        ((OPENAI, VLLM), "opnai/gtp-4o", "Did you mean openai/gpt-4o or "),
        ((OPENAI, AZURE), "azur/whatever", "Did you mean azure/...?"),
        ((ANTHROPIC, GEMINI, AZURE), "antropic/claude-sonnet-4-5", "Did you mean anthropic/claude-sonnet-4-5?"),
        ((ANTHROPIC, GEMINI, AZURE), "dead/claude-sonnet-4-5", "Did you mean claude-sonnet-4-5?"),
        ((ANTHROPIC, GEMINI, AZURE), "openai/o4-mini", "The provider openai is not configured here."),
        ((GROQ, ROUTER), "claude-sonnet-4-5", "Did you mean anthropic/claude-sonnet-4.5?"),
        ((GROQ, ROUTER), "claude-sonet-4-5", "Did you mean anthropic/claude-sonnet-4.5 or "),
        ((GROQ, ROUTER), "antropic/claude-opus-4.7", "Did you mean anthropic/claude-opus-4.7?"),
        ((OPENAI, VLLM), "openai/", "There is no model 'openai/'"),
        ((OPENAI, VLLM), "ech", "Did you mean echo?"),
        ((), "echo/parrot", "There is no model 'echo/parrot'"),
        ((AZURE, VLLM), "gpt-4o", "Configured providers: azure, my-vllm, echo"),
        ((GEMINI, VLLM), "claude-sonnet-4-5", "Configured providers: gemini, my-vllm, echo"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_so_with_near_matches(
    providers: tuple[Provider, ...], name: str, hint: str
) -> None:
    with pytest.raises(GatewayError) as caught:
        router(*providers).plan(name)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert hint in caught.value.message


def only(*rules: str) -> Caller:
    return replace(OPERATOR, kind="key", role="user", allowed_models=rules)


@pytest.mark.parametrize(
    ("rules", "name", "allowed"),
    [
        ((), "gpt-4o", False),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "openai/gpt-4o", True),
        (("openai/gpt-4o",), "gpt-4o", True),
        (("openai/*",), "gpt-4o", True),
        (("gpt-*",), "gpt-4o", True),
        (("gpt-*",), "gpt-99-not-yet-known", True),
        (("gpt-*",), "llama3", False),
        (("gpt-4o",), "my-vllm/gpt-4o", False),
        (("*",), "my-vllm/gpt-4o", True),
        (("my-vllm/*",), "llama3", True),
        (("smart",), "smart", True),
        (("smart",), "openai/gpt-5", False),
        (("openai/gpt-5",), "smart", True),
        (("gpt-5",), "smart", True),
        (("echo",), "smart", False),
        (("GPT-4o",), "gpt-4o", False),
    ],
)
def test_a_callers_rules_match_names_and_targets(rules: tuple[str, ...], name: str, allowed: bool) -> None:
    names = router(OPENAI, VLLM, smart="openai/gpt-5")
    assert bool(names.permitted(only(*rules), names.plan(name))) is allowed


def test_lists_show_what_a_caller_may_use() -> None:
    names = router(OPENAI, VLLM, smart="openai/gpt-5")
    everything = [entry.id for entry in names.models(OPERATOR)]
    assert {"smart", "gpt-4o", "llama3", "echo"} <= set(everything)
    assert everything == sorted(everything)
    assert [entry.id for entry in names.models(only("llama3", "smart"))] == ["llama3", "smart"]


def test_every_listed_name_leads_to_what_the_list_says() -> None:
    names = router(WORK, OPENAI, VLLM, smart="openai/gpt-5", **{"gpt-4o": "my-vllm/llama3"})
    for entry in names.models(OPERATOR):
        assert names.plan(entry.id).targets[0].name == entry.target


def test_deployments_are_listed_by_the_operators_names() -> None:
    entries = {entry.id: entry for entry in router(AZURE).models(OPERATOR)}
    assert entries.keys() == {"my-gpt", "echo"}
    known = entries["my-gpt"]
    assert (known.context_window, known.abilities.max_output_tokens) == (128_000, 16_384)
    assert known.price == CATALOG.price("openai/gpt-4o", "openai", "gpt-4o")


def test_one_model_can_be_asked_for_whether_or_not_it_is_listed() -> None:
    names = router(OPENAI, VLLM)
    assert names.entry(OPERATOR, "my-vllm/unlisted").target == "my-vllm/unlisted"
    with pytest.raises(GatewayError, match="no model"):
        names.entry(only("echo"), "gpt-4o")
