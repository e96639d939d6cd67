"""/stats: own figures, or for an admin everyone's."""

from __future__ import annotations

import time

from inferxgate import reports
from inferxgate.accounts.callers import Caller
from inferxgate.server.endpoints import Call
from inferxgate.server.responses import Reply, json_reply
from inferxgate.store.records import UsageFilter

_DEFAULT_SINCE = "7d"


async def stats(call: Call) -> Reply:
    now_ms = time.time_ns() // 1_000_000
    since_ms = reports.parse_since(call.query("since") or _DEFAULT_SINCE, now_ms)
    which = _own(call.known_caller, since_ms, now_ms + 1)
    runtime = call.parts.runtime
    report = await call.parts.threads.in_store(reports.stats, runtime.store, which)
    # Which providers, keys and failures there are is the operator's affair: others see what their own requests met.
    states = runtime.gateway.selection.health.states() if call.known_caller.is_admin else ()
    return json_reply({**report, "targets": reports.circuits(states)})


def _own(caller: Caller, since_ms: int, until_ms: int) -> UsageFilter:
    """What a caller may see: an admin all, a person and their keys the person's figures, nobody's key its own."""
    if caller.is_admin:
        return UsageFilter(since_ms, until_ms)
    if caller.user_id is not None:
        return UsageFilter(since_ms, until_ms, user_id=caller.user_id)
    return UsageFilter(since_ms, until_ms, key_id=caller.key_id)
