"""An OpenAI chat request, read whole: from the client's JSON to the conversation that other dialects build from.

Here everything is checked that passing a request through leaves to the provider: a field of the wrong type or a part of
an unknown kind is a 400 that names it, because what is not understood cannot be translated. What no dialect but the
provider's own knows is kept in ``Conversation.extra``.

Sources: the request types of the ``openai`` Python package 3.54; the carriers of reasoning (``thinking_blocks``,
``reasoning_content``, ``extra_content.google.thought_signature``, ``cache_control`` on parts, tools and messages) as
clients of gateways already send them. A document may also stand as Anthropic spells it, with its ``source``, because no
other API has the fields beside it (``citations``, ``context``, ``title``); they are read on OpenAI's own part too.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from inferxgate import errors
from inferxgate.canonical.chat import ChatRequest
from inferxgate.canonical.conversation import (
    Audio,
    Bytes,
    CacheMark,
    Conversation,
    Document,
    FileId,
    Image,
    MediaSource,
    Message,
    Part,
    Reasoning,
    Refused,
    ResponseFormat,
    ServerBlock,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Url,
)
from inferxgate.dialects import fields
from inferxgate.dialects.failures import plain_integer
from inferxgate.errors import GatewayError

Json = Mapping[str, Any]

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?);base64,", re.IGNORECASE)

_ENVELOPE = frozenset({"model", "messages", "stream", "stream_options"})
_READ = frozenset(
    {
        "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format", "max_tokens",
        "max_completion_tokens", "stop", "temperature", "top_p", "n", "seed", "presence_penalty", "frequency_penalty",
        "logit_bias", "logprobs", "top_logprobs", "reasoning_effort", "modalities", "user", "service_tier", "metadata",
        "cache_control",
    }
)  # fmt: skip
"""The fields that have a place of their own in ``Conversation``; all others are ``extra``."""


def parse_conversation(request: ChatRequest) -> Conversation:
    """The whole of a client's request. Raises ``GatewayError`` (400) that names the field."""
    body: Json = request.source.body
    messages, names = _Messages(), dict[str, str]()
    for position, message in enumerate(body["messages"]):
        messages.add(_message(message, f"messages.{position}", names))
    given = body.get
    said: dict[str, Any] = {name: read(body[name], name) for name, read in _READERS.items() if given(name) is not None}
    get = said.get
    return Conversation(
        messages=messages.merged(),
        tools=_tools(body),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=get("parallel_tool_calls"),
        response_format=_response_format(body.get("response_format")),
        max_tokens=get("max_completion_tokens") or fields.optional(body, "max_tokens", fields.whole),
        stop=_stop(body.get("stop")),
        temperature=get("temperature"),
        top_p=get("top_p"),
        n=get("n") or 1,
        seed=get("seed"),
        presence_penalty=get("presence_penalty"),
        frequency_penalty=get("frequency_penalty"),
        logit_bias=get("logit_bias") or None,
        logprobs=get("logprobs") or False,
        top_logprobs=get("top_logprobs"),
        reasoning_effort=get("reasoning_effort"),
        modalities=_strings(body.get("modalities"), "modalities"),
        user=get("user"),
        service_tier=get("service_tier"),
        metadata=get("metadata"),
        cache=_cache(body, ""),
        extra={
            name: value
            for name, value in body.items()
            if name not in _ENVELOPE and name not in _READ and value is not None
        },
    )


# --- messages -----------------------------------------------------------------------------------------------------


