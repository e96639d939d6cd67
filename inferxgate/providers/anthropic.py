"""Anthropic.

Sources: the ``anthropic`` Python package 2.12 (base URL, ``ANTHROPIC_API_KEY``, ``ANTHROPIC_BASE_URL``, ``x-api-key``,
``anthropic-version``; bearer credential and ``oauth-2025-04-20`` for OAuth tokens), its 2.14 for the list of models,
and its page on extended thinking ("thinking encryption": signatures are taken on all of its platforms, so that they
cannot be bound to a credential).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from inferxgate.providers.provider import Destination, Provider, Row, bearer

_PAGE = 1000
"""Models on a page of the list; the most that it gives."""


def _url(provider: Provider, _: Destination) -> str:
    """The address; a base URL with ``/v1`` at its end, as OpenAI's SDK wants it, is understood too."""
    return provider.base_url.removesuffix("/v1") + "/v1/messages"


def _list_url(provider: Provider, after: str | None) -> str:
    more = f"&after_id={quote(after, safe='')}" if after is not None else ""
    return provider.base_url.removesuffix("/v1") + f"/v1/models?limit={_PAGE}{more}"


def _authorize(api_key: str) -> Mapping[str, str]:
    if api_key.startswith("sk-ant-oat"):  # an OAuth access token
        return {**bearer(api_key), "anthropic-beta": "oauth-2025-04-20"}
    return {"x-api-key": api_key}


ROW = Row(
    type="anthropic",
    owner="anthropic",
    dialect="anthropic_messages",
    base_url="https://api.anthropic.com",
    url=_url,
    list_url=_list_url,
    authorize=_authorize,
    headers={"anthropic-version": "2023-06-01"},
    key_variables=("ANTHROPIC_API_KEY",),
    url_variables=("ANTHROPIC_BASE_URL",),
    price_id="anthropic",
    state_of_any_credential=True,
)
