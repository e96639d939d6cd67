"""Which target one request is sent to next, and when: order, retries, waits and their bounds. Pure: no clock, no wait.

The rule. Of the targets that were not tried yet the first that may be asked now is asked at once. Where there is none,
what becomes ready first is waited for: a target that is left alone for now (see ``workers.health``), or one that has
failed this request and may be tried again, after a pause that grows and never ends before the provider's own
``Retry-After``. A request waits ``max_wait_seconds`` in all, tries again ``retries`` times and not when it is older
than ``retry_within_seconds``; targets not tried yet are no retries and have no such bound.

Each credential of a provider is a target of its own here, but another one is asked in the place of the first only where
the failure was the credential's: a host that is down is down for all of them, and a prompt that is too long for a model
is so with each. Who waited in vain for a place at a provider does not wait there again.

Credentials that were set aside come when nothing else is left, so that the last one is always tried. What is left alone
for now is never asked, whoever's credential it has: so a request either asks, or lets time pass, or ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferxgate import errors
from inferxgate.errors import Fault, GatewayError
from inferxgate.gateway.admission import Offer
from inferxgate.gateway.routing import FallbackOn
from inferxgate.gateway.setup import Policy
from inferxgate.values import dataclass

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0
_SPREAD_SECONDS = 0.25
_RATE_PAUSE_SECONDS = 1.0
"""After a 429 that does not say how long to wait."""
OF_THE_CREDENTIAL = frozenset(
    {errors.UPSTREAM_RATE_LIMITED, errors.UPSTREAM_QUOTA_EXCEEDED, errors.UPSTREAM_AUTH_ERROR}
)
"""What another credential of the same provider may mend."""
_NOT_HERE = frozenset({errors.UPSTREAM_QUOTA_EXCEEDED, errors.UPSTREAM_AUTH_ERROR, errors.UPSTREAM_NOT_FOUND})
"""What no second try at the same target mends."""


def fallback_reason(error: GatewayError) -> FallbackOn | None:
    """What an alias has to name in ``fallback_on`` for this error to go on to the next target; None: nothing."""
    if error.upstream_status is None or error.kind.fault is not Fault.CALLER:
        return None
    if error.code == "context_length_exceeded" or error.kind is errors.REQUEST_TOO_LARGE:
        return "context_length"
    return "content_filter" if error.code == "content_filter" else None


def goes_on(error: GatewayError, fallback_on: frozenset[FallbackOn]) -> bool:
    """Whether another target may succeed where one has failed so.

    Every failure but one: what a provider says of the caller's own doing, which any other would say too. Of that only a
    model that this one does not have goes on, and what the alias names.
    """
    if error.upstream_status is None or error.kind.fault is Fault.PROVIDER or _is_unknown_model(error):
        return True
    return fallback_reason(error) in fallback_on


def _is_unknown_model(error: GatewayError) -> bool:
    """Whether this provider does not have the model, which OpenAI tells with 400 as well as with 404."""
    return error.kind is errors.MODEL_NOT_FOUND or error.code == errors.MODEL_NOT_FOUND.code


def _is_redirect(error: GatewayError) -> bool:
    """Whether the provider is somewhere else than its base URL says, which only its operator can mend."""
    return error.upstream_status is not None and 300 <= error.upstream_status < 400


@dataclass(frozen=True, slots=True)
class Go:
    """Send it to this target now."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again after this time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing is left to be done within the bounds."""

    ready_seconds: float | None
    """When the first target may be asked again; None: never, as far as this request goes."""


@dataclass(slots=True, eq=False)
class _Candidate:
    offer: Offer
    tried: bool = False
    again: bool = False
    """Whether it was chosen last as a retry."""
    busy: bool = False
    failed: int = 0
    ready_at: float = 0.0
    out: bool = False


