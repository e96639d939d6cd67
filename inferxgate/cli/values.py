"""What people type for a limit or a time, and how it is shown to them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from inferxgate.accounts.keys import LARGEST_LIMIT, LONGEST_MODEL, MOST_MODELS, validate_models
from inferxgate.accounts.users import effective_rpm
from inferxgate.cli.failures import WrongUsage
from inferxgate.errors import GatewayError
from inferxgate.store.records import ApiKey, User

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


def refuse_later(**given: object) -> None:
    """Refuse options that the interface names and this version does not enforce: an unenforced limit is a trap.

    Raises ``WrongUsage`` that names the first one given.
    """
    for name, value in given.items():
        if value is not None:
            raise WrongUsage(f"--{name.replace('_', '-')} is not available in this version")


def now_ms() -> int:
    """The time, UTC milliseconds."""
    return time.time_ns() // 1_000_000


def parse_rpm(text: str | None) -> int | None:
    """A number of requests a minute; None for ``default``."""
    if text is None or text == "default":
        return None
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > LARGEST_LIMIT:
        wanted = f"a whole number from 0 (unlimited) to {LARGEST_LIMIT:,}, or 'default'"
        raise WrongUsage(f"--rpm must be {wanted}, not '{text}'")
    return int(text)


def rpm_short(rpm: int | None, default: int) -> str:
    """The limit of requests a minute in force."""
    number = default if rpm is None else rpm
    return f"{number:,}" if number else "unlimited"


def rpm_words(rpm: int | None, default: int) -> str:
    """The same, and whether it is only the default."""
    return f"{rpm_short(rpm, default)}{' (default)' if rpm is None else ''}"


def above_ceiling(key: ApiKey, owner: User, default: int) -> bool:
    """Whether the key has a limit of its own that the ceiling of its owner cuts."""
    if key.rate_limit_rpm is None or owner.rate_limit_rpm is None:
        return False
    return effective_rpm(key, owner, default) != key.rate_limit_rpm


def limit_short(key: ApiKey, owner: User | None, default: int) -> str:
    """The requests a minute that a key has in force, and whether the ceiling of its owner makes them so few."""
    in_force = effective_rpm(key, owner, default)
    return f"{rpm_short(in_force, default)}{' (ceiling)' if _is_cut(key, in_force, default) else ''}"


def limit_words(key: ApiKey, owner: User | None, default: int) -> str:
    """The limit of a key, and the one in force where the ceiling of its owner cuts it."""
    in_force = effective_rpm(key, owner, default)
    cut = f" ({rpm_short(in_force, default)}: ceiling of the user)" if _is_cut(key, in_force, default) else ""
    return f"{rpm_words(key.rate_limit_rpm, default)}{cut}"


def _is_cut(key: ApiKey, in_force: int, default: int) -> bool:
    return in_force != (default if key.rate_limit_rpm is None else key.rate_limit_rpm)


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
