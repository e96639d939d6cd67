"""The queue before the slots: in turns, with nobody forgotten, whoever leaves or is cancelled at whatever moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferxgate.errors import GatewayError
from inferxgate.gateway.queueing import POLL_SECONDS, FairQueue
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_slots import SharedSlots
from inferxgate.workers.slots import LocalSlots, Slots

LONG = 1_000.0


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time moves when the test says so. Nothing may be awaited there but turns of the loop."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Scene:
    """A queue, and requests at it."""

    def __init__(self, loop: Loop, *, bound: int = 1, most_waiting: int = 1_000, slots: Slots | None = None) -> None:
        self.loop = loop
        self.slots = slots or LocalSlots()
        self.slots.configure({"p": bound})
        self.queue = FairQueue(self.slots, most_waiting=most_waiting, clock=loop.time)
        self.served: list[str] = []
        """Who had a slot, in this order."""
        self.holding: list[str] = []
        self.refused: dict[str, GatewayError] = {}

    def ask(self, tenant: str, label: str = "", *, seconds: float = LONG) -> asyncio.Task[None]:
        return self.loop.create_task(self._ask(tenant, label or tenant, seconds))

    async def _ask(self, tenant: str, label: str, seconds: float) -> None:
        try:
            await self.queue.enter("p", tenant, seconds=seconds)
        except GatewayError as error:
            self.refused[label] = error
        else:
            self.served.append(label)
            self.holding.append(label)

    def leave(self) -> None:
        self.holding.pop(0)
        self.queue.leave("p")

    async def settle(self, seconds: float = 0.0) -> None:
        """Let time go by, and everything happen that then happens."""
        self.loop.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)

    async def leave_one_by_one(self) -> None:
        while self.holding:
            self.leave()
            await self.settle()

    @property
    def waiting(self) -> int:
        return self.queue.waiting().get("p", 0)


def play(act: Callable[[Loop], Coroutine[Any, Any, None]]) -> None:
    """Run a test in a loop with a time of its own."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        runner.run(act(loop))


# --- turns


def test_tenants_take_turns_and_each_keeps_its_order() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop)
        for label in ("a0", "a1", "a2", "a3", "b1", "b2", "c1"):
            scene.ask(label[0], label)
            await scene.settle()
        await scene.leave_one_by_one()
        assert scene.served == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]

    play(act)


def test_a_thousand_requests_of_one_delay_another_by_one_turn() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop, most_waiting=2_000)
        for number in range(1_001):
            scene.ask("many", f"many{number}")
        await scene.settle()
        scene.ask("few")
        await scene.settle()
        assert scene.waiting == 1_001
        for _ in range(2):
            scene.leave()
            await scene.settle()
        assert scene.served == ["many0", "many1", "few"]
        await scene.leave_one_by_one()
        assert scene.served[3:] == [f"many{number}" for number in range(2, 1_001)]

    play(act)


def test_nobody_overtakes_who_waits() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop)
        scene.ask("a")
        await scene.settle()
        scene.ask("a", "first")
        await scene.settle()
        scene.slots.give_back("p")  # as another worker would, who tells nobody
        assert not scene.queue.enter_now("p")
        scene.ask("b", "second")
        await scene.settle()
        assert scene.served == ["a"]
        await scene.settle(2 * POLL_SECONDS)
        assert scene.served == ["a", "first"]

    play(act)


def test_who_is_cancelled_when_its_turn_has_come_passes_it_on() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop)
        _, second, _ = (scene.ask(tenant) for tenant in "abc")
        await scene.settle()
        scene.leave()
        second.cancel()
        await scene.settle()
        assert second.cancelled()
        assert scene.served == ["a", "c"], "at once, not when somebody looks"

    play(act)


def test_without_a_bound_nobody_waits() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop, bound=0, most_waiting=0)
        for number in range(50):
            scene.ask("a", str(number), seconds=0)
        await scene.settle()
        assert len(scene.holding) == 50
        await scene.leave_one_by_one()
        assert scene.slots.in_use() == {}

    play(act)


