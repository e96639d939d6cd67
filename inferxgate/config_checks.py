"""What a setting's value has to look like. Each check returns the value or raises ``ValueError``, and repeats no value.

The message goes on from the setting's name: ``server.host must be ...``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from inferxgate.config_mistakes import near
from inferxgate.providers.registry import ALL_ROWS, ROWS

SECRET_BYTES = 32
_HOST_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")


class _Named(Protocol):
    @property
    def model(self) -> str: ...


_Target = TypeVar("_Target", bound=_Named)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = {"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"}
_NAME_LENGTH = 200
_URL = "must be an http or https URL with a host, such as https://api.example.com/v1"


def host(text: str) -> str:
    """An address or a host name to listen on."""
    if not _is_host(text):
        raise ValueError("must be an address or a host name alone, such as 127.0.0.1, ::1 or localhost")
    return text


def _is_host(text: str) -> bool:
    if ":" not in text:
        return _HOST_NAME.fullmatch(text) is not None
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def ascending(numbers: list[float]) -> list[float]:
    """The numbers in order, each once: in which order they are written says nothing."""
    return sorted(set(numbers))


def network(text: str) -> str:
    """An address, or a network of them."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.0.0.1 or 10.0.0.0/8") from None
    return text


def origin(text: str) -> str:
    """The origin of a web page, as browsers send it, or ``*``."""
    if text != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@,;]+", text):
        raise ValueError("must be an origin without a path, such as https://app.example.com, or *")
    return text


def jwt_secret(secret: SecretStr) -> SecretStr:
    try:
        size = len(secret.get_secret_value().encode())
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    if size < SECRET_BYTES:
        raise ValueError(f"must have {SECRET_BYTES} bytes or more; 'openssl rand -base64 48' makes one")
    return secret


def database_url(text: str) -> str:
    """A SQLite file; other databases come later."""
    scheme, separator, rest = text.partition(":///")
    if (
        separator
        and scheme == "sqlite"
        and rest
        and rest != ":memory:"
        and rest.isprintable()
        and not set(rest) & set("?#")
    ):
        return text
    if scheme.partition("+")[0].partition(":")[0] in ("postgres", "postgresql", "mysql", "mariadb"):
        raise ValueError("must be a SQLite file: other databases are not available in this version")
    raise ValueError("must name a SQLite file, such as sqlite:///inferxgate.db or sqlite:////var/lib/inferxgate.db")


def model_name(text: str) -> str:
    if not 1 <= len(text) <= _NAME_LENGTH or not text.isprintable() or text != text.strip():
        raise ValueError(f"must be a name of 1 to {_NAME_LENGTH} printable characters")
    return text


_NOT_OF_TARGETS = {"model", "messages", "stream", "stream_options", "n"}


def target(value: object) -> object:
    """A target that is written as its model alone."""
    return {"model": value} if isinstance(value, str) else value


def params(values: dict[str, object]) -> dict[str, object]:
    """Fields to be set in a request for one target."""
    for name in values:
        if name in _NOT_OF_TARGETS:
            raise ValueError(f"must not hold {name}, which is the request's own")
    return values


def unlike_targets(targets: list[_Target]) -> list[_Target]:
    """Each model once: a second try is not a matter of writing it twice."""
    names = [target.model for target in targets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"must not hold {twice} twice")
    return targets


def alias(name: str, targets: Sequence[str]) -> None:
    """The name of an alias, against its targets."""
    model_name(name)
    if name.count("*") > 1:
        raise ValueError("must have one * at most")
    if "*" not in name and any("*" in each for each in targets):
        raise ValueError("has a target with a *, which stands for what a * in the alias's own name stood for")
    if any(each.count("*") > 1 for each in targets):
        raise ValueError("must have one * at most in each target")


def api_keys(secrets: list[SecretStr]) -> list[SecretStr]:
    if len({secret.get_secret_value() for secret in secrets}) < len(secrets):
        raise ValueError("must not hold one credential twice")
    return secrets


def api_key(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]+", secret.get_secret_value()):
        raise ValueError("must not be empty, and must not hold spaces, line breaks or characters outside ASCII")
    return secret


def headers(values: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in values.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"must hold names of headers, which {name!r} is not")
        if name.lower() in _OURS:
            raise ValueError(f"must not hold {name}, which the gateway sets itself")
        if not _HEADER_VALUE.fullmatch(value.get_secret_value()):
            raise ValueError(f"must not hold line breaks or characters outside Latin-1, as {name} does")
    if len({name.lower() for name in values}) < len(values):
        raise ValueError("must not hold one header in two spellings")
    return values


def base_url(text: str) -> str:
    """Where a provider is; without the slash at the end."""
    parts = _url(text, _URL)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they belong in api_key or headers")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    return text.rstrip("/")


def api_version(text: str) -> str:
    """A version of an API that goes by dates."""
    if not re.fullmatch(r"v1|\d{4}-\d{2}-\d{2}(-preview)?", text):
        raise ValueError("must be a date such as 2024-10-21, with or without -preview after it, or v1")
    return text


def deployments(names: dict[str, str]) -> dict[str, str]:
    for name in (*names, *names.values()):
        model_name(name)
    return names


def proxy(text: str) -> str:
    message = "must be the URL of an HTTP proxy, such as http://proxy.internal:3128"
    parts = _url(text, message)
    if parts.path.strip("/") or "?" in text or "#" in text:
        raise ValueError(message)
    return text


def _url(text: str, message: str) -> SplitResult:
    if re.search(r"[\s\\\"<>^`{|}]", text) or not text.isprintable():
        raise ValueError("must be a URL without spaces, backslashes, quotes or braces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(message) from None
    if parts.scheme not in ("http", "https") or port == 0 or not _is_host(parts.hostname or ""):
        raise ValueError(message)
    return parts


def provider_name(text: str) -> str:
    """The name stands before the slash in names of models, and in metrics."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError("must be named by letters, digits, dots, dashes and underscores")
    return text


def provider_type(kind: str) -> str:
    """A type of provider that a section may have."""
    if kind in ALL_ROWS and kind not in ROWS:
        raise ValueError(f"cannot be configured: {kind} is built in and takes no settings")
    if kind not in ROWS:
        raise ValueError(
            f"is of no type that this version has{near(kind, {each: each for each in ROWS})}"
            f' (there are {", ".join(ROWS)}; "{next(iter(ROWS))}" reaches, by its base_url, any host that speaks'
            " OpenAI's API)"
        )
    return kind


def file(path: Path) -> Path:
    """A file that is there. One in a folder that this user may not enter counts: only ``serve`` needs to read it."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return path
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "no path"
        raise ValueError(f"must name a file: {path} is {reason}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"must name a file: {path} is a directory")
    return path
