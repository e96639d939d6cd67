"""Request bodies: read within bounds, parsed strictly, and refused with the name of the field at fault.

Reading is at the level of ASGI messages, because the chat route is: no request object is built, and the usual body,
which comes in one piece, is not copied. ``orjson`` is the judge of JSON: it refuses NaN, lone surrogates, invalid UTF-8
and deep nesting, and of duplicate keys it keeps the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.types import Receive

from inferxgate.errors import (
    INVALID_CONTENT_TYPE,
    INVALID_JSON,
    INVALID_VALUE,
    MISSING_FIELD,
    REQUEST_TOO_LARGE,
    UNKNOWN_FIELD,
    GatewayError,
)

SILENCE_SECONDS = 60.0
"""How long a body may pause before the request is given up."""

_UTF8_NAMES = ("utf-8", "utf8", "us-ascii")

_KINDS = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "a string",
    "string_unicode": "valid Unicode",
}
"""What a field must be, by the validation library's name of the mistake."""

Model = TypeVar("Model", bound=BaseModel)

RawHeaders = list[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


class Body(BaseModel):
    """Base of every JSON body of an administrative route: exact types, and nothing but the declared fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)
    """``defer_build``: a validator is built when the first such body comes, and not by every start."""


async def read_json(receive: Receive, headers: RawHeaders, limit: int) -> tuple[bytes, Any]:
    """The body and what it says. ``limit`` is in bytes.

    Raises ``GatewayError`` (400 for the content type and for what is not JSON, 413 above the limit) and ``ClientGone``.
    """
    check_announced(headers, dict(headers), limit)
    body = await read_body(receive, limit)
    return body, parse_json(body, limit)


def check_announced(headers: RawHeaders, told: Mapping[bytes, bytes], limit: int) -> None:
    """Raises ``GatewayError`` where the headers tell of a body that is not JSON, is compressed or is too large.

    ``told`` are the headers by name: of several that have one name, the last.
    """
    if b"content-encoding" in told:
        for name, value in headers:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise GatewayError(INVALID_CONTENT_TYPE, "Compressed request bodies are not taken; send plain JSON.")
    # A missing header is refused as well: a browser sends a form or plain text from any page without asking first,
    # but application/json only after a preflight that the gateway can refuse.
    content_type = told.get(b"content-type", b"")
    if content_type != b"application/json":
        _check_content_type(content_type)
    length = told.get(b"content-length")
    if length is not None and len(length) < 20 and length.isdigit() and int(length) > limit:
        raise _too_large(limit)


def parse_json(body: bytes, limit: int) -> Any:
    """What a body says. Raises ``GatewayError`` (400 for what is not JSON, 413 above ``limit`` bytes)."""
    if len(body) > limit:
        raise _too_large(limit)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(body, error) from None


async def read_body(receive: Receive, limit: int) -> bytes:
    """A body that is still to come. Raises ``GatewayError`` (413 above ``limit`` bytes) and ``ClientGone``."""
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(SILENCE_SECONDS) as deadline:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                pieces.append(piece)
                if not message.get("more_body", False):
                    break
                deadline.reschedule(asyncio.get_running_loop().time() + SILENCE_SECONDS)
    except TimeoutError:
        raise GatewayError(INVALID_VALUE, f"The request's body stopped for {SILENCE_SECONDS:g} seconds.") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_content_type(value: bytes) -> None:
    kind, _, parameters = value.decode("latin-1").partition(";")
    if kind.strip().lower() != "application/json":
        shown = f", not {kind.strip()[:100]!r}" if kind.strip() else ""
        raise GatewayError(
            INVALID_CONTENT_TYPE, f"The header Content-Type must be application/json{shown}.", param="Content-Type"
        )
    for parameter in parameters.split(";"):
        name, _, text = parameter.partition("=")
        if name.strip().lower() == "charset" and text.strip().strip('"').lower() not in _UTF8_NAMES:
            raise GatewayError(
                INVALID_CONTENT_TYPE, "The request's body must be encoded in UTF-8.", param="Content-Type"
            )


def _too_large(limit: int) -> GatewayError:
    shown = f"{limit / 1_048_576:g} MB" if limit >= 100_000 else f"{limit} bytes"
    return GatewayError(REQUEST_TOO_LARGE, f"The request's body is larger than the {shown} that this route takes.")


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> GatewayError:
    if not body.strip():
        return GatewayError(INVALID_JSON, "The request has no body; JSON was expected.")
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        return GatewayError(INVALID_JSON, f"The body is not valid UTF-8: byte {wrong.start} is wrong.")
    where = f"line {error.lineno} column {error.colno}"
    return GatewayError(INVALID_JSON, f"The body is not valid JSON: {error.msg} ({where}).")


def parse_body(model: type[Model], content: Any) -> Model:
    """``content`` as ``model``. Raises ``GatewayError`` 400 that names the field."""
    if not isinstance(content, dict):
        raise GatewayError(INVALID_VALUE, "The request's body must be a JSON object.")
    try:
        return model.model_validate(content)
    except ValidationError as failed:
        raise _invalid(failed.errors(include_url=False, include_input=False), model) from None


def _kind(detail: ErrorDetails) -> str | None:
    """What the field must be, in plain words; None where only the validation library has words for it."""
    if detail["type"] == "literal_error":
        expected: str = detail["ctx"]["expected"]
        return expected
    return _KINDS.get(detail["type"])


def _invalid(details: list[ErrorDetails], model: type[BaseModel]) -> GatewayError:
    unknown = [str(detail["loc"][-1]) for detail in details if detail["type"] == "extra_forbidden"]
    if unknown:
        shown = ", ".join(repr(name[:100]) for name in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        fields = ", ".join(model.model_fields) or "none"
        return GatewayError(
            UNKNOWN_FIELD,
            f"Unknown field{'s' if len(unknown) > 1 else ''} {shown}{more}. Known are: {fields}.",
            param=unknown[0][:100],
        )
    # A union reports once for each of its members; the members' names in the location are pydantic's, not the client's.
    first = details[0]
    param = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "missing":
        return GatewayError(MISSING_FIELD, f"The field {param} is missing.", param=param)
    same = [detail for detail in details if detail["loc"][:1] == first["loc"][:1]]
    kinds = list(dict.fromkeys(kind for detail in same if (kind := _kind(detail))))
    if not kinds:
        said = "; or ".join(dict.fromkeys(detail["msg"] for detail in same))
        return GatewayError(INVALID_VALUE, f"{param}: {said}.", param=param)
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    item = next((f"(item {part + 1}) " for part in first["loc"][1:] if isinstance(part, int)), "")
    field = model.model_fields.get(param or "")
    if not item and "true or false" not in kinds and field is not None and type(None) in get_args(field.annotation):
        kinds.append("null")
    return GatewayError(INVALID_VALUE, f"{param} {item}must be {' or '.join(kinds)}.", param=param)
