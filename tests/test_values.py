"""Our ``dataclass`` beside Python's: whatever a class of either kind is asked, both say the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, FrozenInstanceError, field
from typing import Any, ClassVar

import pytest

from inferxgate import values

Decorator = Callable[..., Any]
NAN = float("nan")


def family(dataclass: Decorator, **options: Any) -> dict[str, Any]:
    """Classes of every shape, made by one decorator."""

    @dataclass(**options)
    class Point:
        """Two numbers."""

        x: int
        y: float = 0.5
        shared: ClassVar[int] = 3

        def moved(self) -> Any:
            return dataclasses.replace(self, x=self.x + 1)

    @dataclass(**options)
    class Named(Point):
        name: str = "n"
        tags: list[str] = field(default_factory=list, compare=False)
        _: KW_ONLY
        secret: str = field(repr=False)
        note: str = "none"

    @dataclass(**options)
    class Derived:
        """What is computed, and what nobody may give."""

        base: int
        fixed: int = field(default=7, init=False)
        made: dict[str, int] = field(default_factory=dict, init=False)
        square: int = field(init=False, repr=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "square", self.base**2)

    @dataclass(**options)
    class Lonely:
        only: Any

    @dataclass(**options)
    class Empty:
        """Nothing at all."""

    @dataclass(**options)
    class Own:
        """Says itself how it is shown."""

        x: int = 1

        def __repr__(self) -> str:
            return "mine"

    return {each.__name__: each for each in (Point, Named, Derived, Lonely, Empty, Own)}


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (TypeError, FrozenInstanceError, AttributeError, KeyError) as error:
        return type(error)


def unset(value: Any, name: str) -> None:
    delattr(value, name)


def matched(value: Any, kind: Any) -> Any:
    match value:
        case kind(x):
            return x
    return None


QUESTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "by place": lambda of: repr(of["Point"](1, 2.0)),
    "by name": lambda of: repr(of["Point"](y=2.0, x=1)),
    "defaults": lambda of: repr(of["Named"](1, secret="s")),
    "keyword only": lambda of: of["Named"](1, 2.0, "n", ["t"], "s"),
    "too few": lambda of: of["Point"](),
    "too many": lambda of: of["Point"](1, 2.0, 3),
    "unknown": lambda of: of["Point"](z=1),
    "what nobody may give": lambda of: of["Derived"](1, fixed=2),
    "computed": lambda of: (repr(of["Derived"](3)), of["Derived"](3).square),
    "own lists": lambda of: of["Named"](1, secret="").tags is of["Named"](1, secret="").tags,
    "own dicts": lambda of: of["Derived"](1).made is of["Derived"](1).made,
    "equal": lambda of: of["Point"](1, 2.0) == of["Point"](1, 2.0),
    "unequal": lambda of: of["Point"](1) == of["Point"](2),
    "another class": lambda of: of["Point"](1) == of["Lonely"](1),
    "a subclass": lambda of: of["Point"](1) == of["Named"](1, secret=""),
    "not compared": lambda of: of["Named"](1, secret="", tags=["a"]) == of["Named"](1, secret=""),
    "not a number": lambda of: of["Lonely"](NAN) == of["Lonely"](NAN),
    "nothing is nothing": lambda of: of["Empty"]() == of["Empty"](),
    "hash": lambda of: len({*map(of["Point"], [1, 1, 2])}),
    "hash of one": lambda of: len({of["Lonely"]("a"), of["Lonely"]("a"), of["Lonely"]("b")}),
    "hash of what has none": lambda of: isinstance(hash(of["Lonely"]([])), int),
    "in place of a key": lambda of: {of["Point"](1): 1}[of["Point"](1)],
    "set": lambda of: setattr(of["Point"](1), "x", 2),
    "set what is not there": lambda of: isinstance(outcome(lambda: setattr(of["Point"](1), "z", 2)), type),
    "delete": lambda of: unset(of["Point"](1), "x"),
    "replace": lambda of: repr(of["Point"](1).moved()),
    "replace what nobody may give": lambda of: dataclasses.replace(of["Derived"](1), base=4).square,
    "as a dict": lambda of: dataclasses.asdict(of["Named"](1, secret="s", tags=["t"])),
    "as a tuple": lambda of: dataclasses.astuple(of["Point"](1)),
    "fields": lambda of: [(each.name, each.type, each.kw_only) for each in dataclasses.fields(of["Named"])],
    "match": lambda of: matched(of["Point"](5), of["Point"]),
    "copied": lambda of: (
        copy.copy(of["Point"](1)) == of["Point"](1),
        copy.deepcopy(of["Named"](1, secret="s")).secret,
    ),
    "a class's own word": lambda of: repr(of["Own"]()),
    "what a class has": lambda of: of["Point"].shared,
    "the documentation": lambda of: of["Point"].__doc__,
    "the name": lambda of: of["Point"].__qualname__.rpartition(".")[2],
    "a dict of one's own": lambda of: hasattr(of["Point"](1), "__dict__"),
    "within itself": lambda of: repr(outcome(lambda: around(of["Lonely"]))),
}


def around(lonely: Any) -> Any:
    inner: list[Any] = []
    inner.append(lonely(inner))
    return inner[0]


OPTIONS = [{}, {"slots": True}, {"frozen": True}, {"frozen": True, "slots": True}, {"slots": True, "eq": False}]


WHERE_WE_ARE_NOT_FROZEN = ("set", "set what is not there", "delete")


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_says_what_pythons_says(options: dict[str, Any], question: str) -> None:
    ask = QUESTIONS[question]
    ours, theirs = family(values.dataclass, **options), family(dataclasses.dataclass, **options)
    if options.get("frozen") and question in WHERE_WE_ARE_NOT_FROZEN:
        assert outcome(lambda: ask(ours)) is not FrozenInstanceError, "the type checker alone refuses"
        return
    assert outcome(lambda: ask(ours)) == outcome(lambda: ask(theirs))


@values.dataclass(frozen=True, slots=True)
class Sent:
    """At the top of a module, where pickle finds it."""

    a: int
    b: str = "b"


def test_it_can_be_sent_and_read() -> None:
    assert pickle.loads(pickle.dumps(Sent(1))) == Sent(1)  # noqa: S301 - what this test has written itself


def test_threads_that_make_the_first_object_at_once_make_the_same() -> None:
    for _ in range(20):
        kind = family(values.dataclass, frozen=True, slots=True)["Point"]
        with ThreadPoolExecutor(4) as threads:
            made = [*threads.map(kind, [1] * 8)]
        assert made == [kind(1)] * 8


def test_the_second_object_is_made_by_compiled_code() -> None:
    kind = family(values.dataclass, frozen=True, slots=True)["Point"]
    first = kind.__init__
    kind(1)
    assert kind.__init__ is not first
    assert kind.__init__.__code__.co_varnames == ("self", "x", "y")
