"""Models as a published price list has them: by which names they go, what they cost and from when on.

The meaning is that of the ``genai-prices`` package, whose tables these are; its tests and ours hold the two together.
What it can do beyond that (reading usage, prices for batches) has no place here, and neither has what it costs to load.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from typing import Any

from inferxgate.values import dataclass

Rule = Mapping[str, Any]
"""One kind of comparison and what it compares with; ``or`` and ``and`` have a list of rules."""

LEAST = ("input_mtok", "output_mtok")
"""Without these two nothing can be said of a request's cost."""

_COMPACT_DAY = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of a unit where the prompt has more tokens than ``start``."""

    start: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Tiered:
    """A price that depends on the size of the prompt."""

    base: Decimal
    tiers: Sequence[Tier]
    """By growing ``start``."""


@dataclass(frozen=True, slots=True)
class FromDay:
    """From that day on, in UTC."""

    day: date

    def holds(self, at: datetime) -> bool:
        return at.astimezone(UTC).date() >= self.day


@dataclass(frozen=True, slots=True)
class DailyBetween:
    """Every day between two times, in UTC; over midnight where the end lies before the start."""

    start: time
    end: time

    def holds(self, at: datetime) -> bool:
        now, start, end = at.astimezone(UTC).timetz(), self.start, self.end
        return start <= now < end if start <= end else now >= start or now < end


@dataclass(frozen=True, slots=True)
class ListedPrices:
    """What a model costs while a condition holds."""

    dollars: Mapping[str, Decimal | Tiered]
    """By the list's own names for what is counted, such as ``input_mtok``: dollars for a million input tokens."""
    when: FromDay | DailyBetween | None = None
    """None: always."""


class ListedModel:
    """One model. Its prices are made when they are asked for: most models are only passed by on the way to another."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        """``raw``: as it is published, and checked."""
        self.id: str = raw["id"]
        self.context_window: int | None = raw.get("context_window")
        """Tokens."""
        self.deprecated = bool(raw.get("deprecated"))
        self._match: Rule = raw["match"]
        self._prices = raw["prices"]

    @cached_property
    def prices(self) -> Sequence[ListedPrices]:
        """Of those that hold the last one counts; where none does, the first."""
        if isinstance(self._prices, dict):
            return [ListedPrices(_dollars(self._prices))]
        return [
            ListedPrices(_dollars(each["prices"]), parse_condition(each.get("constraint"))) for each in self._prices
        ]

    def goes_by(self, name: str) -> bool:
        """Whether ``name``, in small letters, is one of its names."""
        return _fits(self._match, name)

    def prices_at(self, at: datetime) -> ListedPrices:
        """What holds at a time, which has to know its zone."""
        return next(
            (each for each in reversed(self.prices) if each.when is None or each.when.holds(at)), self.prices[0]
        )


class ListedProvider:
    """One provider with its models, which are read when they are asked for: of most providers nobody ever asks."""

    def __init__(
        self, provider_id: str, others: Sequence[str], read: Callable[[], Sequence[Mapping[str, Any]]]
    ) -> None:
        """``others``: the ids of the providers whose models it has as well, at their prices.

        ``read``: gives the models as they are published, and checked.
        """
        self.id = provider_id
        self.others = others
        self._read = read

    @cached_property
    def models(self) -> Sequence[ListedModel]:
        return [ListedModel(raw) for raw in self._read()]


def find_model(providers: Mapping[str, ListedProvider], provider_id: str, name: str) -> ListedModel | None:
    """The model that goes by ``name`` at a provider: one of its own, or of those whose models it has as well."""
    provider = providers.get(provider_id)
    if provider is None:
        return None
    plain = name.lower()
    dashed = _COMPACT_DAY.sub(_dashed, plain)  # some hosts write 20251211 where a model's name has 2025-12-11
    for spelling in (plain,) if dashed == plain else (plain, dashed):
        for each in (provider, *(providers[other] for other in provider.others if other in providers)):
            for model in each.models:
                if model.goes_by(spelling):
                    return model
    return None


def _dashed(found: re.Match[str]) -> str:
    year, month, day = map(int, found.groups())
    try:
        return f"-{date(year, month, day).isoformat()}"
    except ValueError:
        return found[0]


def _fits(rule: Rule, name: str) -> bool:
    [(kind, value)] = rule.items()
    match kind:
        case "equals":
            return bool(name == value.lower())
        case "starts_with":
            return name.startswith(value.lower())
        case "ends_with":
            return name.endswith(value.lower())
        case "contains":
            return value.lower() in name
        case "regex":
            return re.search(value, name) is not None
        case "or":
            return any(_fits(each, name) for each in value)
        case _:
            return all(_fits(each, name) for each in value)


def _dollars(raw: Mapping[str, Any]) -> dict[str, Decimal | Tiered]:
    return {name: _price(value) for name, value in raw.items() if value is not None}


def _price(raw: Any) -> Decimal | Tiered:
    if not isinstance(raw, dict):
        return Decimal(str(raw))
    tiers = [Tier(each["start"], Decimal(str(each["price"]))) for each in raw["tiers"]]
    return Tiered(Decimal(str(raw["base"])), sorted(tiers, key=lambda tier: tier.start))


def parse_condition(raw: Any) -> FromDay | DailyBetween | None:
    """When a price holds, as it is published. Raises ``ValueError`` for what is no such condition."""
    if raw is None:
        return None
    try:
        match raw:
            case {"start_date": str(day)}:
                return FromDay(date.fromisoformat(day))
            case {"start_time": str(start), "end_time": str(end)}:
                return DailyBetween(_in_utc(start), _in_utc(end))
    except ValueError:
        raise ValueError("it has a day or a time that is none") from None
    raise ValueError("it has neither a start_date nor a start_time with an end_time")


def _in_utc(text: str) -> time:
    said = time.fromisoformat(text)
    if said.tzinfo is None:
        return said.replace(tzinfo=UTC)
    return datetime.combine(date(1970, 1, 1), said).astimezone(UTC).timetz()