class _Messages:
    """Collects messages; the results of one turn's calls become one user message."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    def add(self, message: Message) -> None:
        last = self._messages[-1] if self._messages else None
        if last is not None and _only_results(last) and _only_results(message):
            self._messages[-1] = Message("user", last.parts + message.parts)
        else:
            self._messages.append(message)

    def merged(self) -> tuple[Message, ...]:
        return tuple(self._messages)


def _only_results(message: Message) -> bool:
    return bool(message.parts) and all(isinstance(part, ToolResult) for part in message.parts)


def _message(message: Json, where: str, names: dict[str, str]) -> Message:
    """One message; ``names`` remembers which function each call id stands for."""
    match message["role"]:
        case "system" | "developer":
            return Message("system", _parts(message, where), _name(message, where))
        case "user":
            return Message("user", _parts(message, where), _name(message, where))
        case "assistant":
            return _assistant(message, where, names)
        case "tool":
            call_id = fields.string(fields.needed(message, "tool_call_id", where), f"{where}.tool_call_id")
            return Message("user", (_result(message, where, call_id, names),))
        case "function":  # the deprecated spelling: the name is all there is to know the call by
            name = fields.string(fields.needed(message, "name", where), f"{where}.name")
            return Message("user", (_result(message, where, _legacy_id(name), names),))
        case role:
            raise GatewayError(
                errors.INVALID_VALUE,
                f"'{where}.role' is {str(role)[:50]!r}; it must be system, developer, user, assistant or tool.",
                param=f"{where}.role",
            )


def _name(message: Json, where: str) -> str | None:
    return fields.optional(message, "name", fields.string, where)


def _parts(message: Json, where: str) -> tuple[Part, ...]:
    content = message.get("content")
    if content is None:
        raise GatewayError(errors.MISSING_FIELD, f"'{where}' has no 'content'.", param=f"{where}.content")
    mark = _cache(message, where)
    if isinstance(content, str):
        return (Text(content, mark),)
    parts = [
        _part(part, f"{where}.content.{index}") for index, part in enumerate(fields.items(content, f"{where}.content"))
    ]
    if mark is not None and parts and isinstance(parts[-1], Text | Image | Document) and parts[-1].cache is None:
        parts[-1] = replace(parts[-1], cache=mark)
    return tuple(parts)


def _part(part: object, where: str) -> Part:
    if isinstance(part, str):  # some clients send bare strings in the list
        return Text(part)
    details = fields.members(part, where)
    kind = details.get("type")
    match kind:
        case "text" | "input_text":
            return Text(fields.string(fields.needed(details, "text", where), f"{where}.text"), _cache(details, where))
        case "image_url":
            return _image(details, where)
        case "input_audio":
            return _audio(fields.members(fields.needed(details, kind, where), f"{where}.{kind}"), f"{where}.{kind}")
        case "file":
            return _document(details, where)
        case "document":
            return _described(Document(_anthropic_source(details, where), None, _cache(details, where)), details, where)
        case "refusal":
            return Refused(fields.string(fields.needed(details, "refusal", where), f"{where}.refusal"))
        case "thinking" | "redacted_thinking":
            return _thought(details, where)
        case None:
            raise GatewayError(errors.MISSING_FIELD, f"'{where}' has no 'type'.", param=f"{where}.type")
        case _:
            raise GatewayError(
                errors.INVALID_VALUE,
                f"'{where}.type' is {str(kind)[:50]!r}, which is not known; text, image_url, input_audio, file and "
                "refusal are.",
                param=f"{where}.type",
            )


def _image(details: Json, where: str) -> Image:
    given = fields.needed(details, "image_url", where)
    where = f"{where}.image_url"
    detail = None
    if isinstance(given, str):
        url = given
    else:
        image = fields.members(given, where)
        url = fields.string(fields.needed(image, "url", where), f"{where}.url")
        detail = fields.optional(image, "detail", fields.string, where)
    return Image(_source(url, where), detail, _cache(details, where))


def _source(url: str, where: str) -> MediaSource:
    found = _DATA_URL.match(url)
    if found:
        return Bytes(_media_type(found[1].strip()) or "text/plain", url[found.end() :])
    if url[:5].lower() == "data:":
        raise GatewayError(
            errors.INVALID_VALUE, f"'{where}' has a data URL that is not base64 (data:TYPE;base64,...).", param=where
        )
    return Url(url)


def _media_type(given: str) -> str:
    """A media type by its registered name: many clients make theirs of a file's ending."""
    lowered = given.lower()
    return "image/jpeg" if lowered == "image/jpg" else lowered


_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mp3"}


def _audio(details: Json, where: str) -> Audio:
    data = fields.string(fields.needed(details, "data", where), f"{where}.data")
    form = fields.string(fields.needed(details, "format", where), f"{where}.format")
    return Audio(Bytes(_AUDIO_TYPES.get(form, f"audio/{form}"), data))


