"""A conversation as a body of Gemini's generateContent.

Decisions, beside the contract's:

- System messages, wherever they stand, become ``systemInstruction`` in their order. A conversation of nothing else gets
  one user content with empty text, which the API takes, where no contents are refused.
- Every call and its response carry the client's id: the API takes any, and parallel calls of one function are told
  apart by it. Responses go in the order of the calls, all in one content, as many as there are calls.
- A tool's result is never touched: its text is wrapped as ``{"output": text}`` (several texts as a list of them), an
  error as ``{"error": text}``. Images and files lie in the response's own ``parts`` for models that take them there
  (Gemini 3 and later), and after all responses for others.
- A model that demands thought signatures (Gemini 3 and later) gets Google's documented stand-in on the first call of
  a turn that has none, as in a history from another model or from a client that drops what it does not know.
- A plain ``https`` URL needs its bytes (``MediaNeeded``), which the gateway may have been allowed to fetch; without
  them, and for every other address, the request is a 400 that says how to send the data.
- The client's ``google`` object (also inside ``extra_body``), and fields under the API's own names, are put into the
  body as they are, after everything else.

Sources for names and shapes: the types of the ``google-genai`` Python package 3.4 and Google's API reference, read in
November 2026; https://ai.google.dev/gemini-api/docs/thought-signatures for the stand-in, which is sent as that package
sends it; https://ai.google.dev/gemini-api/docs/openai for what each effort amounts to.
"""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from inferxgate import errors
from inferxgate.canonical.conversation import (
    Audio,
    Bytes,
    Conversation,
    Document,
    FileId,
    Image,
    MediaSource,
    Message,
    Part,
    Reasoning,
    Refused,
    ServerBlock,
    Text,
    ToolResult,
    ToolUse,
    Url,
)
from inferxgate.dialects.gemini_thinking import thinking_config
from inferxgate.dialects.gemini_tools import tools_and_form
from inferxgate.dialects.protocol import BuildTarget, MediaNeeded, Wanted
from inferxgate.errors import GatewayError, Kind
from inferxgate.values import dataclass

Json = dict[str, Any]

_NO_SIGNATURE = base64.b64encode(b"skip_thought_signature_validator").decode()
_MAX_STOPS = 5
_SEEDS = range(-(2**31), 2**31)
"""``generationConfig.seed`` is an int32, where OpenAI's are of 64 bits."""
_FILE_NAME = re.compile(r"files/[a-z0-9-]{1,40}")
_FILES = "https://generativelanguage.googleapis.com/v1beta/"
_VIDEO_HOSTS = frozenset({"youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be"})
_IMAGES = frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"})
"""What the API takes, by https://ai.google.dev/gemini-api/docs/image-understanding#supported-formats."""
_FILES_TAKEN = _IMAGES | {"application/pdf"}


def build_body(
    conversation: Conversation, target: BuildTarget, *, cache_marks: Iterable[str] = ()
) -> tuple[Json, tuple[str, ...]]:
    """The request's JSON, and what was left out, each by its place in the client's request.

    ``cache_marks``: where the client has put any.

    Raises ``GatewayError`` (400) that names what the target cannot be asked for, and ``MediaNeeded``.
    """
    limits = _Limits(target)
    _refuse(conversation, limits)
    body: Json = {"contents": _Contents(limits).build(conversation)}
    system = _system(conversation.messages)
    if system:
        body["systemInstruction"] = {"parts": system}
    tools, form = tools_and_form(conversation, target)
    body |= tools
    config = _generation_config(conversation, form, limits)
    if config:
        body["generationConfig"] = config
    _leave_out(conversation, limits)
    for where in cache_marks:
        limits.drop(where)
    _put_natives(body, conversation.extra, limits)
    if limits.wanted:
        raise MediaNeeded(_send_the_data(limits.wanted[0].where, target.provider), limits.wanted)
    return body, tuple(dict.fromkeys(limits.dropped))


class _Limits:
    """What the target takes, and what was left out for it."""

    def __init__(self, target: BuildTarget) -> None:
        self.target = target
        self.dropped: list[str] = []
        self.wanted: list[Wanted] = []
        """What has to be fetched before the body can be built."""

    @property
    def signatures(self) -> bool:
        """Whether the model is of the generation (Gemini 3 and later) that demands signatures on its calls.

        The same generation takes levels of thought, and media within a function's response.
        """
        return self.target.abilities.thinking == "level"

    def drop(self, param: str) -> None:
        """Leave out a tuning parameter, or refuse it where the policy is strict."""
        if self.target.strict:
            raise self.unsupported(param, f"{self.target.provider} has no equivalent of '{param}'.")
        self.dropped.append(param)

    def unsupported(self, param: str, words: str) -> GatewayError:
        return GatewayError(errors.UNSUPPORTED_PARAMETER, words, param=param)


