"""Google's Gemini API.

Sources: the ``google-genai`` Python package 3.4 (base URL, version, operations, the credential's header) and Google's
API reference, read in November 2026. The credential only ever travels in its header, never in the address. Streams are
asked for as server-sent events (``alt=sse``); without that they are one JSON list in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from inferxgate import errors
from inferxgate.errors import GatewayError
from inferxgate.providers.provider import Destination, Provider, Row

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_VERSION = re.compile(r"/v\d+[a-z0-9]*$")
_PAGE = 1000
"""Models on a page of the list; the most that it gives."""


def url(provider: Provider, destination: Destination) -> str:
    """The address of a chat request: the version is put in unless the base URL ends in one.

    ``models/`` before the model's name is taken, as Google's own lists write it. Raises ``GatewayError`` (400) for a
    name that cannot stand in an address.
    """
    model = destination.model.removeprefix("models/")
    if not _MODEL.fullmatch(model):
        raise GatewayError(
            errors.INVALID_VALUE,
            f"{provider.name} has no models of this name: letters, digits and . _ : @ - make one, at most 128.",
            param="model",
        )
    operation = "streamGenerateContent?alt=sse" if destination.stream else "generateContent"
    return f"{_base(provider)}/models/{quote(model, safe='')}:{operation}"


def list_url(provider: Provider, after: str | None) -> str:
    """The address of a page of the list of models."""
    more = f"&pageToken={quote(after, safe='')}" if after is not None else ""
    return f"{_base(provider)}/models?pageSize={_PAGE}{more}"


def _base(provider: Provider) -> str:
    return provider.base_url if _VERSION.search(provider.base_url) else f"{provider.base_url}/v1beta"


def authorize(api_key: str) -> Mapping[str, str]:
    """The credential as the Gemini API takes it."""
    return {"x-goog-api-key": api_key}


ROW = Row(
    type="gemini",
    owner="google",
    dialect="gemini",
    base_url="https://generativelanguage.googleapis.com",
    url=url,
    list_url=list_url,
    authorize=authorize,
    key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    url_variables=("GEMINI_BASE_URL",),
    price_id="google",
)