def _document(details: Json, where: str) -> Document:
    file = fields.members(fields.needed(details, "file", where), f"{where}.file")
    where = f"{where}.file"
    filename = fields.optional(file, "filename", fields.string, where)
    document = Document(_file_source(file, filename, where), filename, _cache(details, where))
    return _described(document, details, where.removesuffix(".file"))


def _file_source(file: Json, filename: str | None, where: str) -> MediaSource:
    if (file_id := fields.optional(file, "file_id", fields.string, where)) is not None:
        return Url(file_id) if "://" in file_id else FileId(file_id)
    data = fields.string(fields.needed(file, "file_data", where), f"{where}.file_data")
    if "://" not in data[:40] and data[:5].lower() != "data:":  # plain base64, as OpenAI's examples for PDFs have it
        return Bytes(_type_of(filename, data), data)
    return _source(data, f"{where}.file_data")


def _described(document: Document, details: Json, where: str) -> Document:
    """The document with what its part says of it, in the fields that Anthropic has for that."""
    citations = fields.optional(details, "citations", fields.members, where)
    return replace(
        document,
        title=fields.optional(details, "title", fields.string, where),
        context=fields.optional(details, "context", fields.string, where),
        citations=None
        if citations is None
        else fields.optional(citations, "enabled", fields.boolean, f"{where}.citations"),
    )


def _anthropic_source(details: Json, where: str) -> MediaSource:
    source = fields.members(fields.needed(details, "source", where), f"{where}.source")
    where = f"{where}.source"
    match source.get("type"):
        case "base64":
            media_type = fields.string(fields.needed(source, "media_type", where), f"{where}.media_type")
            return Bytes(_media_type(media_type), fields.string(fields.needed(source, "data", where), f"{where}.data"))
        case "text":
            text = fields.string(fields.needed(source, "data", where), f"{where}.data")
            return Bytes("text/plain", base64.b64encode(text.encode()).decode())
        case "url":
            return _source(fields.string(fields.needed(source, "url", where), f"{where}.url"), f"{where}.url")
        case "file":
            return FileId(fields.string(fields.needed(source, "file_id", where), f"{where}.file_id"))
        case kind:
            raise GatewayError(
                errors.UNSUPPORTED_PARAMETER,
                f"'{where}.type' is {str(kind)[:50]!r}; base64, text, url and file can be translated.",
                param=f"{where}.type",
            )


_BEGINNINGS = {
    "JVBERi": "application/pdf", "iVBORw0KGg": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif",
    "UEsDB": "application/zip",
}  # fmt: skip
"""How files begin in base64. Office's documents are zip archives."""
_ENDINGS = {
    "txt": "text/plain", "md": "text/markdown", "csv": "text/csv", "html": "text/html", "json": "application/json",
    "xml": "application/xml", "yaml": "application/yaml", "yml": "application/yaml", "webp": "image/webp",
}  # fmt: skip


def _type_of(filename: str | None, data: str) -> str:
    """What a file is that came without its type: by its first bytes, then its name; a PDF where neither says it."""
    for beginning, media_type in _BEGINNINGS.items():
        if data.startswith(beginning):
            return media_type
    return _ENDINGS.get((filename or "").rpartition(".")[2].lower(), "application/pdf")


# --- assistant turns ----------------------------------------------------------------------------------------------