def _wrong(param: str, words: str, kind: Kind = errors.INVALID_VALUE) -> GatewayError:
    return GatewayError(kind, words, param=param)


# --- what has no equivalent ---------------------------------------------------------------------------------------


def _refuse(conversation: Conversation, limits: _Limits) -> None:
    """Raise for what would change the answer's meaning if it were left out."""
    provider = limits.target.provider
    if conversation.top_logprobs and not conversation.logprobs:
        raise _wrong("top_logprobs", "'top_logprobs' are given only where 'logprobs' is true.")
    if "web_search_options" in conversation.extra:
        raise limits.unsupported(
            "web_search_options",
            f"{provider} does not take 'web_search_options'; its own search is asked for with "
            '"google": {"tools": [{"googleSearch": {}}]}.',
        )
    wanted = set(conversation.modalities) - {"text"}
    if wanted - {"image"} or "audio" in conversation.extra:
        raise limits.unsupported("modalities", f"{provider} cannot answer with audio here ('modalities').")
    if wanted and not limits.target.abilities.image_output:
        raise limits.unsupported(
            "modalities", f"The model {limits.target.model} of {provider} does not make images ('modalities')."
        )
    if len([text for text in conversation.stop if text]) > _MAX_STOPS:
        raise _wrong("stop", f"{provider} takes at most {_MAX_STOPS} stop sequences ('stop').")


def _leave_out(conversation: Conversation, limits: _Limits) -> None:
    """Name every tuning parameter that has no equivalent."""
    given = {
        "parallel_tool_calls": conversation.parallel_tool_calls is False,
        "logit_bias": conversation.logit_bias is not None,
        "user": conversation.user is not None,
        "service_tier": conversation.service_tier not in (None, "auto", "default"),
        "metadata": conversation.metadata is not None,
    }
    for name, is_given in given.items():
        if is_given:
            limits.drop(name)


# --- messages -----------------------------------------------------------------------------------------------------


def _numbered(messages: tuple[Message, ...]) -> Iterator[tuple[int, Message]]:
    """Each message with its place in the client's list, where every result of a tool was one message."""
    place = 0
    for message in messages:
        yield place, message
        results = sum(isinstance(part, ToolResult) for part in message.parts)
        place += results if results and results == len(message.parts) else 1


def _system(messages: tuple[Message, ...]) -> list[Json]:
    parts = []
    for place, message in _numbered(messages):
        for index, part in enumerate(message.parts) if message.role == "system" else ():
            if not isinstance(part, Text):
                raise _wrong(f"messages.{place}.content.{index}", "A system message can only hold text.")
            if part.text:
                parts.append({"text": part.text})
    return parts


@dataclass(slots=True)
class _OpenCall:
    """A call of the current turn, and its response once that is there."""

    id: str
    name: str
    where: str
    result: tuple[int, ToolResult] | None = None


