"""The end of every admitted request: its record goes to the journal, and what it used takes the place of its claim.

In this order, because a process may be killed between any two lines: a claim whose record is in the journal is settled
by whoever finds the process dead, and one without a record has the record that the claim holds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence

from inferxgate.catalog.pricing import NANOS_PER_DOLLAR
from inferxgate.gateway.ledger import Ledger
from inferxgate.store.records import UsageRecord
from inferxgate.workers.limits import BudgetAlert, Limits, RateState, Scope
from inferxgate.workers.metrics import Metrics
from inferxgate.workers.shared import SharedUnavailable

log = logging.getLogger(__name__)


class Settling:
    """Records and settles, for one worker."""

    def __init__(self, limits: Limits, ledger: Ledger, metrics: Metrics) -> None:
        self._limits = limits
        self._ledger = ledger
        self._metrics = metrics
        self._unsettled: deque[UsageRecord] = deque()

    def end(
        self,
        record: UsageRecord,
        scopes: Sequence[Scope] = (),
        *,
        waited_seconds: float | None = None,
        total_seconds: float | None = None,
    ) -> RateState | None:
        """Account for a request that has ended. Never raises: what cannot be settled now is settled later.

        ``waited_seconds`` of ``total_seconds`` were spent waiting for the provider; None where it was not asked. The
        state of the caller's window afterwards, where its ``scopes`` are given and it is known.
        """
        self._ledger.append(record)
        self._metrics.completed(record, waited_seconds, total_seconds=total_seconds)
        return self._settle(record, scopes)

    def count(self, record: UsageRecord) -> None:
        """Show a record in the metrics whose request another process had begun."""
        self._metrics.completed(record)

    def retry(self) -> None:
        """Settle what could not be settled; called now and then, from the ledger's thread."""
        self._limits.probe()
        for _ in range(len(self._unsettled)):
            self._settle(self._unsettled.popleft())

    def tell(self, alerts: Sequence[BudgetAlert]) -> None:
        """Say in the log and in the metrics which budgets are nearly spent."""
        for alert in alerts:
            self._metrics.budget_alert(alert.kind, alert.threshold)
            log.warning(
                "the %s %s has spent %.0f %% of its budget: %.6f of %.6f dollars (%s)",
                alert.kind,
                alert.id,
                100 * alert.spent_nanos / alert.budget_nanos,
                alert.spent_nanos / NANOS_PER_DOLLAR,
                alert.budget_nanos / NANOS_PER_DOLLAR,
                alert.period,
            )

    def _settle(self, record: UsageRecord, scopes: Sequence[Scope] = ()) -> RateState | None:
        try:
            settled = self._limits.settle(record, scopes)
        except SharedUnavailable as error:
            if not self._unsettled:
                log.error("what requests used is not settled yet, and their reservations stand: %s", error)
            self._unsettled.append(record)
            return None
        if settled is None:
            return None
        if settled.alerts:
            self.tell(settled.alerts)
        return settled.rate