def test_a_bound_that_is_raised_lets_in_who_waits() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop)
        for number in range(5):
            scene.ask("a", str(number))
        await scene.settle()
        scene.slots.configure({"p": 3})
        await scene.settle(2 * POLL_SECONDS)
        assert scene.served == ["0", "1", "2"]
        scene.slots.configure({})
        await scene.settle(2 * POLL_SECONDS)
        assert scene.waiting == 0

    play(act)


# --- refusals


def test_a_full_queue_and_a_time_that_is_over_are_told() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop, most_waiting=1)
        scene.ask("a", "has it")
        await scene.settle()
        scene.ask("a", "waits", seconds=5)
        await scene.settle()
        scene.ask("a", "too many", seconds=5)
        scene.ask("a", "in a hurry", seconds=0)
        await scene.settle()
        await scene.settle(4.9)
        assert set(scene.refused) == {"too many", "in a hurry"}
        await scene.settle(0.1)
        begin = "As many requests are under way at the provider p as may be at once (1), and "
        assert {label: error.message.removeprefix(begin) for label, error in scene.refused.items()} == {
            "too many": "as many wait for their turn as may (1).",
            "in a hurry": "requests do not wait for their turn.",
            "waits": "this one's turn did not come within 5 seconds.",
        }
        assert {(error.status, error.code, error.type) for error in scene.refused.values()} == {
            (503, "no_target_available", "service_unavailable")
        }
        assert scene.waiting == 0
        assert scene.slots.in_use() == {"p": 1}

    play(act)


def test_the_bound_of_the_whole_gateway_is_told_as_such() -> None:
    async def act(loop: Loop) -> None:
        slots = LocalSlots()
        slots.configure({"": 1})
        queue = FairQueue(slots, most_waiting=0)
        await queue.enter("", "a", seconds=1)
        with pytest.raises(GatewayError, match=r"under way in this gateway as may be at once \(1\)"):
            await queue.enter("", "a", seconds=1)

    play(act)


def test_who_has_most_makes_room_in_a_full_queue() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop, most_waiting=3)
        for label in ("a0", "a1", "a2", "a3", "a4", "b1", "b2", "c1"):
            scene.ask(label[0], label)
            await scene.settle()
        assert set(scene.refused) == {"a4", "a3", "b2", "a2"}, "a4: full; a3 made room for b1, and a2 for c1"
        assert "made room" in scene.refused["a3"].message
        await scene.leave_one_by_one()
        assert scene.served == ["a0", "a1", "b1", "c1"]

    play(act)


def test_retry_after_is_what_the_pace_of_late_says() -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop, most_waiting=3)

        async def told() -> float | None:
            with pytest.raises(GatewayError) as raised:
                await scene.queue.enter("p", "b", seconds=0)
            return raised.value.retry_after_seconds

        for number in range(4):
            scene.ask("a", str(number))
        await scene.settle()
        assert await told() == 5, "nothing has ended yet"
        scene.leave()
        await scene.settle(4)
        assert await told() == 4 * 3, "two wait, and then it"
        await scene.leave_one_by_one()
        await scene.queue.enter("p", "a", seconds=0)
        assert await told() == 1, "not less than a second"
        await scene.settle(10_000)
        assert await told() == 60

    play(act)


def test_a_bound_that_cannot_be_held_lets_nobody_in(tmp_path: Path) -> None:
    async def act(loop: Loop) -> None:
        memory = SharedMemory.open(tmp_path)
        scene = Scene(loop, slots=SharedSlots(memory, "worker_1"))
        await scene.queue.enter("p", "a", seconds=1)
        waits = scene.ask("a", "waits", seconds=1)
        await scene.settle()
        memory.close()
        scene.queue.leave("p")
        await scene.settle(2 * POLL_SECONDS)
        assert not waits.done()
        await scene.settle(1)
        assert scene.refused["waits"].code == "no_target_available"
        with pytest.raises(GatewayError, match="cannot be counted now") as raised:
            await scene.queue.enter("p", "a", seconds=1)
        assert raised.value.code == "store_unavailable"

    play(act)


# --- whatever the order

