"""Which proxy and whose certificates: what the environment says, apart from any connection."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from yarl import URL

from inferxgate.errors import StartError
from inferxgate.upstream.environment import Proxies, own_trust, usual_trust
from tests.support.certificates import AUTHORITY


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "https://a.test", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.test", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "https://a.test", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a.test", None),
        ({"HTTPS_PROXY": "p:1"}, "https://a.test", "http://p:1"),
        ({"HTTPS_PROXY": "http://u:p%40w@p:1"}, "https://a.test", "http://u:p%40w@p:1"),
        ({"HTTPS_PROXY": ""}, "https://a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "https://a.test/v1", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "https://b.a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".a.test"}, "https://b.a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "https://ba.test", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test:8443"}, "https://a.test:8443", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test:8443"}, "https://a.test", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost,127.0.0.1"}, "http://127.0.0.1:8000", None),
    ],
)
def test_finds_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxies = Proxies(None)
    for _ in range(2):
        assert proxies.find(URL(url)) == (None if proxy is None else URL(proxy))


def test_the_configured_proxy_is_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://unused")
    assert Proxies("http://own:1").find(URL("https://a.test")) == URL("http://own:1")


def test_trusts_someone_even_where_the_system_has_no_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert usual_trust().verify_mode is ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    trust = usual_trust()
    assert trust.cert_store_stats()["x509_ca"] > 50
    assert trust.check_hostname


def test_own_trust_is_only_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_trust(None) is None
    trust = own_trust(str(AUTHORITY))
    assert trust is not None
    assert trust.cert_store_stats()["x509_ca"] == 1
    monkeypatch.setenv("SSL_CERT_FILE", "/does/not/exist.pem")
    with pytest.raises(StartError, match=r"^SSL_CERT_FILE \(/does/not/exist.pem\) cannot be used: No such file"):
        own_trust(None)
    assert own_trust(str(AUTHORITY)) is not None
