"""Azure's addresses, credentials and versions. The expected addresses are those of Azure's reference and recordings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferxgate.dialects.protocol import Call
from inferxgate.errors import GatewayError
from inferxgate.providers import azure
from inferxgate.providers.http import HttpRequest
from inferxgate.providers.provider import Provider

AZURE = Provider(
    name="azure",
    row=azure.ROW,
    base_url="https://my-resource.openai.azure.com",
    api_key="key-1",
    api_version="2024-10-21",
)
CALL = Call("chat", b"{}", {"content-type": "application/json"})


def request(provider: Provider, model: str = "my-gpt") -> HttpRequest:
    return provider.request(CALL, model=model, stream=False)


RESOURCE = "https://my-resource.openai.azure.com"
FOUNDRY = "https://my-resource.services.ai.azure.com"


@pytest.mark.parametrize(
    ("base_url", "version", "url"),
    [
        (
            RESOURCE,
            "2024-10-21",
            f"{RESOURCE}/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21",
        ),
        (
            RESOURCE,
            "2024-12-01-preview",
            f"{RESOURCE}/openai/deployments/my-gpt/chat/completions?api-version=2024-12-01-preview",
        ),
        (
            f"{RESOURCE}/openai",
            "2024-10-21",
            f"{RESOURCE}/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21",
        ),
        (RESOURCE, "v1", f"{RESOURCE}/openai/v1/chat/completions"),
        (f"{RESOURCE}/openai/v1", "2024-10-21", f"{RESOURCE}/openai/v1/chat/completions"),
        (f"{RESOURCE}/openai/v1", "v1", f"{RESOURCE}/openai/v1/chat/completions"),
        (FOUNDRY, "v1", f"{FOUNDRY}/openai/v1/chat/completions"),
        (f"{FOUNDRY}/models", "2024-10-21", f"{FOUNDRY}/models/chat/completions?api-version=2024-05-01-preview"),
        (f"{FOUNDRY}/models", "2025-04-01", f"{FOUNDRY}/models/chat/completions?api-version=2025-04-01"),
        (
            "https://proxy.internal/azure",
            "2024-10-21",
            "https://proxy.internal/azure/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_each_form_of_address(base_url: str, version: str, url: str) -> None:
    assert request(replace(AZURE, base_url=base_url, api_version=version)).url == url


def test_without_a_version_the_newest_that_is_generally_available_is_spoken() -> None:
    assert request(replace(AZURE, api_version=None)).url.endswith("?api-version=2024-10-21")


@pytest.mark.parametrize("name", ["gpt-4o", "My_GPT.4", "a:b@c", "x" * 128])
def test_a_deployment_is_one_segment(name: str) -> None:
    url = request(AZURE, name).url
    path = url.partition("?")[0].removeprefix(f"{RESOURCE}/openai/deployments/").removesuffix("/chat/completions")
    assert "/" not in path


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "..", ".x", "a b", "a?b", "a#b", "a%2fb", "a\\b", "é", "a\n", "-x", "x" * 129, "a;b"]
)
@pytest.mark.parametrize("version", ["2024-10-21", "v1"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, version: str) -> None:
    with pytest.raises(GatewayError) as caught:
        request(replace(AZURE, api_version=version), name)
    assert (caught.value.status, caught.value.param) == (400, "model")


def test_a_key_and_a_token_travel_in_different_headers() -> None:
    headers = request(AZURE).headers
    assert headers["api-key"] == "key-1"
    assert "authorization" not in headers
    headers = request(replace(AZURE, bearer=True)).headers
    assert headers["authorization"] == "Bearer key-1"
    assert "api-key" not in headers
    assert "key-1" not in request(AZURE).url + repr(AZURE) + repr(request(AZURE))


@pytest.mark.parametrize(
    ("base_url", "version", "asked"),
    [
        (RESOURCE, "2023-05-15", False),
        (RESOURCE, "2024-02-01", False),
        (RESOURCE, "2024-06-01", False),
        (RESOURCE, "2024-08-01-preview", False),
        (RESOURCE, "2024-09-01-preview", True),
        (RESOURCE, "2024-10-21", True),
        (RESOURCE, "2025-01-01-preview", True),
        (RESOURCE, "v1", True),
        (f"{RESOURCE}/openai/v1", "2024-02-01", True),
        (f"{FOUNDRY}/models", "2024-10-21", False),
    ],
)
def test_only_versions_that_know_it_are_asked_for_usage_in_streams(base_url: str, version: str, asked: bool) -> None:
    assert azure.quirks(base_url, version).stream_usage is asked


@pytest.mark.parametrize(
    "url",
    [
        RESOURCE,
        FOUNDRY,
        f"{FOUNDRY}/models",
        f"{RESOURCE}/openai/v1",
        "https://my-resource.cognitiveservices.azure.com",
        "https://apim.example.com/azure",
        "http://127.0.0.1:8000",
        "https://my-apim.azure-api.net/openai",
    ],
)
def test_addresses_that_may_be_right(url: str) -> None:
    azure.check_base_url(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://my-resource.openai.azure.com", "https://"),
        ("https://a.b.openai.azure.com", "one resource"),
        ("https://a_b.openai.azure.com", "one resource"),
        (f"https://{'a' * 64}.services.ai.azure.com", "one resource"),
        (f"{RESOURCE}/openai/deployments/my-gpt", "the resource's address alone"),
    ],
)
def test_addresses_that_cannot_be_right(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        azure.check_base_url(url)