MOVES = (
    "ask", "ask", "ask", "ask in a hurry", "leave", "leave", "cancel", "leave and cancel", "cancel and leave",
    "take elsewhere", "give elsewhere", "time", "much time", "bound",
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    bound=st.integers(1, 3),
    most_waiting=st.integers(0, 6),
    moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 5), st.integers(0, 3)), min_size=15, max_size=60),
)
def test_nobody_is_forgotten_and_nothing_is_lost(
    bound: int, most_waiting: int, moves: list[tuple[str, int, int]]
) -> None:
    async def act(loop: Loop) -> None:
        scene = Scene(loop, bound=bound, most_waiting=most_waiting)
        tasks: list[asyncio.Task[None]] = []
        elsewhere, highest = 0, bound

        def cancel(number: int) -> None:
            if waits := [task for task in tasks if not task.done()]:
                waits[number % len(waits)].cancel()

        for move, number, turns in moves:
            if move.startswith("ask"):
                seconds = (0.0, 0.01, 1.0)[number % 3] if move == "ask in a hurry" else LONG
                tasks.append(scene.ask("abc"[number % 3], f"{len(tasks)}", seconds=seconds))
            elif move.endswith("time"):
                loop.now += 0.01 * (number + 1) * (50 if move == "much time" else 1)
            elif move == "bound":
                highest = max(highest, number)
                scene.slots.configure({"p": max(1, number)})
            elif move == "take elsewhere":
                elsewhere += scene.slots.take("p")
            elif move == "give elsewhere" and elsewhere:
                elsewhere -= 1
                scene.slots.give_back("p")
            if move in ("cancel", "cancel and leave"):
                cancel(number)
            if move in ("leave", "leave and cancel", "cancel and leave") and scene.holding:
                scene.leave()
            if move == "leave and cancel":
                cancel(number)
            for _ in range(turns):
                await asyncio.sleep(0)
            assert len(scene.holding) + elsewhere <= scene.slots.in_use().get("p", 0) <= highest
            assert scene.waiting <= most_waiting
        await scene.settle()
        under_way = [task for task in tasks if not task.done()]
        assert scene.waiting == len(under_way)
        assert scene.slots.in_use().get("p", 0) == len(scene.holding) + elsewhere
        for _ in range(elsewhere):
            scene.slots.give_back("p")
        before = loop.now
        while not all(task.done() for task in tasks):
            assert loop.now < before + 0.4 * LONG, "somebody waits for ever"
            await scene.settle(2 * POLL_SECONDS)
            if scene.holding:
                scene.leave()
        await scene.leave_one_by_one()
        ends = [task.cancelled() + (str(n) in scene.served) + (str(n) in scene.refused) for n, task in enumerate(tasks)]
        assert ends == [1] * len(tasks), "each ended in one way"
        assert scene.slots.in_use() == {}
        assert scene.queue.waiting() == {}

    play(act)


# --- workers


def test_a_slot_that_another_worker_frees_is_found(tmp_path: Path) -> None:
    async def act(loop: Loop) -> None:
        memory = SharedMemory.open(tmp_path)
        one, other = (Scene(loop, slots=SharedSlots(memory, name)) for name in ("worker_1", "worker_2"))
        one.ask("a")
        await one.settle()
        other.ask("b")
        await one.settle(2 * POLL_SECONDS)
        assert other.waiting == 1
        one.leave()
        await one.settle(2 * POLL_SECONDS)
        assert other.served == ["b"]
        memory.close()

    play(act)


def test_a_worker_with_all_slots_does_not_keep_them_for_its_own(tmp_path: Path) -> None:
    async def act(loop: Loop) -> None:
        memory = SharedMemory.open(tmp_path)
        one, other = (Scene(loop, slots=SharedSlots(memory, name)) for name in ("worker_1", "worker_2"))
        for number in range(500):
            one.ask("a", str(number))
        await one.settle()
        other.ask("b")
        while not other.served and len(one.served) < 400:
            await one.settle(POLL_SECONDS)
            if one.holding:
                one.leave()
                await one.settle()
        assert other.served == ["b"], "it had a chance at a hundred slots of four hundred"
        memory.close()

    play(act)
