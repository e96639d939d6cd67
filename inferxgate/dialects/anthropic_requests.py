"""Building Anthropic Messages requests from conversations.

Each parameter is either said natively, or left out and named (tuning), or refused with a 400 (meaning). What
is decided here, because the two APIs differ:

- ``temperature`` above 1 is left out and named. Anthropic's range ends at 1, which is its default too.
- A JSON Schema for the answer is native (``output_config.format``) where the model has that and the schema fits.
  Elsewhere, and for ``json_object``, which Anthropic does not have, it is emulated: the model has to call the tool
  ``JSON_ANSWER_TOOL``, and its input comes back as the answer's text. Other tools can then still be called. A model
  that cannot be made to call a tool refuses what would have to be emulated.
- Fields that OpenAI's API does not have go through under the client's names (``thinking``, ``top_k``, ``mcp_servers``,
  ``context_management``, ...); ``anthropic_beta`` (or ``betas``) becomes the header of that name.

Sources: the request types of the ``anthropic`` Python package 2.12; Anthropic's pages on extended and adaptive
thinking, effort, structured outputs, tool use and OpenAI compatibility, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inferxgate import errors
from inferxgate.canonical.chat import ChatRequest
from inferxgate.canonical.conversation import Conversation, Tool
from inferxgate.dialects.anthropic_schemas import enforced, input_schema
from inferxgate.dialects.anthropic_thinking import add_thinking
from inferxgate.dialects.anthropic_turns import Block, Omissions, build_turns, cache_control, refused
from inferxgate.dialects.openai_conversation import parse_conversation
from inferxgate.dialects.protocol import BuildTarget, Call
from inferxgate.dialects.tool_names import JSON_ANSWER_DESCRIPTION, JSON_ANSWER_TOOL, NameRule, fit_tool_names
from inferxgate.dialects.writing import written
from inferxgate.errors import GatewayError

_NOT_TAKEN = frozenset(
    {
        "store", "prediction", "moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
        "verbosity", "seed", "min_p", "top_a", "repetition_penalty", "length_penalty", "include_reasoning",
        "reasoning_format", "logit_bias",
    }
)  # fmt: skip
"""Tuning of OpenAI's, and of hosts that speak like it, for which Anthropic has nothing."""
_REFUSED = frozenset({"audio", "web_search_options"})
"""Fields of OpenAI's with meaning for which there is nothing."""
_SERVICE_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}
"""``auto`` uses priority capacity where there is some."""
_TOOL_NAMES = NameRule(
    re.compile(r"[a-zA-Z0-9_-]{1,128}"), re.compile(r"[^a-zA-Z0-9_-]"), reserved=frozenset({JSON_ANSWER_TOOL})
)
_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")


_JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}


def build_request(request: ChatRequest, target: BuildTarget) -> Call:
    """The call for a client's request. Raises ``GatewayError`` (400) for what cannot be asked or written."""
    conversation, tool_names = fit_tool_names(parse_conversation(request), _TOOL_NAMES)
    body, dropped = build_body(conversation, target)
    if request.stream:
        body["stream"] = True
    headers = _JSON_HEADERS
    if conversation.extra and (betas := _betas(conversation.extra)):
        headers = {**_JSON_HEADERS, "anthropic-beta": ",".join(betas)}
    return Call("chat", written(body, request.source.body), headers, dropped, tool_names)


def build_body(conversation: Conversation, target: BuildTarget) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request's JSON and the names of what was left out. The inputs of earlier calls are ``orjson.Fragment``."""
    omissions = Omissions(target)
    _refuse(conversation, target)
    turns = build_turns(conversation, target, omissions)
    if turns.prefill is not None and not target.abilities.prefill:
        raise refused(
            target, turns.prefill, "A last message of the assistant (the beginning of the answer) is not taken"
        )
    body: dict[str, Any] = {"model": target.model, "messages": turns.messages}
    if turns.system:
        body["system"] = turns.system
    if conversation.tools or conversation.tool_choice is not None:
        _add_tools(body, conversation, target, omissions)
    if conversation.response_format is not None:
        _add_format(body, conversation, target)
    add_thinking(body, conversation, target, turns, omissions)
    _add_sampling(body, conversation, target, omissions)
    _add_rest(body, conversation, omissions)
    if conversation.extra:
        _add_extra(body, conversation, omissions)
    return body, omissions.names


