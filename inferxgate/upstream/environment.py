"""The way to providers as the machine and the operator lay it: proxies and trust roots.

Both are read once, when an engine is made. ``~/.netrc`` is not read at all.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import urllib.request
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi

from inferxgate.errors import StartError
from inferxgate.values import dataclass

_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)
"""Where the usual systems keep their trust roots, for Pythons whose OpenSSL was built to look elsewhere."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    host: str
    port: int
    tls: bool
    """Whether it is itself spoken to in TLS."""
    authorization: str | None = field(default=None, repr=False)
    """The value of ``Proxy-Authorization``."""


class Proxies:
    """Which proxy stands on the way to a place."""

    def __init__(self, own: str | None) -> None:
        """``own`` is used for everything; without it, what ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` say now.

        Raises StartError for a proxy that is neither ``http://`` nor ``https://``.
        """
        self._own = None if own is None else _proxy(own, "the provider's proxy setting")
        self._variables = {} if own is not None else urllib.request.getproxies_environment()
        self._by_scheme = {
            scheme: _proxy(self._variables[scheme], f"{scheme.upper()}_PROXY")
            for scheme in ("http", "https")
            if self._variables.get(scheme)
        }

    def find(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy, with its user and password; None where the way is direct."""
        if self._own is not None or not self._by_scheme:
            return self._own
        passed_by = urllib.request.proxy_bypass_environment(f"{host}:{port}", self._variables)  # type: ignore[attr-defined]  # missing in typeshed
        return None if passed_by else self._by_scheme.get(scheme)


def _proxy(text: str, where: str) -> Proxy:
    """The message holds no part of the text, which may hold a password."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in {"http", "https"}:
        raise StartError(f"{where} cannot be used: it must be a URL that starts with http:// or https://")
    tls = parts.scheme == "https"
    authorization = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return Proxy(host, port or (443 if tls else 80), tls, authorization)


def own_trust(ca_file: str | None) -> ssl.SSLContext | None:
    """Trust in the authorities of ``ca_file``, else of ``SSL_CERT_FILE``, alone; None where neither is set.

    Raises StartError for a file that cannot be used.
    """
    name, file = ("the provider's ca_file", ca_file) if ca_file else ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE"))
    if not file:
        return None
    try:
        return _trust_in(file, Path(file).stat().st_mtime_ns)
    except OSError as error:  # which ssl.SSLError is too
        reason = "no certificates in PEM form in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartError(f"{name} ({file}) cannot be used: {reason}") from None


@lru_cache(maxsize=16)
def _trust_in(file: str, _changed_ns: int) -> ssl.SSLContext:
    """The same for all providers that name the file: a bundle of all roots takes some ten milliseconds to read."""
    return _speaking_http(ssl.create_default_context(cafile=file))


def usual_trust() -> ssl.SSLContext:
    """Trust in the system's roots; in certifi's where the system has none."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"] and not _has_roots(ssl.get_default_verify_paths().capath):
        found = next((file for file in _SYSTEM_ROOTS if Path(file).is_file()), certifi.where())
        context.load_verify_locations(cafile=found)
    return _speaking_http(context)


def _has_roots(folder: str | None) -> bool:
    """Whether OpenSSL would find something there; it looks only when it needs to, so the context cannot say."""
    if folder is None:
        return False
    try:
        return any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in os.listdir(folder))
    except OSError:
        return False


def _speaking_http(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context
