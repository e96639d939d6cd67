"""JSON Schemas as Anthropic takes them: what is kept, what is only said, and what has no words."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.lib._parse._transform import transform_schema
from hypothesis import assume, given
from hypothesis import strategies as st

from inferxgate.dialects.anthropic_schemas import enforced, input_schema

Json = dict[str, Any]

TEXT = {"type": "string"}


def closed(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "additionalProperties": False}


# --- the subset


@pytest.mark.parametrize(
    "schema",
    [
        closed(),
        {**closed(a=TEXT, b={"type": "integer"}), "required": ["a"], "title": "T", "description": "D"},
        closed(a={"anyOf": [TEXT, {"type": "null"}], "default": None}),
        closed(a={"enum": ["x", 1, None, True]}, b={"const": "y", "type": "string"}),
        closed(a={"type": "array", "items": closed(b=TEXT), "minItems": 1}),
        closed(a={"type": "string", "format": "date-time"}),
        {**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": closed(b={"$ref": "#/$defs/B"}), "B": TEXT}},
        {**closed(a={"$ref": "#/definitions/A"}), "definitions": {"A": TEXT}},
        closed(a={"allOf": [TEXT, {"enum": ["x"]}]}),
        {"anyOf": [closed(a=TEXT), closed(b=TEXT)]},
    ],
)
def test_what_the_api_enforces_stays_as_it_is(schema: Json) -> None:
    assert enforced(schema) == schema


@pytest.mark.parametrize(
    ("schema", "result"),
    [
        ({"type": "object", "properties": {"a": TEXT}}, closed(a=TEXT)),
        ({"properties": {"a": TEXT}, "additionalProperties": True}, closed(a=TEXT)),
        ({"$schema": "https://json-schema.org/x", "$id": "y", "type": "null"}, {"type": "null"}),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "description": "{minimum: 1}"}),
        (
            {"type": "string", "minLength": 2, "pattern": "^a", "description": "A name"},
            {"type": "string", "description": 'A name\n\n{minLength: 2, pattern: "^a"}'},
        ),
        ({"type": "string", "format": "regex"}, {"type": "string", "description": '{format: "regex"}'}),
        (
            {"type": "array", "items": TEXT, "minItems": 3},
            {"type": "array", "items": TEXT, "description": "{minItems: 3}"},
        ),
        ({"type": ["string", "null"], "title": "T"}, {"title": "T", "anyOf": [TEXT, {"type": "null"}]}),
        (
            {"type": ["integer", "string"], "minimum": 1, "maxLength": 3},
            {
                "anyOf": [
                    {"type": "integer", "description": "{minimum: 1}"},
                    {"type": "string", "description": "{maxLength: 3}"},
                ]
            },
        ),
        ({"oneOf": [TEXT, {"type": "null"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"type": ["string", "null"], "enum": ["a", None]}, {"enum": ["a", None]}),
        (
            {**closed(a={"$ref": "#/$defs/A", "description": "beside"}), "$defs": {"A": TEXT}},
            {**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": TEXT}},
        ),
        (
            {**closed(a={"allOf": [{"$ref": "#/$defs/A"}], "title": "T", "default": "x"}), "$defs": {"A": TEXT}},
            {**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": TEXT}},
        ),
        ({"allOf": [{"type": "string", "title": "inner"}], "title": "outer"}, {"type": "string", "title": "inner"}),
        ({"type": "array", "default": []}, {"type": "array", "description": "{default: []}"}),
    ],
)
def test_what_it_does_not_is_said_otherwise(schema: Json, result: Json) -> None:
    assert enforced(schema) == result


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": TEXT},
        closed(a={}),
        closed(a=True),  # type: ignore[arg-type]  # a schema may be true
        {"type": "object", "properties": []},
        {"type": "string", "not": {"const": "x"}},
        {"type": "array", "prefixItems": [TEXT]},
        {"enum": [{"a": 1}]},
        {"const": [1]},
        {"$ref": "https://example.com/schema.json"},
        {"allOf": [closed(a=TEXT), closed(b=TEXT)]},
        {"allOf": [{"$ref": "#/$defs/A"}, TEXT], "$defs": {"A": TEXT}},
        {"anyOf": []},
        {"anyOf": [TEXT], "oneOf": [TEXT]},
        {"anyOf": [TEXT], "type": "object", "properties": {"a": TEXT}},
        {"type": "unheard of"},
        {"type": ["string", "array"], "items": {}},
        {**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": closed(a={"$ref": "#/$defs/A"})}},
        {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"items": {"$ref": "#/$defs/A"}}}, "type": "null"},
        closed(again={"$ref": "#"}),
    ],
)
def test_what_there_are_no_words_for_is_not_made_up(schema: Json) -> None:
    assert enforced(schema) is None


def test_a_schema_of_any_depth_does_not_break_it() -> None:
    schema: Json = dict(TEXT)
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    assert enforced(schema) is None


# --- a tool's input


@pytest.mark.parametrize(
    ("schema", "result"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object"}),
        ({"properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        ({"type": ["object", "null"], "required": ["a"]}, {"type": "object", "required": ["a"]}),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {**closed(a=TEXT), "title": "A"}}, "title": "B"},
            {**closed(a=TEXT), "title": "B", "$defs": {"A": {**closed(a=TEXT), "title": "A"}}},
        ),
        (
            {"$ref": "#/definitions/a~1b", "definitions": {"a/b": closed(a=TEXT)}},
            {**closed(a=TEXT), "definitions": {"a/b": closed(a=TEXT)}},
        ),
        (
            {"anyOf": [{**closed(a=TEXT, c=TEXT), "required": ["a", "c"]}, {**closed(c=TEXT), "required": ["c"]}]},
            {**closed(a=TEXT, c=TEXT), "required": ["c"]},
        ),
        (
            {"allOf": [{"properties": {"a": TEXT}, "required": ["a"]}, {"type": "object", "required": ["b"]}]},
            {"type": "object", "properties": {"a": TEXT}, "required": ["a", "b"]},
        ),
        (
            {"oneOf": [closed(a=TEXT), closed(a={"type": "integer"}), {"type": "null"}], "required": ["a"]},
            {**closed(a={}), "required": ["a"]},
        ),
        (
            {"anyOf": [closed(a=TEXT), closed(b=TEXT)], "additionalProperties": {"type": "integer"}},
            {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "additionalProperties": {"type": "integer"}},
        ),
        (
            {"anyOf": [{"$ref": "#/$defs/A"}, {"required": ["b"]}], "$defs": {"A": closed(a=TEXT)}, **closed(b=TEXT)},
            {"type": "object", "properties": {"b": TEXT, "a": TEXT}, "$defs": {"A": closed(a=TEXT)}},
        ),
    ],
)
def test_a_tools_input_is_an_object(schema: Json | None, result: Json) -> None:
    assert input_schema(schema) == result


@pytest.mark.parametrize(
    "schema",
    [
        TEXT,
        {"type": ["string", "null"]},
        {"$ref": "https://example.com/x"},
        {"$ref": "#/$defs/A"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
        {"anyOf": []},
        {"anyOf": [TEXT]},
        {"allOf": [closed(a=TEXT), TEXT]},
        {"anyOf": "x"},
        {"$ref": 7},
        {"$ref": "#/$defs/A", "$defs": []},
    ],
)
def test_what_is_no_object_is_no_input(schema: Json) -> None:
    assert input_schema(schema) is None


# --- properties


names = st.sampled_from(["a", "b", "c", "d e"])


def schemas(depth: int = 2) -> st.SearchStrategy[Json]:
    """Schemas as tools have them, without references."""
    leaves = st.one_of(
        st.just({"type": "null"}),
        st.just({"type": "boolean"}),
        st.builds(lambda low: {"type": "integer", "minimum": low}, st.integers(-5, 5)),
        st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(0, 5)),
        st.builds(lambda values: {"enum": values}, st.lists(st.integers(0, 3) | st.none(), min_size=1, max_size=3)),
        st.just({"type": ["string", "null"], "description": "D"}),
    )
    if depth == 0:
        return leaves
    inner = schemas(depth - 1)
    return st.one_of(
        leaves,
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 3}, inner),
        st.builds(lambda variants: {"anyOf": variants}, st.lists(inner, min_size=1, max_size=2)),
        objects(inner),
    )


def objects(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    def build(properties: Json, required: set[str], more: bool | None) -> Json:
        schema = {"type": "object", "properties": properties, "required": sorted(required & properties.keys())}
        return schema if more is None else {**schema, "additionalProperties": more}

    return st.builds(
        build, st.dictionaries(names, inner, max_size=3), st.sets(names), st.sampled_from([None, False, True])
    )


OBJECTS = objects(schemas())


def instances(schema: Json) -> st.SearchStrategy[Any]:
    """Values that are valid by a schema, with no properties but those it names."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([instances(variant) for variant in schema["anyOf"]])
    kind = schema["type"]
    if isinstance(kind, list):
        return st.one_of([instances({**schema, "type": one}) for one in kind])
    if kind == "object":
        properties = {name: instances(value) for name, value in schema["properties"].items()}
        required = {name: value for name, value in properties.items() if name in schema.get("required", ())}
        optional = {name: value for name, value in properties.items() if name not in required}
        return st.fixed_dictionaries(required, optional=optional)
    if kind == "array":
        return st.lists(instances(schema["items"]), max_size=schema.get("maxItems", 3))
    if kind == "string":
        return st.text("xy", max_size=schema.get("maxLength", 3))
    plain: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(schema.get("minimum", -9), 99),
    }
    return plain[kind]


def valid(schema: Json, value: object) -> bool:
    """Whether a value has the shape that a schema asks for; limits are not looked at."""
    if "enum" in schema:
        return any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in schema["enum"])
    if "anyOf" in schema:
        return any(valid(variant, value) for variant in schema["anyOf"])
    kind = schema.get("type", [])
    for one in kind if isinstance(kind, list) else [kind]:
        match one, value:
            case ("null", None) | ("boolean", bool()) | ("string", str()):
                return True
            case "integer", int():
                return not isinstance(value, bool)
            case "array", list():
                return all(valid(schema["items"], item) for item in value)
            case "object", dict():
                known = schema.get("properties", {})
                if set(schema.get("required", ())) - value.keys():
                    return False
                if schema.get("additionalProperties", True) is False and value.keys() - known.keys():
                    return False
                return all(valid(known[name], item) for name, item in value.items() if name in known)
    return False


@given(st.data())
def test_what_was_valid_stays_valid_and_nothing_new_becomes_so(data: st.DataObject) -> None:
    schema = data.draw(OBJECTS)
    exact = enforced(schema)
    assume(exact is not None)
    assert exact is not None
    assert valid(exact, data.draw(instances(schema)))
    assert valid(schema, data.draw(instances(exact)))
    loose = input_schema(schema)
    assert loose is not None
    assert valid(loose, data.draw(instances(schema)))


