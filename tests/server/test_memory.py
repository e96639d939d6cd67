"""After the start: what is there is searched no more, what comes later still is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from inferxgate.server.memory import settle_memory


class Knot:
    """Refers to itself, so that only a search can find that nobody else does."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
def test_what_is_there_is_searched_no_more_and_what_comes_later_is() -> None:
    kept = Knot()
    left = weakref.ref(Knot())
    settle_memory()
    assert left() is None, "garbage of the start is not kept"
    assert not any(each is kept for each in gc.get_objects())
    later = weakref.ref(Knot())
    gc.collect()
    assert later() is None
