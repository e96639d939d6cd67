"""What people type for a limit or a time, and how it is shown to them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from inferxgate.accounts.keys import (
    LARGEST_LIMIT,
    LONGEST_MODEL,
    MOST_MODELS,
    budget_in_words,
    nanos_of,
    validate_models,
)
from inferxgate.accounts.users import budget_of, effective_limit, is_within
from inferxgate.cli.failures import WrongUsage
from inferxgate.cli.output import NANOS_PER_DOLLAR, dollars
from inferxgate.errors import GatewayError
from inferxgate.store.records import ApiKey, User
from inferxgate.values import dataclass

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
"""Seconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_000
"""The end of the year 9999, the last that ISO 8601 can write."""


@contextmanager
def usage() -> Iterator[None]:
    """What the rules for keys, users and reports refuse was typed here: it is wrong usage, of the option as typed."""
    try:
        yield
    except GatewayError as error:
        raise WrongUsage(error.message.replace(f"'{error.param}'", f"--{error.param}").rstrip(".")) from error


def now_ms() -> int:
    """The time, UTC milliseconds."""
    return time.time_ns() // 1_000_000


def parse_limit(text: str | None, option: str) -> int | None:
    """What ``--option`` limits; None for ``default``."""
    if text is None or text == "default":
        return None
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > LARGEST_LIMIT:
        wanted = f"a whole number from 0 (unlimited) to {LARGEST_LIMIT:,}, or 'default'"
        raise WrongUsage(f"--{option} must be {wanted}, not '{text}'")
    return int(text)


def parse_budget(text: str | None) -> int | None:
    """Nano-dollars from dollars; None for ``none``."""
    if text is None or text == "none":
        return None
    if not re.fullmatch(r"\d{1,20}(\.\d{1,20})?", text, re.ASCII):
        raise WrongUsage(f"--budget must be dollars, such as 10 or 10.50, or 'none', not '{text}'")
    try:
        return nanos_of(Decimal(text))
    except ValueError as error:
        hint = "; 'none' is no budget" if not Decimal(text) else ""
        raise WrongUsage(f"--budget {error}{hint}") from error


def limit_short(limit: int | None, default: int) -> str:
    """A limit in force."""
    number = default if limit is None else limit
    return f"{number:,}" if number else "unlimited"


def limit_words(limit: int | None, default: int) -> str:
    """The same, and whether it is only the default."""
    return f"{limit_short(limit, default)}{' (default)' if limit is None else ''}"


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """One limit of a key, beside what makes it another one in force."""

    own: int | None
    ceiling: int | None
    """Of the key's user; None where there is none."""
    default: int
    """The gateway's."""

    @property
    def in_force(self) -> int:
        return effective_limit(self.own, self.ceiling, self.default)

    @property
    def is_cut(self) -> bool:
        """Whether the ceiling makes it less than the key itself says."""
        return self.in_force != (self.default if self.own is None else self.own)

    def short(self) -> str:
        """What is in force, and whether the ceiling makes it so little."""
        return f"{limit_short(self.in_force, self.default)}{' (ceiling)' if self.is_cut else ''}"

    def words(self) -> str:
        """What the key itself says, and what is in force where the ceiling cuts it."""
        cut = f" ({limit_short(self.in_force, self.default)}: ceiling of the user)" if self.is_cut else ""
        return f"{limit_words(self.own, self.default)}{cut}"


def key_limit(key: ApiKey, owner: User | None, field: str, defaults: Mapping[str, int]) -> KeyLimit:
    """The limit of a key that ``field`` names."""
    return KeyLimit(getattr(key, field), getattr(owner, field, None), defaults[field])


def budget_words(holder: ApiKey | User) -> str:
    """``$10 a month``, of a key or a user."""
    nanos = holder.max_budget_nanos
    return "none" if nanos is None else budget_in_words(nanos, holder.budget_period)


def is_cut_budget(key: ApiKey, owner: User) -> bool:
    """Whether the key has a budget that it cannot reach, because that of its user ends before it."""
    own, shared = budget_of(key), budget_of(owner)
    return own is not None and shared is not None and shared.nanos < own.nanos and is_within(shared, own)


def spent_words(holder: ApiKey | User, spent_nanos: int) -> str:
    """``$3.20 of $10 a month``, or what was spent alone where there is no budget."""
    spent = dollars(spent_nanos / NANOS_PER_DOLLAR)
    return spent if holder.max_budget_nanos is None else f"{spent} of {budget_words(holder)}"


def parse_models(text: str | None) -> tuple[str, ...] | None:
    """Names with commas between them, each once; None for ``all``."""
    if text is None or text == "all":
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not 1 <= len(names) <= MOST_MODELS:
        raise WrongUsage(f"--models must name from 1 to {MOST_MODELS} models with commas between them, or be 'all'")
    try:
        return validate_models(names)
    except GatewayError as error:
        wanted = f"from 1 to {LONGEST_MODEL} printable characters"
        raise WrongUsage(f"--models must hold names of {wanted}") from error


def parse_expiry(text: str | None) -> int | None:
    """A span from now, a date or an ISO time (UTC unless it says so), in UTC milliseconds; None for ``never``."""
    if text is None or text == "never":
        return None
    moment = _moment_ms(text)
    if moment <= now_ms():
        raise WrongUsage(f"--expires {text} has passed already")
    if moment > _LATEST_MS:
        raise WrongUsage(f"--expires {text} is later than the year 9999; 'never' has no end")
    return moment


def _moment_ms(text: str) -> int:
    if span := re.fullmatch(r"(\d{1,6})([mhdwy])", text, re.ASCII):
        return now_ms() + int(span[1]) * _UNITS[span[2]] * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        wanted = "a span such as 30d or 12h, a date such as 2027-01-31, an ISO time, or 'never'"
        raise WrongUsage(f"--expires takes {wanted}, not '{text}'") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
