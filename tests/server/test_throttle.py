"""Failed sign-ins and registrations, counted in real shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.errors import GatewayError
from inferxgate.server.throttle import SignIns
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_attempts import SharedAttempts

CLIENT, NEIGHBOUR = "2001:db8::1", "2001:db8:1::1"


@pytest.fixture
def sign_ins(tmp_path: Path) -> Iterator[SignIns]:
    memory = SharedMemory.open(tmp_path / "workers")
    yield SignIns(SharedAttempts(memory))
    memory.close()


def test_an_address_may_fail_ten_times(sign_ins: SignIns) -> None:
    for _ in range(10):
        sign_ins.check("ann", CLIENT)
        sign_ins.claim("ann", CLIENT)
    for refused in (sign_ins.check, sign_ins.claim):
        with pytest.raises(GatewayError, match=r"Too many failed .*about 5 minutes") as error:
            refused("ann", NEIGHBOUR)
        assert error.value.status == 429
        assert 299 < (error.value.retry_after_seconds or 0) <= 300
    sign_ins.check("bob", CLIENT)


def test_successes_count_for_nothing(sign_ins: SignIns) -> None:
    for _ in range(60):
        sign_ins.succeeded("ann", CLIENT, sign_ins.claim("ann", CLIENT))
    sign_ins.check("ann", CLIENT)


def test_a_success_buys_no_guesses_at_others(sign_ins: SignIns) -> None:
    for number in range(50):
        sign_ins.claim(f"someone {number}", CLIENT)
        if number % 10 == 9 and number < 49:
            sign_ins.succeeded("ann", CLIENT, sign_ins.claim("ann", CLIENT))
    with pytest.raises(GatewayError, match="Too many failed"):
        sign_ins.claim("ann", CLIENT)
    sign_ins.claim("ann", NEIGHBOUR)


def test_a_client_may_register_a_hundred(sign_ins: SignIns) -> None:
    for _ in range(100):
        sign_ins.check_registration(CLIENT)
        sign_ins.claim_registration(CLIENT)
    for refused in (sign_ins.check_registration, sign_ins.claim_registration):
        with pytest.raises(GatewayError, match=r"accounts were registered .*about 60 minutes"):
            refused(CLIENT)
    sign_ins.claim_registration(NEIGHBOUR)


def test_where_nothing_can_be_counted_nobody_signs_in(tmp_path: Path) -> None:
    memory = SharedMemory.open(tmp_path / "workers", map_bytes=256 * 1024)
    sign_ins = SignIns(SharedAttempts(memory))
    with pytest.raises(GatewayError, match="Sign-ins cannot be counted now") as error:
        all(sign_ins.claim(f"{n}@example.com", f"10.0.{n // 250}.{n % 250}") for n in range(10_000))
    assert (error.value.status, error.value.code) == (503, "store_unavailable")
    memory.close()
