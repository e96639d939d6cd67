"""How many requests are under way at once, by name, and how many may be.

A name is a provider's, or empty for all of the gateway. Every request under way has a slot of each of its names,
whether or not the name has a bound: the counts also tell which provider is the least busy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Slots(Protocol):
    """Counts requests under way, up to a bound for each name."""

    shared: bool
    """Whether other workers take from the same bounds."""

    def configure(self, bounds: Mapping[str, int]) -> None:
        """From now on at most so many at once; names that are missing here, or have 0, have no bound.

        Whoever has a slot keeps it, also where there are too many of them now.
        """

    def bound(self, name: str) -> int:
        """The most that there may be at once; 0: no bound."""

    def take(self, name: str) -> bool:
        """Take a slot, if there is one. Raises ``SharedUnavailable`` where a bound could not be held."""

    def give_back(self, name: str) -> None:
        """Give back what ``take`` took. Never raises ``SharedUnavailable``."""

    def in_use(self) -> dict[str, int]:
        """What this worker has taken, by name; of names with a bound and without. Cheap."""

    def tidy(self) -> None:
        """To be called about once a second. Never raises."""


class LocalSlots:
    """``Slots`` of a process that has no others beside it."""

    shared = False

    def __init__(self) -> None:
        self._bounds: dict[str, int] = {}
        self._taken: dict[str, int] = {}

    def configure(self, bounds: Mapping[str, int]) -> None:
        self._bounds = {name: most for name, most in bounds.items() if most > 0}

    def bound(self, name: str) -> int:
        return self._bounds.get(name, 0)

    def take(self, name: str) -> bool:
        taken, most = self._taken.get(name, 0), self._bounds.get(name)
        if most is not None and taken >= most:
            return False
        self._taken[name] = taken + 1
        return True

    def give_back(self, name: str) -> None:
        self._taken[name] -= 1

    def in_use(self) -> dict[str, int]:
        return {name: taken for name, taken in self._taken.items() if taken}

    def tidy(self) -> None:
        """Nothing is left over."""
