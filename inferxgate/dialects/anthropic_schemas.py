"""JSON Schema in the two forms that Anthropic takes: any schema of an object for a tool, a subset for what it enforces.

A tool's ``input_schema`` may use all of JSON Schema but has to say ``"type": "object"`` at its root and may not have
``anyOf``, ``oneOf`` or ``allOf`` there. What is *enforced* (``output_config.format``, ``strict`` tools) may use a
subset only; limits outside of it are told to the model in the description, as Anthropic's own SDK does, and a schema
that cannot be said in the subset without saying something else is left to its caller.

Sources: the ``anthropic`` Python package 2.12 (``transform_schema``), Anthropic's "Structured outputs" page (JSON
Schema limitations), and the API's own answers to schemas it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

Json = Mapping[str, Any]

_MAX_DEPTH = 60
"""Nesting beyond which a schema is not looked through; the stack must not run out on a client's schema."""

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)  # fmt: skip
_NOTES = frozenset(
    {"$schema", "$id", "$comment", "$anchor", "discriminator", "deprecated", "readOnly", "writeOnly", "strict"}
)
"""Keywords that restrict nothing."""
_BEYOND = frozenset(
    {
        "not", "if", "then", "else", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas",
        "dependencies", "unevaluatedProperties", "unevaluatedItems", "prefixItems", "contains", "additionalItems",
    }
)  # fmt: skip
"""Keywords that say more than a description could."""
_KEPT_OUTSIDE = ("$defs", "definitions", "description", "title")
"""What is said of a whole schema, whatever alternatives it has."""
_COMBINATORS = ("anyOf", "oneOf", "allOf")
_LOCAL = ("#/$defs/", "#/definitions/")


# --- any schema, as a tool's input --------------------------------------------------------------------------------


def input_schema(schema: Json | None) -> dict[str, Any] | None:
    """``schema`` as the input of a tool: always an object. None where it means anything but an object.

    A root that is a reference is replaced by what it refers to, and alternatives at the root become one object with
    the properties of all: every input that was valid stays so.
    """
    if not schema:
        return {"type": "object", "properties": {}}
    root = _resolved(schema, schema)
    if root is None:
        return None
    merged = {name: value for name, value in root.items() if name not in _COMBINATORS}
    for combinator in _COMBINATORS:
        if combinator in root and not _merge(merged, schema, root[combinator], every=combinator == "allOf"):
            return None
    kind = merged.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        return None
    if not isinstance(merged.get("properties", {}), dict):
        return None
    for definitions in ("$defs", "definitions"):
        if definitions in schema:
            merged[definitions] = schema[definitions]
    return {**merged, "type": "object"}


def _merge(merged: dict[str, Any], schema: Json, variants: object, *, every: bool) -> bool:
    """Put the properties of all variants into one object; what only some of them require is required of none."""
    if not isinstance(variants, list) or not variants:
        return False
    resolved = [_resolved(variant, schema) if isinstance(variant, dict) else None for variant in variants]
    objects = [variant for variant in resolved if variant is not None and variant.get("type", "object") == "object"]
    if not objects or (every and len(objects) < len(variants)):
        return False
    if not all(isinstance(each.get("properties", {}), dict) for each in (merged, *objects)):
        return False
    properties: dict[str, Any] = dict(merged.get("properties", {}))
    required = [set(_required(variant)) for variant in objects]
    for variant in objects:
        for name, value in variant.get("properties", {}).items():
            if not _alike(properties.setdefault(name, value), value):
                properties[name] = {}  # the variants differ: anything goes, which no valid input breaks
    common = set.union(*required) if every else set.intersection(*required)
    merged["properties"] = properties
    wanted = [*_required(merged), *sorted(common)]
    if wanted:
        merged["required"] = list(dict.fromkeys(wanted))
    if any(variant.get("additionalProperties", True) is not False for variant in objects):
        merged.pop("additionalProperties", None)
    elif "additionalProperties" not in merged:
        merged["additionalProperties"] = False
    return True