def _assistant(message: Json, where: str, names: dict[str, str]) -> Message:
    parts: list[Part] = []
    if message.get("thinking_blocks"):
        parts += _thoughts(
            fields.items(message["thinking_blocks"], f"{where}.thinking_blocks"), f"{where}.thinking_blocks"
        )
    if message.get("content") is not None:
        parts += _parts(message, where)
    if message.get("audio"):
        raise GatewayError(
            errors.UNSUPPORTED_PARAMETER,
            f"'{where}.audio' names an answer that only OpenAI has; its transcript can be sent as 'content'.",
            param=f"{where}.audio",
        )
    if message.get("images"):  # as answers have them that were made by a model
        parts += _images(fields.items(message["images"], f"{where}.images"), f"{where}.images")
    refusal = fields.optional(message, "refusal", fields.string, where)
    if refusal:
        parts.append(Refused(refusal))
    calls = message.get("tool_calls")
    for index, call in enumerate(fields.items(calls, f"{where}.tool_calls") if calls else ()):
        parts.append(_call(call, f"{where}.tool_calls.{index}", names))
    if message.get("function_call") is not None:
        function = fields.members(message["function_call"], f"{where}.function_call")
        parts.append(_function(function, f"{where}.function_call", None, names))
    blocks = _server_blocks(message)
    if blocks:
        parts = _interleaved(parts, blocks)
    return Message("assistant", tuple(parts), _name(message, where), _google_signature(message))


def _images(images: list[Any], where: str) -> Iterator[Image]:
    for index, item in enumerate(images):
        image = fields.members(item, f"{where}.{index}")
        yield replace(_image(image, f"{where}.{index}"), signature=_google_signature(image))


def _server_blocks(message: Json) -> list[tuple[Json, Json]]:
    """Blocks of tools that Anthropic ran itself, each with how much stood before it. What is none is passed over."""
    extra = message.get("extra_content")
    anthropic = extra.get("anthropic") if isinstance(extra, dict) else None
    entries = anthropic.get("blocks") if isinstance(anthropic, dict) else None
    found: list[tuple[Json, Json]] = []
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case {"block": {"type": str()} as block, "before": dict(before)}:
                found.append((block, before))
    return found


def _interleaved(parts: list[Part], blocks: list[tuple[Json, Json]]) -> list[Part]:
    """The parts with the blocks among them where they stood. Text is cut only where it is one text."""
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    calls = [part for part in parts if isinstance(part, ToolUse)]
    said = [part for part in parts if not isinstance(part, Reasoning | ToolUse)]
    text = Text("")
    if len(said) == 1 and isinstance(said[0], Text):
        text, said = said[0], []
    result: list[Part] = []
    thought = character = call = 0
    for block, before in blocks:
        to_thought, to_character, to_call = (
            max(done, plain_integer(before.get(name)))
            for done, name in ((thought, "thinking_blocks"), (character, "content"), (call, "tool_calls"))
        )
        result += thoughts[thought:to_thought]
        if piece := text.text[character:to_character]:
            result.append(Text(piece))
        result += calls[call:to_call]
        result.append(ServerBlock(block))
        thought, character, call = to_thought, to_character, to_call
    result += thoughts[thought:]
    if piece := text.text[character:]:
        result.append(replace(text, text=piece))
    return [*result, *said, *calls[call:]]


def _thoughts(blocks: list[Any], where: str) -> list[Reasoning]:
    """The blocks of a message, joined where a client returns a stream's pieces as they came.

    A block is over with its signature. Until then the pieces with its ``index`` belong to it, or, where there are no
    indexes, those that follow it directly.
    """
    thoughts: list[Reasoning] = []
    open_at: dict[int | None, int] = {}
    for number, item in enumerate(blocks):
        block = fields.members(item, f"{where}.{number}")
        thought = _thought(block, f"{where}.{number}")
        index = fields.optional(block, "index", fields.integer, f"{where}.{number}")
        place = open_at.get(index) if thought.redacted is None else None
        if place is None:
            place = len(thoughts)
            thoughts.append(thought)
        else:
            thoughts[place] = replace(thought, text=thoughts[place].text + thought.text)
        thought = thoughts[place]
        open_at.pop(None, None)  # without an index only the entry before can be gone on with
        if thought.signature or thought.thought_signature or thought.redacted is not None:
            open_at.pop(index, None)
        else:
            open_at[index] = place
    return thoughts


def _thought(block: Json, where: str) -> Reasoning:
    """A block of thought. Whose a signature is, its place says; an empty one is none."""
    if block.get("type") == "redacted_thinking":
        return Reasoning("", redacted=fields.string(fields.needed(block, "data", where), f"{where}.data"))
    return Reasoning(
        fields.optional(block, "thinking", fields.string, where) or "",
        signature=fields.optional(block, "signature", fields.string, where) or None,
        thought_signature=_google_signature(block),
    )


