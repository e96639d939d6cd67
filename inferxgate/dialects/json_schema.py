"""JSON Schema, narrowed to the subset of OpenAPI 3.0 that models without a field for full JSON Schema take.

What the subset cannot say is left out or said more loosely, never more tightly: an instance that was valid stays so.
Only where a schema leaves out a ``type`` that it plainly means (``properties`` without ``"type": "object"``) is that
type put in. Values that can no longer be enforced (an enumeration of numbers) are named in the description, for the
model to read.

Source: the ``Schema`` message of the Gemini API (its fields, as the ``google-genai`` package 3.4 has them); what older
models are known to refuse: enumerations of anything but non-empty strings, keywords beside ``anyOf``, required names
that are not properties, arrays without ``items``, unknown formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard
from urllib.parse import unquote

import orjson

from inferxgate import errors
from inferxgate.dialects.writing import nesting
from inferxgate.errors import GatewayError

Json = dict[str, Any]

_MAX_NODES = 5_000
"""Schemas that one schema may become: references are written out, which can grow without bound."""
_MAX_DEPTH = 100

_FORMATS: Mapping[str, frozenset[str]] = {
    "string": frozenset({"date-time"}),
    "number": frozenset({"float", "double"}),
    "integer": frozenset({"int32", "int64"}),
}
_LIMITS: Mapping[str, tuple[str, ...]] = {
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
    "boolean": (),
}
_TELLING: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}),
    "array": frozenset({"items", "prefixItems"}),
}
"""Keywords that say which type is meant where ``type`` is left out."""

_HIGHEST = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_LOWEST = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_NOTES = ("title", "description", "default")

_LOOKAROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
"""What Google's regular expressions (RE2) do not have."""

