"""Fields of a client's JSON, read by their types. What is wrong is a 400 that names the place, in dotted form.

Each reader takes a value and where it stands, and raises ``GatewayError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from inferxgate import errors
from inferxgate.errors import GatewayError

Json = Mapping[str, Any]
_T = TypeVar("_T")


def needed(carrier: Json, name: str, where: str) -> object:
    """A field that has to be there; ``where`` is its carrier's place, as for ``optional``."""
    value = carrier.get(name)
    if value is None:
        raise GatewayError(errors.MISSING_FIELD, f"'{where}' has no '{name}'.", param=f"{where}.{name}")
    return value


def optional(carrier: Json, name: str, read: Callable[[object, str], _T], where: str = "") -> _T | None:
    """What ``read`` makes of a field; None where it is missing or null."""
    value = carrier.get(name)
    return None if value is None else read(value, f"{where}.{name}".lstrip("."))


def wrong(where: str, wanted: str) -> GatewayError:
    """The error for a value of another type or size than ``wanted``."""
    return GatewayError(errors.INVALID_VALUE, f"'{where}' must be {wanted}.", param=where)


def string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise wrong(where, "a string")
    return value


def boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(where, "true or false")
    return value


def number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, "a number")
    return value


def integer(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(where, "a whole number")
    return value


def whole(value: object, where: str) -> int:
    if integer(value, where) < 1:
        raise wrong(where, "at least 1")
    return integer(value, where)


def items(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(where, "a list")
    return value


def members(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(where, "an object")
    return value