def _call(call: object, where: str, names: dict[str, str]) -> ToolUse:
    details = fields.members(call, where)
    if "custom" in details:
        raise GatewayError(
            errors.UNSUPPORTED_PARAMETER, f"'{where}' is a custom tool call, which only OpenAI has.", param=where
        )
    call_id = fields.string(fields.needed(details, "id", where), f"{where}.id")
    function = fields.members(fields.needed(details, "function", where), f"{where}.function")
    use = _function(function, f"{where}.function", call_id, names)
    return ToolUse(use.id, use.name, use.arguments, _google_signature(details), _cache(details, where))


def _function(function: Json, where: str, call_id: str | None, names: dict[str, str]) -> ToolUse:
    name = fields.string(fields.needed(function, "name", where), f"{where}.name")
    if call_id is None:
        call_id = _legacy_id(name)
    names[call_id] = name
    return ToolUse(call_id, name, fields.optional(function, "arguments", fields.string, where) or "")


def _legacy_id(name: str) -> str:
    return f"function_{name}"


def _google_signature(carrier: Json) -> str | None:
    """Gemini's signature where this gateway, or another that follows Google's own convention, has put it."""
    extra = carrier.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    if not isinstance(signature, str):
        specific = carrier.get("provider_specific_fields")
        signature = specific.get("thought_signature") if isinstance(specific, dict) else None
    return signature if isinstance(signature, str) and signature else None


def _result(message: Json, where: str, call_id: str, names: dict[str, str]) -> ToolResult:
    content = message.get("content")
    parts: list[Text | Image | Document] = []
    if isinstance(content, str):
        parts.append(Text(content))
    elif content is not None:
        for index, item in enumerate(fields.items(content, f"{where}.content")):
            part = _part(item, f"{where}.content.{index}")
            if not isinstance(part, Text | Image | Document):
                raise GatewayError(
                    errors.INVALID_VALUE,
                    f"'{where}.content.{index}' cannot stand in a tool's result; text, images and files can.",
                    param=f"{where}.content.{index}",
                )
            parts.append(part)
    error = fields.optional(message, "is_error", fields.boolean, where) or False
    return ToolResult(call_id, names.get(call_id), tuple(parts), error, _cache(message, where))


# --- tools and the form of the answer ------------------------------------------------------------------------------


def _tools(body: Json) -> tuple[Tool, ...]:
    given = body.get("tools")
    tools = [_tool(tool, f"tools.{index}") for index, tool in enumerate(fields.items(given, "tools") if given else ())]
    for index, function in enumerate(fields.items(body["functions"], "functions") if body.get("functions") else ()):
        tools.append(_definition(fields.members(function, f"functions.{index}"), f"functions.{index}", None))
    return tuple(tools)


def _tool(tool: object, where: str) -> Tool:
    details = fields.members(tool, where)
    kind = details.get("type", "function")
    if kind != "function":
        raise GatewayError(
            errors.UNSUPPORTED_PARAMETER,
            f"'{where}' is a tool of type {str(kind)[:50]!r}; only function tools can be translated.",
            param=f"{where}.type",
        )
    function = fields.members(fields.needed(details, "function", where), f"{where}.function")
    return _definition(function, f"{where}.function", _cache(details, where) or _cache(function, where))


def _definition(function: Json, where: str, mark: CacheMark | None) -> Tool:
    return Tool(
        fields.string(fields.needed(function, "name", where), f"{where}.name"),
        fields.optional(function, "description", fields.string, where),
        fields.optional(function, "parameters", fields.members, where),
        fields.optional(function, "strict", fields.boolean, where),
        mark,
    )


