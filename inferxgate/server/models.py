"""/v1/models: what a caller may use."""

from __future__ import annotations

from inferxgate.server.endpoints import Call
from inferxgate.server.responses import Reply, json_reply

_CREATED_S = 0
"""OpenAI's clients insist on a number; when a provider made a model is not known."""


async def list_models(call: Call) -> Reply:
    models = call.parts.runtime.gateway.models(call.known_caller)
    data = [_model_object(name, target.provider.row.owner) for name, target in models]
    return json_reply({"object": "list", "data": data})


async def show_model(call: Call) -> Reply:
    """One model, by any name that leads to one; 404 with near matches."""
    entry = call.parts.runtime.gateway.model(call.known_caller, call.path_value("id"))
    return json_reply(_model_object(entry.id, entry.owned_by))


def _model_object(name: str, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED_S, "owned_by": owner}
