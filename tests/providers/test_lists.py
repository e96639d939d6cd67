"""Where each type of provider says which models it has, and how it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferxgate.providers.http import Timeouts
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ALL_ROWS, ROWS

WITHOUT = {"azure", "perplexity", "echo"}


def provider(kind: str, base_url: str | None = None) -> Provider:
    row = ROWS[kind]
    return Provider(kind, row, base_url or row.base_url or "", api_key="key-0123456789")


@pytest.mark.parametrize(
    ("kind", "base_url", "url"),
    [
        ("openai", None, "https://api.openai.com/v1/models"),
        ("groq", None, "https://api.groq.com/openai/v1/models"),
        ("deepseek", None, "https://api.deepseek.com/models"),
        ("openrouter", None, "https://openrouter.ai/api/v1/models"),
        ("cerebras", None, "https://api.cerebras.ai/v1/models"),
        ("ollama", None, "http://127.0.0.1:11434/v1/models"),
        ("anthropic", None, "https://api.anthropic.com/v1/models?limit=1000"),
        ("anthropic", "https://proxy.example/v1", "https://proxy.example/v1/models?limit=1000"),
        ("gemini", None, "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000"),
        ("gemini", "https://proxy.example/v1", "https://proxy.example/v1/models?pageSize=1000"),
    ],
)
def test_the_address(kind: str, base_url: str | None, url: str) -> None:
    asked = provider(kind, base_url).list_request()
    assert (asked.method, asked.url, asked.body) == ("GET", url, b"")


@pytest.mark.parametrize(("kind", "more"), [("anthropic", "after_id"), ("gemini", "pageToken")])
def test_a_further_page_leads_nowhere_else(kind: str, more: str) -> None:
    first, asked = provider(kind).list_request(), provider(kind).list_request("a&b=/../#c d")
    assert asked.url == f"{first.url}&{more}=a%26b%3D%2F..%2F%23c%20d"


def test_all_types_but_those_that_cannot_have_a_list() -> None:
    assert {kind for kind, row in ALL_ROWS.items() if row.list_url is None} == WITHOUT
    with pytest.raises(ValueError, match="azure has no list of models"):
        provider("azure", "https://r.openai.azure.com").list_request()


def test_it_is_signed_as_every_request() -> None:
    assert provider("openai").list_request().headers == {
        "accept": "application/json",
        "authorization": "Bearer key-0123456789",
    }
    assert provider("anthropic").list_request().headers == {
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": "key-0123456789",
    }
    assert provider("gemini").list_request().headers["x-goog-api-key"] == "key-0123456789"
    own = replace(provider("gemini"), bearer=True, headers={"x-team": "1", "accept": "text/plain"})
    headers = own.list_request().headers
    assert (headers["authorization"], headers["x-team"], headers["accept"]) == (
        "Bearer key-0123456789",
        "1",
        "text/plain",
    )
    assert provider("vllm").list_request().headers.keys() == {"accept", "authorization"}
    assert replace(provider("vllm"), api_key=None).list_request().headers.keys() == {"accept"}


def test_nobody_waits_for_it_as_long_as_for_an_answer() -> None:
    assert provider("openai").list_request().timeouts == Timeouts(10.0, 30.0, 15.0, 60.0)
    hurried = replace(provider("openai"), timeouts=Timeouts(1.0, 2.0, 3.0), total_seconds=4.0)
    assert hurried.list_request().timeouts == Timeouts(1.0, 2.0, 3.0, 4.0)