def _tool_choice(body: Json) -> ToolChoice | None:
    choice = body.get("tool_choice")
    if choice is None:
        choice = body.get("function_call")
        if isinstance(choice, dict):
            choice = {"type": "function", "function": choice}
    match choice:
        case None:
            return None
        case "auto" | "none" | "required":
            return ToolChoice(choice)
        case "any":  # Anthropic's and Mistral's word for it
            return ToolChoice("required")
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolChoice("named", (name,))
        case {"type": "allowed_tools", "allowed_tools": {"tools": list(tools), **rest}}:
            return _allowed_choice(tools, rest.get("mode"))
        case {"type": "allowed_tools", "tools": list(tools), **rest}:
            return _allowed_choice(tools, rest.get("mode"))
        case _:
            raise GatewayError(
                errors.INVALID_VALUE,
                "'tool_choice' must be auto, none, required, a function by name, or allowed_tools.",
                param="tool_choice",
            )


def _allowed_choice(tools: list[Any], mode: object) -> ToolChoice:
    required = mode == "required"
    if required and not tools:  # no provider can say it: a list without names allows every tool
        raise GatewayError(
            errors.INVALID_VALUE, "'tool_choice' demands a call, but allows no tool.", param="tool_choice"
        )
    return ToolChoice("allowed", _allowed(tools), required=required)


def _allowed(tools: list[Any]) -> tuple[str, ...]:
    names = []
    for index, tool in enumerate(tools):
        where = f"tool_choice.allowed_tools.tools.{index}"
        function = fields.members(fields.needed(fields.members(tool, where), "function", where), f"{where}.function")
        names.append(fields.string(fields.needed(function, "name", f"{where}.function"), f"{where}.function.name"))
    return tuple(names)


def _response_format(form: object) -> ResponseFormat | None:
    match form:
        case None:
            return None
        case {"type": "text"}:
            return ResponseFormat("text")
        case {"type": "json_object"}:
            return ResponseFormat("json_object")
        case {"type": "json_schema", "json_schema": dict(details)}:
            where = "response_format.json_schema"
            return ResponseFormat(
                "json_schema",
                fields.optional(details, "name", fields.string, where),
                fields.optional(details, "schema", fields.members, where),
                fields.optional(details, "strict", fields.boolean, where),
            )
        case _:
            raise GatewayError(
                errors.INVALID_VALUE,
                "'response_format' must have the type text, json_object or json_schema (with its json_schema).",
                param="response_format",
            )


def _stop(stop: object) -> tuple[str, ...]:
    if isinstance(stop, str):
        return (stop,)
    return _strings(stop, "stop")


def _strings(values: object, where: str) -> tuple[str, ...]:
    if values is None:
        return ()
    return tuple(fields.string(value, f"{where}.{index}") for index, value in enumerate(fields.items(values, where)))


def cache_marks(body: Mapping[str, Any]) -> Iterator[str]:
    """Where in a request that was parsed there are marks for a cache."""
    if body.get("cache_control") is not None:
        yield "cache_control"
    for index, message in enumerate(body["messages"]):
        yield from _marks_of(message, f"messages.{index}", "content", "tool_calls")
    for index, tool in enumerate(body.get("tools") or ()):
        yield from _marks_of(tool, f"tools.{index}")
        yield from _marks_of(tool["function"], f"tools.{index}.function")


def _marks_of(carrier: Json, where: str, *within: str) -> Iterator[str]:
    if carrier.get("cache_control") is not None:
        yield f"{where}.cache_control"
    for name in within:
        parts = carrier.get(name)
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict):
                yield from _marks_of(part, f"{where}.{name}.{index}")


def _cache(carrier: Json, where: str) -> CacheMark | None:
    mark = carrier.get("cache_control")
    if mark is None:
        return None
    where = f"{where}.cache_control".lstrip(".")
    return CacheMark(fields.optional(fields.members(mark, where), "ttl", fields.string, where))


_READERS: Mapping[str, Callable[[object, str], object]] = {
    "parallel_tool_calls": fields.boolean,
    "max_completion_tokens": fields.whole,
    "temperature": fields.number,
    "top_p": fields.number,
    "n": fields.whole,
    "seed": fields.integer,
    "presence_penalty": fields.number,
    "frequency_penalty": fields.number,
    "logit_bias": fields.members,
    "logprobs": fields.boolean,
    "top_logprobs": fields.integer,
    "reasoning_effort": fields.string,
    "user": fields.string,
    "service_tier": fields.string,
    "metadata": fields.members,
}
"""How each field of one value is read. Most requests have few of them."""
