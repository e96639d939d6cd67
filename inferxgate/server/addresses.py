"""Who is at the other end of the connection, and who may say so on another's behalf.

The peer's own address counts. ``X-Forwarded-For`` counts only where the peer is one of ``server.trusted_proxies``;
then the rightmost address that is no trusted proxy is the client, since what stands to the left of it is the client's
own word.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from starlette.types import Scope

from inferxgate.errors import StartError

_FORWARDING = (b"forwarded", b"via", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Addresses:
    """Reads client addresses from requests."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        """``trusted_proxies`` are addresses or networks. Raises ``StartError`` for anything else."""
        self._trusted = [_network(text) for text in trusted_proxies]

    def client(self, scope: Scope) -> str:
        """The client's address as text; ``unknown`` where the connection has none."""
        peer = scope.get("client")
        if not peer:
            return "unknown"
        host = str(peer[0])
        if not self._trusted or not self._trusts(parse_address(host)):
            return host
        hops = [
            hop.strip()
            for name, value in scope["headers"]
            if name == b"x-forwarded-for"
            for hop in value.decode("latin-1").split(",")
        ]
        for hop in reversed(hops):
            address = parse_address(hop)
            if address is None:
                break  # not an address: whatever stands to the left of it is worth no more
            host = str(address)
            if not self._trusts(address):
                break
        return host

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def throttle_name(client: str) -> str:
    """What attempts of a client are counted by: an IPv4 address, or the /64 that one IPv6 customer is given."""
    address = parse_address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return client if address is None else str(address)


def parse_address(text: str) -> Address | None:
    """An address, also with a port or in brackets; IPv4 written as IPv6 becomes IPv4. None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without a port, can only mean this machine."""
    if host.lower().rstrip(".") in ("localhost", "ip6-localhost"):
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback


def is_local_request(scope: Scope) -> bool:
    """Whether a loopback peer asks under a loopback ``Host``, and no header says that it asks for someone else.

    The ``Host`` keeps out web pages whose name was pointed at this machine, the forwarding headers a proxy that makes
    every client look local.
    """
    peer = scope.get("client")
    if not peer or not is_loopback(str(peer[0])):
        return False
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not is_loopback(_host_name(hosts[0].decode("latin-1"))):
        return False
    return not forwarded(scope["headers"])


def forwarded(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name in _FORWARDING or name.startswith(b"x-forwarded") for name, _ in headers)


def _host_name(host: str) -> str:
    """The name in a ``Host`` header; empty where the header holds anything but a name and a port."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") or not port else "x"
    else:
        name, _, port = host.partition(":")
    return name if port == "" or port.isdecimal() else ""


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise StartError(
            f"server.trusted_proxies: {text!r} is neither an address nor a network such as 10.0.0.0/8"
        ) from None
