"""The table of routes: what there is, who may call it, and what runs. Every request goes through this table."""

from __future__ import annotations

from inferxgate.server import auth, health, metrics, models, schemas, stats
from inferxgate.server.chat import ChatEndpoint
from inferxgate.server.endpoints import Endpoint, Parts, Query, Who
from inferxgate.server.openapi import Description

CHAT_PATH = "/v1/chat/completions"

_CHAT_SCHEMA = {
    "type": "object",
    "description": "OpenAI's chat completion request; what is not listed here is passed on as it came.",
    "required": ["model", "messages"],
    "properties": {
        "model": {"type": "string", "description": "An alias, provider/model, or a bare model name."},
        "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "stream": {"type": ["boolean", "null"]},
        "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": "boolean"}}},
    },
    "additionalProperties": True,
}


def build_endpoints(parts: Parts) -> list[Endpoint]:
    """The routes of one server; the chat route comes first, since nearly every request is for it."""
    description = Description()
    endpoints = [
        Endpoint(
            "POST",
            CHAT_PATH,
            Who.ANY,
            "Create a chat completion, whole or streamed",
            app=ChatEndpoint(parts.runtime),
            schema=_CHAT_SCHEMA,
            errors=(403, 404, 429, 502, 504),
        ),
        Endpoint(
            "GET",
            "/v1/models",
            Who.ANY,
            "List the models that the caller may use",
            models.list_models,
            answer=schemas.ModelsAnswer,
        ),
        Endpoint(
            "GET",
            "/v1/models/{id:path}",
            Who.ANY,
            "Show one model",
            models.show_model,
            answer=schemas.ModelAnswer,
            errors=(404,),
        ),
        *_operations(parts, description),
        *_accounts(),
    ]
    description.describe(endpoints)
    return endpoints


def _operations(parts: Parts, description: Description) -> list[Endpoint]:
    public_metrics = parts.runtime.settings.server.public_metrics
    return [
        Endpoint(
            "GET", "/health", Who.EVERYONE, "Whether requests can be served", health.health, answer=schemas.HealthAnswer
        ),
        Endpoint(
            "GET", "/health/live", Who.EVERYONE, "Whether the process turns", health.live, answer=schemas.LiveAnswer
        ),
        Endpoint(
            "GET",
            "/metrics",
            Who.EVERYONE if public_metrics else Who.ADMIN,
            "Metrics for Prometheus",
            metrics.metrics,
            answer_type="text/plain",
        ),
        Endpoint(
            "GET",
            "/stats",
            Who.ANY,
            "The caller's own usage; for an admin, everyone's",
            stats.stats,
            answer=schemas.StatsAnswer,
            queries=(Query("since", "How far back: 30m, 24h, 7d, or an ISO 8601 date. 7d unless given."),),
        ),
        Endpoint("GET", "/openapi.json", Who.EVERYONE, "This interface", description.show),
    ]


def _accounts() -> list[Endpoint]:
    key_path = "/auth/keys/{id}"
    return [
        Endpoint(
            "POST",
            "/auth/register",
            Who.EVERYONE,
            "Register a user, while registration is open",
            auth.register,
            body=schemas.RegisterBody,
            answer=schemas.RegisterAnswer,
            status=201,
            errors=(403, 409, 429),
        ),
        Endpoint(
            "POST",
            "/auth/login",
            Who.EVERYONE,
            "Sign in and get a token",
            auth.login,
            body=schemas.LoginBody,
            answer=schemas.LoginAnswer,
            errors=(401, 429),
        ),
        Endpoint("GET", "/auth/me", Who.PERSON, "Show the signed-in user", auth.me, answer=schemas.UserAnswer),
        Endpoint(
            "GET",
            "/auth/keys",
            Who.ANY,
            "List the caller's keys",
            auth.list_keys,
            answer=schemas.KeysAnswer,
            queries=(Query("all", "Everyone's keys; only for an admin.", "boolean"),),
            errors=(403,),
        ),
        Endpoint(
            "POST",
            "/auth/keys",
            Who.PERSON,
            "Create a key",
            auth.create_key,
            body=schemas.NewKeyBody,
            answer=schemas.NewKeyAnswer,
            status=201,
            errors=(404,),
        ),
        Endpoint("GET", key_path, Who.PERSON, "Show a key", auth.show_key, answer=schemas.KeyAnswer, errors=(404,)),
        Endpoint(
            "PATCH",
            key_path,
            Who.PERSON,
            "Change the given fields of a key",
            auth.change_key,
            body=schemas.ChangeKeyBody,
            answer=schemas.KeyAnswer,
            errors=(404,),
        ),
        Endpoint(
            "DELETE", key_path, Who.PERSON, "Revoke a key", auth.revoke_key, answer=schemas.RevokedAnswer, errors=(404,)
        ),
    ]
