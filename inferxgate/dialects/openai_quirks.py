"""What hosts that speak OpenAI's dialect do differently, put right on the way out and on the way back.

A request is changed in place, and only where a quirk of its host says so: see ``Quirks`` for each, and the host's row
for why. Answers are looked into only where the bytes of an odd finish reason are in them.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping
from typing import Any

import orjson

from inferxgate import errors
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.dialects.quirks import Quirks
from inferxgate.errors import GatewayError

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_DIGITS = string.digits + string.ascii_letters


def apply(body: dict[str, Any], target: BuildTarget) -> tuple[str, ...]:
    """Put a host's spelling into a request's JSON; the names of what was left out.

    Raises ``GatewayError`` (400) for a field with meaning that the host cannot honour, and where the policy is strict
    for any that it does not take.
    """
    quirks = target.quirks
    dropped: list[str] = []
    for name in [*body]:
        value = body[name]
        if name in quirks.refuses:
            if name == "n" and value == 1:
                continue
            if value and not (name == "modalities" and value == ["text"]):
                raise _refused(target, name)
            del body[name]
        elif name in quirks.drops or not _is_taken(quirks.only_values.get(name), value):
            if value is not None:
                _drop(name, target, dropped)
            del body[name]
        elif value is None and not quirks.nulls:
            del body[name]
    for ours, theirs in quirks.renames.items():
        if ours in body:
            body.setdefault(theirs, body.pop(ours))
    if not quirks.stream_usage:
        _without_usage_option(body)
    if quirks.in_messages:
        left_out: list[str] = []
        body["messages"] = [_message(each, index, quirks, left_out) for index, each in enumerate(body["messages"])]
        dropped += left_out
    return tuple(dropped)


def _is_taken(values: frozenset[str] | None, value: object) -> bool:
    return values is None or value is None or (isinstance(value, str) and value in values)


def _drop(name: str, target: BuildTarget, dropped: list[str]) -> None:
    if target.strict:
        raise _refused(target, name)
    dropped.append(name)


def _refused(target: BuildTarget, name: str) -> GatewayError:
    return GatewayError(
        errors.UNSUPPORTED_PARAMETER, f"The provider {target.provider} does not take '{name}'.", param=name
    )


def _without_usage_option(body: dict[str, Any]) -> None:
    options = body.get("stream_options")
    if isinstance(options, dict) and "include_usage" in options:
        rest = {name: value for name, value in options.items() if name != "include_usage"}
        if rest:
            body["stream_options"] = rest
        else:
            del body["stream_options"]


def _message(message: Mapping[str, Any], index: int, quirks: Quirks, left_out: list[str]) -> Mapping[str, Any]:
    """One message as the host takes it; ``left_out`` gathers the keys that it loses."""
    new = dict(message)
    if new["role"] == "developer" and not quirks.developer_role:
        new["role"] = "system"
    allowed = quirks.message_keys.get(new["role"])
    if allowed is not None:
        gone = {key: new.pop(key) for key in message if key not in allowed}
        left_out += [f"messages.{index}.{key}" for key, value in gone.items() if value]  # nothing goes without a word
    if quirks.short_tool_ids:
        if isinstance(new.get("tool_call_id"), str):
            new["tool_call_id"] = short_id(new["tool_call_id"])
        if isinstance(new.get("tool_calls"), list):
            new["tool_calls"] = [_with_short_id(call) for call in new["tool_calls"]]
    return new


def _with_short_id(call: Any) -> Any:
    if isinstance(call, dict) and isinstance(call.get("id"), str):
        return {**call, "id": short_id(call["id"])}
    return call


def short_id(call_id: str) -> str:
    """Nine letters or digits that stand for a tool call's id: itself where it is so already, else always the same."""
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest())
    digits = ""
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        digits += _DIGITS[digit]
    return digits


def mend(data: bytes, quirks: Quirks) -> bytes:
    """A whole answer, or the data of a stream's event, with OpenAI's finish reasons in place of the host's own.

    One with a finish reason that says that the host failed becomes an error, with the host's count beside it.
    """
    if not any(f'"{reason}"'.encode() in data for reason in (*quirks.finish_reasons, *quirks.failed_reasons)):
        return data
    try:
        body = orjson.loads(data)
    except ValueError:
        return data  # whoever reads it next says so
    choices = body.get("choices") if isinstance(body, dict) else None
    changed = False
    for choice in choices if isinstance(choices, list) else ():
        reason = choice.get("finish_reason") if isinstance(choice, dict) else None
        if not isinstance(reason, str):
            continue
        if reason in quirks.failed_reasons and not body.get("error"):
            error = {
                "message": f"the answer broke off with the finish reason '{reason}'",
                "code": quirks.failed_reasons[reason],
            }
            return orjson.dumps({"error": error, "usage": body.get("usage")})
        if reason in quirks.finish_reasons:
            choice["finish_reason"] = quirks.finish_reasons[reason]
            changed = True
    return orjson.dumps(body) if changed else data
