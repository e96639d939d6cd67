"""A short, fair queue before the slots of each name, within one worker.

Callers take turns, each with its own requests in their order, so that one with a thousand of them delays another by one
slot a turn. Where the queue is full, who has the most in it makes room for who has less. A slot that comes back is
handed to the next in the queue by whoever gives it back. Other workers free slots of the same bound without saying so,
which is why the head of a queue also looks for itself from time to time; a few of a worker's own slots are left to be
found so, as else a worker with many of them would keep them for its own queue.

Who needs slots of several names enters them in one order, a provider before all of the gateway: what waits for a full
provider then keeps none of the slots that others could use.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable

from inferxgate.errors import NO_TARGET_AVAILABLE, STORE_UNAVAILABLE, GatewayError
from inferxgate.workers.shared import SharedUnavailable
from inferxgate.workers.slots import Slots

POLL_SECONDS = 0.025
"""How often the head of a queue looks for a slot that another worker has freed: half as often to twice."""
_LEFT_TO_BE_FOUND = 4
"""One in so many slots that come back is not handed on, so that other workers' queues have their chance."""
_MEASURED_ENDS = 32
"""So many of the last slots given back tell how fast they become free."""
_LEAST_RETRY_SECONDS = 1.0
_MOST_RETRY_SECONDS = 60.0
_UNKNOWN_RETRY_SECONDS = 5.0
"""Where nothing has ended yet: about what a short answer takes."""

log = logging.getLogger(__name__)

_Turn = asyncio.Future[GatewayError | None]
"""What somebody waits for: None when they have their slot, else why they get none."""


