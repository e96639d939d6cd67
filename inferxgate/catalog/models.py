"""The models whose abilities differ from what anyone would expect, by the pattern of their names.

A table of a family is read from the top, and the first pattern that fits a name holds. Closed generations are listed;
what comes after them is taken to be like the newest, because a model that takes less than it is sent refuses every
request. What no source says is left out: a maximum that nobody has published is unknown, never guessed.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from inferxgate.catalog.abilities import Abilities

Table = Sequence[tuple[str, Abilities]]

# Anthropic. Sources, read in November 2026:
# - platform.claude.com/docs, models overview and each model's page: maximum output, kind of thinking, whether it is
#   "always on"; and the migration guides: what 4.6 (no prefill), 4.7 (no sampling, no budgets), Fable 5 (thinking
#   cannot be disabled), Opus 5.5 and Fable 5.1 (forced tool use is an error) no longer take;
# - the same, structured outputs: generally available from Opus 4.5, Sonnet 4.5 and Haiku 4.5 on;
# - the API's own words from Opus 4.1 on: "`temperature` and `top_p` cannot both be specified for this model";
# - the `anthropic` Python package 2.12: names, and which models still take `thinking.type = "enabled"` with a warning.

_CLAUDE_3 = Abilities(max_output_tokens=4_096, json_schema=False)
_CLAUDE_4 = Abilities(max_output_tokens=32_000, thinking="budget", json_schema=False)
_CLAUDE_4_5 = Abilities(max_output_tokens=64_000, temperature_with_top_p=False, thinking="budget")
_CLAUDE_4_6 = Abilities(max_output_tokens=128_000, temperature_with_top_p=False, prefill=False, thinking="both")
_CLAUDE_4_7 = Abilities(
    max_output_tokens=128_000, sampling=False, temperature_with_top_p=False, prefill=False, thinking="adaptive"
)
_ALWAYS_THINKS = replace(_CLAUDE_4_7, thinking_off=False)
_NEVER_FORCED = replace(_ALWAYS_THINKS, forced_tools=False)

CLAUDE: Table = (
    ("claude-instant*", _CLAUDE_3),
    ("claude-v1*", _CLAUDE_3),
    ("claude-2*", _CLAUDE_3),
    ("claude-3-7-*", replace(_CLAUDE_4, max_output_tokens=64_000)),
    ("claude-3-5-*", replace(_CLAUDE_3, max_output_tokens=8_192)),
    ("claude-3-*", _CLAUDE_3),
    ("claude-*-4-8*", _CLAUDE_4_7),
    ("claude-*-4-7*", _CLAUDE_4_7),
    ("claude-opus-4-6*", _CLAUDE_4_6),
    ("claude-sonnet-4-6*", _CLAUDE_4_6),
    ("claude-*-4-5*", _CLAUDE_4_5),
    ("claude-opus-4-1*", replace(_CLAUDE_4, temperature_with_top_p=False)),
    ("claude-opus-4*", _CLAUDE_4),
    ("claude-sonnet-4*", replace(_CLAUDE_4, max_output_tokens=64_000)),
    ("claude-mythos-preview*", replace(_CLAUDE_4_6, max_output_tokens=None)),
    ("claude-opus-5-5*", _NEVER_FORCED),
    ("claude-*-5-[12]", _NEVER_FORCED),
    ("claude-*-5-[12]-*", _NEVER_FORCED),
    ("claude-fable-5*", _ALWAYS_THINKS),
    ("claude-mythos-5*", _ALWAYS_THINKS),
    ("claude-opus-5*", _CLAUDE_4_7),
    ("claude-sonnet-5*", _CLAUDE_4_7),
    ("claude-haiku-5*", _CLAUDE_4_7),
    ("claude-*", replace(_CLAUDE_4_7, max_output_tokens=None)),
)

# Google. Sources, read in November 2026: ai.google.dev/gemini-api/docs, each model's page (output token limit, whether
# it makes images) and "thinking" (budgets up to 2.5, of which Pro's cannot be 0; levels from 3 on, of which the lowest
# may still think); "structured output" (together with tools: from 3 on), and the API's own words before that: "Function
# calling with a response mime type: 'application/json' is unsupported".

_GEMINI_OLD = Abilities(json_with_tools=False)
_GEMINI_2 = replace(_GEMINI_OLD, max_output_tokens=8_192)
_GEMINI_2_5 = replace(_GEMINI_OLD, max_output_tokens=65_536, thinking="budget")
_GEMINI_3 = Abilities(max_output_tokens=65_536, thinking="level", thinking_off=False)
_MAKES_IMAGES = Abilities(image_output=True)

GEMINI: Table = (
    ("gemini-2.5-flash-image*", replace(_MAKES_IMAGES, max_output_tokens=32_768)),
    ("gemini-3-pro-image*", replace(_MAKES_IMAGES, max_output_tokens=32_768)),
    ("gemini-*image*", _MAKES_IMAGES),
    ("gemini-nano-banana*", _MAKES_IMAGES),
    ("gemini-*-latest", replace(_GEMINI_3, max_output_tokens=None)),
    ("gemini-1*", _GEMINI_2),
    ("gemini-pro*", _GEMINI_OLD),
    ("gemini-2.0*", _GEMINI_2),
    ("gemini-2.5-pro*", replace(_GEMINI_2_5, thinking_off=False)),
    ("gemini-2.5*", _GEMINI_2_5),
    ("gemini-3*", _GEMINI_3),
    ("gemini-*", replace(_GEMINI_3, max_output_tokens=None)),
)

# OpenAI. Sources: developers.openai.com/api/docs/models, each model's page ("max output tokens"), and the guide to
# reasoning models, whose first generations refuse sampling parameters; later ones take them where effort is none.

_O = Abilities(max_output_tokens=100_000, sampling=False, thinking="level", thinking_off=False)
_GPT_5 = Abilities(max_output_tokens=128_000, thinking="level")

GPT: Table = (
    ("gpt-3.5-turbo*", Abilities(max_output_tokens=4_096, json_schema=False)),
    ("gpt-4-turbo*", Abilities(max_output_tokens=4_096, json_schema=False)),
    ("gpt-4o-2024-05-13", Abilities(max_output_tokens=4_096, json_schema=False)),
    ("gpt-4o*", Abilities(max_output_tokens=16_384)),
    ("chatgpt-4o*", Abilities(max_output_tokens=16_384, json_schema=False)),
    ("gpt-4.1*", Abilities(max_output_tokens=32_768)),
    ("gpt-4.5*", Abilities(max_output_tokens=16_384)),
    ("gpt-4*", Abilities(max_output_tokens=8_192, json_schema=False)),
    ("gpt-5*-chat*", Abilities(max_output_tokens=16_384)),
    ("gpt-5-pro*", Abilities(sampling=False, thinking="level", thinking_off=False)),
    ("gpt-5.[1245]*", _GPT_5),
    ("gpt-5.3-codex*", _GPT_5),
    ("gpt-5.*", replace(_GPT_5, max_output_tokens=None)),
    ("gpt-5*", replace(_GPT_5, sampling=False, thinking_off=False)),
    ("gpt-[6-9]*", replace(_GPT_5, max_output_tokens=None)),
    ("o1-mini*", replace(_O, max_output_tokens=65_536, json_schema=False)),
    ("o1-preview*", replace(_O, max_output_tokens=32_768, json_schema=False)),
    ("o[134]*", _O),
)

WINDOWS: Mapping[str, int] = {
    "gemini-2.5-pro": 1_048_576,
    "gemini-3-pro-preview": 1_048_576,
    "gemini-3.1-pro-preview": 1_048_576,
}
"""Context windows, in tokens, of models that the price package has without one. Source: ai.google.dev/gemini-api/docs,
each model's page ("input token limit"), read in November 2026."""

