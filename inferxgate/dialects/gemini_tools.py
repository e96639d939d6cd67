"""A conversation's tools, and the form of its answer, as Gemini's: not every model can be asked for both at once.

- A function's parameters and the answer's form go as full JSON Schema, for models that take it. ``strict`` tools ask
  for ``VALIDATED`` calls of the models known to have that mode.
- Up to Gemini 2.5, "Function calling with a response mime type: 'application/json' is unsupported". There the form is
  emulated: the model has to call one of the tools, of which ``JSON_ANSWER_TOOL`` is one, whose input comes back as the
  answer's text. That needs the schema of an object; any other form is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inferxgate import errors
from inferxgate.canonical.conversation import Conversation, ResponseFormat, Tool, ToolChoice
from inferxgate.dialects.json_schema import openapi_subset
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.dialects.tool_names import JSON_ANSWER_DESCRIPTION, JSON_ANSWER_TOOL, NameRule
from inferxgate.errors import GatewayError, Kind

Json = dict[str, Any]

TOOL_NAMES = NameRule(
    re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}"),
    re.compile(r"[^A-Za-z0-9_.:-]"),
    reserved=frozenset({JSON_ANSWER_TOOL}),
)
"""By the API reference on ``FunctionDeclaration.name``."""
_SCHEMA = "response_format.json_schema.schema"


def tools_and_form(conversation: Conversation, target: BuildTarget) -> tuple[Json, Json]:
    """``tools`` and ``toolConfig`` of the body, and the answer's form for its ``generationConfig``.

    Raises ``GatewayError`` (400) for a choice of what is not there, and for a form that the model cannot be asked for.
    """
    tools, choice, form = conversation.tools, conversation.tool_choice, conversation.response_format
    if choice is not None:
        _check_choice(choice, tools)
        if choice.kind == "allowed" and not choice.required:  # only calls that must be made can be limited by name
            tools = tuple(tool for tool in tools if tool.name in choice.names)
    places = {id(tool): index for index, tool in enumerate(conversation.tools)}
    declarations = [_declaration(tool, f"tools.{places[id(tool)]}.function", target) for tool in tools]
    calling = _calling(choice, strict=any(tool.strict for tool in tools), target=target)
    wanted = form if form is not None and form.kind != "text" else None
    if wanted is not None and declarations and not target.abilities.json_with_tools:
        mode = calling.get("mode")
        if mode == "NONE":
            declarations = []  # nothing may be called
        elif mode == "ANY":
            wanted = None  # the client wants a call, so there is no text whose form matters
        else:
            declarations.append(_answer_tool(wanted, target))
            wanted, calling = None, {"mode": "ANY"}
    if not declarations:
        return {}, _form(wanted, target)
    built: Json = {"tools": [{"functionDeclarations": declarations}]}
    if calling:
        built["toolConfig"] = {"functionCallingConfig": calling}
    return built, _form(wanted, target)


def _answer_tool(form: ResponseFormat, target: BuildTarget) -> Json:
    """The tool whose input is the answer, for a model that takes no form of the answer beside tools."""
    schema = form.schema
    if schema is None or openapi_subset(schema, param=_SCHEMA).get("type") != "object":
        raise _wrong(
            "response_format",
            f"The model {target.model} of {target.provider} does not take 'tools' together with this "
            "'response_format'; with a json_schema that is an object's it does.",
            errors.UNSUPPORTED_PARAMETER,
        )
    return _declaration(Tool(JSON_ANSWER_TOOL, JSON_ANSWER_DESCRIPTION, schema), _SCHEMA, target)


def _check_choice(choice: ToolChoice, tools: tuple[Tool, ...]) -> None:
    if choice.kind == "required" and not tools:
        raise _wrong("tool_choice", "'tool_choice' demands a call, but there are no 'tools'.")
    known = {tool.name for tool in tools}
    for name in choice.names:
        if name not in known:
            raise _wrong("tool_choice", f"'tool_choice' names {name[:64]!r}, which is not one of 'tools'.")


def _calling(choice: ToolChoice | None, *, strict: bool, target: BuildTarget) -> Json:
    match choice:
        case ToolChoice(kind="none"):
            return {"mode": "NONE"}
        case ToolChoice(kind="required"):
            return {"mode": "ANY"}
        case ToolChoice(kind="named") | ToolChoice(kind="allowed", required=True):
            return {"mode": "ANY", "allowedFunctionNames": list(choice.names)}
        case _ if strict and target.abilities.thinking != "none":
            return {"mode": "VALIDATED"}
        case None:
            return {}
        case _:
            return {"mode": "AUTO"}


def _declaration(tool: Tool, where: str, target: BuildTarget) -> Json:
    built: Json = {"name": tool.name}
    if tool.description is not None:
        built["description"] = tool.description
    if tool.parameters is not None and not _is_empty(tool.parameters):
        if target.abilities.json_schema:
            built["parametersJsonSchema"] = tool.parameters
        else:
            built["parameters"] = openapi_subset(tool.parameters, param=f"{where}.parameters")
    return built


def _is_empty(schema: Mapping[str, Any]) -> bool:
    """Whether a schema of parameters says that there are none; the field is then left out."""
    return (
        schema.keys() <= {"type", "properties", "required", "additionalProperties", "$schema", "title", "description"}
        and schema.get("type", "object") == "object"
        and not schema.get("properties")
        and not schema.get("required")
        and schema.get("additionalProperties", False) is False
    )


def _form(form: ResponseFormat | None, target: BuildTarget) -> Json:
    """The form of the answer's text. Whatever ``strict`` says, the API holds the model to the schema."""
    if form is None:
        return {}
    built: Json = {"responseMimeType": "application/json"}
    if form.schema is not None:
        if target.abilities.json_schema:
            built["responseJsonSchema"] = form.schema
        else:
            built["responseSchema"] = openapi_subset(form.schema, param=_SCHEMA)
    return built


def _wrong(param: str, words: str, kind: Kind = errors.INVALID_VALUE) -> GatewayError:
    return GatewayError(kind, words, param=param)
