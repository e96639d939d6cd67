"""A configured provider makes signed requests, and never shows its credential."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferxgate.dialects.protocol import Call
from inferxgate.providers import azure, gemini, openai
from inferxgate.providers.http import HttpRequest, Timeouts
from inferxgate.providers.provider import Provider, Row, bearer, fixed_path

ROW = Row(
    type="host",
    owner="host",
    dialect="openai_chat",
    base_url="https://host.example/v1",
    url=fixed_path("/chat/completions"),
    headers={"x-version": "of the row", "x-call": "of the row"},
)
HOST = Provider("host", ROW, "https://host.example/v1", api_key="key-0123456789")
CALL = Call("chat", b'{"a":1}', {"content-type": "application/json", "x-call": "of the call"})


def request(provider: Provider = HOST, *, stream: bool = False) -> HttpRequest:
    return provider.request(CALL, model="m", stream=stream)


def test_a_request_has_the_rows_headers_the_calls_and_the_credential() -> None:
    ours = request()
    assert (ours.method, ours.url, ours.body) == ("POST", "https://host.example/v1/chat/completions", b'{"a":1}')
    assert dict(ours.headers) == {
        "accept": "application/json",
        "authorization": "Bearer key-0123456789",
        "content-type": "application/json",
        "x-call": "of the call",
        "x-version": "of the row",
    }
    assert request(stream=True).headers["accept"] == "text/event-stream"
    assert "authorization" not in request(replace(HOST, api_key=None)).headers


def test_headers_of_the_configuration_have_the_last_word() -> None:
    own = {"x-version": "mine", "authorization": "Basic mine", "x-more": "1"}
    headers = request(replace(HOST, headers=own)).headers
    assert {name: headers[name] for name in own} == own


def test_a_token_is_a_bearer_token_whatever_the_row_does_with_keys() -> None:
    keyed = replace(HOST, row=replace(ROW, authorize=lambda key: {"api-key": key}))
    assert request(keyed).headers["api-key"] == "key-0123456789"
    token = request(replace(keyed, bearer=True)).headers
    assert token["authorization"] == bearer("key-0123456789")["authorization"]
    assert "api-key" not in token


def test_only_a_whole_answer_has_a_bound_on_the_whole() -> None:
    slow = replace(HOST, timeouts=Timeouts(1.0, 2.0, 3.0), total_seconds=4.0)
    assert request(slow).timeouts == Timeouts(1.0, 2.0, 3.0, 4.0)
    assert request(slow, stream=True).timeouts == Timeouts(1.0, 2.0, 3.0, None)


def test_secrets_are_the_credential_and_all_that_may_be_one() -> None:
    secret = replace(HOST, headers={"authorization": "Bearer a-longer-token-of-a-proxy", "x-short": "1234567"})
    assert secret.secrets() == ("Bearer a-longer-token-of-a-proxy", "a-longer-token-of-a-proxy", "key-0123456789")
    shown = repr(secret) + repr(request(secret))
    assert not any(one in shown for one in secret.secrets())


@pytest.mark.parametrize(
    ("row", "variables", "addresses", "base_url"),
    [
        (openai.ROW, ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), "https://api.openai.com/v1"),
        (
            gemini.ROW,
            ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            ("GEMINI_BASE_URL",),
            "https://generativelanguage.googleapis.com",
        ),
        (azure.ROW, ("AZURE_OPENAI_API_KEY",), ("AZURE_OPENAI_ENDPOINT",), None),
    ],
    ids=lambda value: value.type if isinstance(value, Row) else "",
)
def test_vendors_rows_are_set_up_as_their_own_sdks_are(
    row: Row, variables: tuple[str, ...], addresses: tuple[str, ...], base_url: str | None
) -> None:
    assert (row.key_variables, row.url_variables, row.base_url) == (variables, addresses, base_url)


def test_openai_is_asked_at_its_own_address() -> None:
    vendor = Provider("openai", openai.ROW, openai.ROW.base_url or "", api_key="sk-1")
    ours = request(vendor)
    assert ours.url == "https://api.openai.com/v1/chat/completions"
    assert ours.headers["authorization"] == "Bearer sk-1"
