"""What is known of models offline. Figures are the vendors' published ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from inferxgate.canonical.usage import Usage
from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.catalog import Catalog, UnpricedWarnings
from inferxgate.catalog.price_list import packaged
from inferxgate.catalog.pricing import FREE, Price


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


@pytest.mark.parametrize(
    ("model", "vendor"),
    [
        ("gpt-4o", "openai"),
        ("gpt-99-not-yet-known", "openai"),
        ("chatgpt-4o-latest", "openai"),
        ("o3-mini", "openai"),
        ("o9", "openai"),
        ("claude-sonnet-4-5", "anthropic"),
        ("claude-next", "anthropic"),
        ("gemini-2.5-flash", "gemini"),
        ("gemini-next", "gemini"),
        ("llama3", None),
        ("omni", None),
        ("mistral-small-latest", None),
        ("models/gemini-2.5-flash", "gemini"),
        ("dead/claude-sonnet-4-5", None),
        ("dead/moderation", None),
        ("gpt-oss/whatever", None),
    ],
)
def test_a_bare_name_leads_to_its_vendor(catalog: Catalog, model: str, vendor: str | None) -> None:
    assert catalog.vendor_of(model) == vendor


def test_prices_come_from_the_package(catalog: Catalog) -> None:
    price = catalog.price("openai/gpt-4o", "openai", "gpt-4o", at=datetime(2026, 11, 1, tzinfo=UTC))
    assert price is not None
    assert price.version == packaged().version
    assert price.cost_nanos(Usage(input_tokens=1_000_000)) == 2_500_000_000
    assert price.cost_nanos(Usage(output_tokens=1_000_000)) == 10_000_000_000
    assert price.cost_nanos(Usage(cache_read_tokens=1_000_000)) == 1_250_000_000


def test_a_price_that_nobody_knows_stays_unknown(catalog: Catalog) -> None:
    assert catalog.price("openai/gpt-99-not-yet-known", "openai", "gpt-99-not-yet-known") is None
    assert catalog.price("my-vllm/gpt-4o", None, "gpt-4o") is None, "another host's price is not the vendor's"


def test_the_configurations_prices_come_first() -> None:
    catalog = Catalog(
        {
            "my-vllm/*": {"input_tokens": 0.2, "output_tokens": 0.6},
            "openai/gpt-4o": {"input_tokens": 1, "output_tokens": 1},
        }
    )
    price = catalog.price("my-vllm/anything/at-all", None, "anything/at-all")
    assert price is not None
    assert price.version.startswith("config:")
    assert price.cost_nanos(Usage(input_tokens=10, output_tokens=10)) == 8_000
    override = catalog.price("openai/gpt-4o", "openai", "gpt-4o")
    assert override is not None
    assert override.cost_nanos(Usage(input_tokens=1_000_000)) == 1_000_000_000


def test_facts_of_a_model(catalog: Catalog) -> None:
    facts = catalog.facts("openai/gpt-4o", "openai", "openai", "gpt-4o")
    assert (facts.context_window, facts.abilities.max_output_tokens) == (128_000, 16_384)
    assert catalog.facts("my-vllm/x", "vllm", None, "x").context_window is None


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "models/gemini-3-pro-preview", "gemini-3.1-pro-preview"])
def test_a_window_that_the_package_lacks_is_known_all_the_same(catalog: Catalog, model: str) -> None:
    assert catalog.facts(f"gemini/{model}", "gemini", "google", model).context_window == 1_048_576
    assert (
        Catalog(facts={"gemini/*": {"context_window": 9}})
        .facts(f"gemini/{model}", "gemini", "google", model)
        .context_window
        == 9
    )


def test_a_deployment_is_what_the_configuration_says_that_it_is(catalog: Catalog) -> None:
    known = catalog.facts("azure/my-gpt", "azure", "azure", "gpt-4o")
    assert (known.context_window, known.price) == (128_000, catalog.price("openai/gpt-4o", "openai", "gpt-4o"))
    unknown = catalog.facts("azure/gpt-4o", "azure", "azure", None)
    assert (unknown.context_window, unknown.price, unknown.abilities) == (None, None, Abilities())


def test_the_configurations_facts_are_laid_over_what_is_known() -> None:
    catalog = Catalog(
        facts={
            "anthropic/claude-opus-4-7": {"max_output_tokens": 1000, "sampling": True},
            "my-vllm/*": {"context_window": 9, "thinking": "level"},
        }
    )
    told = catalog.abilities("anthropic/claude-opus-4-7", "anthropic", "claude-opus-4-7")
    assert (told.max_output_tokens, told.sampling, told.prefill, told.thinking) == (1000, True, False, "adaptive")
    assert not catalog.abilities("anthropic/claude-opus-4-8", "anthropic", "claude-opus-4-8").sampling
    facts = catalog.facts("my-vllm/a/b", "vllm", None, "a/b")
    assert (facts.context_window, facts.abilities) == (9, Abilities(thinking="level"))


def test_google_is_listed_without_what_only_its_cloud_has(catalog: Catalog) -> None:
    names = list(catalog.chat_models("google"))
    assert {"gemini-2.5-pro", "gemini-3.8-flash", "gemini-3-pro-image-preview"} <= set(names)
    assert not [name for name in names if "claude" in name or "embed" in name or "tts" in name or "live" in name]
    assert not catalog.knows("google", "claude-opus-4-7")
    assert catalog.knows("google", "models/gemini-2.5-pro")
    assert catalog.price("gemini/dead/claude-opus-4-7", "google", "dead/claude-opus-4-7") is None


def test_listed_models_are_chat_models(catalog: Catalog) -> None:
    names = list(catalog.chat_models("openai"))
    assert "gpt-4o" in names
    assert not [name for name in names if "embedding" in name or "whisper" in name or "tts" in name]
    assert list(catalog.chat_models(None)) == []


def test_names_from_callers_do_not_fill_the_memory(catalog: Catalog) -> None:
    for number in range(10_000):
        catalog.knows("openai", f"made-up-{number}")
        catalog.abilities(f"openai/{number}", "openai", f"made-up-{number}")
    assert len(catalog._found) <= 4_096
    assert len(catalog._abilities) <= 4_096


# --- what the configuration says of prices


def priced(said: Mapping[str, float], *, target: str = "openai/gpt-4o", package: str | None = "openai") -> Price | None:
    return Catalog({"*": said}).price(target, package, target.partition("/")[2], at=datetime(2026, 11, 1, tzinfo=UTC))


def test_a_discount_comes_off_the_lists_price() -> None:
    price = priced({"discount": 0.15})
    assert price is not None
    assert price.cost_nanos(Usage(input_tokens=1_000_000)) == 2_125_000_000
    assert price.cost_nanos(Usage(cache_read_tokens=1_000_000)) == 1_062_500_000
    assert price.version.startswith(f"{packaged().version}, config:")
    assert priced({"discount": 0.15}, target="openai/gpt-99-not-yet-known") is None, "nothing to take it off"


def test_a_discount_comes_off_the_configurations_own_price_and_fee() -> None:
    price = priced({"input_tokens": 1, "output_tokens": 2, "request": 0.01, "discount": 0.25}, package=None)
    assert price is not None
    assert price.cost_nanos(Usage(input_tokens=1000, output_tokens=1000)) == 7_500_000 + 750_000 + 1_500_000


def test_one_bucket_is_laid_over_the_list_in_every_tier() -> None:
    price = priced({"cache_read_tokens": 7, "request": 0.5}, target="gemini/gemini-2.5-pro", package="google")
    assert price is not None
    assert len(price.tiers) == 2
    assert price.cost_nanos(Usage(input_tokens=10, cache_read_tokens=10)) == 500_000_000 + 12_500 + 70_000
    long = Usage(input_tokens=300_000, cache_read_tokens=10)
    assert price.cost_nanos(long) == 500_000_000 + 300_000 * 2500 + 70_000


def test_overrides_are_told_apart_in_records() -> None:
    versions = {
        (priced(said) or FREE).version
        for said in (
            {"input_tokens": 1, "output_tokens": 2},
            {"input_tokens": 1, "output_tokens": 3},
            {"input_tokens": 1, "output_tokens": 2, "request": 0.1},
            {"discount": 0.1},
            {"discount": 0.2},
        )
    }
    assert len(versions) == 5
    assert (priced({"discount": 0.1}) or FREE).version == (priced({"discount": 0.10}) or FREE).version


def test_what_is_free_stays_so() -> None:
    assert priced({"discount": 0.1}, target="echo/echo", package="none") is FREE
    local = priced({"input_tokens": 0, "output_tokens": 0}, target="ollama/x", package=None)
    assert local is not None
    assert local.cost_nanos(Usage(input_tokens=5, output_tokens=5)) == 0


def test_a_price_may_hang_on_the_hour(catalog: Catalog) -> None:
    hours = [datetime(2025, 3, 1, hour, tzinfo=UTC) for hour in range(24)]
    found = [catalog.price("deepseek/x", "deepseek", "deepseek-chat", at=hour) for hour in hours]
    prices = {price.cost_nanos(Usage(input_tokens=1_000_000)) for price in found if price}
    assert len(prices) == 2


def test_a_price_that_nobody_knows_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    warnings = UnpricedWarnings()
    for target in ("a/x", "a/x", "a/y", "a/x"):
        warnings.note(target, None)
    warnings.note("a/z", FREE)
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["a/x", "a/y"]
    for number in range(5_000):
        warnings.note(f"a/{number}", None)
    assert len(caplog.records) == 1_001
    assert caplog.records[-1].getMessage().startswith("Of further targets")


@pytest.mark.parametrize(
    ("package_id", "model", "may"),
    [
        ("openai", "gpt-9", True),
        ("openai", "o9-mini", True),
        ("openai", "ft:gpt-4o-mini:adatum::id", True),
        ("openai", "ft:babbage-002:me::id", False),
        ("openai", "text-embedding-3-small", False),
        ("openai", "dall-e-3", False),
        ("openai", "sora-2", False),
        ("openai", "whisper-1", False),
        ("openai", "gpt-4o-realtime-preview", False),
        ("google", "gemini-flash-latest", True),
        ("google", "gemini-2.5-flash-image", True),
        ("google", "gemini-embedding-001", False),
        ("google", "gemini-2.5-flash-preview-tts", False),
        ("anthropic", "claude-next", True),
        ("mistral", "mistral-ocr-latest", False),
        ("mistral", "ft:open-mistral-7b:me", True),
        (None, "deepseek-ocr", True),
    ],
)
def test_names_tell_what_may_chat(package_id: str | None, model: str, may: bool) -> None:
    assert Catalog.may_chat(package_id, model) is may