class _Contents:
    """Writes the contents: turns of ``user`` and ``model`` by turns, responses after their calls."""

    def __init__(self, limits: _Limits) -> None:
        self._limits = limits
        self._contents: list[Json] = []
        self._open: list[_OpenCall] = []

    def build(self, conversation: Conversation) -> list[Json]:
        for place, message in _numbered(conversation.messages):
            if message.name is not None:
                self._limits.drop(f"messages.{place}.name")
            match message.role:
                case "system":
                    continue
                case "assistant":
                    self._close_answered()
                    self._add("model", list(self._assistant(message, place)))
                case _:
                    self._user(message, place)
        self._close()
        if not self._contents:
            return [{"role": "user", "parts": [{"text": ""}]}]
        if self._contents[-1]["role"] == "model" and not self._limits.target.abilities.prefill:
            raise self._limits.unsupported(
                "messages",
                f"The model {self._limits.target.model} of {self._limits.target.provider} does not continue an answer: "
                "the last message must not be the assistant's.",
            )
        return self._contents

    def _add(self, role: str, parts: list[Json]) -> None:
        if len(parts) > 1:  # empty text says nothing beside other parts, unless a signature belongs to it
            parts = [part for part in parts if part != {"text": ""}] or parts[:1]
        if not parts:
            return
        if self._contents and self._contents[-1]["role"] == role:
            self._contents[-1]["parts"] += parts
        else:
            self._contents.append({"role": role, "parts": parts})

    # --- the user's turns ---

    def _user(self, message: Message, place: int) -> None:
        parts: list[Json] = []
        results = 0
        for index, part in enumerate(message.parts):
            if isinstance(part, ToolResult):
                self._answer(part, place + results)
                results += 1
            else:
                parts.append(self._user_part(part, f"messages.{place}.content.{index}"))
        if parts or not results:
            self._close()
            self._add("user", parts)

    def _user_part(self, part: Part, where: str) -> Json:
        match part:
            case Text():
                return {"text": part.text}
            case Image() | Audio() | Document():
                return self._media(part, where)
            case _:
                raise _wrong(where, "A user's message can only hold text, images, audio and files.")

    def _media(self, part: Image | Audio | Document, where: str) -> Json:
        if isinstance(part, Image) and part.detail not in (None, "auto"):
            self._limits.drop(f"{where}.image_url.detail")
        if isinstance(part, Document):
            for name in ("title", "context", "citations"):
                if getattr(part, name):
                    self._limits.drop(f"{where}.{name}")
        source = part.source
        if isinstance(source, Url) and _is_elsewhere(source.url):
            fetched = self._limits.target.fetched.get(source.url)
            if fetched is None:
                self._limits.wanted.append(
                    Wanted(source.url, where, _IMAGES if isinstance(part, Image) else _FILES_TAKEN)
                )
                return {}
            source = fetched
        return _media_part(source, getattr(part, "filename", None), where, self._limits.target.provider)

    # --- the model's turns ---

    def _assistant(self, message: Message, place: int) -> Iterator[Json]:
        calls = [part for part in message.parts if isinstance(part, ToolUse)]
        texts = [part for part in message.parts if isinstance(part, Text | Refused)]
        unsigned = self._limits.signatures and not any(call.signature for call in calls)
        number = thoughts = images = 0
        for index, part in enumerate(message.parts):
            match part:
                case Text() | Refused():
                    built = {"text": part.text}
                    if message.signature is not None and part is texts[-1]:
                        built["thoughtSignature"] = message.signature
                    yield built
                case Reasoning():
                    where = f"messages.{place}.thinking_blocks.{thoughts}"
                    thoughts += 1
                    yield from self._thought(part, where)
                case Image():
                    built = self._media(part, f"messages.{place}.images.{images}")
                    images += 1
                    yield built | {"thoughtSignature": part.signature} if part.signature else built
                case ServerBlock():
                    self._limits.dropped.append(f"messages.{place}.extra_content.anthropic")
                case ToolUse():
                    where = f"messages.{place}.tool_calls.{number}"
                    yield self._call(part, where, stand_in=unsigned and number == 0)
                    number += 1
                case _:
                    raise _wrong(
                        f"messages.{place}.content.{index}",
                        "An assistant's message can only hold text, images and tool calls.",
                    )
        if message.signature is not None and not texts:
            yield {"text": "", "thoughtSignature": message.signature}

    def _thought(self, thought: Reasoning, where: str) -> Iterator[Json]:
        """What the model thought. Opaque data and signatures of another vendor mean nothing here: they are named."""
        if thought.redacted is not None:
            self._limits.dropped.append(where)
        elif thought.text or thought.thought_signature:
            built: Json = {"text": thought.text, "thought": True}
            yield built | {"thoughtSignature": thought.thought_signature} if thought.thought_signature else built
        if thought.signature:
            self._limits.dropped.append(f"{where}.signature")

    def _call(self, call: ToolUse, where: str, *, stand_in: bool) -> Json:
        self._open.append(_OpenCall(call.id, call.name, where))
        built: Json = {"functionCall": {**_id(call), "name": call.name, "args": self._arguments(call, where)}}
        signature = call.signature or (_NO_SIGNATURE if stand_in else None)
        if signature is not None:
            built["thoughtSignature"] = signature
        return built

    def _arguments(self, call: ToolUse, where: str) -> Json:
        if not call.arguments.strip():
            return {}
        try:
            arguments = orjson.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
        if arguments is None:
            return {}
        if not isinstance(arguments, dict):
            self._limits.dropped.append(f"{where}.function.arguments")
            return {"_raw_arguments": call.arguments}
        return arguments

    # --- results ---

    def _answer(self, result: ToolResult, place: int) -> None:
        """Put a result to its call: the first of its id that has none."""
        waiting = [call for call in self._open if call.id == result.call_id]
        if not waiting:
            raise _wrong(
                f"messages.{place}.tool_call_id",
                f"'messages.{place}' is the result of a call ({result.call_id[:64]!r}) that the assistant's message "
                "before it does not make.",
            )
        call = next((call for call in waiting if call.result is None), None)
        if call is None:
            raise _wrong(
                f"messages.{place}.tool_call_id",
                f"'messages.{place}' is a second result of the call {result.call_id[:64]!r}.",
            )
        call.result = (place, result)

    def _close_answered(self) -> None:
        """Before another message of the assistant: calls that it goes on to make belong to the same turn."""
        if any(call.result is not None for call in self._open):
            self._close()

    def _close(self) -> None:
        """Write the responses of the turn, which must be as many as its calls."""
        responses: list[Json] = []
        beside: list[Json] = []
        for call in self._open:
            if call.result is None:
                raise _wrong(
                    call.where,
                    f"'{call.where}' has no result: a message with its tool_call_id ({call.id[:64]!r}) is missing.",
                )
            responses.append(self._response(call, *call.result, beside=beside))
        self._open = []
        self._add("user", [*responses, *beside])

    def _response(self, call: _OpenCall, place: int, result: ToolResult, *, beside: list[Json]) -> Json:
        texts = [part.text for part in result.content if isinstance(part, Text)]
        media = [
            self._media(part, f"messages.{place}.content.{index}")
            for index, part in enumerate(result.content)
            if not isinstance(part, Text)
        ]
        said = texts if len(texts) > 1 else "".join(texts)
        response: Json = {
            **_id(call),
            "name": call.name,
            "response": {"error" if result.is_error else "output": said},
        }
        if media and self._limits.signatures:
            response["parts"] = media
        else:
            beside += media
        return {"functionResponse": response}