def _refuse(conversation: Conversation, target: BuildTarget) -> None:
    """Meaning that there are no words for."""
    if conversation.n > 1:
        raise refused(target, "n", "More than one answer ('n') is not given")
    if conversation.logprobs or conversation.top_logprobs:
        raise refused(target, "logprobs" if conversation.logprobs else "top_logprobs", "'logprobs' are not given")
    for modality in conversation.modalities:
        if modality != "text":
            raise refused(target, "modalities", f"An answer as {modality[:20]!r} is not given")
    for name in conversation.extra:
        if name in _REFUSED:
            raise refused(target, name, f"'{name}' is not taken")


# --- tools and the form of the answer -----------------------------------------------------------------------------


def _add_tools(body: dict[str, Any], conversation: Conversation, target: BuildTarget, omissions: Omissions) -> None:
    choice = conversation.tool_choice
    kind = choice.kind if choice is not None else "auto"
    names = choice.names if choice is not None else ()
    known = {tool.name for tool in conversation.tools}
    for name in names:
        if name not in known:
            raise GatewayError(
                errors.INVALID_VALUE, f"'tool_choice' names '{name}', which is not in 'tools'.", param="tool_choice"
            )
    if not conversation.tools:
        if kind == "required":
            raise GatewayError(
                errors.INVALID_VALUE, "'tool_choice' is required, but there are no 'tools'.", param="tools"
            )
        return
    body["tools"] = [
        _tool(tool, index, target, omissions)
        for index, tool in enumerate(conversation.tools)
        if kind != "allowed" or tool.name in names
    ]
    if not body["tools"]:
        del body["tools"]
        return
    chosen: Block
    match kind:
        case "none":
            body["tool_choice"] = {"type": "none"}
            return
        case "required":
            chosen = {"type": "any"}
        case "named":
            chosen = {"type": "tool", "name": names[0]}
        case "allowed":
            chosen = {"type": "any" if choice is not None and choice.required else "auto"}
        case _:
            chosen = {"type": "auto"}
    if conversation.parallel_tool_calls is False:
        chosen["disable_parallel_tool_use"] = True
    if chosen["type"] != "auto" and not target.abilities.forced_tools:
        raise refused(target, "tool_choice", "A forced call of a tool ('tool_choice') is not taken")
    if choice is not None or len(chosen) > 1:
        body["tool_choice"] = chosen


def _tool(tool: Tool, index: int, target: BuildTarget, omissions: Omissions) -> Block:
    where = f"tools.{index}.function"
    schema = input_schema(tool.parameters)
    if schema is None:
        raise GatewayError(
            errors.INVALID_VALUE,
            f"'{where}.parameters' of the tool '{tool.name}' is not the schema of an object.",
            param=f"{where}.parameters",
        )
    block: Block = {"name": tool.name}
    if tool.description:
        block["description"] = tool.description
    block["input_schema"] = schema
    if tool.strict:
        exact = enforced(schema) if target.abilities.json_schema else None
        if exact is None:
            omissions.tuning(f"{where}.strict", "is not taken for this schema")
        else:
            block |= {"input_schema": exact, "strict": True}
    if tool.cache is not None:
        block["cache_control"] = cache_control(tool.cache)
    return block


def _add_format(body: dict[str, Any], conversation: Conversation, target: BuildTarget) -> None:
    form = conversation.response_format
    if form is None or form.kind == "text":
        return
    schema: Mapping[str, Any] = {"type": "object", "additionalProperties": True}
    if form.kind == "json_schema":
        if form.schema is None:
            raise GatewayError(
                errors.MISSING_FIELD,
                "'response_format.json_schema' has no 'schema'.",
                param="response_format.json_schema.schema",
            )
        schema = form.schema
        exact = enforced(schema) if target.abilities.json_schema else None
        if exact is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": exact}}
            return
    _emulate_format(body, conversation, target, schema)


def _emulate_format(
    body: dict[str, Any], conversation: Conversation, target: BuildTarget, schema: Mapping[str, Any]
) -> None:
    """Have the answer given as the input of a tool."""
    choice = body.get("tool_choice") or {"type": "auto"}
    if choice["type"] in {"any", "tool"}:
        return  # the client wants a call of its own tools, so there is no text whose form matters
    if not target.abilities.forced_tools:
        raise refused(
            target,
            "response_format",
            "An answer in JSON but for one by a json_schema whose objects name all their properties is not given",
        )
    answer = input_schema(schema)
    if answer is None:
        raise refused(target, "response_format", "An answer by a schema that is not that of an object is not given")
    tools = body.setdefault("tools", [])
    alone = not tools or choice["type"] == "none"
    tools.append(
        {
            "name": JSON_ANSWER_TOOL,
            "description": JSON_ANSWER_DESCRIPTION,
            "input_schema": answer,
        }
    )
    forced: Block = {"type": "tool", "name": JSON_ANSWER_TOOL} if alone else {"type": "any"}
    if alone or conversation.parallel_tool_calls is False:
        forced["disable_parallel_tool_use"] = True
    body["tool_choice"] = forced


