"""Which URLs and addresses lead out to the public internet, and nowhere else.

A client's URL is read here once, strictly, and only what was read is used from then on: no second parser gets to see
the original text and to understand it differently. The host must be a name. A number in any spelling (``127.1``,
``0x7f000001``, ``2130706433``, ``[::1]``) is refused: certificates for numbers are rare, and the many spellings are
what filters have been walked around with.

Addresses are allowed by what they are known to be, not forbidden by a list of bad ones: of IPv6 only global unicast
(``2000::/3``), so that IPv4-mapped, NAT64, unique local, link-local and multicast ones fall away by themselves; and of
what is left nothing that IANA's registries of special-purpose addresses set apart. Mechanisms that carry an IPv4
address inside an IPv6 one (6to4, Teredo) are refused as a whole: nobody serves from there any more.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import quote

import idna

from inferxgate.values import dataclass

Address = IPv4Address | IPv6Address

_PORT = "443"
_URL_CHARACTERS = 8192
_URL = re.compile(r"https://([^/?#\\]*)([/?][^#]*)?(?:#.*)?", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""What ends in a number is an address to some resolvers, whatever stands before it."""
_KEPT = "%/:?#[]@!$&'()*+,;=~-._"
"""Characters of a path and a query that go out as they are; a ``%`` too, for what is encoded already."""

_SPECIAL_V4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # "this network": on many systems the machine itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' address translation; some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # the inside of Azure's machines, although the address is a public one
        "169.254.0.0/16",  # link-local, with most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, given up
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments, among them Teredo (2001::/32) and benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet. Python's own opinion has to agree with ours."""
    if isinstance(address, IPv4Address):
        special = any(address in network for network in _SPECIAL_V4)
    else:
        special = (
            address not in _GLOBAL_UNICAST
            or address.scope_id is not None
            or any(address in network for network in _SPECIAL_V6)
        )
    return not special and address.is_global


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """An ``https`` URL of a name, on port 443."""

    host: str
    """In ASCII and lower case, without a dot at its end."""
    target: str
    """Path and query as the request line has them."""

    @property
    def url(self) -> str:
        return f"https://{self.host}{self.target}"

    @property
    def shown(self) -> str:
        """For the log: without the query, which may hold a signature, and not at any length."""
        return f"https://{self.host}{self.target.partition('?')[0]}"[:200]


def parse_public_url(text: str) -> PublicUrl:
    """Read a URL that a stranger wrote. Raises ``ValueError`` with words that go on from the URL's place.

    What is refused here is refused for how it is spelt; where it leads is not known yet.
    """
    found = _URL.fullmatch(text) if len(text) <= _URL_CHARACTERS and not _CONTROL.search(text) else None
    if found is None:
        raise ValueError(f"must be an https:// URL of at most {_URL_CHARACTERS} characters")
    authority, target = found[1], found[2] or "/"
    if "@" in authority:
        raise ValueError("must not have a user or a password in its URL")
    host, _, port = authority.partition(":")
    host = _name(host)
    if port not in ("", _PORT):
        raise ValueError(f"must not name another port than {_PORT} in its URL")
    try:
        encoded = quote(target if target.startswith("/") else f"/{target}", safe=_KEPT)
    except UnicodeEncodeError:
        raise ValueError("must be a URL of characters that Unicode has") from None
    return PublicUrl(host, encoded)


def _name(host: str) -> str:
    """The host as the resolver is asked for it. Raises ``ValueError``."""
    try:
        name = host if host.isascii() else idna.encode(host, uts46=True).decode()
    except ValueError:  # which idna's own errors are
        name = ""
    name = name.lower().removesuffix(".")
    if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name):
        raise ValueError("must have the name of a host in its URL (addresses in numbers are not taken)")
    return name