def _id(call: ToolUse | _OpenCall) -> Json:
    """The id of a call; nothing for the empty one, with which some hosts call: the order tells such calls apart."""
    return {"id": call.id} if call.id else {}


def _media_part(source: MediaSource, filename: str | None, where: str, provider: str) -> Json:
    """An image, sound or file as a part. Raises ``GatewayError`` (400) for an address that leads nowhere."""
    if isinstance(source, Bytes):
        return {"inlineData": {"mimeType": source.media_type, "data": source.base64}}
    uri = _file_uri(source)
    if uri is None:
        raise _wrong(where, _send_the_data(where, provider), errors.UNSUPPORTED_PARAMETER)
    data: Json = {"fileUri": uri}
    media_type = mimetypes.guess_type(filename or urlsplit(uri).path)[0]
    if _is_video(uri):
        media_type = "video/mp4"
    if media_type is not None:
        data["mimeType"] = media_type
    return {"fileData": data}


def _send_the_data(where: str, provider: str) -> str:
    return (
        f"{provider} cannot be given '{where}' by this address: send the data itself as a data URL (for an image, "
        "data:image/png;base64,...), a file of Google's Files API (files/...), a gs:// address or a YouTube video."
    )


def _is_elsewhere(url: str) -> bool:
    """Whether somebody other than Google has it, who can be asked for it."""
    return url[:8].lower() == "https://" and _file_uri(Url(url)) is None


def _file_uri(source: Url | FileId) -> str | None:
    """The address of a file that Google itself has; None for any other."""
    if isinstance(source, FileId):
        return _FILES + source.id if _FILE_NAME.fullmatch(source.id) else None
    return source.url if source.url.startswith(("gs://", _FILES + "files/")) or _is_video(source.url) else None


