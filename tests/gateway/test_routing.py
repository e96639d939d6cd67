"""From names to targets, in the contract's order."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.accounts.callers import OPERATOR, Caller
from inferxgate.catalog.catalog import Catalog
from inferxgate.errors import GatewayError
from inferxgate.gateway.routing import Alias, AliasTarget, Router, Target
from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS
from inferxgate.workers.model_lists import ModelLists

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


class Listed:
    """What providers list themselves: by provider, names and since when."""

    def __init__(self, **lists: dict[str, int]) -> None:
        self.lists = lists

    def __call__(self, provider: Provider) -> dict[str, int]:
        return self.lists.get(provider.name.replace("-", "_"), {})


def discovering(listed: Listed, *providers: Provider, **aliases: str) -> Router:
    return Router(providers, {name: Alias.of(target) for name, target in aliases.items()}, CATALOG, listed)


def test_what_a_provider_lists_itself_is_listed_with_its_provider() -> None:
    listed = Listed(my_vllm={"llama3": 1, "qwen/qwen9": 1}, openai={"gpt-4o": 1, "gpt-9": 1, "ft:gpt-4o:me::1": 1})
    names = discovering(listed, OPENAI, VLLM)
    before = {entry.id: entry for entry in router(OPENAI, VLLM).models(OPERATOR)}
    entries = {entry.id: entry for entry in names.models(OPERATOR)}
    more = {"my-vllm/qwen/qwen9", "openai/gpt-9", "openai/ft:gpt-4o:me::1"}
    assert entries.keys() == before.keys() | more
    assert {name for name, entry in entries.items() if entry.discovered} == more
    assert {name: entries[name] for name in before} == before
    assert all(names.plan(name).targets[0].name == entry.target for name, entry in entries.items())
    assert entries["my-vllm/qwen/qwen9"].target == "my-vllm/qwen/qwen9"
    assert names.entry(OPERATOR, "qwen/qwen9").discovered
    assert not names.entry(OPERATOR, "my-vllm/qwen10").discovered
    aliased = discovering(listed, OPENAI, VLLM, mine="my-vllm/qwen/qwen9")
    assert not aliased.entry(OPERATOR, "mine").discovered, "the configuration names it"


def test_an_alias_hides_a_listed_name() -> None:
    names = discovering(Listed(my_vllm={"x": 1}), OPENAI, VLLM, **{"my-vllm/x": "openai/gpt-4o"})
    entries = {entry.id: entry.target for entry in names.models(OPERATOR)}
    assert entries["my-vllm/x"] == "openai/gpt-4o"


def test_a_callers_rules_hold_for_what_is_listed() -> None:
    listed = Listed(my_vllm={"x": 1, "y": 1}, openai={"x": 2})
    names = discovering(listed, OPENAI, VLLM)

    def seen(*rules: str) -> set[str]:
        return {entry.id for entry in names.models(only(*rules)) if entry.discovered}

    assert seen("my-vllm/*") == {"my-vllm/x", "my-vllm/y"}
    assert seen("openai/x") == {"openai/x"}
    assert seen("x") == {"my-vllm/x"}, "the bare name leads there, and nowhere else"
    assert seen("gpt-4o") == set()
    with pytest.raises(GatewayError, match="no model"):
        names.entry(only("echo"), "my-vllm/x")


SAID = {
    "gpt-4o": 0,
    "gpt-99-not-yet-known": 0,
    "claude-next": 0,
    "llama3": 0,
    "echo": 0,
    "smart": 0,
    "x-ai/grok-4.5": 0,
    "openai/gpt-4o": 0,
    "my-vllm/llama3": 0,
}


@pytest.mark.parametrize("name", [*SAID, "my-vllm/whatever"])
def test_no_list_moves_a_name_that_leads_somewhere(name: str) -> None:
    everybody = Listed(work=SAID, openai=SAID, my_vllm=SAID, openrouter=SAID)
    providers = (WORK, OPENAI, VLLM, ROUTER, ANTHROPIC)
    with_lists = discovering(everybody, *providers, smart="openai/gpt-5")
    assert with_lists.plan(name) == router(*providers, smart="openai/gpt-5").plan(name)
    assert discovering(Listed(my_vllm=SAID), VLLM).plan(name) == router(VLLM).plan(name)


def test_a_name_that_would_lead_nowhere_goes_to_who_lists_it_longest() -> None:
    listed = Listed(work={"x": 20}, my_vllm={"x": 10, "y": 10})
    names = discovering(listed, OPENAI, WORK, VLLM)
    assert names.plan("x").targets[0].name == "my-vllm/x"
    assert names.plan("y").targets[0].name == "my-vllm/y"
    listed.lists["openai"] = {"x": 30, "y": 30}
    assert (names.plan("x").targets[0].name, names.plan("y").targets[0].name) == ("my-vllm/x", "my-vllm/y"), (
        "another lists it too"
    )
    del listed.lists["my_vllm"]["x"]
    assert names.plan("x").targets[0].name == "work/x", "who had it lists it no more"
    listed.lists["my_vllm"] = {"x": 40}
    assert names.plan("x").targets[0].name == "work/x", "and has it not back"
    listed.lists["openai"]["x"] = 20
    assert names.plan("x").targets[0].name == "openai/x", "of two alike, the first of the configuration"
    listed.lists.clear()
    with pytest.raises(GatewayError, match="no model"):
        names.plan("x")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from([OPENAI.name, WORK.name, VLLM.name]), min_size=1),
            st.sets(st.sampled_from("xyz")),
            st.integers(0, 3),
        ),
        max_size=6,
    )
)
def test_a_name_stays_with_its_provider_as_long_as_that_lists_it(answers: list[tuple[set[str], set[str], int]]) -> None:
    providers = [replace(each, discover=True) for each in (OPENAI, WORK, VLLM)]
    by_name = {each.name: each for each in providers}
    with tempfile.TemporaryDirectory() as folder:
        lists = ModelLists(Path(folder) / "models.json")
        names = Router(providers, {}, CATALOG, lists.models)
        leads: dict[str, str] = {}
        for who, said, now_s in answers:
            lists.put({name: (by_name[name].base_url, said) for name in who}, among=by_name, now_s=now_s)
            for name in "xyz":
                listing = [each.name for each in providers if name in lists.models(each)]
                try:
                    now = names.plan(name).targets[0].provider.name
                except GatewayError:
                    assert not listing
                    leads.pop(name, None)
                else:
                    assert now == leads.get(name) or leads.get(name) not in listing
                    assert now in listing
                    leads[name] = now


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nemotron-9-larg", "Did you mean my-vllm/nemotron-9-large?"),
        (
            "openrouter/nemotron-9-large",
            "The provider openrouter is not configured here. Did you mean my-vllm/nemotron",
        ),
        ("my-vlm/nemotron-9-large", "Did you mean my-vllm/nemotron-9-large?"),
    ],
)
def test_what_is_listed_is_among_the_near_matches(name: str, hint: str) -> None:
    with pytest.raises(GatewayError) as caught:
        discovering(Listed(my_vllm={"nemotron-9-large": 1}), OPENAI, VLLM).plan(name)
    assert hint in caught.value.message


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


def aliases(**named: Alias) -> Router:
    return Router([OPENAI, VLLM, ANTHROPIC, AZURE], named, CATALOG)


def names_of(targets: tuple[Target, ...]) -> list[str]:
    return [target.name for target in targets]


def test_an_alias_leads_to_its_targets_in_their_order_but_for_those_that_nobody_serves() -> None:
    router = aliases(smart=Alias.of("anthropic/claude-sonnet-4-5", "gone/model", "gpt-5", strategy="weighted"))
    plan = router.plan("smart")
    assert (names_of(plan.targets), plan.strategy) == (
        ["anthropic/claude-sonnet-4-5", "openai/gpt-5"],
        "weighted",
    )
    entry = router.entry(OPERATOR, "smart")
    assert (entry.target, entry.targets) == ("anthropic/claude-sonnet-4-5", tuple(names_of(plan.targets)))


def test_an_alias_of_which_nobody_serves_any_target_says_so() -> None:
    with pytest.raises(GatewayError, match="'smart' leads to 'gone/a' and 'gone/b', which no configured provider"):
        aliases(smart=Alias.of("gone/a", "gone/b")).plan("smart")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gpt-4o", "azure/gpt-4o"),
        ("gpt-", "azure/gpt-"),
        ("gpt-5", "my-vllm/llama3"),
        ("gpt-4o-mini", "my-vllm/small-4o"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("gp", "404"),
    ],
)
def test_a_star_stands_for_what_it_stood_for_and_the_first_that_fits_holds(name: str, target: str) -> None:
    router = aliases(
        **{
            "gpt-*-mini": Alias.of("my-vllm/small-*"),
            "gpt-*": Alias.of("azure/gpt-*"),
            "gpt-5": Alias.of("my-vllm/llama3"),
        }
    )
    try:
        found = router.plan(name).targets[0].name
    except GatewayError as error:
        found = str(error.status)
    assert found == target


def test_names_of_an_alias_with_a_star_are_listed_where_they_are_known() -> None:
    listed = {entry.id: entry.target for entry in aliases(**{"gpt-*": Alias.of("azure/gpt-*")}).models(OPERATOR)}
    assert listed["gpt-4o"] == "azure/gpt-4o"
    assert listed["openai/gpt-4o"] == "openai/gpt-4o"
    assert "gpt-*" not in listed


@pytest.mark.parametrize(
    ("rules", "granted"),
    [
        (("smart",), ["anthropic/claude-sonnet-4-5", "openai/gpt-5", "my-vllm/llama3"]),
        (("sm*",), ["anthropic/claude-sonnet-4-5", "openai/gpt-5", "my-vllm/llama3"]),
        (("openai/*",), ["openai/gpt-5"]),
        (("gpt-5", "my-vllm/*"), ["openai/gpt-5", "my-vllm/llama3"]),
        (("anthropic/*", "smart-not"), ["anthropic/claude-sonnet-4-5"]),
        (("echo",), []),
        ((), []),
    ],
)
def test_a_rule_grants_an_alias_whole_or_restricted_to_the_targets_that_it_names(
    rules: tuple[str, ...], granted: list[str]
) -> None:
    router = aliases(smart=Alias.of("anthropic/claude-sonnet-4-5", "gpt-5", "llama3"))
    plan = router.plan("smart")
    assert names_of(router.permitted(only(*rules), plan)) == granted
    listed = [entry for entry in router.models(only(*rules)) if entry.id == "smart"]
    assert [list(entry.targets) for entry in listed] == ([granted] if granted else [])


def test_a_target_of_an_alias_has_its_own_timeouts_weight_and_params() -> None:
    said = AliasTarget("openai/gpt-5", 3, {"idle_seconds": 7.0, "total_seconds": 9.0}, {"reasoning_effort": "low"})
    [target] = aliases(smart=Alias((said,))).plan("smart").targets
    assert (target.weight, target.params) == (3, {"reasoning_effort": "low"})
    assert target.provider.timeouts == replace(OPENAI.timeouts, idle_seconds=7.0)
    assert target.provider.total_seconds == 9.0


def test_each_credential_of_a_provider_is_a_target_and_none_shows() -> None:
    provider = replace(OPENAI, api_key="sk-canary-1", other_keys=("sk-canary-2", "sk-canary-3"))
    targets = Target(provider, "gpt-5").with_each_key()
    assert [target.provider.api_key for target in targets] == ["sk-canary-1", "sk-canary-2", "sk-canary-3"]
    assert len({target.provider.credential for target in targets}) == 3
    assert all(len(target.provider.secrets()) == 3 for target in targets), "a message may hold any of them"
    assert "canary" not in repr(targets)


def test_names_that_clients_make_up_do_not_fill_the_memory() -> None:
    router = aliases()
    for number in range(20_050):
        router.plan(f"openai/{number}")
    assert len(router._plans) <= 10_000


def test_a_target_of_a_provider_that_is_not_configured_goes_to_no_other_one() -> None:
    only_openai = Router([OPENAI], {"smart": Alias.of("anthropic/claude-sonnet-4-5", "openai/gpt-5")}, CATALOG)
    assert names_of(only_openai.plan("smart").targets) == ["openai/gpt-5"]
    with pytest.raises(GatewayError, match="leads to 'my-vlm/x', which no configured provider serves"):
        Router([OPENAI], {"private": Alias.of("my-vlm/x")}, CATALOG).plan("private")
    at_a_host = Router([GROQ], {"scout": Alias.of("meta-llama/llama-4-scout")}, CATALOG)
    assert names_of(at_a_host.plan("scout").targets) == ["groq/meta-llama/llama-4-scout"]
    own_server = Router([VLLM], {"llama": Alias.of("meta-llama/llama-3")}, CATALOG)
    assert names_of(own_server.plan("llama").targets) == ["my-vllm/meta-llama/llama-3"]
