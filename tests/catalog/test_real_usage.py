"""What real answers cost: usage as providers reported it, the buckets that it means, and the sum by hand.

The usage objects are numbers from recorded answers (times and most zeros left out). Prices stand here, so that no newer
price list moves the results. A dollar a million tokens is a thousand nano-dollars a token: the sums are written in
those. Where the provider said itself what it charged, that is compared as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from inferxgate.canonical.usage import BUCKETS, Usage
from inferxgate.catalog.catalog import Catalog
from inferxgate.dialects import anthropic_messages, gemini, openai_chat

Reader = Callable[[Mapping[str, Any]], Usage]


def openai(usage: Mapping[str, Any]) -> Usage:
    found = openai_chat.usage_of({"usage": usage})
    assert found is not None
    return found


def claude(usage: Mapping[str, Any]) -> Usage:
    return anthropic_messages.parse_usage(dict(usage))


def google(usage: Mapping[str, Any]) -> Usage:
    return gemini.parse_usage(dict(usage))


def row(dollars_in: float, dollars_out: float, **others: float) -> dict[str, float]:
    return {"input_tokens": dollars_in, "output_tokens": dollars_out, **others}


def counted(prompt: int, completion: int, **others: Any) -> dict[str, Any]:
    """OpenAI's usage whose total is the sum."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **others}


def cached(tokens: int, **others: int) -> dict[str, dict[str, int]]:
    return {"prompt_tokens_details": {"cached_tokens": tokens, **others}}


def thought(tokens: int, **others: int) -> dict[str, dict[str, int]]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens, **others}}


def by_modality(**tokens: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in tokens.items()]


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    read: Reader
    usage: dict[str, Any]
    buckets: Usage
    prices: dict[str, float]
    nanos: int
    billed: str | None = None
    """Dollars that the provider itself says it charged."""


GPT_4_1 = row(2, 8, cache_read_tokens=0.5)
GPT_5_NANO = row(0.05, 0.4, cache_read_tokens=0.005)
GPT_AUDIO = row(2.5, 10, audio_input_tokens=32, audio_output_tokens=64)
GPT_4O_MINI = row(0.15, 0.6, cache_read_tokens=0.075, audio_input_tokens=10, audio_output_tokens=20)
WRITES = row(2, 16, cache_write_5m_tokens=2.5)
GROK = row(0.2, 0.5, cache_read_tokens=0.05)
DEEPSEEK = row(0.28, 0.42, cache_read_tokens=0.028)
SONNET_4 = row(3, 15, cache_read_tokens=0.3, cache_write_5m_tokens=3.75, cache_write_1h_tokens=6)
SONNET_5 = row(2, 10, cache_read_tokens=0.2, cache_write_5m_tokens=2.5, cache_write_1h_tokens=4)
HAIKU_3_5 = row(0.8, 4, cache_read_tokens=0.08, cache_write_5m_tokens=1)
HAIKU_4_5 = row(1, 5)
FLASH = row(0.3, 2.5, cache_read_tokens=0.03, audio_input_tokens=1)
FLASH_WRITES = row(0.3, 2.5, cache_read_tokens=0.03, cache_write_5m_tokens=0.0833333333333333)
FLASH_2_0 = row(0.1, 0.4, audio_input_tokens=0.7)
FLASH_IMAGE = row(0.3, 2.5, image_output_tokens=30)
PRO = row(1.25, 10, cache_read_tokens=0.125)

