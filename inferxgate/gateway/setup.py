"""What the configuration decides about requests, as one value, which is replaced as a whole when that changes.

A request takes the setup that is in force when it comes and keeps it to its end, so that a change never reaches into
what is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field

from inferxgate.catalog.catalog import Catalog
from inferxgate.gateway.routing import Router
from inferxgate.upstream.media import MediaFetcher, NoFetch
from inferxgate.upstream.protocol import Upstream
from inferxgate.values import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """What is claimed, tried and waited for."""

    reserve_output_tokens: int = 4096
    """What an answer may have where neither the request nor the model says."""
    allow_unpriced: bool = False
    """Whether a caller with a budget may use a model without a price."""
    strict: bool = False
    """Whether a tuning parameter that the target does not take is a 400 instead of dropped."""
    retries: int = 2
    """How often a request is tried again at targets that have failed it."""
    retry_within_seconds: float = 60.0
    """The age at which it no longer is."""
    max_wait_seconds: float = 30.0
    """How long a request waits in all for a target to be ready again."""
    queue_seconds: float = 10.0
    """How long it waits for a place below a bound on requests under way."""
    max_queued: int = 1000
    """How many may wait so in one worker."""


class Uses:
    """How many requests have a setup. For one loop."""

    __slots__ = ("_count", "_then")

    def __init__(self) -> None:
        self._count = 0
        self._then: Callable[[], None] | None = None

    def begin(self) -> None:
        self._count += 1

    def end(self) -> None:
        """Once for each beginning."""
        self._count -= 1
        if not self._count and self._then is not None:
            then, self._then = self._then, None
            then()

    def when_over(self, then: Callable[[], None]) -> None:
        """Another setup has taken its place: call ``then`` when no request has it, which may be now."""
        if self._count:
            self._then = then
        else:
            then()


@dataclass(frozen=True, slots=True)
class Setup:
    """Who serves which names, and how."""

    router: Router
    catalog: Catalog
    upstream: Mapping[str, Upstream]
    """The engine for each provider by its name."""
    media: MediaFetcher = field(default_factory=NoFetch)
    """Fetches what clients name by URLs; by default nothing."""
    policy: Policy = field(default_factory=Policy)
    uses: Uses = field(default_factory=Uses, compare=False)
