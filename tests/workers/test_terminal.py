"""What SIGHUP means, by the terminal that was closed or was not."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from inferxgate.workers.terminal import Terminal


class There:
    """A terminal and a clock that a test moves."""

    def __init__(self) -> None:
        self.is_there = True
        self.now = 100.0

    def terminal(self) -> Terminal:
        return Terminal(is_there=lambda: self.is_there, clock=lambda: self.now)


@pytest.fixture
def there() -> There:
    return There()


@pytest.fixture
def _ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def test_one_that_is_there_was_not_closed(there: There) -> None:
    assert not there.terminal().has_just_gone()


def test_one_that_has_just_gone_was(there: There) -> None:
    terminal = there.terminal()
    there.is_there = False
    assert terminal.has_just_gone()


def test_the_word_of_it_may_come_late(there: There) -> None:
    terminal = there.terminal()
    there.is_there = False
    terminal.look()
    there.now += 4
    assert terminal.has_just_gone()


def test_whoever_was_not_told_has_outlived_it(there: There) -> None:
    terminal = there.terminal()
    there.is_there = False
    terminal.look()
    there.now += 6
    terminal.look()
    assert not terminal.has_just_gone()
    there.now += 1000
    assert not terminal.has_just_gone()


def test_where_there_was_none_nothing_was_closed(there: There) -> None:
    there.is_there = False
    assert not there.terminal().has_just_gone()


@pytest.mark.usefixtures("_ignored")
def test_whoever_was_to_outlive_it_does(there: There) -> None:
    terminal = there.terminal()
    there.is_there = False
    assert not terminal.has_just_gone()
