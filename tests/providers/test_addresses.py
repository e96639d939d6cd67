"""Whose an address is, and where the API is at it."""

from __future__ import annotations

import pytest

from inferxgate.providers.addresses import has_vendors_models, is_vendors_host, other_vendor, settled
from inferxgate.providers.registry import ROWS


@pytest.mark.parametrize(
    ("kind", "base_url"),
    [
        ("openai", "https://api.openai.com/v1"),
        ("openai", "https://API.OpenAI.com./v1/"),
        ("openai", "http://api.openai.com:8443/anything"),
        ("openai", "https://eu.api.openai.com/v1"),
        ("anthropic", "https://api.anthropic.com/v1"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta"),
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/"),
        ("xai", "https://eu-west-1.api.x.ai/v1"),
        ("together", "https://api.together.ai/v1"),
        ("azure", "https://my-resource.openai.azure.com"),
    ],
)
def test_a_vendors_host_is_known_however_it_is_spelt(kind: str, base_url: str) -> None:
    assert is_vendors_host(ROWS[kind], base_url)
    assert has_vendors_models(ROWS[kind], "any-name", base_url, said=None)


@pytest.mark.parametrize(
    "base_url", ["https://api.openai.com.evil.example/v1", "https://notapi.openai.com.br", "https://x"]
)
def test_a_host_that_only_looks_like_the_vendors_is_not(base_url: str) -> None:
    assert not is_vendors_host(ROWS["openai"], base_url)


@pytest.mark.parametrize(
    ("kind", "name", "base_url", "vendors"),
    [
        # A proxy before the vendor.
        ("anthropic", "anthropic", "https://llm.example.com/anthropic", True),
        ("anthropic", "work", "http://127.0.0.1:8080", True),
        ("groq", "groq", "https://llm.example.com/groq", True),
        ("openai", "openai", "https://llm.example.com/v1", True),
        ("azure", "azure", "https://llm.example.com", True),
        # A server that speaks OpenAI's API.
        ("openai", "my-vllm", "https://llm.example.com/v1", False),
        ("openai", "openai", "http://127.0.0.1:8000/v1", False),
        ("openai", "openai", "http://localhost:8000/v1", False),
        ("openai", "openai", "http://[::1]:8000/v1", False),
        ("openai", "openai", "http://192.168.1.7:1234/v1", False),
        ("openai", "openai", "http://ollama:11434/v1", False),
        # Another vendor.
        ("openai", "openai", "https://openrouter.ai/api/v1", False),
        ("openai", "openai", "https://my-resource.openai.azure.com/openai/v1", False),
        ("anthropic", "anthropic", "https://api.deepseek.com/anthropic", False),
        # The vendor's own address.
        ("openai", "work", None, True),
    ],
)
def test_whose_models_are_behind_an_address(kind: str, name: str, base_url: str | None, vendors: bool) -> None:
    row = ROWS[kind]
    assert has_vendors_models(row, name, base_url, said=None) is vendors
    assert has_vendors_models(row, name, base_url, said=True)
    assert not has_vendors_models(row, name, base_url, said=False)


def test_another_vendor_is_named() -> None:
    assert other_vendor(ROWS["openai"], "https://api.groq.com/openai/v1") == "groq"
    assert other_vendor(ROWS["openai"], "https://eu.api.openai.com/v1") is None
    assert other_vendor(ROWS["openai"], "http://127.0.0.1:11434/v1") is None, "a local server is nobody's"


@pytest.mark.parametrize(
    ("kind", "base_url", "whole"),
    [
        ("ollama", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("vllm", "https://gpu.example.com/", "https://gpu.example.com/v1"),
        ("ollama", "http://127.0.0.1:11434/v1/", "http://127.0.0.1:11434/v1"),
        ("ollama", "https://gpu.example.com/ollama", "https://gpu.example.com/ollama"),
        ("lmstudio", None, "http://127.0.0.1:1234/v1"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://EU.api.openai.com/", "https://EU.api.openai.com/v1"),
        ("groq", "https://api.groq.com", "https://api.groq.com/openai/v1"),
        ("openai", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("groq", "https://llm.example.com", "https://llm.example.com"),
        ("deepseek", "https://api.deepseek.com/", "https://api.deepseek.com"),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1"),
        ("anthropic", None, "https://api.anthropic.com"),
    ],
)
def test_a_path_is_put_in_where_the_api_is_known_to_be_under_it(kind: str, base_url: str | None, whole: str) -> None:
    assert settled(ROWS[kind], base_url) == whole
