"""Which proxy and whose certificates: what the environment says, apart from any connection."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from inferxgate.errors import StartError
from inferxgate.upstream.environment import Proxies, Proxy, own_trust, usual_trust
from tests.support.certificates import AUTHORITY

P = Proxy("p", 1, tls=False)


def found(proxies: Proxies, url: str) -> Proxy | None:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return proxies.find(parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme])


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "https://a.test", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.test", P),
        ({"https_proxy": "http://p:1"}, "https://a.test", P),
        ({"HTTPS_PROXY": "http://p:1"}, "http://a.test", None),
        ({"HTTPS_PROXY": "p:1"}, "https://a.test", P),
        ({"HTTPS_PROXY": "http://p"}, "https://a.test", Proxy("p", 80, tls=False)),
        ({"HTTPS_PROXY": "https://p"}, "https://a.test", Proxy("p", 443, tls=True)),
        (
            {"HTTPS_PROXY": "http://u:p%40w@p:1"},
            "https://a.test",
            Proxy("p", 1, tls=False, authorization="Basic dTpwQHc="),
        ),
        ({"HTTPS_PROXY": "http://ü@[::1]:1"}, "https://a.test", Proxy("::1", 1, tls=False, authorization="Basic w7w6")),
        ({"HTTPS_PROXY": ""}, "https://a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "https://a.test/v1", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "https://b.a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".a.test"}, "https://b.a.test", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, "https://ba.test", P),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test:8443"}, "https://a.test:8443", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test:8443"}, "https://a.test", P),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost,127.0.0.1"}, "http://127.0.0.1:8000", None),
    ],
)
def test_finds_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: Proxy | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert found(Proxies(None), url) == proxy


def test_the_configured_proxy_is_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://unused")
    assert found(Proxies("http://own:1"), "https://a.test") == Proxy("own", 1, tls=False)


def test_what_a_proxy_is_told_is_not_shown() -> None:
    assert "dTpwQHc" not in repr(found(Proxies("http://u:p%40w@p:1"), "https://a.test"))


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
