"""What was wrong with a setting, in words: which one, why, and what was probably meant. No message repeats a value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from inferxgate.config_sources import (
    PREFIX,
    BadSetting,
    Loc,
    UnknownVariable,
    child_of,
    dotted,
    environment_name,
    fields_of,
    known_locs,
)

LATER_VARIABLES = ("AWS_BEARER_TOKEN_BEDROCK", "COHERE_API_KEY", "REPLICATE_API_TOKEN")
"""Variables with the credentials of providers that later versions have."""

_MESSAGES: Mapping[str, str] = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than_equal": "must be {le:.10g} or less",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a table",
    "path_type": "must be a path",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "too_short": "must not be empty",
    "value_error": "{error}",
}
"""By the validation library's name of the mistake; one that is not here keeps that library's words."""


_NEAR = 0.7
"""How much of two names has to be alike (1 is all) for one to be a slip for the other."""


def near(name: str, candidates: Mapping[str, str]) -> str:
    """``; did you mean x?``, or nothing where no candidate is near. Candidates are matched by key, shown by value."""
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=_NEAR)
    return f"; did you mean {candidates[found[0]]}?" if found else ""


def worst_mistake(error: ValidationError, shape: Any) -> BadSetting:
    """The mistake to tell of: a name that does not exist before what is missing for want of it."""
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    first = found[0]
    parts = first["loc"]
    loc = tuple(part for part in parts if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        message = _unknown_setting(loc, shape)
    else:
        words = _MESSAGES.get(first["type"])
        message = first["msg"] if words is None else words.format(**first.get("ctx", {}))
        if isinstance(parts[-1], int):
            message = f"(item {parts[-1] + 1}) {message}"
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            options = re.findall(r"'(\w+)'", message)
            message += near(first["input"], {option: option for option in options})
    more = len(found) - 1
    return BadSetting(loc, f"{message} (and {more} more to mend)" if more else message)


def _unknown_setting(loc: Loc, shape: Any) -> str:
    beside = {name: dotted((*loc[:-1], name)) for name in fields_of(_declared(loc[:-1], shape)) or {}}
    elsewhere = {known[-1]: dotted(known) for known in known_locs(shape, {}) if known[-1] == loc[-1]}
    return f"is not a setting{near(loc[-1], beside) or near(loc[-1], elsewhere)}"


def unknown_variable(unknown: UnknownVariable, shape: Any, present: Mapping[str, Any]) -> str:
    """The whole line about a variable that is spelt like a setting and is none."""
    line = f"environment variable {unknown.name}:"
    # Compared without what they share for certain, which would make everything look alike.
    section = PREFIX + "".join(
        f"{part}__" for part in environment_name(unknown.known).removeprefix(PREFIX).split("__") if part
    )
    entry = [environment_name(loc) for loc in known_locs(_declared(unknown.known, shape), {}, unknown.known)]
    names = [*(environment_name(loc) for loc in known_locs(shape, present)), *entry]
    asked = unknown.name.upper()
    beside = {name.removeprefix(section): name for name in names if name.startswith(section)}
    hint = near(asked.removeprefix(section), beside) if unknown.known else ""
    if not hint and unknown.known:
        hint = next((f"; did you mean {name}?" for name in names if asked.startswith(f"{name}__")), "")
    elif not hint:
        hint = near(asked.removeprefix(PREFIX), {name.removeprefix(PREFIX): name for name in names})
    return f"{line} there is no such setting{hint}"


def missing_underscore(name: str, shape: Any) -> str | None:
    """What a variable that nothing reads was probably meant to be called; None for any other variable.

    One underscore between section and setting is one too few: ``INFERXGATE_SERVER_PORT``.
    """
    asked = name.upper()
    if not asked.startswith(PREFIX) or "__" in asked:
        return None
    for section in fields_of(shape) or {}:
        start = environment_name((section,))
        if asked.startswith(f"{start}_"):
            names = [environment_name(loc) for loc in known_locs(shape, {})]
            meant = next((each for each in names if each.replace("__", "_") == asked), None)
            return meant or f"{start}__{asked.removeprefix(f'{start}_')}"
    return None


def _declared(loc: Loc, shape: Any) -> Any:
    for part in loc:
        shape = child_of(shape, part)
    return shape