class Tries:
    """One request's way through its targets. Times are in seconds of any one clock."""

    def __init__(
        self,
        offers: Sequence[Offer],
        policy: Policy,
        *,
        began: float,
        ready_in: Callable[[Offer], float],
        is_aside: Callable[[Offer], bool],
        random: Callable[[], float],
    ) -> None:
        """``offers``: in the order in which they are to be asked, one for each credential.

        ``ready_in``: how long a target is left alone yet, 0.0 where it may be asked; ``is_aside``: whether its
        credential is to be used last; ``random``: from 0 to 1.
        """
        self._candidates = [_Candidate(offer) for offer in offers]
        self._policy = policy
        self._began = began
        self._ready_in = ready_in
        self._is_aside = is_aside
        self._random = random
        self._retries = 0
        self._waited = 0.0
        self.count = 0
        """How often a target was asked."""

    def next(self, now: float) -> Go | Wait | GiveUp:
        """What to do now."""
        ready = self._ready_with_room() or self._ready()
        if ready is not None:
            return self._go(ready)
        usual, aside = self._live()
        last = [each for each in aside if not each.tried]
        for possible in ([each for each in usual if self._may_still(each, now)], last):
            step = self._first_of(possible, now)
            if step is not None:
                return step
        return GiveUp(min((self._wait(each, now) for each in (*usual, *last)), default=None))

    def failed(self, offer: Offer, error: GatewayError, now: float) -> None:
        """Take note that a target has failed in a way that another try or target may mend (see ``goes_on``)."""
        here = self._of(offer)
        if here.out:
            return
        here.failed += 1
        of_the_credential = error.kind in OF_THE_CREDENTIAL or _is_unknown_model(error)
        all_here = [here] if of_the_credential else self._with_name(offer.target.name)
        if error.kind in _NOT_HERE or error.kind.fault is not Fault.PROVIDER or _is_redirect(error):
            for each in all_here:
                each.out = True
            return
        here.ready_at = now + self._pause(here, error)
        for each in all_here:
            each.tried, each.ready_at = True, max(each.ready_at, here.ready_at)

    def _pause(self, candidate: _Candidate, error: GatewayError) -> float:
        said = error.retry_after_seconds
        least = _FIRST_PAUSE_SECONDS
        if said is None and error.kind is errors.UPSTREAM_RATE_LIMITED:
            least = _RATE_PAUSE_SECONDS
        own = min(least * 2.0 ** (candidate.failed - 1), _LONGEST_PAUSE_SECONDS) * (0.5 + self._random() / 2)
        return own if said is None else max(own, said)

    def not_asked(self, offer: Offer) -> None:
        """It could not be asked after all: somebody else has just taken the one attempt that it may have."""
        here = self._of(offer)
        self.count -= 1
        if here.again:
            self._retries -= 1
        else:
            here.tried = False

    def no_room(self, provider: str) -> None:
        """Its turn at a provider did not come: it is over there, for it has waited already. Empty: everywhere."""
        self.count -= 1
        for each in self._candidates:
            if provider in ("", each.offer.target.provider.name):
                each.out = True

    def has_other(self, than: str = "") -> bool:
        """Whether there is a target, by another name, that was not tried yet and may be asked now."""
        return self._ready_with_room(than) is not None

    def postpone(self, offer: Offer) -> bool:
        """It has as much to do as it may have: whether another one is to be asked first, which has not."""
        if not self.has_other(offer.target.name):
            return False
        self.not_asked(offer)
        for each in self._candidates:
            if each.offer.target.provider.name == offer.target.provider.name:
                each.busy = True
        return True

    def _ready_with_room(self, than: str = "") -> _Candidate | None:
        """The first that was not tried yet and may be asked now, by another name, and is not known to be full."""
        for each in self._candidates:
            if not (each.tried or each.out or each.busy or each.offer.target.name == than) and self._is_ready(each):
                return each
        return None

    def _ready(self) -> _Candidate | None:
        """The first that was not tried yet and may be asked now."""
        return next((each for each in self._candidates if not (each.tried or each.out) and self._is_ready(each)), None)

    def _is_ready(self, candidate: _Candidate) -> bool:
        return self._ready_in(candidate.offer) <= 0 and not self._is_aside(candidate.offer)

    def _live(self) -> tuple[list[_Candidate], list[_Candidate]]:
        """What can still be asked, with credentials to be used and with those that were set aside."""
        usual: list[_Candidate] = []
        aside: list[_Candidate] = []
        for each in self._candidates:
            if not each.out:
                (aside if self._is_aside(each.offer) else usual).append(each)
        return usual, aside

    def _first_of(self, candidates: Sequence[_Candidate], now: float) -> Go | Wait | None:
        """Ask what is ready first, or wait for it; None where that takes too long."""
        if not candidates:
            return None
        seconds, first = min(((self._wait(each, now), each) for each in candidates), key=lambda wait: wait[0])
        if seconds <= 0:
            return self._go(first)
        if self._waited + seconds > self._policy.max_wait_seconds:
            return None
        self._waited += seconds
        # Not all who wait for the same moment come back at once, and nobody comes early.
        return Wait(seconds + self._random() * min(seconds / 20, _SPREAD_SECONDS))

    def _with_name(self, name: str) -> list[_Candidate]:
        return [each for each in self._candidates if each.offer.target.name == name]

    def _of(self, offer: Offer) -> _Candidate:
        return next(each for each in self._candidates if each.offer is offer)

    def _go(self, candidate: _Candidate) -> Go:
        candidate.again = candidate.tried
        self._retries += candidate.again
        candidate.tried = True
        self.count += 1
        return Go(candidate.offer)

    def _wait(self, candidate: _Candidate, now: float) -> float:
        return max(candidate.ready_at - now, self._ready_in(candidate.offer))

    def _may_still(self, candidate: _Candidate, now: float) -> bool:
        if not candidate.tried:
            return True
        young = now - self._began <= self._policy.retry_within_seconds
        return young and self._retries < self._policy.retries
