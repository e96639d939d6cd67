"""/v1/models: what a caller may use."""

from __future__ import annotations

from inferxgate.gateway.routing import ModelEntry
from inferxgate.server.endpoints import Call
from inferxgate.server.responses import Reply, json_reply

_CREATED_S = 0
"""OpenAI's clients insist on a number; when a provider made a model is not known."""


async def list_models(call: Call) -> Reply:
    entries = call.parts.runtime.gateway.models(call.known_caller)
    return json_reply({"object": "list", "data": [_model_object(entry) for entry in entries]})


async def show_model(call: Call) -> Reply:
    """One model, by any name that leads to one; 404 with near matches."""
    entry = call.parts.runtime.gateway.model(call.known_caller, call.path_value("id"))
    return json_reply(_model_object(entry))


def _model_object(entry: ModelEntry) -> dict[str, object]:
    return {"id": entry.id, "object": "model", "created": _CREATED_S, "owned_by": entry.owned_by}
