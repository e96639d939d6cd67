"""What a provider says when it is asked which models it has: names, and where its next page begins.

Models that the list itself says are for something else than chat are left out. Most lists say nothing of the kind, so
a name in one is no promise.

Sources: the ``openai`` Python package 3.57, ``anthropic`` 2.14 (pages by ``last_id``), ``google-genai`` 3.6 (pages by
token, ``supportedGenerationMethods``); the client libraries of Together (a bare list, ``type``) and Mistral
(``capabilities.completion_chat``); a recorded list of Groq's (``active``, ``output_modalities``); OpenRouter's
reference (``architecture.output_modalities``). All read in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from inferxgate.dialects.failures import nonsense
from inferxgate.values import dataclass

MAX_NAME_CHARACTERS = 200
"""As long as a name in the configuration may be."""
_MAX_CURSOR_CHARACTERS = 1_000
_OTHER_TYPES = frozenset({"image", "embedding", "moderation", "rerank", "audio", "transcribe", "video"})
"""Together's types that are no language models."""
_FOLDER = "models/"
"""Before a model's name in Google's lists."""
_CHAT_METHOD = "generateContent"


@dataclass(frozen=True, slots=True)
class ModelPage:
    """One page of a provider's list."""

    names: tuple[str, ...]
    """As a request would name them, each once, in the provider's order."""
    after: str | None = None
    """What the next page is asked for with; None: there is none."""


def parse_openai(data: bytes) -> ModelPage:
    """The whole list of a host that speaks OpenAI's API: ``data``, or the list itself. Raises ``GatewayError``."""
    body = _loads(data)
    if isinstance(body, dict) and "data" in body:
        body = [] if body["data"] is None else body["data"]  # null: Ollama without a model
    return ModelPage(_names(body, "id", _is_for_chat))


def parse_anthropic(data: bytes) -> ModelPage:
    """One page of Anthropic's list. Raises ``GatewayError``."""
    body = _object(data)
    names = _names(body.get("data"), "id", lambda _: True)
    return ModelPage(names, _cursor(body.get("last_id")) if body.get("has_more") is True else None)


def parse_gemini(data: bytes) -> ModelPage:
    """One page of Google's list; a page without a model has no ``models`` at all. Raises ``GatewayError``."""
    body = _object(data)
    names = _names(body.get("models", []), "name", _generates)
    token = body.get("nextPageToken")
    plain = (name.removeprefix(_FOLDER) for name in names)
    return ModelPage(tuple(name for name in plain if name), _cursor(token) if token else None)


def is_name(value: object) -> bool:
    """Whether this is something that can be asked for as a model, and shown."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME_CHARACTERS
        and value.isprintable()
        and value == value.strip()
    )


def _names(entries: object, key: str, wanted: Callable[[Mapping[str, Any]], bool]) -> tuple[str, ...]:
    if not isinstance(entries, list):
        raise nonsense("it is no list of models")
    models = [entry for entry in entries if isinstance(entry, dict) and is_name(entry.get(key))]
    if entries and not models:
        raise nonsense("its list of models names none")
    return tuple(dict.fromkeys(entry[key] for entry in models if wanted(entry)))


def _is_for_chat(entry: Mapping[str, Any]) -> bool:
    """Whether an entry does not say that it is for something else, in any of the hosts' ways to say so."""
    architecture, capabilities = entry.get("architecture"), entry.get("capabilities")
    modalities = entry.get("output_modalities")
    if modalities is None and isinstance(architecture, dict):
        modalities = architecture.get("output_modalities")
    return not (
        entry.get("active") is False
        or any(entry.get("type") == each for each in _OTHER_TYPES)
        or (isinstance(modalities, list) and "text" not in modalities)
        or (isinstance(capabilities, dict) and capabilities.get("completion_chat") is False)
    )


def _generates(entry: Mapping[str, Any]) -> bool:
    methods = entry.get("supportedGenerationMethods")
    return isinstance(methods, list) and _CHAT_METHOD in methods


def _cursor(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_CURSOR_CHARACTERS:
        raise nonsense("its list of models goes on, and does not say where")
    return value


def _object(data: bytes) -> Mapping[str, Any]:
    body = _loads(data)
    if not isinstance(body, dict):
        raise nonsense("it is no list of models")
    return body


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:
        raise nonsense("it answered with something that is not JSON") from None
