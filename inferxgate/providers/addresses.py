"""Whose an address is: the vendor's, a proxy's on the way to the vendor, or a server's of one's own.

What is known of a vendor's models (their names, windows, prices) holds at the vendor's own hosts, however their address
is spelt, and behind any other ``base_url``, which is taken for a proxy before the vendor. Two things are not: the host
of another vendor, and what ``type = "openai"`` names, which is the type of every server that speaks OpenAI's API. Such
a section is OpenAI behind a proxy only where it is called like OpenAI and does not lead into one's own network, where
the usual local servers are. The configuration has the last word (``vendor_models``).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from inferxgate.providers.provider import Row
from inferxgate.providers.registry import ROWS


def settled(row: Row, base_url: str | None) -> str:
    """The address to put paths behind: without a slash at its end, and with the path under which the API is.

    People write ``http://127.0.0.1:11434`` and ``https://api.openai.com`` for servers whose API is known to be under
    ``/v1``. Elsewhere an address without a path may be right, and stays as it is. ``base_url``: None where the section
    has none.
    """
    base_url = (base_url or row.base_url or "").rstrip("/")
    known = row.self_hosted or is_vendors_host(row, base_url)
    return base_url + default_path(row) if known and not urlsplit(base_url).path else base_url


def default_path(row: Row) -> str:
    """Under which path a type's API is at its own address, such as ``/v1``; nothing where it is at the root."""
    return urlsplit(row.base_url or "").path


def is_vendors_host(row: Row, base_url: str) -> bool:
    """Whether an address is at the vendor's own host, or at one below it, as the regional ones are."""
    host = _host(base_url)
    own = (_host(row.base_url or ""), *row.hosts)
    return any(host == each or host.endswith(f".{each}") for each in own if each)


def has_vendors_models(row: Row, name: str, base_url: str | None, *, said: bool | None) -> bool:
    """Whether a section of this name and type is taken to lead to its vendor's models, at the vendor's prices.

    ``base_url``: None where the section has none; ``said``: what the section says itself, where it does.
    """
    if said is not None:
        return said
    if row.base_url is None or base_url is None or is_vendors_host(row, base_url):
        return True
    if other_vendor(row, base_url) is not None:
        return False
    return not row.spoken_by_others or (name == row.type and not _in_own_network(_host(base_url)))


def other_vendor(row: Row, base_url: str) -> str | None:
    """The type of another vendor whose host an address is at."""
    others = (other for other in ROWS.values() if other is not row and not other.self_hosted)
    return next((other.type for other in others if is_vendors_host(other, base_url)), None)


def _host(base_url: str) -> str:
    return (urlsplit(base_url).hostname or "").rstrip(".")


def _in_own_network(host: str) -> bool:
    """Whether a host is this machine or near it: an address that is not public, or a name without a domain."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host
