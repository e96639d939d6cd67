"""In which order the targets of one request are asked, and what their ends say about them.

The order is that of the alias's strategy; health does not change it, but says which of them are passed over for now
(see ``tries``). The keys of one provider stay together, the preferred one first: a provider caches prompts by key.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from inferxgate import errors
from inferxgate.canonical.usage import Usage
from inferxgate.errors import Fault, GatewayError
from inferxgate.gateway.admission import Admitted, Offer
from inferxgate.gateway.latency import Latencies
from inferxgate.gateway.routing import Target
from inferxgate.gateway.state import Rank
from inferxgate.workers.health import CircuitKey, Health

_COOL_SECONDS = 1.0
"""How long a target is left alone that limits our rate without saying how long."""
_LEFT_ALONE = frozenset({"open", "cooling", "set_aside"})
_REFUSED = frozenset({errors.UPSTREAM_AUTH_ERROR, errors.UPSTREAM_QUOTA_EXCEEDED})
_MAYBE_OF_THE_MODEL = (403, 200)
"""Statuses of a refusal that is not surely one of the credential as a whole. A caller chooses the model, and shall not
be able to have a credential set aside that serves everybody else; 200: the error stood in an answer."""

log = logging.getLogger(__name__)


def circuit_of(target: Target) -> CircuitKey:
    """What a target's own failures are counted by."""
    return target.circuits.own


def credential_of(target: Target) -> CircuitKey:
    """What a refusal of its credential is kept by, whatever the model."""
    return target.circuits.credential


def permission_of(target: Target) -> CircuitKey:
    """What a refusal is kept by that may be of this model alone."""
    return target.circuits.permission


