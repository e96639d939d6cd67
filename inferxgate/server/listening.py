"""Sockets to listen on, and TLS: whatever is wrong with them stops the start with one line that says what to do."""

from __future__ import annotations

import errno
import socket
import ssl
from pathlib import Path

from inferxgate.errors import StartError
from inferxgate.server.addresses import is_loopback

BACKLOG = 2048


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that ``host`` stands for. Port 0: a free one, the same for all of them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError):
        raise StartError(f"server.host: {host!r} is neither an address nor a name that leads to one") from None
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        # A name such as localhost may stand for an IPv6 address on a machine that has no IPv6: one of them is enough.
        try:
            sockets.append(_listen(family, (str(address[0]), port or _port(sockets), *address[2:]), host))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                _close(sockets)
                raise _cannot_listen(host, port, error) from None
            failure = error
    if not sockets:
        raise _cannot_listen(host, port, failure or OSError(errno.EADDRNOTAVAIL, "no address"))
    return sockets


def _listen(family: int, address: tuple[object, ...], host: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" means every address of the machine, IPv4's too, as people expect of it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.settimeout(0)  # the event loop waits, not the socket
    except BaseException:  # whatever stopped it, the socket must not stay open; the caller says why
        sock.close()
        raise
    return sock


def url_of(host: str, sockets: list[socket.socket], *, tls: bool) -> str:
    """Where the server listens, for people and their clients."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{_port(sockets)}"


def all_loopback(sockets: list[socket.socket]) -> bool:
    """Whether nobody but this machine can reach any of the sockets."""
    return all(is_loopback(str(sock.getsockname()[0])) for sock in sockets)


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """The context for a certificate chain and its key; None where neither is set. Raises ``StartError``."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise StartError("server.tls_cert and server.tls_key belong together; set both or none")
    for name, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise StartError(f"server.{name}: cannot read {path}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # With a password given, OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "not a certificate chain and its unencrypted key, both PEM"
        raise StartError(f"server.tls_cert {cert} and server.tls_key {key} cannot be used: {reason}") from None
    return context


def _port(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _cannot_listen(host: str, port: int, error: OSError) -> StartError:
    match error.errno:
        case errno.EADDRINUSE:
            return StartError(f"port {port} on {host} is in use already; stop what uses it or choose another (--port)")
        case errno.EACCES | errno.EPERM:
            return StartError(f"no permission to listen on port {port}; choose one above 1023 (--port)")
        case errno.EADDRNOTAVAIL:
            return StartError(f"server.host: {host} is not an address of this machine")
        case _:
            return StartError(f"cannot listen on {host}, port {port}: {error.strerror}")
