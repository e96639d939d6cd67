"""JSON Schemas in OpenAPI's subset: what was valid stays valid, and the vendor's own type takes every one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.dialects.json_schema import openapi_subset
from inferxgate.errors import GatewayError
from tests.dialects.tool_schemas import SAMPLES, Json

KEYWORDS = {
    "string": {"enum", "format", "minLength", "maxLength", "pattern"},
    "number": {"format", "minimum", "maximum"},
    "integer": {"format", "minimum", "maximum"},
    "boolean": set[str](),
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "minProperties", "maxProperties"},
}
NOTES = {"type", "title", "description", "default", "nullable"}


def narrow(schema: Any) -> Json:
    return openapi_subset(schema, param="p")


def check(schema: Json) -> None:
    """Raise unless a schema says only what the subset can say."""
    if "anyOf" in schema:
        assert schema.keys() == {"anyOf"}
        assert len(schema["anyOf"]) > 1
        for branch in schema["anyOf"]:
            check(branch)
        return
    assert schema.keys() <= NOTES | KEYWORDS[schema["type"]]
    assert all(isinstance(value, str) and value for value in schema.get("enum", ()))
    assert set(schema.get("required", ())) <= schema.get("properties", {}).keys()
    for inner in schema.get("properties", {}).values():
        check(inner)
    if schema["type"] == "array":
        check(schema["items"])


def valid(schema: Json, value: Any) -> bool:
    """Whether a value is valid, by a reading of the subset that knows nothing of JSON Schema."""
    if "anyOf" in schema:
        return any(valid(branch, value) for branch in schema["anyOf"])
    if value is None:
        return schema.get("nullable") is True
    match schema["type"]:
        case "string":
            return isinstance(value, str) and valid_string(schema, value)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and value == int(value)
                and bounded(schema, value)
            )
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and bounded(schema, value)
        case "array":
            fits = isinstance(value, list) and counted(schema, len(value), "Items")
            return fits and all(valid(schema["items"], item) for item in value)
        case _:
            fits = isinstance(value, dict) and counted(schema, len(value), "Properties")
            known = schema.get("properties", {})
            return (
                fits
                and all(name in value for name in schema.get("required", ()))
                and all(valid(known[name], item) for name, item in value.items() if name in known)
            )


def valid_string(schema: Json, value: str) -> bool:
    return (
        value in schema.get("enum", [value])
        and counted(schema, len(value), "Length")
        and re.search(schema.get("pattern", ""), value) is not None
    )


def counted(schema: Json, count: int, what: str) -> bool:
    return bool(schema.get(f"min{what}", 0) <= count <= schema.get(f"max{what}", count))


def bounded(schema: Json, value: float) -> bool:
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


@pytest.mark.parametrize(
    ("schema", "values"), [sample[1:] for sample in SAMPLES], ids=[sample[0] for sample in SAMPLES]
)
def test_schemas_as_tool_servers_emit_them(schema: Json, values: list[Any]) -> None:
    before = repr(schema)
    narrowed = narrow(schema)
    check(narrowed)
    types.Schema.model_validate(narrowed)
    for value in values:
        assert valid(narrowed, value), (narrowed, value)
    assert repr(schema) == before


def test_the_corpus_has_a_hundred_schemas() -> None:
    assert len({name for name, _, _ in SAMPLES}) == len(SAMPLES)
    assert len(SAMPLES) >= 100


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "An id.", "default": None},
            {"type": "integer", "nullable": True, "description": "An id.", "default": None},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer", "description": "own"}], "description": "An id."},
            {
                "anyOf": [
                    {"type": "string", "description": "An id."},
                    {"type": "integer", "description": "own"},
                ]
            },
        ),
        ({"enum": [1, 2], "description": "How."}, {"type": "integer", "description": "How. One of: 1, 2"}),
        ({"type": "string", "enum": ["", "a"]}, {"type": "string", "description": 'One of: "", "a"'}),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"type": "integer", "exclusiveMinimum": 0.5}, {"type": "integer", "minimum": 1}),
        ({"type": "integer", "exclusiveMaximum": 9.5}, {"type": "integer", "maximum": 9}),
        ({"type": "integer", "exclusiveMinimum": 0, "minimum": 5}, {"type": "integer", "minimum": 5}),
        ({"type": "string", "format": "email", "pattern": "(a)\\1"}, {"type": "string"}),
        (
            {
                "description": "Near.",
                "minLength": 2,
                "allOf": [{"type": "string", "maxLength": 9}, {"description": "Far.", "minLength": 3, "maxLength": 12}],
            },
            {"type": "string", "description": "Near.", "minLength": 3, "maxLength": 9},
        ),
        (
            {
                "$ref": "#/$defs/N",
                "$defs": {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}},
            },
            {"type": "object", "properties": {"n": {"type": "object"}}},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]},
            {"type": "object", "properties": {"a": {"type": "string"}}},
        ),
        (
            {"type": "array", "items": [{"type": "string"}, {"type": "string"}], "additionalItems": False},
            {"type": "array", "items": {"type": "string"}},
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_what_the_subset_cannot_say(schema: Json, expected: Json) -> None:
    assert narrow(schema) == expected


def bomb() -> Json:
    """References that double forty times."""
    definitions: Json = {
        f"A{level}": {
            "type": "object",
            "properties": {"left": {"$ref": f"#/$defs/A{level + 1}"}, "right": {"$ref": f"#/$defs/A{level + 1}"}},
        }
        for level in range(40)
    }
    return {"$ref": "#/$defs/A0", "$defs": definitions}


def test_conjunctions_that_double_are_read_once() -> None:
    definitions: Json = {f"A{level}": {"allOf": [{"$ref": f"#/$defs/A{level + 1}"}] * 2} for level in range(40)}
    definitions["A40"] = {"type": "string"}
    assert narrow({"$ref": "#/$defs/A0", "$defs": definitions}) == {"type": "string"}


def nested(levels: int) -> Json:
    schema: Json = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize("schema", [bomb(), nested(2_000)], ids=["doubling", "nesting"])
def test_schemas_that_grow_beyond_bounds_are_refused(schema: Json) -> None:
    with pytest.raises(GatewayError) as raised:
        openapi_subset(schema, param="tools.3.function.parameters")
    assert (raised.value.status, raised.value.param) == (400, "tools.3.function.parameters")


# --- schemas made together with a value that is valid under them ---------------------------------------------------

words = st.text(alphabet="abé ", max_size=4)
numbers = st.integers(-50, 50) | st.floats(-50, 50).map(lambda value: round(value, 2))


@st.composite
def pairs(draw: st.DrawFn, depth: int = 0) -> tuple[Json, Any]:
    """A schema, and a value that is valid under it by the way it was made."""
    kinds = ["string", "enum", "integer", "number", "boolean", "null", "const"]
    if depth < 3:
        kinds += ["array", "tuple", "object", "anyOf", "oneOf", "types", "allOf", "ref", "map"]
    schema, value = draw(MAKERS[draw(st.sampled_from(kinds))](depth))
    if draw(st.booleans()):
        schema = {**schema, "description": "Words.", "$comment": "x", "examples": [1]}
    return schema, value


@st.composite
def strings(draw: st.DrawFn, _: int) -> tuple[Json, Any]:
    value = draw(words)
    schema: Json = {"type": "string"}
    if draw(st.booleans()):
        schema |= {"minLength": draw(st.integers(0, len(value))), "maxLength": len(value) + draw(st.integers(0, 3))}
    return schema, value


@st.composite
def enumerations(draw: st.DrawFn, _: int) -> tuple[Json, Any]:
    values = draw(st.lists(words | numbers | st.booleans() | st.none(), min_size=1, max_size=4))
    return {"enum": values}, draw(st.sampled_from(values))


@st.composite
def constants(draw: st.DrawFn, _: int) -> tuple[Json, Any]:
    value = draw(words | numbers | st.booleans() | st.none())
    return {"const": value}, value


@st.composite
def limited(draw: st.DrawFn, kind: str) -> tuple[Json, Any]:
    value = draw(st.integers(-50, 50) if kind == "integer" else numbers)
    least: Json = draw(
        st.sampled_from([{}, {"minimum": value}, {"exclusiveMinimum": value - 1}, {"minimum": value - 0.5}])
    )
    most: Json = draw(
        st.sampled_from([{}, {"maximum": value}, {"exclusiveMaximum": value + 0.5}, {"multipleOf": 0.01}])
    )
    return {"type": kind, **least, **most}, value


@st.composite
def arrays(draw: st.DrawFn, depth: int) -> tuple[Json, Any]:
    schema, value = draw(pairs(depth + 1))
    count = draw(st.integers(0, 2))
    bounds: Json = draw(st.sampled_from([{}, {"minItems": count}, {"maxItems": count + 1}, {"uniqueItems": False}]))
    return {"type": "array", "items": schema, **bounds}, [value] * count


@st.composite
def tuples(draw: st.DrawFn, depth: int) -> tuple[Json, Any]:
    members = draw(st.lists(pairs(depth + 1), min_size=1, max_size=3))
    schemas, values = [schema for schema, _ in members], [value for _, value in members]
    old = {"type": "array", "items": schemas, "additionalItems": False}
    return draw(st.sampled_from([{"type": "array", "prefixItems": schemas, "items": False}, old])), values


@st.composite
def objects(draw: st.DrawFn, depth: int) -> tuple[Json, Any]:
    members = draw(st.dictionaries(words, pairs(depth + 1), max_size=3))
    given_names = [name for name in members if draw(st.booleans())]
    schema = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in members.items()},
        "required": [name for name in given_names if draw(st.booleans())],
        "additionalProperties": False,
    }
    return schema, {name: members[name][1] for name in given_names}


@st.composite
def maps(draw: st.DrawFn, depth: int) -> tuple[Json, Any]:
    schema, value = draw(pairs(depth + 1))
    return {"type": "object", "additionalProperties": schema}, {"a": value}


@st.composite
def unions(draw: st.DrawFn, depth: int, name: str) -> tuple[Json, Any]:
    branches = draw(st.lists(pairs(depth + 1), min_size=1, max_size=3))
    return {name: [schema for schema, _ in branches]}, draw(st.sampled_from([value for _, value in branches]))


@st.composite
def type_lists(draw: st.DrawFn, _: int) -> tuple[Json, Any]:
    named: Json = {"string": "a", "integer": 3, "number": 2.5, "boolean": True, "null": None, "object": {"z": 1}}
    kinds = draw(st.lists(st.sampled_from(sorted(named)), min_size=1, max_size=4, unique=True))
    return {"type": kinds, "minLength": 1, "minimum": 1, "properties": {"a": {}}}, named[draw(st.sampled_from(kinds))]


@st.composite
def conjunctions(draw: st.DrawFn, depth: int) -> tuple[Json, Any]:
    """Two objects of different names, and what holds for both."""
    one, first = draw(objects(depth + 1))
    schema, value = draw(pairs(depth + 1))
    other = {"type": "object", "properties": {"#other": schema}, "required": ["#other"]}
    both = {"allOf": [{**one, "additionalProperties": True}, other]}
    return draw(st.sampled_from([both, {**other, "allOf": both["allOf"][:1]}])), {**first, "#other": value}


@st.composite
def references(draw: st.DrawFn, depth: int) -> tuple[Json, Any]:
    schema, value = draw(pairs(depth + 1))
    return {"@target": schema, "title": "There"}, value


MAKERS: dict[str, Any] = {
    "string": strings,
    "enum": enumerations,
    "const": constants,
    "integer": lambda _: limited("integer"),
    "number": lambda _: limited("number"),
    "boolean": lambda _: st.tuples(st.just({"type": "boolean"}), st.booleans()),
    "null": lambda _: st.just(({"type": "null"}, None)),
    "array": arrays,
    "tuple": tuples,
    "object": objects,
    "map": maps,
    "anyOf": lambda depth: unions(depth, "anyOf"),
    "oneOf": lambda depth: unions(depth, "oneOf"),
    "types": type_lists,
    "allOf": conjunctions,
    "ref": references,
}


def with_definitions(schema: Json) -> Json:
    """The schema with its marked parts moved to ``$defs``, and references in their places."""
    definitions: Json = {}

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(item) for item in value]
        if not isinstance(value, dict):
            return value
        built = {name: moved(item) for name, item in value.items() if name != "@target"}
        if "@target" in value:
            name = f"D{len(definitions)}"
            definitions[name] = None
            definitions[name] = moved(value["@target"])
            built["$ref"] = f"#/$defs/{name}"
        return built

    built: Json = moved(schema)
    return {**built, "$defs": definitions}


@given(pairs())
def test_what_was_valid_stays_valid(pair: tuple[Json, Any]) -> None:
    schema, value = pair
    narrowed = narrow(with_definitions(schema))
    check(narrowed)
    types.Schema.model_validate(narrowed)
    assert valid(narrowed, value), narrowed


anything = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "properties", "items", "anyOf", "oneOf", "allOf", "$ref", "enum", "const", "required", "minimum",
             "exclusiveMinimum", "pattern", "prefixItems", "additionalItems", "nullable", "description", "a", "$defs"]
        ),
        inner | st.sampled_from(["string", "object", "array", "number", "#/$defs/a", "#", ["string", "null"]]),
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["type", "properties", "anyOf", "allOf", "$ref", "items", "$defs"]), anything))
def test_no_schema_breaks_the_conversion(schema: Json) -> None:
    assert isinstance(narrow(schema), dict)