class FairQueue:
    """Hands out slots to requests of one worker, in turns."""

    def __init__(
        self,
        slots: Slots,
        *,
        most_waiting: int,
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``most_waiting``: so many may wait for each name; 0: nobody does."""
        self.most_waiting = most_waiting
        self._slots = slots
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._lines: dict[str, _Line] = {}

    def enter_now(self, name: str) -> bool:
        """Take a slot if there is one and nobody waits for it. Raises ``GatewayError`` (503 ``store_unavailable``)."""
        line = self._lines.get(name)
        if line is not None and line.waiting:
            return False
        try:
            return self._slots.take(name)
        except SharedUnavailable as error:
            log.error("no request can be counted: %s", error)
            raise GatewayError(
                STORE_UNAVAILABLE,
                "Requests cannot be counted now, so none is accepted; the operator sees the reason in the log.",
                retry_after_seconds=_UNKNOWN_RETRY_SECONDS,
            ) from error

    async def enter(self, name: str, tenant: str, *, seconds: float) -> None:
        """Take a slot, waiting for it up to ``seconds`` in turn with other tenants; to be given back by ``leave``.

        Raises ``GatewayError``: 503 ``no_target_available`` where the time is over or too many wait already, 503
        ``store_unavailable`` where a bound could not be held. Cancelled while it waits, it has taken nothing.
        """
        if self.enter_now(name):
            return
        line = self._line(name)
        if seconds <= 0 or self.most_waiting <= 0:
            raise self._refusal(name, "requests do not wait for their turn")
        if not self._has_room(name, tenant):
            raise self._refusal(name, f"as many wait for their turn as may ({self.most_waiting})")
        loop = asyncio.get_running_loop()
        turn: _Turn = loop.create_future()
        line.add(tenant, turn)
        self._keep_looking(name, line)
        timer = loop.call_later(seconds, self._time_is_over, name, tenant, turn, seconds)
        try:
            refusal = await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.result() is None:  # its turn had come, unnoticed
                self._slots.give_back(name)
                self._pass_on(name)
            else:
                line.remove(tenant, turn)
            raise
        finally:
            timer.cancel()
        if refusal is not None:
            raise refusal

    def leave(self, name: str) -> None:
        """Give back a slot, to the next in the queue."""
        self._slots.give_back(name)
        if not self._slots.bound(name):
            return
        line = self._line(name)
        line.ends.append(self._clock())
        line.ended += 1
        if not self._slots.shared or line.ended % _LEFT_TO_BE_FOUND:
            self._pass_on(name)

    def waiting(self) -> dict[str, int]:
        """How many wait, by name."""
        return {name: line.waiting for name, line in self._lines.items() if line.waiting}

    # --- within

    def _line(self, name: str) -> _Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
        return line

    def _pass_on(self, name: str) -> None:
        """Give what is free to those whose turn it is."""
        line = self._line(name)
        while line.waiting:
            try:
                if not self._slots.take(name):
                    return
            except SharedUnavailable:  # they wait on: it may be written again before their time is over
                return
            if not line.serve_next():  # all who waited were cancelled just now
                self._slots.give_back(name)

    def _keep_looking(self, name: str, line: _Line) -> None:
        if line.looking is None:
            delay = self._poll_seconds * random.uniform(0.5, 2)  # noqa: S311 - no secret: workers shall not keep step
            line.looking = asyncio.get_running_loop().call_later(delay, self._look, name, line)

    def _look(self, name: str, line: _Line) -> None:
        line.looking = None
        self._pass_on(name)
        if line.waiting:
            self._keep_looking(name, line)

    def _has_room(self, name: str, tenant: str) -> bool:
        line = self._line(name)
        if line.waiting < self.most_waiting:
            return True
        if not line.gives_way(tenant):
            return False
        line.turn_away(self._refusal(name, "this one, of many by its caller, made room for another caller's"))
        return True

    def _time_is_over(self, name: str, tenant: str, turn: _Turn, seconds: float) -> None:
        if not turn.done():
            self._line(name).remove(tenant, turn)
            turn.set_result(self._refusal(name, f"this one's turn did not come within {seconds:g} seconds"))

    def _refusal(self, name: str, why: str) -> GatewayError:
        where = f"at the provider {name}" if name else "in this gateway"
        most, line = self._slots.bound(name), self._line(name)
        return GatewayError(
            NO_TARGET_AVAILABLE,
            f"As many requests are under way {where} as may be at once ({most}), and {why}.",
            retry_after_seconds=self._retry_seconds(line),
        )

    def _retry_seconds(self, line: _Line) -> float:
        """When everybody who waits now will have had a slot, as fast as slots were given back lately."""
        if not line.ends:
            return _UNKNOWN_RETRY_SECONDS
        each_seconds = (self._clock() - line.ends[0]) / len(line.ends)
        return min(max(each_seconds * (line.waiting + 1), _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)


class _Line:
    """Who waits for the slots of one name."""

    def __init__(self) -> None:
        self.waiting = 0
        self.looking: asyncio.TimerHandle | None = None
        self.ends: deque[float] = deque(maxlen=_MEASURED_ENDS)
        """When slots were given back lately."""
        self.ended = 0
        self._tenants: dict[str, dict[_Turn, None]] = {}
        """The first tenant is the one whose turn it is; each has its requests in their order."""

    def add(self, tenant: str, turn: _Turn) -> None:
        self._tenants.setdefault(tenant, {})[turn] = None
        self.waiting += 1

    def remove(self, tenant: str, turn: _Turn) -> None:
        turns = self._tenants.get(tenant)
        if turns is None or turn not in turns:
            return
        del turns[turn]
        self.waiting -= 1
        if not turns:
            del self._tenants[tenant]

    def serve_next(self) -> bool:
        """Tell the next one that it has its slot; whether there was one."""
        while self._tenants:
            tenant, turns = next(iter(self._tenants.items()))
            turn = next(iter(turns))
            self.remove(tenant, turn)
            if turn.done():  # cancelled, but its task has not run yet
                continue
            if turns:
                self._tenants[tenant] = self._tenants.pop(tenant)
            turn.set_result(None)
            return True
        return False

    def gives_way(self, tenant: str) -> bool:
        """Whether somebody has so many more requests than ``tenant`` that one of them can make room."""
        return max(map(len, self._tenants.values()), default=0) > len(self._tenants.get(tenant, ())) + 1

    def turn_away(self, refusal: GatewayError) -> None:
        """Refuse the newest request of who has the most."""
        tenant, turns = max(self._tenants.items(), key=lambda item: len(item[1]))
        turn = next(reversed(turns))
        self.remove(tenant, turn)
        if not turn.done():
            turn.set_result(refusal)
