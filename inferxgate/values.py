"""``dataclass`` as Python has it, but for two things.

A frozen one is frozen for the type checker, which everything here passes, and not at run time: Python's pays for that
with a call for each field of each object, and a request makes objects with some hundred fields. It was a twentieth of
what a request costs.

And it is made fifteen times as fast: a start makes 150 of them, and that is felt. Python writes the source of up to
eight methods for each class and compiles it. Here all but ``__init__`` are functions that are there already and are
told the fields' names; and ``__init__``, which has to be as fast as can be, is compiled when the first object is made,
which for most classes is long after the start. Fields, ``replace``, ``asdict`` and matching are Python's own, and
checkers see nothing but Python's. ``InitVar`` and ``order`` are not known here, and a frozen class that says itself
when it is equal has to say its hash as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True):
        """Python's, with those of its arguments that the gateway uses."""
        if cls is None:
            return lambda decorated: _made(decorated, frozen=frozen, slots=slots, eq=eq)
        return _made(cls, frozen=frozen, slots=slots, eq=eq)


def _made(cls: type, *, frozen: bool, slots: bool, eq: bool) -> type:
    said = dict(vars(cls))
    if said.get("__doc__") is None:
        cls.__doc__ = ""  # Python would write the signature there, which takes as long as all the rest
    cls = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    values = _values_of([field.name for field in fields if field.compare])
    methods: dict[str, Any] = {"__repr__": _repr_of([field.name for field in fields if field.repr])}
    if eq:
        methods |= {"__eq__": _eq_of(values), "__hash__": _hash_of(values) if frozen else None}
    if slots:
        methods |= _copying(names)
    for name, method in methods.items():
        if name not in said:  # what the class says itself stands
            setattr(cls, name, method)
    if slots:
        cls = _with_slots(cls, names)
    _compile_init_later(cls, fields)
    return cls


def _values_of(names: list[str]) -> Callable[[object], object]:
    """What is compared of an object: as a tuple, in which a NaN is what it is."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _eq_of(values: Callable[[object], object]) -> Callable[[object, object], bool]:
    def __eq__(self: object, other: object) -> bool:  # noqa: N807 - it becomes the method of that name
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash_of(values: Callable[[object], object]) -> Callable[[object], int]:
    return lambda self: hash(values(self))


def _repr_of(names: list[str]) -> Callable[[object], str]:
    @recursive_repr("...")
    def __repr__(self: object) -> str:  # noqa: N807 - it becomes the method of that name
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({said})"

    return __repr__


def _copying(names: list[str]) -> dict[str, Any]:
    """How an object without a ``__dict__`` is copied, sent and read, frozen or not."""

    def __getstate__(self: object) -> list[object]:  # noqa: N807 - it becomes the method of that name
        return [getattr(self, name) for name in names]

    def __setstate__(self: object, state: list[object]) -> None:  # noqa: N807 - it becomes the method of that name
        for name, value in zip(names, state, strict=True):
            setattr(self, name, value)

    return {"__getstate__": __getstate__, "__setstate__": __setstate__}


def _with_slots(cls: type, names: list[str]) -> type:
    """The class anew, as slots can only be given to one that is being made."""
    said = dict(vars(cls))
    inherited = {name for base in cls.__mro__[1:] for name in getattr(base, "__slots__", ())}
    for name in (*names, "__dict__", "__weakref__"):
        said.pop(name, None)  # a default stands in the field by now
    said["__slots__"] = tuple(name for name in names if name not in inherited)
    return type(cls)(cls.__name__, cls.__bases__, said | {"__qualname__": cls.__qualname__})


def _compile_init_later(cls: Any, fields: tuple[dataclasses.Field[Any], ...]) -> None:
    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807 - the first object's
        cls.__init__ = _compiled_init(cls, fields)
        cls.__init__(self, *args, **kwargs)

    cls.__init__ = __init__


def _compiled_init(cls: type, fields: tuple[dataclasses.Field[Any], ...]) -> Callable[..., None]:
    known: dict[str, Any] = {"_missing": dataclasses.MISSING}
    positional, named, lines = ["self"], list[str](), list[str]()
    for number, field in enumerate(fields):
        default, factory = f"_default_{number}", f"_factory_{number}"
        value = field.name
        if field.default is not dataclasses.MISSING:
            known[default] = field.default
            parameter = f"{field.name}={default}"
            value = field.name if field.init else default
        elif field.default_factory is not dataclasses.MISSING:
            known[factory] = field.default_factory
            parameter = f"{field.name}=_missing"
            value = f"{factory}() if {field.name} is _missing else {field.name}" if field.init else f"{factory}()"
        elif field.init:
            parameter = field.name
        else:
            continue  # __post_init__ gives it
        if field.init:
            (named if field.kw_only else positional).append(parameter)
        lines.append(f"self.{field.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ", ".join([*positional, *(["*", *named] if named else [])])
    source = f"def __init__({parameters}):\n" + "\n".join(f"    {line}" for line in lines or ["pass"])
    exec(source, known)  # noqa: S102 - names of our own fields, as Python's own dataclass does it
    made: Callable[..., None] = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made
