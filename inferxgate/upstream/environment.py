"""The way to providers as the machine and the operator lay it: proxies and trust roots.

aiohttp can read the proxy variables itself, but then it also reads ``~/.netrc`` and sends what stands there, once per
request and in a thread. So they are read here, once, when an engine is made.
"""

from __future__ import annotations

import os
import re
import ssl
import urllib.request
from pathlib import Path

import certifi
from yarl import URL

from inferxgate.errors import StartError

_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
)
"""Where the usual systems keep their trust roots, for Pythons whose OpenSSL was built to look elsewhere."""


class Proxies:
    """Which proxy stands on the way to a URL."""

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
        self._known: dict[tuple[str, str, int | None], URL | None] = {}

    def find(self, url: URL) -> URL | None:
        """The proxy's URL, with its user and password; None where the way is direct."""
        if self._own is not None or not self._by_scheme:
            return self._own
        place = (url.scheme, url.host or "", url.port)
        if place not in self._known:
            # there are as many places as there are providers, so this is bounded by the configuration
            self._known[place] = self._look_up(*place)
        return self._known[place]

    def _look_up(self, scheme: str, host: str, port: int | None) -> URL | None:
        passed_by = urllib.request.proxy_bypass_environment(f"{host}:{port}", self._variables)  # type: ignore[attr-defined]  # missing in typeshed
        return None if passed_by else self._by_scheme.get(scheme)


def _proxy(text: str, where: str) -> URL:
    """The message holds no part of the text, which may hold a password."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise StartError(f"{where} cannot be used: it must be a URL that starts with http:// or https://")
    return url


def own_trust(ca_file: str | None) -> ssl.SSLContext | None:
    """Trust in the authorities of ``ca_file``, else of ``SSL_CERT_FILE``, alone; None where neither is set.

    Raises StartError for a file that cannot be used.
    """
    name, file = ("the provider's ca_file", ca_file) if ca_file else ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE"))
    if not file:
        return None
    try:
        return _speaking_http(ssl.create_default_context(cafile=file))
    except OSError as error:  # which ssl.SSLError is too
        reason = "no certificates in PEM form in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartError(f"{name} ({file}) cannot be used: {reason}") from None


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
