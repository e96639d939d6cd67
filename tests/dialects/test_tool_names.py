"""Names of tools that a provider does not take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects import anthropic_messages, gemini
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget, Call, Dialect
from inferxgate.dialects.tool_names import JSON_ANSWER_TOOL
from inferxgate.errors import GatewayError

Json = dict[str, Any]

ANTHROPIC, GEMINI = anthropic_messages.DIALECT, gemini.DIALECT
TAKEN = {
    ANTHROPIC.name: re.compile(r"[a-zA-Z0-9_-]{1,128}"),
    GEMINI.name: re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}"),
}
BOTH = pytest.mark.parametrize("dialect", [ANTHROPIC, GEMINI], ids=lambda dialect: dialect.name)
USER: Json = {"role": "user", "content": "hi"}


def function(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def called(*names: str) -> list[Json]:
    """A history in which each of the tools was called, and answered."""
    calls = [{"id": f"c{n}", **function(name)} for n, name in enumerate(names)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "fine"} for call in calls]
    return [USER, {"role": "assistant", "content": None, "tool_calls": calls}, *results]


def build(dialect: Dialect, names: list[str], history: list[Json] | None = None, **more: Any) -> Call:
    tools = {"tools": [function(name) for name in names]} if names else {}
    request = parse_request({"model": "m", "messages": history or [USER], **tools, **more})
    return dialect.build_request(request, BuildTarget("host", "m", Abilities()))


def defined(dialect: Dialect, body: Json) -> list[str]:
    if dialect is ANTHROPIC:
        return [tool["name"] for tool in body.get("tools", [])]
    return [each["name"] for tool in body.get("tools", []) for each in tool["functionDeclarations"]]


def in_history(dialect: Dialect, body: Json) -> list[str]:
    """The names of the calls and, where they have them, of their results."""
    if dialect is ANTHROPIC:
        return [block["name"] for turn in body["messages"] for block in turn["content"] if block["type"] == "tool_use"]
    parts = [part for turn in body["contents"] for part in turn["parts"]]
    return [part[kind]["name"] for part in parts for kind in ("functionCall", "functionResponse") if kind in part]


def client_names(call: Call, names: list[str]) -> list[str]:
    return [call.tool_names.get(name, name) for name in names]


@pytest.mark.parametrize(
    ("dialect", "name", "sent"),
    [
        (ANTHROPIC, "files_read-2", "files_read-2"),
        (ANTHROPIC, "a" * 128, "a" * 128),
        (ANTHROPIC, "2", "2"),
        (ANTHROPIC, "files.read", "files_read"),
        (ANTHROPIC, "mcp://files/read all", "mcp___files_read_all"),
        (ANTHROPIC, "读取", "__"),
        (ANTHROPIC, "a" * 129, "a" * 55 + "_c12cb024"),
        (ANTHROPIC, JSON_ANSWER_TOOL, f"{JSON_ANSWER_TOOL}_97398c5a"),
        (GEMINI, "files.read:all-2", "files.read:all-2"),
        (GEMINI, "mcp/files", "mcp_files"),
        (GEMINI, "2fast", "_2fast"),
        (GEMINI, "-x", "_-x"),
    ],
)
def test_what_a_name_becomes(dialect: Dialect, name: str, sent: str) -> None:
    call = build(dialect, [name], tool_choice=function(name))
    body = json.loads(call.body)
    assert defined(dialect, body) == [sent]
    assert call.tool_names == ({} if sent == name else {sent: name})
    assert call.dropped == ()
    if dialect is ANTHROPIC:
        assert body["tool_choice"] == {"type": "tool", "name": sent}
    else:
        assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == [sent]


@BOTH
def test_history_and_definitions_change_together(dialect: Dialect) -> None:
    call = build(dialect, ["a/b", "c"], [{"role": "system", "content": "be"}, *called("a/b", "gone/now", "c")])
    body = json.loads(call.body)
    assert defined(dialect, body) == ["a_b", "c"]
    assert set(in_history(dialect, body)) == {"a_b", "gone_now", "c"}
    assert call.tool_names == {"a_b": "a/b", "gone_now": "gone/now"}


def test_a_result_whose_call_has_no_name_is_left() -> None:
    history = [*called("a/b"), USER]
    assert in_history(GEMINI, json.loads(build(GEMINI, [], history).body)) == ["a_b", "a_b"]
    with pytest.raises(GatewayError):
        build(GEMINI, ["a/b"], [USER, {"role": "tool", "tool_call_id": "other", "content": "x"}])


def test_a_name_that_is_somebodys_is_not_given_again() -> None:
    call = build(ANTHROPIC, ["a.b", "a_b", "a:b"])
    names = defined(ANTHROPIC, json.loads(call.body))
    assert names[1] == "a_b"
    assert len(set(names)) == 3
    assert client_names(call, names) == ["a.b", "a_b", "a:b"]
    assert all(re.fullmatch(r"a_b_[0-9a-f]{8}", name) for name in (names[0], names[2]))


def test_a_digest_that_is_somebodys_is_made_longer() -> None:
    first = defined(ANTHROPIC, json.loads(build(ANTHROPIC, ["a.b", "a_b"]).body))[0]
    second = defined(ANTHROPIC, json.loads(build(ANTHROPIC, ["a.b", "a_b", first]).body))[0]
    assert second.startswith(first)
    assert len(second) == len(first) + 1


@BOTH
def test_a_tool_without_a_name_is_a_400(dialect: Dialect) -> None:
    with pytest.raises(GatewayError) as raised:
        build(dialect, ["a", ""])
    assert (raised.value.status, raised.value.param) == (400, "tools.1.function.name")


@BOTH
def test_a_choice_of_what_is_not_there_is_told_by_the_clients_name(dialect: Dialect) -> None:
    with pytest.raises(GatewayError, match="not/there") as raised:
        build(dialect, ["a/b"], tool_choice=function("not/there"))
    assert raised.value.param == "tool_choice"


NAMES = st.lists(
    st.text(st.sampled_from("ab._:-/ 1é"), min_size=1, max_size=6) | st.text("a.", min_size=120, max_size=140),
    min_size=1,
    max_size=6,
    unique=True,
)


@BOTH
@given(names=NAMES, old=NAMES, seed=st.randoms(use_true_random=False))
def test_every_name_fits_and_leads_back_to_its_own(
    dialect: Dialect, names: list[str], old: list[str], seed: Any
) -> None:
    call = build(dialect, names, called(*old))
    body = json.loads(call.body)
    sent, history = defined(dialect, body), in_history(dialect, body)
    assert all(TAKEN[dialect.name].fullmatch(name) for name in (*sent, *history))
    assert client_names(call, sent) == names
    assert client_names(call, history)[: len(old)] == old
    assert len({*sent, *history}) == len({*names, *old})
    assert renaming(dialect, names, old) == renaming(dialect, seed.sample(names, len(names)), old)


def renaming(dialect: Dialect, names: list[str], old: list[str]) -> Mapping[str, str]:
    return build(dialect, names, called(*old)).tool_names
