"""/openapi.json: the interface as the running server has it, written from the table that requests go through."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from inferxgate import __version__
from inferxgate.server.endpoints import Call, Endpoint, Who
from inferxgate.server.responses import JSON, Reply
from inferxgate.server.schemas import ErrorAnswer

_REFERENCE = "#/components/schemas/{model}"
_PATH_VALUE = re.compile(r"\{(\w+)(?::\w+)?\}")
_RATE_HEADERS = {
    "X-RateLimit-Limit": "Requests a minute.",
    "X-RateLimit-Remaining": "Requests left in the last 60 seconds' window.",
    "X-RateLimit-Reset": "Unix second at which Remaining next grows.",
}


class Description:
    """Serves the description of a table of endpoints."""

    def __init__(self) -> None:
        self._endpoints: Sequence[Endpoint] = ()
        self._content: bytes | None = None
        self._writing = asyncio.Lock()

    def describe(self, endpoints: Sequence[Endpoint]) -> None:
        """Say what there is, once the table is whole (it holds this very route)."""
        self._endpoints = endpoints

    async def show(self, _call: Call) -> Reply:
        """Written when somebody asks, and beside the loop: it takes as long as a third of all else at a start."""
        async with self._writing:
            if self._content is None:
                self._content = await asyncio.to_thread(_written, self._endpoints)
        return Reply(200, [JSON], self._content)


def _written(endpoints: Sequence[Endpoint]) -> bytes:
    return orjson.dumps(build_description(endpoints))


def build_description(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _PATH_VALUE.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "InferXgate",
            "version": __version__,
            "description": "One OpenAI-compatible interface in front of many providers of large language models.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(endpoints),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of /auth/login, or an API key (ix-api-key-...).",
                },
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.about,
        "operationId": _operation_id(endpoint),
        "tags": [_tag(endpoint.path)],
        "security": _security(endpoint.who),
        "responses": _responses(endpoint),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_VALUE.findall(endpoint.path)
    ]
    parameters += [
        {
            "name": query.name,
            "in": "query",
            "required": False,
            "description": query.about,
            "schema": {"type": query.kind},
        }
        for query in endpoint.queries
    ]
    if parameters:
        operation["parameters"] = parameters
    schema = _model_schema(endpoint.body) if endpoint.body is not None else dict(endpoint.schema)
    if schema:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": _model_schema(endpoint.answer) if endpoint.answer else {}}
    if endpoint.answer is None:
        content = {}
    answers: dict[str, Any] = {
        str(endpoint.status): {
            "description": HTTPStatus(endpoint.status).phrase,
            "headers": _headers(endpoint.who),
            "content": {endpoint.answer_type: content},
        }
    }
    if endpoint.app is not None:
        answers["200"]["content"] = {"application/json": {}, "text/event-stream": {}}
    for status in sorted(_error_statuses(endpoint)):
        answers[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": _model_schema(ErrorAnswer)}},
        }
    return answers


def _error_statuses(endpoint: Endpoint) -> set[int]:
    statuses = {500, 503, *endpoint.errors}
    if endpoint.who is not Who.EVERYONE:
        statuses.add(401)
    if endpoint.who in (Who.PERSON, Who.ADMIN):
        statuses.add(403)
    if endpoint.body is not None or endpoint.schema:
        statuses |= {400, 413}
    if endpoint.queries:
        statuses.add(400)
    return statuses


def _headers(who: Who) -> dict[str, Any]:
    texts = {"X-Request-Id": "The client's own where it sent a proper one, else ours."}
    if who is not Who.EVERYONE:
        texts |= _RATE_HEADERS
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()}


def _security(who: Who) -> list[dict[str, list[str]]]:
    match who:
        case Who.EVERYONE:
            return []
        case Who.PERSON:
            return [{"bearer": []}]
        case _:
            return [{"bearer": []}, {"key": []}]


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"[A-Za-z0-9]+", _PATH_VALUE.sub(r"by_\1", endpoint.path))
    return "_".join([endpoint.method.lower(), *words])


def _tag(path: str) -> str:
    first = path.strip("/").split("/")[0]
    return {"v1": "models", "auth": "accounts"}.get(first, "operations")


def _model_schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _schemas(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    models: dict[type[BaseModel], None] = {ErrorAnswer: None}
    for endpoint in endpoints:
        for model in (endpoint.body, endpoint.answer):
            if model is not None:
                models[model] = None
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas
