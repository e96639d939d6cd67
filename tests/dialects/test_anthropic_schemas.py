"""JSON Schemas as Anthropic takes them: what is kept, what is only said, and what has no words."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from anthropic.lib._parse._transform import transform_schema
from anthropic.types import ToolParam
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from inferxgate.dialects.anthropic_schemas import enforced, input_schema
from tests.dialects.tool_schemas import SAMPLES

Json = dict[str, Any]

TEXT = {"type": "string"}
TOOL: TypeAdapter[Any] = TypeAdapter(ToolParam)


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


def valid(schema: Any, value: object, root: Json | None = None) -> bool:
    """Whether a value has the shape that a schema asks for; limits and conditions are not looked at."""
    if isinstance(schema, bool):
        return schema
    root = schema if root is None else root
    if value is None and schema.get("nullable") is True:
        return True
    if "$ref" in schema and not valid(pointed(root, schema["$ref"]), value, root):
        return False
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in values)
    if not all(valid(variant, value, root) for variant in schema.get("allOf", ())):
        return False
    for name in ("anyOf", "oneOf"):
        if schema.get(name) and not any(valid(variant, value, root) for variant in schema[name]):
            return False
    return typed(schema, value, root)


def pointed(root: Json, reference: str) -> Any:
    """What a reference within the schema leads to; anything at all where it leads elsewhere, nowhere or to itself."""
    document, _, path = reference.partition("#")
    if document or path[:1] not in {"", "/"}:
        return True
    found: Any = root
    for step in unquote(path).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found[int(name)] if isinstance(found, list) else found.get(name, True)
        if found is True:
            return True
    return found if found != {"$ref": reference} else True


TYPES = {"null", "boolean", "string", "integer", "number", "array", "object"}


def typed(schema: Json, value: object, root: Json) -> bool:
    """Whether a value is of the type that a schema names, and what is in it too."""
    kind = schema.get("type", "object" if "properties" in schema and isinstance(value, dict) else None)
    kinds = kind if isinstance(kind, list) else [kind]
    if not TYPES.intersection(kinds):
        return True
    for one in kinds:
        match one, value:
            case ("null", None) | ("boolean", bool()) | ("string", str()):
                return True
            case ("integer", int()) | ("number", int() | float()) if not isinstance(value, bool):
                return True
            case "array", list():
                items, first = schema.get("items", True), schema.get("prefixItems", [])
                if isinstance(items, list):
                    items, first = schema.get("additionalItems", True), items
                kinds_of_items = [*first, *([items] * len(value))]
                return all(valid(each, item, root) for each, item in zip(kinds_of_items, value, strict=False))
            case "object", dict():
                known = schema.get("properties", {})
                if set(schema.get("required", ())) - value.keys():
                    return False
                more = schema.get("additionalProperties", True)
                return all(valid(known.get(name, more), item, root) for name, item in value.items())
    return False


FREE = {
    "anything": "properties of any name, or items of any kind",
    "map": "properties of any name",
    "condition": "what one property says of another, or alternatives that are no types",
    "tuple": "items by their place",
    "reference": "recursion, or a reference to elsewhere",
    "all": "objects and lists that are several things at once",
    "literal": "lists and objects as literals",
}
"""What the subset has no words for."""
NOT_ENFORCED = {
    "enumerations: lists and objects": "literal",
    "nullable: unknown type": "anything",
    "nullable: empty anyOf": "anything",
    "lists: items of anything": "anything",
    "lists: items true": "anything",
    "lists: untyped list": "anything",
    "lists: tuple": "tuple",
    "lists: tuple with more": "tuple",
    "lists: open tuple": "tuple",
    "lists: old tuple": "tuple",
    "lists: old open tuple": "tuple",
    "lists: objects": "map",
    "lists: contains": "condition",
    "objects: nothing": "anything",
    "objects: unknown required": "anything",
    "objects: a map": "map",
    "objects: a map of objects": "map",
    "objects: patterns": "map",
    "objects: open map": "map",
    "objects: untyped map": "map",
    "objects: anything": "anything",
    "objects: anything, described": "anything",
    "objects: true": "anything",
    "objects: dependent": "condition",
    "objects: conditional": "condition",
    "objects: either name": "condition",
    "objects: not": "condition",
    "references: to a property's own": "reference",
    "references: into a list": "reference",
    "references: to nothing": "reference",
    "references: to another document": "reference",
    "references: by name": "reference",
    "references: to itself only": "reference",
    "references: a tree": "reference",
    "references: a filter": "reference",
    "references: a list of links": "reference",
    "references: the root": "reference",
    "together: allOf merges": "all",
    "together: allOf of the same name": "all",
    "together: allOf narrows": "all",
    "together: allOf of types": "all",
    "together: allOf of lists": "all",
    "together: shared beside a union": "all",
    "together: anyOf and oneOf": "all",
    "together: anyOf of a map and a list": "map",
}


@pytest.mark.parametrize(("name", "schema", "values"), SAMPLES, ids=[name for name, _, _ in SAMPLES])
def test_every_schema_of_the_corpus_is_a_tools_input(name: str, schema: Json, values: list[Any]) -> None:
    loose = input_schema(schema)
    assert loose is not None
    assert loose["type"] == "object"
    assert not {"anyOf", "oneOf", "allOf", "$ref"} & loose.keys()
    TOOL.validate_python({"name": "f", "input_schema": loose}, strict=True)
    assert all(valid(schema, value) for value in values)
    assert all(valid(loose, value) for value in values)


@pytest.mark.parametrize(("name", "schema", "values"), SAMPLES, ids=[name for name, _, _ in SAMPLES])
def test_every_schema_of_the_corpus_is_enforced_or_known_not_to_be(name: str, schema: Json, values: list[Any]) -> None:
    exact = enforced(schema)
    assert (exact is None) == (name in NOT_ENFORCED)
    if exact is not None:
        check(exact)
        assert all(valid(exact, value) for value in values)


def test_what_is_not_enforced_has_a_reason() -> None:
    assert set(NOT_ENFORCED.values()) == FREE.keys()
    assert NOT_ENFORCED.keys() <= {name for name, _, _ in SAMPLES}


KINDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems"},
    "string": {"format"},
    "integer": set[str](),
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}


def check(schema: Json) -> None:
    """Raise unless a schema says only what the subset can say."""
    beside = {"description", "title", "default", "$defs", "definitions"}
    for group in ("$defs", "definitions"):
        for definition in schema.get(group, {}).values():
            check(definition)
    if "$ref" in schema:
        assert schema.keys() <= {"$ref", "$defs", "definitions"}
    elif "enum" in schema or "const" in schema:
        assert schema.keys() <= beside | {"enum", "const", "type"}
    elif "anyOf" in schema or "allOf" in schema:
        assert schema.keys() <= beside | {"anyOf", "allOf"}
        for variant in schema.get("anyOf") or schema["allOf"]:
            check(variant)
    else:
        assert schema.keys() <= beside | {"type"} | KINDS[schema["type"]]
        for inner in schema.get("properties", {}).values():
            check(inner)
        if "items" in schema:
            check(schema["items"])
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False
            assert set(schema.get("required", ())) <= schema["properties"].keys()


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


def deep() -> list[Any]:
    """A list in a list in a list, deeper than can be compared or written."""
    value: list[Any] = []
    for _ in range(50_000):
        value = [value]
    return value


def test_what_is_nested_absurdly_is_neither_compared_nor_told() -> None:
    variants = [{"properties": {"a": {"default": deep()}}} for _ in range(2)]
    loose = input_schema({"anyOf": variants})
    assert loose is not None
    assert loose["properties"] == {"a": {}}
    assert enforced(closed(a={"type": "string", "minLength": deep()})) is None
