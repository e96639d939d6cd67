"""Bodies: any cut of the bytes reads the same, and whatever is wrong is said by name."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from inferxgate.errors import GatewayError
from inferxgate.server.bodies import ClientGone, parse_body, read_json
from inferxgate.server.schemas import ChangeKeyBody, LoginBody, NewKeyBody

JSON_TYPE = [(b"content-type", b"application/json")]


class Sender:
    """Sends a body in pieces, as a server hands it to an application."""

    def __init__(self, pieces: Sequence[bytes], *, leaves: bool = False) -> None:
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": leaves or number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        self._messages += [{"type": "http.disconnect"}]
        self.taken = 0

    async def receive(self) -> dict[str, Any]:
        self.taken += 1
        return self._messages.pop(0)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(bounds)]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.lists(st.integers(0, 10_000), max_size=5))
async def test_any_cut_reads_the_same(value: Any, places: list[int]) -> None:
    data = json.dumps(value, ensure_ascii=False).encode()
    body, content = await read_json(Sender(cut(data, places)).receive, JSON_TYPE, 1_000_000)
    assert body == data
    assert content == value


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
async def test_whatever_is_sent_is_json_or_refused(data: bytes, places: list[int]) -> None:
    sender = Sender(cut(data, places))
    try:
        expected = orjson.loads(data)
    except ValueError:
        with pytest.raises(GatewayError) as raised:
            await read_json(sender.receive, JSON_TYPE, 1_000)
        assert raised.value.code == "invalid_json"
    else:
        assert (await read_json(sender.receive, JSON_TYPE, 1_000))[1] == expected


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no body"),
        (b"  \n ", "no body"),
        (b"{", "line 1 column"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": Infinity}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid UTF-8: byte 7"),
        (b'{"a": "\xed\xa0\x80"}', "not valid UTF-8"),
        (b"[" * 10_000 + b"]" * 10_000, "not valid JSON"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "not valid JSON"),
        (b'{"a": 1} {"b": 2}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
    ],
)
async def test_what_is_not_json_is_told_why(data: bytes, says: str) -> None:
    with pytest.raises(GatewayError, match=says) as raised:
        await read_json(Sender([data]).receive, JSON_TYPE, 1_000_000)
    assert (raised.value.status, raised.value.code) == (400, "invalid_json")


async def test_of_duplicate_keys_the_last_wins() -> None:
    _, content = await read_json(Sender([b'{"a": 1, "a": 2}']).receive, JSON_TYPE, 1_000)
    assert content == {"a": 2}


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Application/JSON;charset=UTF-8",
        b'application/json; charset="utf-8"',
    ],
)
async def test_json_is_taken_however_it_is_announced(value: bytes) -> None:
    await read_json(Sender([b"{}"]).receive, [(b"content-type", value)], 1_000)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"multipart/form-data; boundary=application/json")],
        [(b"content-type", b"application/jsonp")],
        [(b"content-type", b"application/json; charset=utf-16")],
        [*JSON_TYPE, (b"content-encoding", b"gzip")],
    ],
)
async def test_anything_but_json_is_refused_unread(headers: list[tuple[bytes, bytes]]) -> None:
    sender = Sender([b"{}"])
    with pytest.raises(GatewayError) as raised:
        await read_json(sender.receive, headers, 1_000)
    assert (raised.value.status, raised.value.code) == (400, "invalid_content_type")
    assert sender.taken == 0


async def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    body = b'"' + b"x" * 98 + b'"'
    await read_json(Sender([body[:50], body[50:]]).receive, JSON_TYPE, 100)
    with pytest.raises(GatewayError) as raised:
        await read_json(Sender([body[:50], body[50:]]).receive, JSON_TYPE, 99)
    assert (raised.value.status, raised.value.code) == (413, "request_too_large")


async def test_an_announced_length_above_the_limit_is_refused_unread() -> None:
    sender = Sender([b"{}"])
    with pytest.raises(GatewayError) as raised:
        await read_json(sender.receive, [*JSON_TYPE, (b"content-length", b"101")], 100)
    assert (raised.value.status, sender.taken) == (413, 0)


async def test_an_endless_body_is_given_up_at_the_limit() -> None:
    sender = Sender([b"x" * 60] * 100)
    with pytest.raises(GatewayError):
        await read_json(sender.receive, JSON_TYPE, 100)
    assert sender.taken == 2


async def test_a_client_that_leaves_is_gone() -> None:
    with pytest.raises(ClientGone):
        await read_json(Sender([b'{"a"'], leaves=True).receive, JSON_TYPE, 100)


@pytest.mark.parametrize(
    ("model", "content", "code", "param"),
    [
        (LoginBody, [], "invalid_value", None),
        (LoginBody, None, "invalid_value", None),
        (LoginBody, {"email": "a@b.c"}, "missing_required_parameter", "password"),
        (LoginBody, {"email": "a@b.c", "password": 12345678}, "invalid_value", "password"),
        (LoginBody, {"email": "a@b.c", "password": "x" * 8, "role": "admin"}, "unknown_parameter", "role"),
        (NewKeyBody, {"rate_limit_rpm": "60"}, "invalid_value", "rate_limit_rpm"),
        (NewKeyBody, {"rate_limit_rpm": 1.5}, "invalid_value", "rate_limit_rpm"),
        (NewKeyBody, {"rate_limit_rpm": True}, "invalid_value", "rate_limit_rpm"),
        (NewKeyBody, {"allowed_models": "gpt-4o"}, "invalid_value", "allowed_models"),
        (NewKeyBody, {"allowed_models": [1]}, "invalid_value", "allowed_models"),
        (NewKeyBody, {"expires_at": [1]}, "invalid_value", "expires_at"),
        (NewKeyBody, {"blocked": True}, "unknown_parameter", "blocked"),
        (NewKeyBody, {"budget": 5}, "unknown_parameter", "budget"),
        (ChangeKeyBody, {"blocked": "yes"}, "invalid_value", "blocked"),
        (NewKeyBody, {"rate_limit_tpm": 1.5}, "invalid_value", "rate_limit_tpm"),
        (NewKeyBody, {"max_parallel_requests": "2"}, "invalid_value", "max_parallel_requests"),
        (NewKeyBody, {"max_budget": "10"}, "invalid_value", "max_budget"),
        (NewKeyBody, {"max_budget": True}, "invalid_value", "max_budget"),
        (NewKeyBody, {"budget_period": "year"}, "invalid_value", "budget_period"),
        (ChangeKeyBody, {"budget_period": 5}, "invalid_value", "budget_period"),
    ],
)
def test_a_wrong_field_is_named(model: type[BaseModel], content: object, code: str, param: str | None) -> None:
    with pytest.raises(GatewayError) as raised:
        parse_body(model, content)
    assert (raised.value.status, raised.value.code, raised.value.param) == (400, code, param)
    assert param is None or param in raised.value.message


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        (LoginBody, {"email": 5, "password": "x"}, "email must be a string."),
        (NewKeyBody, {"name": 5}, "name must be a string or null."),
        (NewKeyBody, {"rate_limit_rpm": "60"}, "rate_limit_rpm must be a whole number or null."),
        (NewKeyBody, {"rate_limit_rpm": 1.5}, "rate_limit_rpm must be a whole number or null."),
        (NewKeyBody, {"allowed_models": "echo"}, "allowed_models must be a list or null."),
        (NewKeyBody, {"allowed_models": ["echo", 1]}, "allowed_models (item 2) must be a string."),
        (NewKeyBody, {"expires_at": [1]}, "expires_at must be a string or a number or null."),
        (NewKeyBody, {"max_budget": "10"}, "max_budget must be a number or null."),
        (NewKeyBody, {"budget_period": "year"}, "budget_period must be 'total', 'day', 'week' or 'month' or null."),
        (ChangeKeyBody, {"blocked": "yes"}, "blocked must be true or false."),
    ],
)
def test_a_wrong_type_is_told_in_plain_words(model: type[BaseModel], content: object, message: str) -> None:
    with pytest.raises(GatewayError) as raised:
        parse_body(model, content)
    assert raised.value.message == message


def test_every_unknown_field_is_named() -> None:
    with pytest.raises(GatewayError, match="'one', 'two'"):
        parse_body(NewKeyBody, {"name": "x", "one": 1, "two": 2})


def test_a_wrong_value_is_not_repeated() -> None:
    with pytest.raises(GatewayError) as raised:
        parse_body(LoginBody, {"email": "a@b.c", "password": ["hunter2"]})
    assert "hunter2" not in raised.value.message