_SIMPLE: Sequence[Json] = ({"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "object"})
_ANYTHING: Sequence[Json] = (*_SIMPLE, {"type": "array", "items": {"anyOf": list(_SIMPLE)}})


def openapi_subset(schema: Mapping[str, Any], *, param: str) -> Json:
    """``schema`` in the subset. ``param`` names it in errors.

    Raises ``GatewayError`` (400) for a schema that grows beyond all bounds when its references are written out.
    """
    conversion = _Conversion(schema, param)
    if nesting(schema) > _MAX_DEPTH:
        raise conversion.too_large()
    return conversion.convert(schema, (), 0)


class _Conversion:
    """One schema's conversion; references are looked up in its root."""

    def __init__(self, root: Mapping[str, Any], param: str) -> None:
        self._root = root
        self._param = param
        self._nodes = 0

    def convert(self, schema: object, trail: tuple[str, ...], depth: int) -> Json:
        """One schema. ``trail``: the references that led here, so that recursion ends."""
        flat, trail = self._flatten(schema, trail, depth)
        alternatives = flat.pop("anyOf", None) or flat.pop("oneOf", None)
        flat.pop("oneOf", None)
        if isinstance(alternatives, list) and not all(_only_presence(branch) for branch in alternatives):
            return self._alternatives(flat, alternatives, trail, depth)
        types, nullable = _types_of(flat)
        if types is None:
            return _joined([dict(kind) for kind in _ANYTHING], flat, nullable=True)
        branches = [self._typed(kind, flat, trail, depth) for kind in types]
        return _joined(branches or [{"type": "string"}], flat, nullable=nullable)

    def too_large(self) -> GatewayError:
        return GatewayError(
            errors.INVALID_VALUE,
            f"'{self._param}' is too large or too deep a JSON Schema once its references are written out.",
            param=self._param,
        )

    # --- references and conjunctions ---

    def _flatten(self, schema: object, trail: tuple[str, ...], depth: int) -> tuple[Json, tuple[str, ...]]:
        """The schema without ``$ref`` and ``allOf``: one object that says what they say together."""
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise self.too_large()
        if not isinstance(schema, dict):
            return {}, trail
        rest = {name: value for name, value in schema.items() if name not in ("$ref", "allOf")}
        reference, members = schema.get("$ref"), schema.get("allOf")
        if isinstance(reference, str):
            target, known = self._target(reference, trail, depth)
            trail = (*trail, *known)
            rest = _both(rest, target)
        for member in members if isinstance(members, list) else ():
            flat, seen = self._flatten(member, trail, depth + 1)
            trail = (*trail, *(step for step in seen if step not in trail))
            rest = _both(rest, flat)
        return rest, trail

    def _target(self, reference: str, trail: tuple[str, ...], depth: int) -> tuple[Json, tuple[str, ...]]:
        """What a reference stands for, and the references on the way; where it recurs, only its type."""
        found = self._look_up(reference)
        if reference in trail:
            types, nullable = _types_of(found)
            return ({"type": [*types, *(["null"] if nullable else [])]} if types else {}), ()
        flat, seen = self._flatten(found, (*trail, reference), depth + 1)
        return flat, tuple(step for step in seen if step not in trail)

    def _look_up(self, reference: str) -> Json:
        value: object = self._root
        document, _, pointer = reference.partition("#")
        if document or pointer[:1] not in ("", "/"):  # another document, or a name: nothing is fetched, nothing sought
            return {}
        for step in pointer.split("/")[1:]:
            step = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return value if isinstance(value, dict) else {}

    # --- one type, or several ---

    def _alternatives(self, rest: Json, branches: Sequence[object], trail: tuple[str, ...], depth: int) -> Json:
        """``anyOf``, which must stand alone: what stood beside it goes into every branch."""
        common = {name: value for name, value in rest.items() if name not in _NOTES}
        built: list[Json] = []
        nullable = False
        for branch in branches:
            if _only_null(branch):
                nullable = True
                continue
            converted = self.convert({"allOf": [branch, common]} if common else branch, trail, depth + 1)
            nested = converted.get("anyOf")
            built += nested if isinstance(nested, list) else [converted]
        if not built:
            built = [{"type": "string"}]
        return _joined(built, rest, nullable=nullable or rest.get("nullable") is True)

    def _typed(self, kind: str, schema: Json, trail: tuple[str, ...], depth: int) -> Json:
        built: Json = {"type": kind}
        for name in _LIMITS[kind]:
            if name in schema and not (name == "pattern" and not _plain_pattern(schema[name])):
                built[name] = schema[name]
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS.get(kind, ()):
            built["format"] = form
        if kind in ("number", "integer"):
            _take_exclusive_limits(built, schema, whole=kind == "integer")
        values = [value for value in _values(schema) if _type_of(value) in (kind, _narrower(kind))]
        if values:
            built |= _enumeration(kind, values, schema)
        if kind == "array":
            built["items"] = self._items(schema, trail, depth)
        if kind == "object":
            built |= self._members(schema, trail, depth)
        return built

    def _items(self, schema: Json, trail: tuple[str, ...], depth: int) -> Json:
        items, first = schema.get("items"), schema.get("prefixItems")
        tuples = items if isinstance(items, list) else first if isinstance(first, list) else None
        if tuples is None:
            return self.convert(items, trail, depth + 1)
        more = schema.get("additionalItems") if isinstance(items, list) else items
        kinds = [*tuples, *([] if more is False else [more])]
        distinct = {orjson.dumps(kind, option=orjson.OPT_SORT_KEYS): kind for kind in kinds}
        return self.convert({"anyOf": list(distinct.values())}, trail, depth + 1)

    def _members(self, schema: Json, trail: tuple[str, ...], depth: int) -> Json:
        given = schema.get("properties")
        if not isinstance(given, dict) or not given:
            return {}
        built: Json = {"properties": {name: self.convert(value, trail, depth + 1) for name, value in given.items()}}
        required = schema.get("required")
        names = [
            name for name in (required if isinstance(required, list) else ()) if isinstance(name, str) and name in given
        ]
        if names:
            built["required"] = names
        return built


def _joined(branches: Sequence[Json], notes: Json, *, nullable: bool) -> Json:
    """One schema of one or several branches, with the notes of the whole in each branch that has none."""
    built = []
    for branch in branches:
        noted = {name: notes[name] for name in _NOTES if name in notes} | branch
        built.append(noted | {"nullable": True} if nullable else noted)
    return built[0] if len(built) == 1 else {"anyOf": built}


def _both(one: Json, other: Json) -> Json:
    """A schema for what is valid under both. ``one`` is the nearer: its words win."""
    merged = dict(one)
    for name, value in other.items():
        if name not in merged:
            merged[name] = value
            continue
        held = merged[name]
        match name:
            case "properties" if isinstance(held, dict) and isinstance(value, dict):
                merged[name] = {
                    key: {"allOf": [held[key], value[key]]} if key in held and key in value else (held | value)[key]
                    for key in (*held, *(key for key in value if key not in held))
                }
            case "required" if isinstance(held, list) and isinstance(value, list):
                merged[name] = [*held, *(item for item in value if item not in held)]
            case "items" if isinstance(held, dict) and isinstance(value, dict):
                merged[name] = {"allOf": [held, value]}
            case "type":
                merged[name] = _common_types(held, value)
            case "enum" if isinstance(held, list) and isinstance(value, list):
                merged[name] = [item for item in held if item in value] or held
            case _ if name in _HIGHEST and _is_number(held) and _is_number(value):
                merged[name] = max(held, value)
            case _ if name in _LOWEST and _is_number(held) and _is_number(value):
                merged[name] = min(held, value)
    return merged


def _common_types(one: object, other: object) -> object:
    ones, others = (value if isinstance(value, list) else [value] for value in (one, other))
    if "number" in ones and "integer" in others:
        return [kind for kind in others if kind in ones or kind == "integer"]
    common = [kind for kind in ones if kind in others or (kind == "integer" and "number" in others)]
    return common or one


def _types_of(schema: Json) -> tuple[list[str] | None, bool]:
    """The types that an instance may have, without null, and whether it may be null; None: anything."""
    given = schema.get("type")
    values = _values(schema)
    nullable = schema.get("nullable") is True
    if isinstance(given, str | list):
        names = [given] if isinstance(given, str) else given
        nullable = nullable or "null" in names
    elif values:
        names = [_type_of(value) for value in values]
        nullable = nullable or "null" in names
    else:
        names = [kind for kind, telling in _TELLING.items() if telling & schema.keys()]
        if not names:
            return None, True
    types = list(dict.fromkeys(name for name in names if isinstance(name, str) and name in _LIMITS))
    if "number" in types and "integer" in types:
        types.remove("integer")
    return (None, True) if not types and not nullable else (types, nullable)


def _type_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _narrower(kind: str) -> str:
    return "integer" if kind == "number" else kind


def _values(schema: Json) -> list[Any]:
    """The values that ``enum`` or ``const`` allow; none: no such limit."""
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def _enumeration(kind: str, values: Iterable[Any], schema: Json) -> Json:
    """Strings can be enumerated, other values only be told."""
    allowed = list(values)
    if kind == "string" and all(allowed):
        return {"enum": list(dict.fromkeys(allowed))}
    told = "One of: " + ", ".join(orjson.dumps(value).decode() for value in allowed)
    words = schema.get("description")
    return {"description": f"{words} {told}" if isinstance(words, str) and words else told}


def _take_exclusive_limits(built: Json, schema: Json, *, whole: bool) -> None:
    """``exclusiveMinimum`` as ``minimum``: exact for whole numbers, a little looser for others."""
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if _is_number(above):
        least = int(above // 1) + 1 if whole else above
        built["minimum"] = max(least, built.get("minimum", least))
    if _is_number(below):
        most = -int(-below // 1) - 1 if whole else below
        built["maximum"] = min(most, built.get("maximum", most))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain_pattern(pattern: object) -> bool:
    return isinstance(pattern, str) and _LOOKAROUND.search(pattern) is None


def _only_null(branch: object) -> bool:
    return isinstance(branch, dict) and (
        branch.get("type") == "null" or _values(branch) == [None] or branch.get("type") == ["null"]
    )


def _only_presence(branch: object) -> bool:
    """Whether a branch says no more than which names must be there, which the subset cannot say by halves."""
    return isinstance(branch, dict) and branch.keys() <= {"required", "not", "$comment"}