_FAMILIES: Mapping[str, Table] = {"anthropic": CLAUDE, "gemini": GEMINI, "openai": GPT}
"""By the type of a provider that has models of one family only; all others may have any."""
_ALL: Table = (*CLAUDE, *GEMINI, *GPT)

_BEFORE = re.compile(r"^(?:[a-z]{2,6}\.)?anthropic\.|^ft:")
_WITH_DASHES = re.compile(r"^claude.*")
_OLD_ORDER = re.compile(r"claude-([4-9](?:-\d{1,2})?)-([a-z]+)(.*)")


def abilities_of(vendor: str, model: str) -> Abilities:
    """The abilities of ``model`` at a provider of type ``vendor``, whatever host's spelling the name has."""
    name = plain_name(model)
    for pattern, abilities in _FAMILIES.get(vendor, _ALL):
        if fnmatch.fnmatchcase(name, pattern):
            return abilities
    return Abilities()


def window_of(model: str) -> int | None:
    """The context window of ``model``, in tokens, where only this module has it."""
    return WINDOWS.get(plain_name(model))


def plain_name(model: str) -> str:
    """A model's name as its vendor spells it.

    ``models/gemini-2.5-pro``, ``us.anthropic.claude-sonnet-4-5-20250929-v1:0``, ``anthropic/claude-4.7-opus`` and
    ``claude-opus-4-5@20251101`` are spellings of other hosts.
    """
    name = _BEFORE.sub("", model.lower().rpartition("/")[2])
    return _OLD_ORDER.sub(r"claude-\2-\1\3", _WITH_DASHES.sub(_dashed, name))


def _dashed(name: re.Match[str]) -> str:
    return name[0].replace(".", "-").replace("@", "-")
