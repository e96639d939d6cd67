"""What a caller's requests are counted by: the limits in force, whoever set them."""

from __future__ import annotations

import pytest

from inferxgate.accounts.scopes import scopes_of_key, scopes_of_user
from inferxgate.workers.limits import Scope
from tests.support.stores import new_key, new_user

DEFAULTS = {"rate_limit_rpm": 60, "rate_limit_tpm": 10_000, "max_parallel_requests": 4}


def test_a_key_without_limits_has_the_defaults() -> None:
    assert scopes_of_key(new_key(id="k"), None, DEFAULTS) == (Scope("key", "k", 60, 10_000, 4),)


def test_limits_of_its_own_come_before_the_defaults() -> None:
    key = new_key(
        id="k",
        rate_limit_rpm=5,
        rate_limit_tpm=0,
        max_parallel_requests=1,
        max_budget_nanos=9,
        budget_period="day",
    )
    assert scopes_of_key(key, None, DEFAULTS) == (Scope("key", "k", 5, 0, 1, 9, "day"),)


def test_the_users_ceilings_hold_for_each_key_and_for_all_together() -> None:
    user = new_user(id="u", rate_limit_rpm=30, rate_limit_tpm=500, max_budget_nanos=7, budget_period="month")
    key, owner = scopes_of_key(new_key(id="k", rate_limit_rpm=100), user, DEFAULTS)
    assert key == Scope("key", "k", 30, 500, 4)
    assert owner == Scope("user", "u", 30, 500, 0, 7, "month")
    assert scopes_of_user(user, DEFAULTS) == (owner,)


def test_a_user_without_ceilings_bounds_no_key_and_has_the_default_when_signed_in() -> None:
    user = new_user(id="u")
    assert scopes_of_key(new_key(id="k", rate_limit_rpm=100), user, DEFAULTS) == (
        Scope("key", "k", 100, 10_000, 4),
        Scope("user", "u"),
    )
    assert scopes_of_user(user, DEFAULTS) == (Scope("user", "u", 60, 10_000),)


@pytest.mark.parametrize(
    ("own", "ceiling", "in_force"),
    [(0, None, 0), (0, 0, 0), (0, 30, 30), (5, 0, 5), (50, 30, 30), (None, 90, 60), (None, 0, 60), (None, 30, 30)],
)
def test_no_limit_is_the_highest_of_all(own: int | None, ceiling: int | None, in_force: int) -> None:
    key, *_ = scopes_of_key(new_key(rate_limit_rpm=own), new_user(rate_limit_rpm=ceiling), DEFAULTS)
    assert key.requests_per_minute == in_force
