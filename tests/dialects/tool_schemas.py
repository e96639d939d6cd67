"""A hundred schemas of parameters, of the kinds that tool servers really emit, each with arguments that are valid.

They are made up for this test; what is real is their habits: Pydantic's ``$defs`` and ``anyOf`` with null, zod's
``additionalProperties`` and ``$schema``, generators that write ``const`` and ``oneOf``, hand-written ones that leave
out ``type``, enumerations of numbers and of the empty string, tuples, maps, recursion.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Sample = tuple[str, Json, list[Any]]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}
NULL: Json = {"type": "null"}


def params(properties: Json, required: list[str] | None = None, **more: Any) -> Json:
    return {"type": "object", "properties": properties, "required": required or [], **more}


def one(name: str, schema: Any, *values: Any, defs: Json | None = None, **more: Any) -> Sample:
    """A tool of one parameter."""
    if defs is not None:
        more["$defs"] = defs
    return name, params({"value": schema}, ["value"], **more), [{"value": value} for value in values]


def zod(properties: Json, required: list[str]) -> Json:
    closed = {"additionalProperties": False, "$schema": "http://json-schema.org/draft-07/schema#"}
    return params(properties, required, **closed)


def optional(schema: Json, title: str) -> Json:
    """As Pydantic writes ``schema | None = None``."""
    return {"anyOf": [schema, NULL], "default": None, "title": title}


PLAIN: list[Sample] = [
    one("string", STRING, "", "a"),
    one("integer", INTEGER, 0, -7, 2**40),
    one("number", NUMBER, 0, 1.5, -3),
    one("boolean", BOOLEAN, True, False),
    one(
        "described", {"type": "string", "description": "Where to look.", "title": "Place", "examples": ["Ulm"]}, "Bonn"
    ),
    one("lengths", {"type": "string", "minLength": 1, "maxLength": 3}, "a", "abc"),
    one("pattern", {"type": "string", "pattern": "^[a-z]+$"}, "abc"),
    one("lookahead", {"type": "string", "pattern": "^(?!x).*$"}, "abc"),
    one("date-time", {"type": "string", "format": "date-time"}, "2026-01-02T03:04:05Z"),
    one("email", {"type": "string", "format": "email"}, "a@b.example"),
    one("uri", {"type": "string", "format": "uri"}, "https://a.example"),
    one("uuid", {"type": "string", "format": "uuid"}, "0c5a5c3e-0000-4000-8000-000000000000"),
    one("int64", {"type": "integer", "format": "int64"}, 5),
    one("range", {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}, 1, 100),
    one("positive", {"type": "integer", "exclusiveMinimum": 0}, 1, 2),
    one("below", {"type": "integer", "exclusiveMaximum": 10, "minimum": 3}, 3, 9),
    one("probability", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.001, 0.5),
    one("draft 4 limits", {"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0.5),
    one("steps", {"type": "number", "multipleOf": 0.5}, 1.5),
    one("deprecated", {"type": "string", "deprecated": True, "readOnly": True, "x-order": 3}, "a"),
]

ENUMERATIONS: list[Sample] = [
    one("strings", {"type": "string", "enum": ["asc", "desc"]}, "asc", "desc"),
    one("untyped strings", {"enum": ["asc", "desc"]}, "asc"),
    one("with the empty string", {"type": "string", "enum": ["", "asc"]}, "", "asc"),
    one("integers", {"type": "integer", "enum": [1, 2, 3]}, 1, 3),
    one("untyped integers", {"enum": [90, 180, 270], "description": "Degrees."}, 90),
    one("numbers", {"enum": [0.5, 1, 2.5]}, 0.5, 1),
    one("booleans", {"type": "boolean", "enum": [True]}, True),
    one("with null", {"enum": ["a", None]}, "a", None),
    one("nullable strings", {"type": ["string", "null"], "enum": ["a", "b", None]}, "a", None),
    one("mixed", {"enum": ["auto", 1, 2, None, True]}, "auto", 2, None, True),
    one("lists and objects", {"enum": [[1, 2], {"a": 1}]}, [1, 2], {"a": 1}),
    one("const", {"const": "fixed"}, "fixed"),
    one("typed const", {"type": "string", "const": "fixed", "title": "Kind"}, "fixed"),
    one("const number", {"const": 2}, 2),
    one("const null", {"const": None}, None),
    one("const empty", {"const": ""}, ""),
    one("oneOf of const", {"oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}, "a", "b"),
    one("anyOf of const", {"anyOf": [{"const": 1}, {"const": "one"}]}, 1, "one"),
    one("repeated", {"type": "string", "enum": ["a", "a"]}, "a"),
    one("enum of another type", {"type": "string", "enum": [1, 2]}),
]

NULLABLE: list[Sample] = [
    one("type list", {"type": ["string", "null"]}, "a", None),
    one("several types", {"type": ["string", "integer"]}, "a", 1),
    one("several types and null", {"type": ["string", "number", "boolean", "null"]}, "a", 1.5, True, None),
    one("number and integer", {"type": ["number", "integer"]}, 1, 1.5),
    one("openapi nullable", {"type": "string", "nullable": True}, "a", None),
    one("null alone", NULL, None),
    one("type list of null", {"type": ["null"]}, None),
    one("anyOf null", optional(STRING, "Name"), "a", None),
    one("anyOf null number", optional({"type": "number", "minimum": 0}, "Price"), 1.5, None),
    one("oneOf null", {"oneOf": [NULL, {"type": "array", "items": STRING}]}, None, ["a"]),
    one("anyOf of two and null", {"anyOf": [STRING, INTEGER, NULL], "description": "An id."}, "a", 1, None),
    one("anyOf only null", {"anyOf": [NULL]}, None),
    one("nested anyOf", {"anyOf": [{"anyOf": [STRING, NULL]}, INTEGER]}, "a", 1, None),
    one("nullable items", {"type": "array", "items": {"type": ["integer", "null"]}}, [1, None], []),
    one("nullable object", {"type": ["object", "null"], "properties": {"a": STRING}}, {"a": "b"}, None, {}),
    one("unknown type", {"type": "any"}, "a", 1, None),
    one("empty anyOf", {"anyOf": [], "type": "string"}, "a"),
]

LISTS: list[Sample] = [
    one("strings", {"type": "array", "items": STRING}, [], ["a"]),
    one("bounded", {"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 3, "uniqueItems": True}, [1, 2]),
    one("without items", {"type": "array"}, [], ["a", 1, None, {"b": 2}, [1]]),
    one("items of anything", {"type": "array", "items": {}}, ["a", 1, [True]]),
    one("items true", {"type": "array", "items": True}, ["a", 1]),
    one("untyped list", {"items": STRING}, ["a"]),
    one("nested", {"type": "array", "items": {"type": "array", "items": NUMBER}}, [[1, 2.5], []]),
    one("tuple", {"type": "array", "prefixItems": [STRING, INTEGER], "items": False}, ["a", 1]),
    one("tuple with more", {"type": "array", "prefixItems": [NUMBER, NUMBER], "items": STRING}, [1, 2, "a"]),
    one("open tuple", {"type": "array", "prefixItems": [NUMBER]}, [1, "a", None]),
    one("old tuple", {"type": "array", "items": [NUMBER, NUMBER], "additionalItems": False}, [1, 2.5]),
    one("old open tuple", {"type": "array", "items": [NUMBER]}, [1, "x"]),
    one("bounding box", {"type": "array", "items": NUMBER, "minItems": 4, "maxItems": 4}, [0, 1, 2, 3]),
    one("objects", {"type": "array", "items": params({"k": STRING, "v": {}}, ["k"])}, [{"k": "a", "v": [1]}]),
    one("unions", {"type": "array", "items": {"oneOf": [STRING, params({"id": INTEGER})]}}, ["a", {"id": 1}]),
    one("contains", {"type": "array", "items": STRING, "contains": {"const": "a"}}, ["a", "b"]),
]

OBJECTS: list[Sample] = [
    ("nothing", {"type": "object"}, [{}]),
    ("nothing, closed", zod({}, []), [{}]),
    ("untyped", {"properties": {"a": STRING}, "required": ["a"]}, [{"a": "b"}]),
    ("closed", zod({"path": STRING, "limit": INTEGER}, ["path"]), [{"path": "/"}, {"path": "/", "limit": 3}]),
    ("unknown required", params({"a": STRING}, ["a", "ghost"]), []),
    ("optional ones", params({"a": optional(STRING, "A"), "b": optional(INTEGER, "B")}), [{}, {"a": None, "b": 1}]),
    one("a map", {"type": "object", "additionalProperties": STRING}, {"a": "b"}, {}),
    one("a map of objects", {"type": "object", "additionalProperties": params({"n": INTEGER})}, {"a": {"n": 1}}),
    one("patterns", {"type": "object", "patternProperties": {"^x-": STRING}}, {"x-a": "b"}),
    one("open map", {"type": "object", "additionalProperties": True}, {"a": [1]}),
    one("untyped map", {"additionalProperties": {"type": "number"}}, {"a": 1}),
    one("anything", {}, "a", 1, True, None, {"a": 1}, ["b"]),
    one("anything, described", {"description": "Any JSON.", "title": "Body"}, {"a": 1}, None),
    one("true", True, "a", 1, None),
    one("named like keywords", params({"type": STRING, "$ref": STRING, "enum": INTEGER}), {"type": "a", "$ref": "#/b"}),
    one(
        "deep",
        params({"a": params({"b": params({"c": {"type": "array", "items": BOOLEAN}})})}),
        {"a": {"b": {"c": [True]}}},
    ),
    one("counted", {"type": "object", "minProperties": 1, "maxProperties": 2, "properties": {"a": STRING}}, {"a": "b"}),
    one("dependent", {**params({"a": STRING, "b": STRING}), "dependentRequired": {"a": ["b"]}}, {"b": "c"}),
    one("conditional", {**params({"a": STRING}), "if": {"required": ["a"]}, "then": {}, "else": {}}, {"a": "b"}, {}),
    one(
        "either name",
        {**params({"id": STRING, "name": STRING}), "anyOf": [{"required": ["id"]}, {"required": ["name"]}]},
        {"id": "a"},
        {"name": "b"},
    ),
    one("not", {"not": NULL, "type": "string"}, "a"),
]

POINT = params({"x": NUMBER, "y": NUMBER}, ["x", "y"])
NODE = params({"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}, ["name"])
FILTER = {
    "oneOf": [
        params({"op": {"const": "and"}, "all": {"type": "array", "items": {"$ref": "#/$defs/Filter"}}}, ["op", "all"]),
        params({"op": {"const": "eq"}, "field": STRING, "value": {}}, ["op", "field"]),
    ]
}
LINKED = params({"value": INTEGER, "next": {"anyOf": [{"$ref": "#/definitions/Linked"}, NULL]}}, ["value"])

REFERENCES: list[Sample] = [
    one("$defs", {"$ref": "#/$defs/Point"}, {"x": 1, "y": 2}, defs={"Point": POINT}),
    one("definitions", {"$ref": "#/definitions/Point"}, {"x": 1, "y": 2.5}, definitions={"Point": POINT}),
    one("words beside", {"$ref": "#/$defs/P", "description": "Where."}, {"x": 1, "y": 2}, defs={"P": POINT}),
    one("in a list", {"type": "array", "items": {"$ref": "#/$defs/P"}}, [{"x": 1, "y": 2}], defs={"P": POINT}),
    one("or null", {"anyOf": [{"$ref": "#/$defs/P"}, NULL]}, {"x": 1, "y": 2}, None, defs={"P": POINT}),
    one("to a property's own", {"$ref": "#/properties/value/$defs/a", "$defs": {"a": STRING}}, "b"),
    one("of references", {"$ref": "#/$defs/A"}, 1, defs={"A": {"$ref": "#/$defs/B"}, "B": INTEGER}),
    one("escaped", {"$ref": "#/$defs/a~1b%20c"}, 1, defs={"a/b c": INTEGER}),
    one("into a list", {"$ref": "#/$defs/A/anyOf/0"}, 1, defs={"A": {"anyOf": [INTEGER, STRING]}}),
    one("to nothing", {"$ref": "#/$defs/Missing"}, "a", 1),
    one("to another document", {"$ref": "https://schemas.example/a.json#/b"}, "a"),
    one("by name", {"$ref": "#anchor"}, "a", 1),
    one("to itself only", {"$ref": "#/$defs/A"}, "a", defs={"A": {"$ref": "#/$defs/A"}}),
    one(
        "a tree",
        {"$ref": "#/$defs/Node"},
        {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]},
        defs={"Node": NODE},
    ),
    one(
        "a filter",
        {"$ref": "#/$defs/Filter"},
        {"op": "and", "all": [{"op": "eq", "field": "a", "value": 1}]},
        defs={"Filter": FILTER},
    ),
    one(
        "a list of links",
        {"$ref": "#/definitions/Linked"},
        {"value": 1, "next": {"value": 2, "next": None}},
        definitions={"Linked": LINKED},
    ),
    (
        "the root",
        params({"value": STRING, "inner": {"$ref": "#"}}, ["value"]),
        [{"value": "a", "inner": {"value": "b"}}],
    ),
    ("a root reference", {"$ref": "#/$defs/P", "$defs": {"P": POINT}}, [{"x": 1, "y": 2}]),
]

TOGETHER: list[Sample] = [
    one("allOf of one", {"allOf": [{"$ref": "#/$defs/P"}], "default": None}, {"x": 1, "y": 2}, defs={"P": POINT}),
    one("allOf merges", {"allOf": [params({"a": STRING}, ["a"]), params({"b": INTEGER}, ["b"])]}, {"a": "x", "b": 1}),
    one("allOf of the same name", {"allOf": [params({"a": {"minLength": 1}}), params({"a": STRING})]}, {"a": "x"}),
    one(
        "allOf narrows",
        {"allOf": [{"type": "integer", "minimum": 1}, {"minimum": 3, "maximum": 9}, {"maximum": 20}]},
        3,
        9,
    ),
    one("allOf of types", {"allOf": [{"type": ["string", "integer"]}, {"type": ["integer", "null"]}]}, 1),
    one("allOf number", {"allOf": [NUMBER, INTEGER]}, 1),
    one("allOf integer", {"allOf": [INTEGER, NUMBER]}, 1),
    one("allOf of nothing common", {"allOf": [STRING, INTEGER]}),
    one("allOf of enums", {"allOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}, "b"),
    one("allOf of lists", {"type": "array", "allOf": [{"items": {"minLength": 1}}, {"items": STRING}]}, ["a"]),
    one(
        "tagged union",
        {
            "discriminator": {"propertyName": "kind"},
            "oneOf": [
                params({"kind": {"const": "cat"}, "lives": INTEGER}, ["kind"]),
                params({"kind": {"const": "dog"}, "name": STRING}, ["kind"]),
            ],
        },
        {"kind": "cat", "lives": 9},
        {"kind": "dog"},
    ),
    one(
        "shared beside a union",
        {**params({"id": STRING}, ["id"]), "anyOf": [params({"a": INTEGER}), params({"b": STRING})]},
        {"id": "x", "a": 1},
        {"id": "x", "b": "y"},
    ),
    one("anyOf and oneOf", {"anyOf": [STRING, INTEGER], "oneOf": [{"minLength": 1}, {"minimum": 1}]}, "a"),
    one(
        "anyOf of a map and a list",
        {"anyOf": [{"type": "object", "additionalProperties": STRING}, {"type": "array", "items": STRING}]},
        {"a": "b"},
        ["c"],
    ),
]

SAMPLES: list[Sample] = [
    (f"{family}: {name}", schema, values)
    for family, samples in (
        ("plain", PLAIN),
        ("enumerations", ENUMERATIONS),
        ("nullable", NULLABLE),
        ("lists", LISTS),
        ("objects", OBJECTS),
        ("references", REFERENCES),
        ("together", TOGETHER),
    )
    for name, schema, values in samples
]