# --- how it is said --------------------------------------------------------------------------------------------------


def _add_sampling(body: dict[str, Any], conversation: Conversation, target: BuildTarget, omissions: Omissions) -> None:
    """Temperature, ``top_p`` and ``top_k``, as far as the model, and thinking, allow."""
    abilities = target.abilities
    thinks = body.get("thinking", {}).get("type") in ("enabled", "adaptive")  # whatever type the client gave it
    if (temperature := conversation.temperature) is not None:
        if not abilities.sampling or not 0 <= temperature <= 1 or (thinks and temperature != 1):
            omissions.tuning("temperature", f"of {temperature} is not taken")
        else:
            body["temperature"] = temperature
    if (top_p := conversation.top_p) is not None:
        both = "temperature" in body and not abilities.temperature_with_top_p
        if not abilities.sampling or both or (thinks and not 0.95 <= top_p <= 1):
            omissions.tuning("top_p", f"of {top_p} is not taken" if not both else "beside 'temperature' is not taken")
        else:
            body["top_p"] = top_p
    if (top_k := conversation.extra.get("top_k")) is not None:
        if not abilities.sampling or thinks:
            omissions.tuning("top_k")
        else:
            body["top_k"] = top_k


def _add_rest(body: dict[str, Any], conversation: Conversation, omissions: Omissions) -> None:
    stop = [text for text in conversation.stop if text.strip()]
    if len(stop) < len(conversation.stop):
        omissions.tuning("stop", "that is blank is not taken")
    if stop:
        body["stop_sequences"] = stop
    if conversation.cache is not None:
        body["cache_control"] = cache_control(conversation.cache)
    if conversation.user is not None or conversation.metadata or conversation.extra:
        _add_user(body, conversation, omissions)
    if (tier := conversation.service_tier) is not None:
        if tier in _SERVICE_TIERS:
            body["service_tier"] = _SERVICE_TIERS[tier]
        else:
            omissions.tuning("service_tier")
    for name in ("seed", "presence_penalty", "frequency_penalty", "logit_bias"):
        if getattr(conversation, name) is not None:
            omissions.tuning(name)


def _add_user(body: dict[str, Any], conversation: Conversation, omissions: Omissions) -> None:
    """Who asks. Anthropic's own spelling, ``metadata.user_id``, wins; other metadata has no place."""
    metadata = conversation.metadata or {}
    own, safety = metadata.get("user_id"), conversation.extra.get("safety_identifier")
    names = {"metadata.user_id": own, "user": conversation.user, "safety_identifier": safety}
    given = {name: value for name, value in names.items() if isinstance(value, str) and value}
    if given:
        user_id = next(iter(given.values()))
        body["metadata"] = {"user_id": user_id}
        for name, value in given.items():
            if value != user_id:
                omissions.tuning(name, "beside another name of the user is not taken")
    for name in ("metadata.user_id", "safety_identifier"):
        if names[name] is not None and not isinstance(names[name], str):
            omissions.tuning(name, "that is no string is not taken")
    if any(name != "user_id" for name in metadata):
        omissions.tuning("metadata")


_READ = frozenset({"thinking", "top_k", "safety_identifier", "anthropic_beta", "betas"})
"""Fields of ``extra`` that have been read by the time the rest goes through."""


def _add_extra(body: dict[str, Any], conversation: Conversation, omissions: Omissions) -> None:
    for name, value in conversation.extra.items():
        if name in _READ:
            continue
        if name in _NOT_TAKEN:
            omissions.tuning(name)
        elif name not in body:
            body[name] = value
        elif isinstance(value, dict) and isinstance(body[name], dict):
            body[name] = {**body[name], **value}
        else:
            raise GatewayError(
                errors.INVALID_VALUE, f"'{name}' is given twice: as such, and as OpenAI spells it.", param=name
            )


def _betas(extra: Mapping[str, Any]) -> list[str]:
    """The beta features that the client asks for, with the name that Anthropic's SDK or its other hosts give them."""
    found: list[str] = []
    for name in ("anthropic_beta", "betas"):
        given = extra.get(name, [])
        values = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
        for value in values:
            if not isinstance(value, str) or not _BETA.fullmatch(value.strip()):
                raise GatewayError(errors.INVALID_VALUE, f"'{name}' must be a list of names of betas.", param=name)
            found.append(value.strip())
    return list(dict.fromkeys(found))
