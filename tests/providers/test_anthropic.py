"""Where Anthropic's API is and how a request to it is signed: address, headers, version as in its reference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferxgate.dialects.protocol import Call
from inferxgate.providers.anthropic import ROW
from inferxgate.providers.http import HttpRequest
from inferxgate.providers.provider import Provider

HOST = "https://api.anthropic.com"
ANTHROPIC = Provider("anthropic", ROW, HOST, api_key="sk-ant-api03-secret")
CALL = Call("chat", b"{}", {"content-type": "application/json"})


def request(provider: Provider = ANTHROPIC, *, call: Call = CALL, stream: bool = False) -> HttpRequest:
    return provider.request(call, model="claude-sonnet-4-5", stream=stream)


def test_a_request_is_addressed_versioned_and_signed() -> None:
    ours = request()
    assert ours.url == "https://api.anthropic.com/v1/messages"
    assert ours.body == b"{}"
    assert dict(ours.headers) == {
        "accept": "application/json",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "x-api-key": "sk-ant-api03-secret",
    }
    assert request(stream=True).headers["accept"] == "text/event-stream"
    assert request(stream=True).url == ours.url


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (f"{HOST}/v1", f"{HOST}/v1/messages"),
        ("http://127.0.0.1:8000/proxy", "http://127.0.0.1:8000/proxy/v1/messages"),
        ("http://127.0.0.1:8000/proxy/v1", "http://127.0.0.1:8000/proxy/v1/messages"),
        ("https://api.example.com/anthropic", "https://api.example.com/anthropic/v1/messages"),
    ],
)
def test_a_base_url_may_end_with_the_version(base_url: str, url: str) -> None:
    assert request(replace(ANTHROPIC, base_url=base_url)).url == url


def test_an_oauth_token_is_a_bearer_token_with_its_beta() -> None:
    headers = request(replace(ANTHROPIC, api_key="sk-ant-oat01-secret")).headers
    assert headers["authorization"] == "Bearer sk-ant-oat01-secret"
    assert headers["anthropic-beta"] == "oauth-2025-04-20"
    assert "x-api-key" not in headers


def test_a_credential_may_be_sent_as_a_bearer_token_to_other_hosts() -> None:
    headers = request(replace(ANTHROPIC, bearer=True)).headers
    assert headers["authorization"] == "Bearer sk-ant-api03-secret"
    assert "x-api-key" not in headers


def test_without_a_credential_none_is_sent() -> None:
    assert not {"x-api-key", "authorization"} & request(replace(ANTHROPIC, api_key=None)).headers.keys()


def test_the_credential_is_in_its_header_only_and_never_shown() -> None:
    ours = request()
    assert "secret" not in ours.url + repr(ours) + repr(ANTHROPIC)
    assert ANTHROPIC.secrets() == ("sk-ant-api03-secret",)


def test_what_the_row_says() -> None:
    assert (ROW.type, ROW.dialect, ROW.base_url) == ("anthropic", "anthropic_messages", HOST)
    assert ROW.key_variables == ("ANTHROPIC_API_KEY",)
    assert ROW.url_variables == ("ANTHROPIC_BASE_URL",)
