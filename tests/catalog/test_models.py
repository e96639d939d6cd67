"""What models take: the table, and the spellings under which their names are found."""

from __future__ import annotations

import fnmatch
import re

import pytest

from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.models import CLAUDE, GEMINI, GPT, Table, abilities_of, plain_name


@pytest.mark.parametrize(
    ("model", "most", "sampling", "prefill", "thinking"),
    [
        ("claude-3-haiku-20240307", 4_096, True, True, "none"),
        ("claude-3-5-sonnet-20241022", 8_192, True, True, "none"),
        ("claude-3-7-sonnet-latest", 64_000, True, True, "budget"),
        ("claude-opus-4-20250514", 32_000, True, True, "budget"),
        ("claude-opus-4-0", 32_000, True, True, "budget"),
        ("claude-sonnet-4-20250514", 64_000, True, True, "budget"),
        ("claude-opus-4-1-20250805", 32_000, True, True, "budget"),
        ("claude-sonnet-4-5-20250929", 64_000, True, True, "budget"),
        ("claude-haiku-4-5", 64_000, True, True, "budget"),
        ("claude-opus-4-5-20251101", 64_000, True, True, "budget"),
        ("claude-opus-4-6", 128_000, True, False, "both"),
        ("claude-sonnet-4-6", 128_000, True, False, "both"),
        ("claude-opus-4-7", 128_000, False, False, "adaptive"),
        ("claude-opus-4-8", 128_000, False, False, "adaptive"),
        ("claude-opus-5", 128_000, False, False, "adaptive"),
        ("claude-opus-5-20260724", 128_000, False, False, "adaptive"),
        ("claude-opus-5-5", 128_000, False, False, "adaptive"),
        ("claude-sonnet-5", 128_000, False, False, "adaptive"),
        ("claude-sonnet-5-5", 128_000, False, False, "adaptive"),
        ("claude-haiku-5-5", 128_000, False, False, "adaptive"),
        ("claude-fable-5-2", 128_000, False, False, "adaptive"),
        ("claude-mythos-5", 128_000, False, False, "adaptive"),
        ("claude-next-9", None, False, False, "adaptive"),
        ("gemini-1.5-pro-002", 8_192, True, True, "none"),
        ("gemini-2.0-flash", 8_192, True, True, "none"),
        ("gemini-2.5-flash-preview-05-20", 65_536, True, True, "budget"),
        ("gemini-2.5-pro", 65_536, True, True, "budget"),
        ("gemini-3-pro-preview", 65_536, True, True, "level"),
        ("gemini-3.8-flash", 65_536, True, True, "level"),
        ("gemini-4-argon", None, True, True, "level"),
        ("gemini-flash-latest", None, True, True, "level"),
        ("gpt-4o-2024-08-06", 16_384, True, True, "none"),
        ("gpt-4o-2024-05-13", 4_096, True, True, "none"),
        ("gpt-4", 8_192, True, True, "none"),
        ("gpt-4.1-nano", 32_768, True, True, "none"),
        ("gpt-5-mini", 128_000, False, True, "level"),
        ("gpt-5-chat-latest", 16_384, True, True, "none"),
        ("gpt-5.5", 128_000, True, True, "level"),
        ("gpt-6-astra", None, True, True, "level"),
        ("o3-mini", 100_000, False, True, "level"),
        ("gpt-oss-120b", None, True, True, "none"),
        ("llama-3.3-70b", None, True, True, "none"),
    ],
)
def test_facts_of_models(model: str, most: int | None, sampling: bool, prefill: bool, thinking: str) -> None:
    found = abilities_of("openrouter", model)
    assert (found.max_output_tokens, found.sampling, found.prefill, found.thinking) == (
        most,
        sampling,
        prefill,
        thinking,
    )


@pytest.mark.parametrize(
    ("model", "off", "forced"),
    [
        ("claude-opus-5", True, True),
        ("claude-opus-5-5", False, False),
        ("claude-fable-5", False, True),
        ("claude-fable-5-20260609", False, True),
        ("claude-fable-5-1", False, False),
        ("claude-fable-5-1-v1:0", False, False),
        ("claude-mythos-5-2", False, False),
        ("gemini-2.5-pro", False, True),
        ("gemini-2.5-flash-lite", True, True),
    ],
)
def test_models_that_always_think_and_those_that_no_tool_is_forced_on(model: str, off: bool, forced: bool) -> None:
    found = abilities_of("anthropic" if "claude" in model else "gemini", model)
    assert (found.thinking_off, found.forced_tools) == (off, forced)


@pytest.mark.parametrize(
    ("spelt", "plain"),
    [
        ("claude-opus-4-7", "claude-opus-4-7"),
        ("Claude-Opus-4-7", "claude-opus-4-7"),
        ("anthropic/claude-opus-4.7", "claude-opus-4-7"),
        ("anthropic/claude-4.7-opus", "claude-opus-4-7"),
        ("anthropic/claude-3.7-sonnet:thinking", "claude-3-7-sonnet:thinking"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929-v1:0"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku-20240307-v1:0"),
        ("global.anthropic.claude-opus-4-6-v1", "claude-opus-4-6-v1"),
        ("claude-opus-4-5@20251101", "claude-opus-4-5-20251101"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("models/gemini-3.1-pro-preview", "gemini-3.1-pro-preview"),
        ("ft:gpt-4o-2024-08-06:acme::id", "gpt-4o-2024-08-06:acme::id"),
        ("meta-llama/Llama-3.3-70B", "llama-3.3-70b"),
    ],
)
def test_every_hosts_spelling_leads_to_the_vendors_name(spelt: str, plain: str) -> None:
    assert plain_name(spelt) == plain


def test_a_vendor_of_one_family_has_no_other() -> None:
    assert abilities_of("openai", "claude-opus-4-7") == Abilities()
    assert abilities_of("anthropic", "gpt-4o") == Abilities()
    assert abilities_of("anthropic", "claude-opus-4-7") == abilities_of("vllm", "claude-opus-4-7") != Abilities()


@pytest.mark.parametrize("table", [CLAUDE, GEMINI, GPT])
def test_no_pattern_hides_a_later_one(table: Table) -> None:
    patterns = [pattern for pattern, _ in table]
    for number, pattern in enumerate(patterns):
        name = re.sub(r"\[(.)[^]]*]", r"\1", pattern).replace("*", "")
        first = next(each for each in patterns if fnmatch.fnmatchcase(name, each))
        assert patterns.index(first) >= number or "*-" in pattern, f"{first} comes before {pattern}"
