"""A request's JSON as bytes, whatever its dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from inferxgate import errors
from inferxgate.errors import GatewayError


def written(body: Mapping[str, Any], asked: Mapping[str, Any]) -> bytes:
    """``body`` as JSON, made of what the client ``asked``.

    Raises ``GatewayError`` (400) that names the client's deepest field for what is nested too deeply: it could be read,
    for reading goes deeper than writing.
    """
    try:
        return orjson.dumps(body)
    except TypeError as error:  # orjson's JSONEncodeError
        name = max(asked, key=lambda field: nesting(asked[field]))
        raise GatewayError(
            errors.INVALID_JSON,
            f"The request's JSON is nested too deeply (more than about 250 levels): '{name}'.",
            param=name,
        ) from error


def nesting(value: object) -> int:
    """How deeply objects and lists are nested, counted without recursion."""
    levels, level = 0, [value]
    while level:
        levels += 1
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return levels