def _required(schema: Json) -> list[str]:
    """The names that a schema requires; draft 3 has a truth value in place of the list, which says it of the schema."""
    names = schema.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _alike(one: object, other: object) -> bool:
    try:
        return one == other
    except RecursionError:  # nested so deeply that it cannot be written either
        return False


def _resolved(schema: Json, root: Json) -> Json | None:
    """``schema``, or what its reference leads to. None for a reference that leads nowhere here."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref")
        if reference is None:
            return schema
        found = _definition(reference, root)
        if found is None:
            return None
        beside = {name: value for name, value in schema.items() if name not in {"$ref", "$defs", "definitions"}}
        schema = {**found, **beside}
    return None


def _definition(reference: object, root: Json) -> Json | None:
    if not isinstance(reference, str) or not reference.startswith(_LOCAL):
        return None
    _, group, name = reference.split("/", 2)
    definitions = root.get(group)
    name = unquote(name).replace("~1", "/").replace("~0", "~")
    found = definitions.get(name) if isinstance(definitions, dict) else None
    return found if isinstance(found, dict) else None


# --- the subset that is enforced ----------------------------------------------------------------------------------


class _Inexpressible(Exception):
    """The subset has no words for it."""


def enforced(schema: Json) -> dict[str, Any] | None:
    """``schema`` in the subset that Anthropic enforces; None where that would say something else.

    Whatever is valid by the result has the shape that ``schema`` asks for; limits that the subset lacks (lengths,
    bounds, patterns) are in the descriptions. Objects that may have properties of any name, recursion, conditions and
    references to elsewhere have no place in it.
    """
    if _recursive(schema) or any(_definition(reference, schema) is None for reference in _references(schema)):
        return None
    try:
        return _enforced(schema, 0)
    except _Inexpressible:
        return None


def _enforced(schema: object, depth: int) -> dict[str, Any]:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH or not _BEYOND.isdisjoint(schema):
        raise _Inexpressible
    rest = {name: value for name, value in schema.items() if name not in _NOTES}
    if rest.pop("nullable", None) is True:  # OpenAPI 3.0
        rest = {"anyOf": [rest, {"type": "null"}]} | {name: rest.pop(name) for name in _KEPT_OUTSIDE if name in rest}
    result: dict[str, Any] = {}
    for group in ("$defs", "definitions"):
        if isinstance(definitions := rest.pop(group, None), dict):
            result[group] = {name: _enforced(value, depth + 1) for name, value in definitions.items()}
    if (reference := rest.pop("$ref", None)) is not None:
        if not isinstance(reference, str):
            raise _Inexpressible
        return {**result, "$ref": reference}  # nothing may stand beside a reference
    for name in ("description", "title"):
        if name in rest:
            result[name] = rest.pop(name)
    if not isinstance(rest.get("default", {}), dict | list):
        result["default"] = rest.pop("default")
    if _literals(rest, result):
        if isinstance(kind := rest.pop("type", None), str):
            result["type"] = kind
    elif not _alternatives(rest, result, depth):
        _typed(rest, result, depth)
    if rest:
        said = ", ".join(f"{name}: {_written(value)}" for name, value in rest.items())
        before = f"{result['description']}\n\n" if result.get("description") else ""
        result["description"] = f"{before}{{{said}}}"
    return result


def _written(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:  # orjson's JSONEncodeError: nested too deeply
        raise _Inexpressible from error


def _literals(rest: dict[str, Any], result: dict[str, Any]) -> bool:
    """``enum`` and ``const``, which say the type as well."""
    found = False
    for name in ("enum", "const"):
        if name in rest:
            value = rest.pop(name)
            values = value if name == "enum" else [value]
            if not isinstance(values, list) or not values or any(isinstance(item, dict | list) for item in values):
                raise _Inexpressible
            result[name] = value
            found = True
    return found


def _alternatives(rest: dict[str, Any], result: dict[str, Any], depth: int) -> bool:
    found = [name for name in _COMBINATORS if name in rest]
    if not found:
        kinds = rest.get("type")
        if not isinstance(kinds, list):
            return False
        if not kinds:
            raise _Inexpressible
        del rest["type"]
        alike = {**rest}
        rest.clear()
        result["anyOf"] = [_enforced(_of_type(kind, alike), depth + 1) for kind in kinds]
        return True
    variants = rest.pop(found[0])
    if len(found) > 1 or "properties" in rest or not isinstance(variants, list) or not variants:
        raise _Inexpressible
    if found[0] == "allOf":
        every = [_enforced(variant, depth + 1) for variant in variants]
        if len(every) == 1:  # as pydantic wraps a reference that has a description
            result.update({**every[0], **{name: value for name, value in result.items() if name not in every[0]}})
            if "$ref" in every[0]:
                rest.clear()
                for name in ("description", "title", "default"):
                    result.pop(name, None)
        elif any("$ref" in only or only.get("type") == "object" or "anyOf" in only for only in every):
            raise _Inexpressible  # objects that allow no other properties cannot be all at once
        else:
            result["allOf"] = every
    else:
        result["anyOf"] = [_enforced(variant, depth + 1) for variant in variants]
    rest.pop("type", None)
    return True


_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "array": frozenset({"items", "minItems", "maxItems", "uniqueItems"}),
    "string": frozenset({"format", "pattern", "minLength", "maxLength"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}
_ALL_KEYWORDS = frozenset().union(*_KEYWORDS.values())


def _of_type(kind: object, schema: Json) -> dict[str, Any]:
    """One of several types, with the keywords that concern it."""
    own = _KEYWORDS.get("number" if kind == "integer" else str(kind), frozenset())
    kept = {name: value for name, value in schema.items() if name in own or name not in _ALL_KEYWORDS | {"default"}}
    return {"type": kind, **kept}


def _typed(rest: dict[str, Any], result: dict[str, Any], depth: int) -> None:
    kind = rest.pop("type", "object" if "properties" in rest else None)
    match kind:
        case "object":
            properties = rest.pop("properties", None) or {}
            more = rest.pop("additionalProperties", True)
            if isinstance(more, dict) or (more and not properties) or not isinstance(properties, dict):
                raise _Inexpressible  # properties of any name
            result |= {
                "type": "object",
                "properties": {name: _enforced(value, depth + 1) for name, value in properties.items()},
                "additionalProperties": False,
            }
            required = rest.pop("required", [])
            # Draft 3 has a truth value here; and what is required but not described may be anything.
            if not isinstance(required, list) or any(name not in properties for name in map(str, required)):
                raise _Inexpressible
            if required:
                result["required"] = required
        case "array":
            result["type"] = "array"
            if "items" in rest:
                result["items"] = _enforced(rest.pop("items"), depth + 1)
            if rest.get("minItems") in (0, 1):
                result["minItems"] = rest.pop("minItems")
        case "string":
            result["type"] = "string"
            if isinstance(form := rest.get("format"), str) and form in _FORMATS:
                result["format"] = rest.pop("format")
        case "number" | "integer" | "boolean" | "null":
            result["type"] = kind
        case _:
            raise _Inexpressible


def _recursive(schema: Json) -> bool:
    """Whether a definition leads back to itself, or the root is referred to."""
    leads: dict[str, set[str]] = {}
    for group in ("$defs", "definitions"):
        definitions = schema.get(group)
        if isinstance(definitions, dict):
            for name, value in definitions.items():
                leads[f"#/{group}/{name}"] = set(_references(value))
    if "#" in _references(schema):
        return True
    finished: set[str] = set()
    while True:
        ends = {name for name, names in leads.items() if name not in finished and not (names & leads.keys()) - finished}
        if not ends:
            return len(finished) < len(leads)
        finished |= ends


def _references(schema: object) -> Iterator[str]:
    stack = [schema]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            reference = item.get("$ref")
            if isinstance(reference, str):
                yield reference
            stack += item.values()
        elif isinstance(item, list):
            stack += item
