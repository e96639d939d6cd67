"""/health and /health/live: whether the gateway can do its work, from what it knows already.

Neither asks a provider or the store, so that a slow one does not make the gateway look dead. With several workers, each
speaks of its own parts, and of whether all of them serve.
"""

from __future__ import annotations

import time
from typing import Any

from inferxgate import __version__
from inferxgate.errors import DRAINING, STORE_UNAVAILABLE, GatewayError
from inferxgate.server.endpoints import Call
from inferxgate.server.responses import Reply, error_body, iso_time, json_reply

_RETRY_AFTER_SECONDS = 5


async def health(call: Call) -> Reply:
    """200 where requests can be served and accounted for, else 503; what is not as it should be is the ``reason``."""
    parts = call.parts
    ledger = parts.runtime.ledger
    content: dict[str, Any] = {
        "status": "healthy",
        "timestamp": iso_time(time.time_ns() // 1_000_000),
        "version": __version__,
    }
    wrong = None
    if parts.draining.started:
        wrong = GatewayError(DRAINING, "The gateway is shutting down.")
    elif ledger.journal_error is not None:
        wrong = GatewayError(STORE_UNAVAILABLE, f"Requests cannot be recorded: {ledger.journal_error}.")
    elif parts.runtime.limits.failure is not None:
        wrong = GatewayError(STORE_UNAVAILABLE, f"Requests cannot be counted: {parts.runtime.limits.failure}.")
    if wrong is not None:
        content |= {"status": "unhealthy", "reason": wrong.message, "error": error_body(wrong)}
        reply = json_reply(content, status=503)
        return Reply(503, [*reply.headers, (b"retry-after", b"%d" % _RETRY_AFTER_SECONDS)], reply.body)
    reason = parts.identity.store_failure or ledger.store_error
    if reason is not None:
        # The store's message names its file, which is nobody's business out here; the cause comes last.
        content |= {"status": "degraded", "reason": f"The store is unavailable: {reason.rpartition(': ')[2]}."}
    elif ledger.disk_full:
        content |= {"status": "degraded", "reason": "The disk is full: requests go on while what was set aside lasts."}
    elif missing := parts.missing_workers():
        content |= {"status": "degraded", "reason": f"Workers that do not serve at this moment: {missing}."}
    elif parts.mistaken():
        content |= {
            "status": "degraded",
            "reason": "The configuration cannot be read again: the one before is in force, and the log says why.",
        }
    return json_reply(content)


async def live(_call: Call) -> Reply:
    """200 while the process turns."""
    return json_reply({"status": "alive"})