def _is_video(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and parts.netloc.lower() in _VIDEO_HOSTS


# --- settings -----------------------------------------------------------------------------------------------------


def _generation_config(conversation: Conversation, form: Json, limits: _Limits) -> Json:
    """``generationConfig``."""
    stop = [text for text in conversation.stop if text]
    if len(stop) < len(conversation.stop):
        limits.drop("stop")  # an empty one is refused
    seed = conversation.seed
    if seed is not None and seed not in _SEEDS:
        limits.drop("seed")
        seed = None
    config: Json = {
        "maxOutputTokens": conversation.max_tokens,
        "stopSequences": stop or None,
        "seed": seed,
        "presencePenalty": conversation.presence_penalty,
        "frequencyPenalty": conversation.frequency_penalty,
        "candidateCount": conversation.n if conversation.n > 1 else None,
        "responseLogprobs": conversation.logprobs or None,
        "logprobs": conversation.top_logprobs or None,
    }
    for name, param, value in (
        ("temperature", "temperature", conversation.temperature),
        ("topP", "top_p", conversation.top_p),
    ):
        if value is not None and not limits.target.abilities.sampling:
            limits.drop(param)
        else:
            config[name] = value
    if any(modality != "text" for modality in conversation.modalities):
        config["responseModalities"] = [modality.upper() for modality in conversation.modalities]
    config |= form
    if conversation.reasoning_effort is not None:
        thinking = thinking_config(conversation.reasoning_effort, limits.target, max_tokens=conversation.max_tokens)
        if thinking is None:
            limits.drop("reasoning_effort")
        config["thinkingConfig"] = thinking or None
    return {name: value for name, value in config.items() if value is not None}


# --- the provider's own fields ------------------------------------------------------------------------------------

_CONFIG_FIELDS: Mapping[str, str] = {
    "top_k": "topK",
    "thinking_config": "thinkingConfig",
    "media_resolution": "mediaResolution",
    "speech_config": "speechConfig",
    "image_config": "imageConfig",
    "response_modalities": "responseModalities",
    "audio_timestamp": "audioTimestamp",
    "routing_config": "routingConfig",
    "enable_enhanced_civic_answers": "enableEnhancedCivicAnswers",
}
"""Fields of ``generationConfig`` that chat completions do not have."""

_BODY_FIELDS: Mapping[str, str] = {
    "safety_settings": "safetySettings",
    "cached_content": "cachedContent",
    "labels": "labels",
    "generation_config": "generationConfig",
}
"""Fields of the body that are taken at the top of a request, too: nothing of OpenAI's has these names."""

_GOOGLE_FIELDS: Mapping[str, str] = {
    "tools": "tools",
    "tool_config": "toolConfig",
    "service_tier": "serviceTier",
    "store": "store",
}
"""Fields of the body that are taken in ``google`` only, because OpenAI has others of these names."""

_OUR_OWN = frozenset({"contents", "systemInstruction", "system_instruction", "model"})


def _put_natives(body: Json, extra: Mapping[str, Any], limits: _Limits) -> None:
    """Put the provider's own fields into the body; name what is left."""
    for name, value in extra.items():
        if name == "google":
            continue
        if name == "extra_body" and isinstance(value, dict):
            for inner in value:
                if inner != "google":
                    limits.drop(f"extra_body.{inner}")
            continue
        if not _put(body, name, value, name, {**_BODY_FIELDS}, limits):
            limits.drop(name)
    wrapped = extra.get("extra_body")
    for where, google in (
        ("google", extra.get("google")),
        ("extra_body.google", wrapped.get("google") if isinstance(wrapped, dict) else None),
    ):
        for name, value in _object(google, where).items():
            if name in _OUR_OWN:
                raise _wrong(f"{where}.{name}", f"'{where}.{name}' is made from the request's messages and model.")
            if not _put(body, name, value, f"{where}.{name}", {**_BODY_FIELDS, **_GOOGLE_FIELDS}, limits):
                body[name] = value


def _object(value: object, where: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(where, f"'{where}' must be an object.")
    return value


def _put(body: Json, name: str, value: Any, where: str, body_fields: Mapping[str, str], limits: _Limits) -> bool:
    """Put one native field, which stands at ``where``, where it belongs, in either spelling; False: it is not known."""
    if (field := _spelt(name, _CONFIG_FIELDS)) is not None:
        if field == "topK" and not limits.target.abilities.sampling:
            limits.drop(where)
            return True
        config = body.setdefault("generationConfig", {})
        if field == "thinkingConfig" and field in config:
            limits.drop("reasoning_effort")  # the native setting is the more exact, and both at once are refused
        config[field] = value
        return True
    field = _spelt(name, body_fields)
    if field is None:
        return False
    if field == "generationConfig":
        for inner, setting in _object(value, where).items():
            if not _put(body, inner, setting, f"{where}.{inner}", {}, limits):
                body.setdefault("generationConfig", {})[inner] = setting
    elif field == "tools":
        if not isinstance(value, list):
            raise _wrong(where, f"'{where}' must be a list.")
        body["tools"] = [*body.get("tools", ()), *value]
    elif field == "toolConfig":
        body["toolConfig"] = {**body.get("toolConfig", {}), **_object(value, where)}
    else:
        body[field] = value
    return True


def _spelt(name: str, fields: Mapping[str, str]) -> str | None:
    """The API's spelling of a field given in that or in snake case."""
    return fields.get(name) or (name if name in fields.values() else None)