SAMPLES = [
    # OpenAI and Azure: cached tokens and audio are in the prompt, reasoning is in the completion.
    Sample(
        "openai gpt-4.1, cached",
        openai,
        counted(1144, 2, **cached(1024, audio_tokens=0), **thought(0)),
        Usage(input_tokens=120, cache_read_tokens=1024, output_tokens=2),
        GPT_4_1,
        120 * 2000 + 1024 * 500 + 2 * 8000,
    ),
    Sample(
        "openai gpt-5-nano, reasoning",
        openai,
        counted(160, 154, **cached(0), **thought(128)),
        Usage(input_tokens=160, output_tokens=26, reasoning_tokens=128),
        GPT_5_NANO,
        160 * 50 + (26 + 128) * 400,
    ),
    Sample(
        "openai gpt-audio, audio in",
        openai,
        counted(42, 10, **cached(0, audio_tokens=25, text_tokens=17, image_tokens=0), **thought(0, text_tokens=10)),
        Usage(input_tokens=17, audio_input_tokens=25, output_tokens=10),
        GPT_AUDIO,
        17 * 2500 + 25 * 32_000 + 10 * 10_000,
    ),
    Sample(
        "openai gpt-4o-mini, everything at once",
        openai,
        counted(9, 10, **cached(1, audio_tokens=2), **thought(3, audio_tokens=4)),
        Usage(
            input_tokens=6,
            cache_read_tokens=1,
            audio_input_tokens=2,
            output_tokens=3,
            reasoning_tokens=3,
            audio_output_tokens=4,
        ),
        GPT_4O_MINI,
        6 * 150 + 75 + 2 * 10_000 + 3 * 600 + 3 * 600 + 4 * 20_000,
    ),
    Sample(
        "openai gpt-5.6-sol, cache written, nothing but thought",
        openai,
        counted(1220, 100, **cached(0, cache_write_tokens=1217), **thought(100)),
        Usage(input_tokens=3, cache_write_5m_tokens=1217, reasoning_tokens=100),
        WRITES,
        3 * 2000 + 1217 * 2500 + 100 * 16_000,
    ),
    Sample(
        "azure gpt-5-nano, reasoning",
        openai,
        counted(11, 203, **cached(0), **thought(192)),
        Usage(input_tokens=11, output_tokens=11, reasoning_tokens=192),
        GPT_5_NANO,
        11 * 50 + 203 * 400,
    ),
    Sample(
        "azure grok-4-1-fast, more cached than there is",
        openai,
        counted(23, 110, **cached(158, text_tokens=23)),
        Usage(cache_read_tokens=23, output_tokens=110),
        GROK,
        23 * 50 + 110 * 500,
    ),
    Sample(
        "azure grok-4-1-fast, an image of which a part was cached",
        openai,
        counted(265, 208, **cached(170, text_tokens=9, image_tokens=256)),
        Usage(cache_read_tokens=170, image_input_tokens=95, output_tokens=208),
        GROK,
        170 * 50 + 95 * 200 + 208 * 500,
    ),
    # Hosts that speak OpenAI's dialect, each with ways of its own.
    Sample(
        "groq gpt-oss-120b, cached and reasoning",
        openai,
        counted(336, 96, **cached(256), **thought(59)),
        Usage(input_tokens=80, cache_read_tokens=256, output_tokens=37, reasoning_tokens=59),
        row(0.15, 0.6, cache_read_tokens=0.075),
        80 * 150 + 256 * 75 + 96 * 600,
    ),
    Sample(
        "groq llama-4-maverick",
        openai,
        counted(711, 86),
        Usage(input_tokens=711, output_tokens=86),
        row(0.2, 0.6),
        711 * 200 + 86 * 600,
    ),
    Sample(
        "groq gpt-oss-20b, reasoning",
        openai,
        counted(1795, 16, **thought(14)),
        Usage(input_tokens=1795, output_tokens=2, reasoning_tokens=14),
        row(0.075, 0.3),
        1795 * 75 + 16 * 300,
    ),
    Sample(
        "mistral-small, cached",
        openai,
        counted(352, 42, **cached(128)),
        Usage(input_tokens=224, cache_read_tokens=128, output_tokens=42),
        row(0.1, 0.3, cache_read_tokens=0.01),
        224 * 100 + 128 * 10 + 42 * 300,
    ),
    Sample(
        "mistral-medium, cached by its older name",
        openai,
        counted(273, 97, num_cached_tokens=48),
        Usage(input_tokens=225, cache_read_tokens=48, output_tokens=97),
        row(0.4, 2, cache_read_tokens=0.04),
        225 * 400 + 48 * 40 + 97 * 2000,
    ),
    Sample(
        "mistral voxtral, audio beside the prompt",
        openai,
        {"prompt_tokens": 9, "completion_tokens": 248, "total_tokens": 632, **cached(0, audio_tokens=375)},
        Usage(input_tokens=9, audio_input_tokens=375, output_tokens=248),
        row(0.1, 0.3, audio_input_tokens=1),
        9 * 100 + 375 * 1000 + 248 * 300,
    ),
    Sample(
        "deepseek-v4-flash, nothing cached",
        openai,
        counted(289, 23, prompt_cache_hit_tokens=0, prompt_cache_miss_tokens=289, **cached(0)),
        Usage(input_tokens=289, output_tokens=23),
        DEEPSEEK,
        289 * 280 + 23 * 420,
    ),
    Sample(
        "deepseek-chat, hit and miss",
        openai,
        counted(343, 58, prompt_cache_hit_tokens=256, prompt_cache_miss_tokens=87, **cached(256)),
        Usage(input_tokens=87, cache_read_tokens=256, output_tokens=58),
        DEEPSEEK,
        87 * 280 + 256 * 28 + 58 * 420,
    ),
    Sample(
        "deepseek-v4-flash, hit and reasoning",
        openai,
        counted(579, 140, prompt_cache_hit_tokens=512, prompt_cache_miss_tokens=67, **cached(512), **thought(35)),
        Usage(input_tokens=67, cache_read_tokens=512, output_tokens=105, reasoning_tokens=35),
        DEEPSEEK,
        67 * 280 + 512 * 28 + 140 * 420,
    ),
    Sample(
        "xai grok-4-fast, reasoning beside the completion",
        openai,
        {"prompt_tokens": 468, "completion_tokens": 82, "total_tokens": 870, **cached(305), **thought(320)},
        Usage(input_tokens=163, cache_read_tokens=305, output_tokens=82, reasoning_tokens=320),
        GROK,
        163 * 200 + 305 * 50 + (82 + 320) * 500,
        billed="0.00024885",  # 2,488,500 of its ticks, ten thousand millions a dollar
    ),
    Sample(
        "openrouter gpt-4o",
        openai,
        counted(157, 46, **cached(0, cache_write_tokens=0), **thought(0)),
        Usage(input_tokens=157, output_tokens=46),
        row(2.5, 10),
        157 * 2500 + 46 * 10_000,
        billed="0.0008525",
    ),
    Sample(
        "openrouter claude-haiku-4.5, reasoning",
        openai,
        counted(80, 855, **cached(0), **thought(586)),
        Usage(input_tokens=80, output_tokens=269, reasoning_tokens=586),
        HAIKU_4_5,
        80 * 1000 + 855 * 5000,
        billed="0.004355",
    ),
    Sample(
        "openrouter grok-4.1-fast, all but one token cached",
        openai,
        counted(366, 155, **cached(365), **thought(129)),
        Usage(input_tokens=1, cache_read_tokens=365, output_tokens=26, reasoning_tokens=129),
        GROK,
        1 * 200 + 365 * 50 + 155 * 500,
        billed="0.00009595",
    ),
    Sample(
        "openrouter gemini-2.5-flash, the same tokens written and read, and both charged",
        openai,
        counted(2168, 100, **cached(2161, cache_write_tokens=2161)),
        Usage(input_tokens=7, cache_read_tokens=2161, cache_write_5m_tokens=2161, output_tokens=100),
        FLASH_WRITES,
        7 * 300 + 2161 * 30 + 180_083 + 100 * 2500,  # 2161 x 83.333... = 180,083.33
        billed="0.0004970133333333333",
    ),
    Sample(
        "openrouter gemini-2.5-flash, cached",
        openai,
        counted(2167, 99, **cached(2161)),
        Usage(input_tokens=6, cache_read_tokens=2161, output_tokens=99),
        FLASH_WRITES,
        6 * 300 + 2161 * 30 + 99 * 2500,
        billed="0.00031413",
    ),
    Sample(
        "openrouter gpt-5-mini, reasoning",
        openai,
        counted(41, 1457, **thought(704)),
        Usage(input_tokens=41, output_tokens=753, reasoning_tokens=704),
        row(0.25, 2),
        41 * 250 + 1457 * 2000,
    ),
    Sample(
        "openrouter claude-opus-5 with the caller's own key",
        openai,
        counted(14, 164, **cached(0), **thought(46)),
        Usage(input_tokens=14, output_tokens=118, reasoning_tokens=46),
        row(5, 25),
        14 * 5000 + 164 * 25_000,
        billed="0.00417",
    ),
    Sample(
        "openrouter gpt-4o-mini",
        openai,
        counted(20, 1, **cached(0)),
        Usage(input_tokens=20, output_tokens=1),
        GPT_4O_MINI,
        20 * 150 + 1 * 600,
        billed="0.0000036",
    ),
    Sample(
        "vercel's gateway, gpt-5",
        openai,
        counted(444, 13, **cached(0), **thought(0)),
        Usage(input_tokens=444, output_tokens=13),
        row(1.25, 10),
        444 * 1250 + 13 * 10_000,
        billed="0.000685",
    ),
    Sample(
        "avian kimi-k2.5, cached and reasoning",
        openai,
        counted(154, 131, **cached(128, cache_write_tokens=0), **thought(87)),
        Usage(input_tokens=26, cache_read_tokens=128, output_tokens=44, reasoning_tokens=87),
        row(0.45, 2.2, cache_read_tokens=0.225),
        26 * 450 + 128 * 225 + 131 * 2200,
        billed="0.0003287",
    ),
    Sample(
        "together llama-3.3-70b",
        openai,
        counted(44, 23, cached_tokens=0),
        Usage(input_tokens=44, output_tokens=23),
        row(0.88, 0.88),
        (44 + 23) * 880,
    ),
    Sample(
        "cerebras glm-4.7, reasoning",
        openai,
        counted(17, 415, **cached(0), **thought(406)),
        Usage(input_tokens=17, output_tokens=9, reasoning_tokens=406),
        row(2.25, 2.75),
        17 * 2250 + 415 * 2750,
    ),
    Sample(
        "perplexity sonar, a fee for the request",
        openai,
        counted(25, 259),
        Usage(input_tokens=25, output_tokens=259),
        row(1, 1, request=0.005),
        (25 + 259) * 1000 + 5_000_000,
    ),
    Sample(
        "zai glm-4.7-flash, cached and reasoning",
        openai,
        counted(225, 101, **cached(224), **thought(78)),
        Usage(input_tokens=1, cache_read_tokens=224, output_tokens=23, reasoning_tokens=78),
        row(0.06, 0.4, cache_read_tokens=0.01),
        1 * 60 + 224 * 10 + 101 * 400,
    ),
    Sample(
        "crusoe glm-5.2, cached and reasoning",
        openai,
        counted(214, 54, **cached(64), **thought(20)),
        Usage(input_tokens=150, cache_read_tokens=64, output_tokens=34, reasoning_tokens=20),
        row(0.6, 2.2, cache_read_tokens=0.11),
        150 * 600 + 64 * 110 + 54 * 2200,
    ),
    Sample(
        "huggingface kimi-k2 at groq",
        openai,
        counted(299, 29),
        Usage(input_tokens=299, output_tokens=29),
        row(1, 3),
        299 * 1000 + 29 * 3000,
    ),
    Sample(
        "llama.cpp on one's own machine, where everything is free",
        openai,
        counted(28, 8, **cached(27)),
        Usage(input_tokens=1, cache_read_tokens=27, output_tokens=8),
        row(0, 0),
        0,
    ),
    # Anthropic: the cache is beside the input, thinking is in the output.
    Sample(
        "anthropic claude-sonnet-4, written for five minutes and for an hour",
        claude,
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 2070,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 14, "ephemeral_1h_input_tokens": 2056},
            "output_tokens": 459,
        },
        Usage(input_tokens=3, cache_write_5m_tokens=14, cache_write_1h_tokens=2056, output_tokens=459),
        SONNET_4,
        3 * 3000 + 14 * 3750 + 2056 * 6000 + 459 * 15_000,
    ),
    Sample(
        "anthropic claude-sonnet-4-0, written",
        claude,
        {
            "input_tokens": 8,
            "cache_creation_input_tokens": 4167,
            "cache_creation": {"ephemeral_5m_input_tokens": 4167, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 204,
        },
        Usage(input_tokens=8, cache_write_5m_tokens=4167, output_tokens=204),
        SONNET_4,
        8 * 3000 + 4167 * 3750 + 204 * 15_000,
    ),
    Sample(
        "anthropic claude-sonnet-5, written, read and thought",
        claude,
        {
            "input_tokens": 6,
            "cache_creation_input_tokens": 574,
            "cache_read_input_tokens": 20443,
            "cache_creation": {"ephemeral_5m_input_tokens": 574, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 489,
            "output_tokens_details": {"thinking_tokens": 77},
        },
        Usage(
            input_tokens=6,
            cache_read_tokens=20443,
            cache_write_5m_tokens=574,
            output_tokens=412,
            reasoning_tokens=77,
        ),
        SONNET_5,
        6 * 2000 + 20443 * 200 + 574 * 2500 + 489 * 10_000,
    ),
    Sample(
        "anthropic claude-3-5-haiku, before caches had lives",
        claude,
        {"input_tokens": 9, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 21},
        Usage(input_tokens=9, cache_read_tokens=2, cache_write_5m_tokens=1, output_tokens=21),
        HAIKU_3_5,
        9 * 800 + 2 * 80 + 1 * 1000 + 21 * 4000,
    ),
    Sample(
        "anthropic claude-sonnet-4-6, read and thought, streamed",
        claude,
        {
            "input_tokens": 28,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 1425,
            "output_tokens": 13,
            "output_tokens_details": {"thinking_tokens": 7},
        },
        Usage(input_tokens=28, cache_read_tokens=1425, output_tokens=6, reasoning_tokens=7),
        SONNET_4,
        28 * 3000 + 1425 * 300 + 13 * 15_000,
    ),
    Sample(
        "openrouter's Messages, claude-haiku-4.5",
        claude,
        {"input_tokens": 32, "output_tokens": 16, "output_tokens_details": {"thinking_tokens": 0}},
        Usage(input_tokens=32, output_tokens=16),
        HAIKU_4_5,
        32 * 1000 + 16 * 5000,
        billed="0.000112",
    ),
    # Gemini: the cache is in the prompt, thought and what tools fed are beside it.
    Sample(
        "gemini-2.5-flash, cached",
        google,
        {
            "promptTokenCount": 5808,
            "cachedContentTokenCount": 5770,
            "candidatesTokenCount": 3,
            "totalTokenCount": 5811,
            "promptTokensDetails": by_modality(TEXT=5808),
            "cacheTokensDetails": by_modality(TEXT=5770),
        },
        Usage(input_tokens=38, cache_read_tokens=5770, output_tokens=3),
        FLASH,
        38 * 300 + 5770 * 30 + 3 * 2500,
    ),
    Sample(
        "gemini-2.5-flash, cached and thought",
        google,
        {
            "promptTokenCount": 557,
            "cachedContentTokenCount": 330,
            "candidatesTokenCount": 73,
            "thoughtsTokenCount": 70,
            "totalTokenCount": 700,
        },
        Usage(input_tokens=227, cache_read_tokens=330, output_tokens=73, reasoning_tokens=70),
        FLASH,
        227 * 300 + 330 * 30 + (73 + 70) * 2500,
    ),
    Sample(
        "gemini-2.5-flash, a film of which most was cached",
        google,
        {
            "promptTokenCount": 17713,
            "cachedContentTokenCount": 17379,
            "candidatesTokenCount": 68,
            "thoughtsTokenCount": 821,
            "totalTokenCount": 18602,
            "promptTokensDetails": by_modality(TEXT=16, VIDEO=15780, AUDIO=1917),
            "cacheTokensDetails": by_modality(AUDIO=1881, TEXT=15, VIDEO=15483),
        },
        Usage(input_tokens=298, cache_read_tokens=17379, audio_input_tokens=36, output_tokens=68, reasoning_tokens=821),
        FLASH,
        298 * 300 + 36 * 1000 + 17379 * 30 + (68 + 821) * 2500,
    ),
    Sample(
        "gemini-2.5-flash, a film with sound",
        google,
        {
            "promptTokenCount": 655,
            "candidatesTokenCount": 78,
            "thoughtsTokenCount": 193,
            "totalTokenCount": 926,
            "promptTokensDetails": by_modality(TEXT=85, VIDEO=526, AUDIO=44),
        },
        Usage(input_tokens=611, audio_input_tokens=44, output_tokens=78, reasoning_tokens=193),
        FLASH,
        611 * 300 + 44 * 1000 + (78 + 193) * 2500,
    ),
    Sample(
        "gemini-2.5-pro, what a search fed to it",
        google,
        {
            "promptTokenCount": 209,
            "toolUsePromptTokenCount": 286,
            "candidatesTokenCount": 206,
            "thoughtsTokenCount": 131,
            "totalTokenCount": 832,
            "promptTokensDetails": by_modality(TEXT=209),
            "toolUsePromptTokensDetails": by_modality(TEXT=286),
        },
        Usage(input_tokens=495, output_tokens=206, reasoning_tokens=131),
        PRO,
        (209 + 286) * 1250 + (206 + 131) * 10_000,
    ),
    Sample(
        "gemini-2.5-flash-image, an image out",
        google,
        {
            "promptTokenCount": 4,
            "candidatesTokenCount": 1290,
            "totalTokenCount": 1294,
            "promptTokensDetails": by_modality(TEXT=4),
            "candidatesTokensDetails": by_modality(IMAGE=1290),
        },
        Usage(input_tokens=4, image_output_tokens=1290),
        FLASH_IMAGE,
        4 * 300 + 1290 * 30_000,
    ),
    Sample(
        "vertex gemini-2.5-flash-image, words and an image out",
        google,
        {
            "promptTokenCount": 9,
            "candidatesTokenCount": 1295,
            "totalTokenCount": 1304,
            "candidatesTokensDetails": by_modality(TEXT=5, IMAGE=1290),
        },
        Usage(input_tokens=9, output_tokens=5, image_output_tokens=1290),
        FLASH_IMAGE,
        9 * 300 + 5 * 2500 + 1290 * 30_000,
    ),
    Sample(
        "gemini-2.0-flash, audio in",
        google,
        {
            "promptTokenCount": 62,
            "candidatesTokenCount": 14,
            "totalTokenCount": 76,
            "promptTokensDetails": by_modality(TEXT=37, AUDIO=25),
        },
        Usage(input_tokens=37, audio_input_tokens=25, output_tokens=14),
        FLASH_2_0,
        37 * 100 + 25 * 700 + 14 * 400,
    ),
    Sample(
        "gemini-2.5-flash, an image in, which costs what words cost",
        google,
        {
            "promptTokenCount": 277,
            "candidatesTokenCount": 124,
            "thoughtsTokenCount": 570,
            "totalTokenCount": 971,
            "promptTokensDetails": by_modality(TEXT=19, IMAGE=258),
        },
        Usage(input_tokens=19, image_input_tokens=258, output_tokens=124, reasoning_tokens=570),
        FLASH,
        (19 + 258) * 300 + (124 + 570) * 2500,
    ),
    Sample(
        "gemini-2.5-flash, nothing but thought",
        google,
        {"promptTokenCount": 30, "thoughtsTokenCount": 1947, "totalTokenCount": 1977},
        Usage(input_tokens=30, reasoning_tokens=1947),
        FLASH,
        30 * 300 + 1947 * 2500,
    ),
    Sample(
        "vertex gemini-2.5-pro, kinds by number",
        google,
        {
            "promptTokenCount": 74,
            "candidatesTokenCount": 16,
            "thoughtsTokenCount": 392,
            "totalTokenCount": 482,
            "promptTokensDetails": [{"modality": 1, "tokenCount": 74}],
            "candidatesTokensDetails": [{"modality": 1, "tokenCount": 16}],
        },
        Usage(input_tokens=74, output_tokens=16, reasoning_tokens=392),
        PRO,
        74 * 1250 + (16 + 392) * 10_000,
    ),
    Sample(
        "vertex gemini-2.5-flash, pages of a document cached as images",
        google,
        {
            "promptTokenCount": 1344,
            "cachedContentTokenCount": 1274,
            "candidatesTokenCount": 99,
            "thoughtsTokenCount": 74,
            "totalTokenCount": 1517,
            "promptTokensDetails": by_modality(TEXT=54, DOCUMENT=1290),
            "cacheTokensDetails": by_modality(TEXT=51, IMAGE=1223),
        },
        Usage(input_tokens=70, cache_read_tokens=1274, output_tokens=99, reasoning_tokens=74),
        FLASH,
        70 * 300 + 1274 * 30 + (99 + 74) * 2500,
    ),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_real_usage_costs_what_it_costs(sample: Sample) -> None:
    usage = sample.read(sample.usage)
    assert usage == sample.buckets
    price = Catalog({"host/*": sample.prices}).price("host/model", None, None)
    assert price is not None
    assert price.cost_nanos(usage) == sample.nanos
    if sample.billed is not None:
        assert sample.nanos == round(Decimal(sample.billed) * 1_000_000_000)


def test_the_samples_reach_every_bucket() -> None:
    reached = {name for sample in SAMPLES for name in BUCKETS if getattr(sample.buckets, name)}
    assert reached == set(BUCKETS)
    assert len(SAMPLES) >= 40
