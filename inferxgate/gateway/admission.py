"""May this caller do this now? Allowed model, then rate; what is refused is counted and leaves no other trace."""

from __future__ import annotations

import math

from inferxgate import errors
from inferxgate.accounts.callers import Caller
from inferxgate.errors import GatewayError
from inferxgate.gateway.ledger import Ledger
from inferxgate.gateway.routing import Router, Target
from inferxgate.workers.limits import RateLimits
from inferxgate.workers.metrics import Metrics


class Admission:
    """Decides whether a request may go on to a provider."""

    def __init__(self, router: Router, limits: RateLimits, ledger: Ledger, metrics: Metrics) -> None:
        self._router = router
        self._limits = limits
        self._ledger = ledger
        self._metrics = metrics

    def admit(self, caller: Caller, model: str) -> Target:
        """The target of an admitted request, which now counts against its caller's limit.

        Raises ``GatewayError``: 404 ``model_not_found``, 403 ``model_not_allowed``, 429 ``rate_limit_exceeded``, 503
        ``store_unavailable`` where the request could not be recorded.
        """
        try:
            target = self._check(caller, model)
        except GatewayError as error:
            reason = error.kind.code
            self._metrics.refusals.labels(reason).inc()
            self._ledger.refused(caller.key_id, caller.user_id, reason)
            raise
        return target

    def _check(self, caller: Caller, model: str) -> Target:
        target = self._router.resolve(model)
        if not self._router.allowed(caller, model, target):
            raise GatewayError(
                errors.MODEL_NOT_ALLOWED, f"This credential may not use the model '{model}'.", param="model"
            )
        self._ledger.require_writable()
        admitted, state, wait_seconds = self._limits.admit(caller.subject, caller.requests_per_minute)
        if not admitted:
            self._metrics.limit_hit("user" if caller.key_id is None else "key", "requests")
            raise GatewayError(
                errors.RATE_LIMIT_EXCEEDED,
                f"The limit of {state.limit} requests a minute is reached; try again in {math.ceil(wait_seconds)} s.",
                retry_after_seconds=wait_seconds,
            )
        return target