class Selection:
    """One worker's view of its targets."""

    def __init__(self, health: Health, *, chance: Callable[[], float] = random.random) -> None:
        """``chance`` gives numbers from 0 to 1."""
        self.health = health
        self._latencies = Latencies()
        self._busy: dict[str, int] = {}
        self._chance = chance

    def order(self, admitted: Admitted, *, stream: bool, rank: Rank | None = None) -> list[Offer]:
        """The targets that may serve a request, once for each credential, in the order in which to ask them.

        ``rank`` comes before the strategy: what carries state stays with who made it.
        """
        offers: Sequence[Offer] = admitted.offers
        if len(offers) > 1:
            offers = self._sorted(admitted, stream=stream)
        ordered = [each for offer in offers for each in _with_each_key(offer)]
        return ordered if rank is None else sorted(ordered, key=lambda offer: rank(offer.target))

    def _sorted(self, admitted: Admitted, *, stream: bool) -> Sequence[Offer]:
        offers = admitted.offers
        match admitted.plan.strategy:
            case "ordered":
                return offers
            case "weighted":
                # The largest of random()^(1/weight) comes first as often as its weight says, and so on down the list.
                drawn = [(self._chance() ** (1 / offer.target.weight), offer) for offer in offers]
                return [offer for _, offer in sorted(drawn, key=lambda draw: -draw[0])]
            case "least_busy":
                return sorted(offers, key=lambda offer: self._busy.get(offer.target.name, 0))
            case "lowest_latency":
                return sorted(offers, key=lambda offer: self._latencies.estimate(offer.target.name, stream=stream))
            case "cheapest":
                return _cheapest_first(offers, admitted.size.likely_tokens)

    # --- whether a target may be asked

    def ready_in(self, offer: Offer) -> float:
        """For how many seconds a target is left alone yet; 0: it may be asked."""
        return self.health.wait_seconds(offer.target.circuits.own) if self.health.troubled else 0.0

    def is_aside(self, offer: Offer) -> bool:
        """Whether its credential is to be used only where nothing else is left."""
        if not self.health.troubled:
            return False
        _, credential, permission = offer.target.circuits
        return self.health.wait_seconds(credential) > 0 or self.health.wait_seconds(permission) > 0

    def unavailable(self) -> Counter[tuple[str, str]]:
        """How many targets and credentials are left alone now, by provider and state."""
        return Counter((each.key.provider, each.state) for each in self.health.states() if each.state in _LEFT_ALONE)

    def enter(self, offer: Offer) -> bool:
        """Begin to ask it. False: somebody else has just begun the one attempt that a target on probation may have."""
        if self.health.troubled:
            own, credential, permission = offer.target.circuits
            if self.health.enter(own) > 0:
                return False
            self.health.enter(credential)  # one that is set aside is asked all the same where it is the last
            self.health.enter(permission)
        name = offer.target.name
        self._busy[name] = self._busy.get(name, 0) + 1
        return True

    # --- how it ended; once for each time it was entered

    def left(self, offer: Offer) -> None:
        """It is no longer busy with this request."""
        name = offer.target.name
        left = self._busy[name] - 1
        if left:
            self._busy[name] = left
        else:
            del self._busy[name]

    def succeeded(self, offer: Offer, *, begun: float, seconds: float, stream: bool) -> None:
        """It answered, after ``seconds``. ``begun``: by the monotonic clock."""
        if self.health.troubled:
            for key in offer.target.circuits:
                self.health.succeeded(key, begun=begun)
        else:  # of the others nothing is counted, only closed
            self.health.succeeded(offer.target.circuits.own, begun=begun)
        self._latencies.observe(offer.target.name, seconds, stream=stream)

    def failed(self, offer: Offer, error: GatewayError, *, begun: float, answered: bool = False) -> None:
        """It failed, maybe after its answer had begun. What the caller caused says nothing about the target."""
        target = offer.target
        circuit, credential, permission = target.circuits
        code = error.kind.code
        if error.kind in _REFUSED:
            of_the_model = error.kind is errors.UPSTREAM_AUTH_ERROR and error.upstream_status in _MAYBE_OF_THE_MODEL
            self.health.abandoned(circuit, begun=begun)
            self.health.abandoned(credential if of_the_model else permission, begun=begun)
            self._set_aside(target, permission if of_the_model else credential, code)
            return
        self.health.abandoned(credential, begun=begun)
        self.health.abandoned(permission, begun=begun)
        if error.kind is errors.UPSTREAM_RATE_LIMITED:
            seconds = error.retry_after_seconds
            self.health.cool(circuit, code, _COOL_SECONDS if seconds is None else seconds)
        elif error.kind.fault is Fault.PROVIDER and error.kind is not errors.UPSTREAM_NOT_FOUND:
            self.health.failed(
                circuit, code, retry_after_seconds=error.retry_after_seconds, begun=begun, answered=answered
            )
        else:
            self.health.abandoned(circuit, begun=begun)

    def abandoned(self, offer: Offer, *, begun: float) -> None:
        """Nothing is known of its end: the client left."""
        if not self.health.troubled:
            return
        for key in offer.target.circuits:
            self.health.abandoned(key, begun=begun)

    def _set_aside(self, target: Target, key: CircuitKey, code: str) -> None:
        if self.health.wait_seconds(key) <= 0:
            others = [key._replace(credential=each.provider.credential) for each in target.with_each_key()]
            others.remove(key)
            left = sum(self.health.wait_seconds(other) <= 0 for other in others)
            if left:
                then = f"it is set aside, and {left} of {len(others) + 1} can be used"
            elif others:
                then = "it is set aside, and so are all others, which are tried all the same"
            else:
                then = "it is the only one, so that other targets of a name come before this provider's for now"
            log.error(
                "the provider %s refused the key %s%s (%s): %s",
                key.provider,
                key.credential or "(none)",
                f" for {key.model}" if key.model else "",
                code,
                then,
            )
        self.health.set_aside(key, code)


def _with_each_key(offer: Offer) -> Iterable[Offer]:
    if not offer.target.provider.other_keys:
        return (offer,)
    return (replace(offer, target=target) for target in offer.target.with_each_key())


def _cheapest_first(offers: Sequence[Offer], prompt_tokens: int) -> Sequence[Offer]:
    """By what the same answer costs; what has no known price comes last."""
    usage = Usage(input_tokens=prompt_tokens, output_tokens=min(offer.output_tokens for offer in offers))

    def cost(offer: Offer) -> float:
        return float("inf") if offer.price is None else offer.price.cost_nanos(usage)

    return sorted(offers, key=cost)
