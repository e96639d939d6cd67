"""TLS for the tests' own servers: a certificate for 127.0.0.1, localhost and provider.test.

It is signed by an authority that nothing trusts and whose key does not exist any more. Both are valid until 2126, so
that no test fails for the date.
"""

from __future__ import annotations

import ssl
from pathlib import Path

_FOLDER = Path(__file__).parent / "tls"

AUTHORITY = _FOLDER / "authority.pem"
"""What a client has to trust."""
SERVER = _FOLDER / "server.pem"
"""Certificate and key."""


def server_context() -> ssl.SSLContext:
    """What a server offers."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(SERVER)
    return context
