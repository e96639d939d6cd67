"""Azure OpenAI and the models of Azure AI Foundry, by any of the three addresses that Azure has for them.

- A resource (``https://NAME.openai.azure.com``, also ``.services.ai.azure.com`` and ``.cognitiveservices.azure.com``)
  with a dated ``api_version``: each deployment has a path of its own.
- The same with ``api_version = "v1"``, or a base URL that ends with ``/openai/v1`` as Azure's portal shows it: one
  path, and the deployment goes as ``model``.
- A base URL that ends with ``/models``: Foundry's inference API, one path too, with dated versions of its own.

The model that a client asks for is the *deployment*, whose name is the operator's choice: which model stands behind it,
and so what it costs, only the configuration knows (``providers.NAME.deployments``). They cannot be listed: what a
resource's key gets from ``/openai/models`` are the models that could be deployed, and deployments are told by Azure's
management API alone, to other credentials. So the row has no ``list_url``.

Sources: Azure's REST reference for chat completions (GA version 2024-10-21) and the v1 API's, and the Azure client of
the ``openai`` Python package 3.54 (paths, ``api-key`` header, environment names), read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from inferxgate.dialects.quirks import Quirks
from inferxgate.providers.provider import Destination, Provider, Row, path_segment

DEFAULT_VERSION = "2024-10-21"
"""The newest dated version that is generally available."""
DEFAULT_FOUNDRY_VERSION = "2024-05-01-preview"
"""The version of Foundry's inference API."""

_STREAM_OPTIONS_SINCE = "2024-09-01-preview"
_DOMAINS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_RESOURCE = re.compile(r"[a-z0-9-]{1,63}")
_FOUNDRY_PATH = "/models"


def chat_url(provider: Provider, destination: Destination) -> str:
    """Where a deployment answers chats. Raises ``GatewayError`` (400) for a name that cannot be one."""
    deployment = path_segment(destination.model)
    base, version = _settled(provider.base_url, provider.api_version or DEFAULT_VERSION)
    if base.endswith(_FOUNDRY_PATH):
        return f"{base}/chat/completions?api-version={version}"
    if version == "v1":
        return f"{base}/openai/v1/chat/completions"
    return f"{base}/openai/deployments/{deployment}/chat/completions?api-version={version}"


def _settled(base_url: str, version: str) -> tuple[str, str]:
    """The resource's address, and the version of the API that is spoken there."""
    if base_url.endswith(_FOUNDRY_PATH):
        # The row's default is a version of the other API, which this one does not have.
        return base_url, DEFAULT_FOUNDRY_VERSION if version in ("v1", DEFAULT_VERSION) else version
    if base_url.endswith("/openai/v1"):
        return base_url.removesuffix("/openai/v1"), "v1"
    return base_url.removesuffix("/openai"), version


def api_key(key: str) -> Mapping[str, str]:
    """The credential where it is a key; an Entra token goes as a bearer token (``auth = "bearer"``)."""
    return {"api-key": key}


def quirks(base_url: str, version: str) -> Quirks:
    """Versions before 2024-09-01-preview answer ``stream_options`` with 400 (unknown parameter).

    Versions compare as text: they are dates, and ``v1`` comes after all of them.
    """
    return Quirks(stream_usage=_settled(base_url, version)[1] >= _STREAM_OPTIONS_SINCE)


def check_base_url(url: str) -> None:
    """Raises ``ValueError`` for an Azure host that is not one resource's, and for the address of a single deployment.

    Hosts outside of Azure's domains may be a proxy before it and are taken as they are.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    domain = next((domain for domain in _DOMAINS if host.endswith(domain)), None)
    if domain is not None:
        if parts.scheme != "https":
            raise ValueError("must begin with https:// for a host of Azure")
        if not _RESOURCE.fullmatch(host.removesuffix(domain)):
            raise ValueError(f"must name one resource, as https://my-resource{domain} does")
    if "/deployments" in parts.path:
        raise ValueError("must be the resource's address alone: the deployment is what clients ask for as the model")


ROW = Row(
    type="azure",
    owner="azure",
    dialect="openai_chat",
    base_url=None,
    url=chat_url,
    authorize=api_key,
    key_variables=("AZURE_OPENAI_API_KEY",),
    url_variables=("AZURE_OPENAI_ENDPOINT",),
    version_variables=("AZURE_OPENAI_API_VERSION",),
    price_id="azure",
    api_version=DEFAULT_VERSION,
    versioned=quirks,
    check_base_url=check_base_url,
    own_names=True,
    hosts=tuple(domain.removeprefix(".") for domain in _DOMAINS),
)
