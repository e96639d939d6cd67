"""What is kept of a model's thought: for a while, for its caller, within bounds."""

from __future__ import annotations

from inferxgate.workers.reasoning import ReasoningMemory, Thoughts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def thoughts(text: str = "hm") -> Thoughts:
    return Thoughts("anthropic", ((text, "signed", None, None),))


def test_what_was_put_away_is_found_by_its_caller_only() -> None:
    memory = ReasoningMemory(60, clock=Clock())
    memory.remember("ann", ["call_1", "call_2"], [thoughts("a"), thoughts("b")])
    assert memory.recall("ann", "call_1") == thoughts("a")
    assert memory.recall("ann", "call_2") == thoughts("b")
    assert memory.recall("bob", "call_1") is None
    assert memory.recall("ann", "call_3") is None


def test_it_is_forgotten_after_its_time() -> None:
    clock = Clock()
    memory = ReasoningMemory(60, clock=clock)
    memory.remember("ann", ["call_1"], [thoughts()])
    clock.now = 59
    assert memory.recall("ann", "call_1") is not None
    clock.now = 60
    assert memory.recall("ann", "call_1") is None
    memory.remember("ann", ["call_2"], [thoughts()])
    assert len(memory._entries) == 1, "what is too old makes room"


def test_zero_keeps_nothing() -> None:
    memory = ReasoningMemory(0)
    memory.remember("ann", ["call_1"], [thoughts()])
    assert memory.recall("ann", "call_1") is None


def test_memory_is_bounded_by_bytes_and_the_oldest_goes_first() -> None:
    memory = ReasoningMemory(60, max_bytes=10_000, clock=Clock())
    for number in range(100):
        memory.remember("ann", [f"call_{number}"], [thoughts("x" * 1_000)])
    assert memory._bytes <= 10_000
    assert memory.recall("ann", "call_0") is None
    assert memory.recall("ann", "call_99") is not None
    memory.remember("ann", ["huge"], [thoughts("x" * 20_000)])
    assert memory.recall("ann", "huge") is None
    assert memory.recall("ann", "call_99") is not None, "one that does not fit pushes nobody out"
