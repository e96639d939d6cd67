"""/metrics, for Prometheus."""

from __future__ import annotations

from inferxgate.server.endpoints import Call
from inferxgate.server.responses import Reply


async def metrics(call: Call) -> Reply:
    """All metrics of all workers as text."""
    source = call.parts.runtime.metrics
    body = await call.parts.threads.in_store_alone(source.render)
    return Reply(200, [(b"content-type", source.content_type.encode())], body)
