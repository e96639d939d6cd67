"""When a budget's period begins: days, weeks from Monday and months, all in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_never

from inferxgate.store.records import BudgetPeriod

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def period_start_ms(period: BudgetPeriod, at_ms: int) -> int:
    """The UTC millisecond at which the period that ``at_ms`` lies in began; 0 for all time."""
    if period == "total":
        return 0
    midnight = (_EPOCH + timedelta(milliseconds=at_ms)).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            start = midnight
        case "week":
            start = midnight - timedelta(days=midnight.weekday())
        case "month":
            start = midnight.replace(day=1)
        case _:
            assert_never(period)
    return (start - _EPOCH) // timedelta(milliseconds=1)
