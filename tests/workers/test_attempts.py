"""How often someone may fail to sign in."""

from inferxgate.workers.attempts import Attempts


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_after_the_limit_one_waits_for_the_oldest_failure_to_pass() -> None:
    clock = Clock()
    attempts = Attempts(3, 60, clock=clock)
    for _ in range(3):
        assert attempts.check("ann") is None
        attempts.failed("ann")
        clock.now += 10
    assert attempts.check("ann") == 30
    assert attempts.check("bob") is None
    clock.now += 30
    assert attempts.check("ann") is None
    attempts.failed("ann")
    assert attempts.check("ann") == 10


def test_success_forgets() -> None:
    attempts = Attempts(1, 60, clock=Clock())
    attempts.failed("ann")
    assert attempts.check("ann") is not None
    attempts.succeeded("ann")
    assert attempts.check("ann") is None


def test_memory_is_bounded() -> None:
    attempts = Attempts(3, 60, clock=Clock())
    for number in range(100_100):
        attempts.failed(str(number))
    assert len(attempts._failures) == 100_000
    assert attempts.check("0") is None
