"""Values that are made for every request: immutable to the type checker, as cheap as plain objects to the program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots whose fields are read-only for mypy, which the whole project passes.

    ``dataclass(frozen=True)`` holds that at run time too and pays for it with a call for each field of each object:
    a request makes objects with some hundred fields, and that was a twentieth of its cost.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
