"""How often something may be tried before one has to wait."""

from __future__ import annotations

from typing import Protocol

from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """At most so many tries within a sliding window, by each who tries."""

    name: str
    most: int
    window_seconds: float


Subject = tuple[Rule, str]
"""A rule, and who tries: an address, a client."""


class TooManyAttempts(Exception):
    """Nothing was counted, and this is how long to wait."""

    def __init__(self, wait_seconds: float) -> None:
        super().__init__(wait_seconds)
        self.wait_seconds = wait_seconds


class Attempts(Protocol):
    """Counts tries that have not succeeded. Every method raises ``SharedUnavailable`` where nothing can be counted.

    A try counts from its beginning, so that as many at once as one likes are no more than the rule says, and is taken
    back when it succeeds.
    """

    def check(self, *subjects: Subject) -> None:
        """Raises ``TooManyAttempts`` where one of them has to wait."""

    def claim(self, *subjects: Subject) -> int:
        """Count a try for all of them; its moment, to withdraw it by. Raises ``TooManyAttempts``."""

    def withdraw(self, subject: Subject, moment: int) -> None:
        """Take one try back."""

    def forget(self, subject: Subject) -> None:
        """Take all of them back."""


class NoAttempts:
    """Counts nothing: for those at whom nobody's tries arrive."""

    def check(self, *subjects: Subject) -> None:
        pass

    def claim(self, *subjects: Subject) -> int:
        return 0

    def withdraw(self, subject: Subject, moment: int) -> None:
        pass

    def forget(self, subject: Subject) -> None:
        pass
