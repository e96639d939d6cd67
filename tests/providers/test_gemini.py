"""Where the Gemini API is, and how a request to it is signed."""

from __future__ import annotations

import pytest

from inferxgate.dialects.protocol import Call
from inferxgate.errors import GatewayError
from inferxgate.providers.gemini import ROW
from inferxgate.providers.http import HttpRequest
from inferxgate.providers.provider import Provider

HOST = "https://generativelanguage.googleapis.com"


def request(model: str, *, stream: bool = False, base_url: str = HOST) -> HttpRequest:
    provider = Provider("google", ROW, base_url, api_key="AIza-secret")
    return provider.request(Call("chat", b"{}", {"content-type": "application/json"}), model=model, stream=stream)


def test_whole_and_streamed() -> None:
    assert request("gemini-2.5-flash").url == f"{HOST}/v1beta/models/gemini-2.5-flash:generateContent"
    streamed = request("gemini-2.5-flash", stream=True)
    assert streamed.url == f"{HOST}/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"


@pytest.mark.parametrize(
    ("base_url", "begins"),
    [
        (HOST, f"{HOST}/v1beta/models/"),
        (f"{HOST}/v1beta", f"{HOST}/v1beta/models/"),
        (f"{HOST}/v1", f"{HOST}/v1/models/"),
        (f"{HOST}/v1alpha", f"{HOST}/v1alpha/models/"),
        ("http://127.0.0.1:8000/proxy", "http://127.0.0.1:8000/proxy/v1beta/models/"),
    ],
)
def test_base_urls_with_and_without_a_version(base_url: str, begins: str) -> None:
    assert request("m", base_url=base_url).url == f"{begins}m:generateContent"


@pytest.mark.parametrize(
    ("model", "segment"), [("models/m", "m"), ("tuned:a@1", "tuned%3Aa%401"), ("a.b_c-1", "a.b_c-1")]
)
def test_a_model_is_one_segment_of_the_address(model: str, segment: str) -> None:
    assert request(model).url == f"{HOST}/v1beta/models/{segment}:generateContent"


@pytest.mark.parametrize(
    "model", ["", "../x", "a/b", "a?key=1", "a#b", "a%2fb", ".hidden", "a b", "x" * 129, "models/"]
)
def test_names_that_cannot_stand_in_an_address(model: str) -> None:
    with pytest.raises(GatewayError) as raised:
        request(model)
    assert (raised.value.status, raised.value.param) == (400, "model")


def test_the_credential_travels_in_its_header_only() -> None:
    signed = request("m", stream=True)
    assert signed.headers["x-goog-api-key"] == "AIza-secret"
    assert "authorization" not in signed.headers
    assert "AIza-secret" not in signed.url