@given(OBJECTS)
def test_what_is_made_is_made_once(schema: Json) -> None:
    exact = enforced(schema)
    if exact is not None:
        assert enforced(exact) == exact


@given(OBJECTS)
def test_the_shape_is_what_anthropics_own_sdk_makes(schema: Json) -> None:
    exact = enforced(schema)
    assume(exact is not None and "null'," not in str(schema) and "['string', 'null']" not in str(schema))
    assert shape(exact) == shape(transform_schema(schema))


def shape(schema: object) -> object:
    """A schema without its words."""
    if isinstance(schema, dict):
        return {name: shape(value) for name, value in schema.items() if name != "description" and value != []}
    return [shape(item) for item in schema] if isinstance(schema, list) else schema


@given(st.data())
def test_alternatives_at_the_root_keep_every_input(data: st.DataObject) -> None:
    variants = data.draw(st.lists(objects(schemas(1)), min_size=1, max_size=3))
    loose = input_schema({data.draw(st.sampled_from(["anyOf", "oneOf"])): variants})
    assert loose is not None
    value = data.draw(instances(data.draw(st.sampled_from(variants))))
    assert set(value) <= set(loose["properties"])
    assert not set(loose.get("required", ())) - set(value)
    assert all(
        valid(loose["properties"][name], item) for name, item in value.items() if loose["properties"][name] != {}
    )
