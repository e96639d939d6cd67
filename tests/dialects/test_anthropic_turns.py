"""What Anthropic is sent of a conversation: the system's words, turns, media, calls and their results, thoughts."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.conversation import (
    Conversation,
    Image,
    Message,
    Part,
    Reasoning,
    Text,
    Tool,
    ToolResult,
    ToolUse,
)
from inferxgate.dialects.anthropic_requests import build_body
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.errors import GatewayError
from tests.dialects.anthropic_asking import (
    ADAPTIVE,
    EMPTY,
    PLAIN,
    REDACTED,
    SEALED,
    USER,
    Json,
    build,
    calls,
    refused,
    result,
    said,
    sent,
    thinking,
)
from tests.recordings.anthropic_reading import sent_to_sdk

# --- the system's words


def test_system_messages_are_hoisted_in_order_with_their_cache_marks() -> None:
    body = sent(
        messages=[
            {"role": "system", "content": "One"},
            {
                "role": "developer",
                "content": [
                    {"type": "text", "text": "Two", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
                    {"type": "text", "text": " "},
                ],
            },
            USER,
            {"role": "system", "content": "Three"},
            {"role": "system", "content": ""},
        ]
    )
    assert body["system"] == [
        {"type": "text", "text": "One"},
        {"type": "text", "text": "Two", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "Three"},
    ]
    assert len(body["messages"]) == 1


def test_a_system_prompt_alone_is_what_the_user_says() -> None:
    body = sent(messages=[{"role": "system", "content": "Tell a joke"}])
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke"}]}]
    assert "system" not in body


def test_system_messages_are_of_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    assert refused(messages=[{"role": "system", "content": [image]}, USER]).param == "messages.0.content"


# --- turns


def test_messages_of_one_role_become_one_turn_and_blanks_none() -> None:
    turns = said(
        {"role": "user", "content": "a"},
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "\n"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "assistant", "content": None, "refusal": "No"},
        {"role": "user", "content": "e"},
    )
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in turns] == [
        ("user", ["a", "b", "c"]),
        ("assistant", ["d", "No"]),
        ("user", ["e"]),
    ]


def test_a_blank_users_message_between_answers_does_not_part_them() -> None:
    turns = said(USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": " "}, calls("c"), result("c"))
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


def test_the_mark_of_a_blank_goes_to_what_stands_before_it() -> None:
    mark = {"type": "ephemeral"}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "", "cache_control": mark}]
    assert said({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "a", "cache_control": mark}
    ]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": ""}], "messages"),
        ([{"role": "system", "content": " "}, {"role": "user", "content": []}], "messages"),
        ([USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": ""}], "messages.2.content"),
    ],
)
def test_nothing_to_answer_is_a_400(messages: list[Json], param: str) -> None:
    assert refused(messages=messages).param == param


def test_the_beginning_of_the_answer() -> None:
    begun = [USER, {"role": "assistant", "content": "It is \n"}]
    assert said(*begun)[-1]["content"] == [{"type": "text", "text": "It is"}]
    error = refused(messages=begun, abilities=ADAPTIVE)
    assert error.param == "messages.1"
    assert "beginning of the answer" in error.message
    assert "claude-host" in error.message
    blank = {"role": "assistant", "content": "\n"}
    assert len(said(USER, blank, abilities=ADAPTIVE)) == 1
    assert len(said(USER, {"role": "assistant", "content": "a"}, blank)) == 2


def test_a_participants_name_is_left_out_and_named() -> None:
    _, dropped = build(messages=[{**USER, "name": "ann"}])
    assert dropped == ("messages.0.name",)


# --- media


PNG = "iVBORw0KGgo="


def image(url: str, **more: Any) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def file(**fields: Any) -> Json:
    return {"type": "file", "file": fields}


def data(kind: str, content: bytes | str) -> str:
    content = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


DESCRIBED: Json = {"title": "Report", "context": "From last year.", "citations": {"enabled": True}}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            image(f"data:image/png;base64,{PNG}"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ),
        (
            image(f"data:image/jpg;base64,{PNG}", detail="auto"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG}},
        ),
        (
            image("https://x.example/a.png"),
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}},
        ),
        (
            {**image("https://x.example/a.png"), "cache_control": {"type": "ephemeral"}},
            {
                "type": "image",
                "source": {"type": "url", "url": "https://x.example/a.png"},
                "cache_control": {"type": "ephemeral"},
            },
        ),
        (
            image(data("application/pdf", "%PDF")),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            },
        ),
        (
            file(file_data="JVBERg==", filename="a.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
            },
        ),
        (
            file(file_data=data("text/csv", "a,ü\n"), filename="t.csv"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "a,ü\n"},
                "title": "t.csv",
            },
        ),
        (
            file(file_data=data("application/json", "{}")),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "{}"}},
        ),
        (
            file(file_data=data("image/gif", "GIF")),
            {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lG"}},
        ),
        (
            file(file_data="https://x.example/a.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://x.example/a.pdf"}},
        ),
        (file(file_id="file_1"), {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        (
            file(file_id="file_1", filename="a.pdf") | DESCRIBED,
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}, **DESCRIBED},
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}, **DESCRIBED},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}, **DESCRIBED},
        ),
    ],
)
def test_images_and_files(part: Json, block: Json) -> None:
    turns = said({"role": "user", "content": [{"type": "text", "text": "Look"}, part]})
    assert turns[0]["content"][1] == block


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (image("http://x.example/a.png"), "https://"),
        (image("ftp://x.example/a.png"), "data URL"),
        (image(data("image/svg+xml", "<svg/>")), "image/svg+xml"),
        (file(file_data=data("application/zip", "PK")), "application/zip"),
        (file(file_data=data("text/plain", b"\xff\xfe")), "UTF-8"),
        ({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}, "Audio"),
    ],
)
def test_media_that_is_not_taken_is_a_400_with_its_place(part: Json, says: str) -> None:
    error = refused(messages=[{"role": "user", "content": [{"type": "text", "text": "Look"}, part]}])
    assert error.param == "messages.0.content.1"
    assert says in error.message


def test_images_that_an_assistant_made_are_shown_by_the_user_after_it() -> None:
    made = {"role": "assistant", "content": "Here", "images": [image(f"data:image/png;base64,{PNG}")]}
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    told, described = {"type": "text", "text": "Here"}, {"type": "text", "text": "Hello"}
    assert said(USER, made, USER)[1:] == [
        {"role": "assistant", "content": [told]},
        {"role": "user", "content": [block, described]},
    ]
    turns = said(USER, {**made, **calls("a")}, result("a"))
    assert turns[2]["content"] == [{"type": "tool_result", "tool_use_id": "a", "content": "fine"}, block]
    assert said(USER, {**made, "content": None}, USER) == [{"role": "user", "content": [described, block, described]}]


def test_an_image_that_nobody_can_show_is_named() -> None:
    made = {"role": "assistant", "content": "Here", "images": [image(f"data:image/png;base64,{PNG}")]}
    body, dropped = build(messages=[USER, made])
    assert body["messages"][1]["content"] == [{"type": "text", "text": "Here"}]
    assert dropped == ("messages.1.images.0",)
    written = {"role": "assistant", "content": [{"type": "text", "text": "Read "}, file(file_id="file_1")]}
    body, dropped = build(messages=[USER, written])
    assert body["messages"][1]["content"] == [{"type": "text", "text": "Read"}]
    assert dropped == ("messages.1.content.1",)


def test_the_detail_of_images_is_left_out_and_named() -> None:
    _, dropped = build(messages=[{"role": "user", "content": [image("https://x.example/a.png", detail="low")]}])
    assert dropped == ("messages.0.content.0.image_url.detail",)


def test_what_is_said_of_a_document_cannot_be_said_of_an_image() -> None:
    picture = file(file_data=data("image/gif", "GIF")) | DESCRIBED
    body, dropped = build(messages=[{"role": "user", "content": [picture]}])
    assert body["messages"][0]["content"][0].keys() == {"type", "source"}
    assert dropped == ("messages.0.content.0.context", "messages.0.content.0.citations")


# --- calls and results


def test_results_stand_together_and_first_right_after_the_calls() -> None:
    turns = said(
        USER,
        calls("a", "b", content="I look"),
        result("b", "two"),
        {"role": "user", "content": "And?"},
        {"role": "system", "content": "Be kind"},
        result("a", [{"type": "text", "text": "one"}]),
    )
    assert [block["type"] for block in turns[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert turns[2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "b", "content": "two"},
            {"type": "tool_result", "tool_use_id": "a", "content": "one"},
            {"type": "text", "text": "And?"},
        ],
    }


def test_results_of_every_kind() -> None:
    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    turns = said(
        USER,
        calls("a", "b", "c", "d", "e", "f"),
        {**result("a", "went wrong"), "is_error": True},
        result("b", ""),
        result("c", [{"type": "text", "text": "see"}, image(f"data:image/png;base64,{PNG}"), file(file_id="f")]),
        result("d", [marked]),
        {**result("e", [{"type": "text", "text": ""}, {"type": "text", "text": ""}]), "cache_control": {"ttl": "5m"}},
        result("f", None),
    )
    results = turns[2]["content"]
    assert results[5] == {"type": "tool_result", "tool_use_id": "f", "content": ""}
    assert results[0] == {"type": "tool_result", "tool_use_id": "a", "content": "went wrong", "is_error": True}
    assert results[1] == {"type": "tool_result", "tool_use_id": "b", "content": ""}
    assert [block["type"] for block in results[2]["content"]] == ["text", "image", "document"]
    assert results[3]["content"] == [marked]
    assert results[4] == {
        "type": "tool_result",
        "tool_use_id": "e",
        "content": "",
        "cache_control": {"type": "ephemeral", "ttl": "5m"},
    }


@pytest.mark.parametrize("text", ['{"$ref": "#/x", "n": 1.50}', "  blank \n", "<xml/>", "null", "\u0000"])
def test_the_words_of_a_result_are_never_touched(text: str) -> None:
    turns = said(USER, calls("a"), result("a", text))
    assert turns[2]["content"][0]["content"] == text


@pytest.mark.parametrize(
    ("messages", "param", "says"),
    [
        ([USER, result("a")], "messages.1.tool_call_id", "not among the calls"),
        ([USER, calls("a"), result("a"), result("b")], "messages.3.tool_call_id", "not among the calls"),
        ([USER, calls("a"), result("a"), result("a")], "messages.3.tool_call_id", "answered before"),
        (
            [USER, calls("a"), result("a"), {"role": "assistant", "content": "x"}, result("a")],
            "messages.4.tool_call_id",
            "not among the calls",
        ),
        ([USER, calls("a", "b"), result("a")], "messages.1.tool_calls.1", "has no result"),
        ([USER, calls("a"), USER], "messages.1.tool_calls.0", "has no result"),
        ([USER, calls("a")], "messages.1.tool_calls.0", "has no result"),
        (
            [USER, calls("a"), result("a"), calls("b", "c"), result("c"), result("b"), calls("d"), result("x")],
            "messages.7.tool_call_id",
            "not among the calls",
        ),
    ],
)
def test_orphans_are_named_by_the_clients_own_places(messages: list[Json], param: str, says: str) -> None:
    error = refused(messages=messages)
    assert error.param == param
    assert says in error.message


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("", {}),
        ("  ", {}),
        ("{}", {}),
        (' {"a": [1, 2.50, null, "\\u00fc"]} ', {"a": [1, 2.5, None, "ü"]}),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
    ],
)
def test_arguments_are_sent_as_they_were_written(arguments: str, given: Json) -> None:
    turn = calls("a")
    turn["tool_calls"][0]["function"]["arguments"] = arguments
    assert said(USER, turn, result("a"))[1]["content"][0]["input"] == given


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "null", "NaN", '{"a": NaN}', '{"a": "\\ud800"}'])
def test_arguments_that_are_no_object_are_sent_raw_and_named(arguments: str) -> None:
    turn = calls("a", "b")
    turn["tool_calls"][1]["function"]["arguments"] = arguments
    body, dropped = build(messages=[USER, turn, result("a"), result("b")], strict=True)
    assert body["messages"][1]["content"][1]["input"] == {"_raw_arguments": arguments}
    assert dropped == ("messages.1.tool_calls.1.function.arguments",)


def test_ids_are_made_such_as_the_api_takes() -> None:
    turns = said(
        USER,
        calls("functions.weather:0", "functions_weather_0"),
        result("functions_weather_0", "second"),
        result("functions.weather:0", "first"),
        calls("functions.weather:0"),
        result("functions.weather:0", "again"),
    )
    ids = [block["id"] for turn in turns for block in turn["content"] if block["type"] == "tool_use"]
    assert ids == ["functions_weather_0", "functions_weather_0_2", "functions_weather_0_3"]
    assert [(block["tool_use_id"], block["content"]) for block in turns[2]["content"]] == [
        ("functions_weather_0_2", "second"),
        ("functions_weather_0", "first"),
    ]
    assert turns[4]["content"][0]["tool_use_id"] == ids[2]


def test_a_call_may_be_marked() -> None:
    turn = calls("a")
    turn["tool_calls"][0]["cache_control"] = {"type": "ephemeral"}
    assert said(USER, turn, result("a"))[1]["content"][0]["cache_control"] == {"type": "ephemeral"}


def test_a_call_may_have_no_id() -> None:
    turns = said(USER, calls("", ""), result("", "1"), result("", "2"))
    assert [block["id"] for block in turns[1]["content"]] == ["call", "call_2"]
    assert [(block["tool_use_id"], block["content"]) for block in turns[2]["content"]] == [
        ("call", "1"),
        ("call_2", "2"),
    ]


def test_what_cannot_stand_in_a_message_is_a_400() -> None:
    odd = Conversation(messages=(Message("user", (Reasoning("hm", "sig"),)),))
    with pytest.raises(GatewayError) as caught:
        build_body(odd, BuildTarget("h", "m", PLAIN))
    assert caught.value.param == "messages.0.content.0"


def test_a_medium_of_a_kind_without_a_spelling_is_not_lost_without_a_word() -> None:
    odd = Image("i.png")  # type: ignore[arg-type]  # the mistake that the type checker would find
    with pytest.raises(AssertionError):
        build_body(Conversation(messages=(Message("user", (odd,)),)), BuildTarget("h", "m", PLAIN))


# --- what the model thought


def test_thoughts_come_back_first_and_unchanged() -> None:
    turns = said(USER, thinking(SEALED, REDACTED, EMPTY, message=calls("a", content="So")), result("a"))
    assert turns[1]["content"][:4] == [SEALED, REDACTED, EMPTY, {"type": "text", "text": "So"}]


def test_a_thought_without_signature_is_left_out_and_named() -> None:
    unsigned = {"type": "thinking", "thinking": "of another provider"}
    body, dropped = build(messages=[USER, thinking(SEALED, unsigned, message=calls("a")), result("a")], strict=True)
    assert [block["type"] for block in body["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert dropped == ("messages.1.thinking_blocks.1",)
    alone = thinking(unsigned, message={"role": "assistant", "content": None})
    body, dropped = build(messages=[USER, alone, USER])
    assert len(body["messages"]) == 1
    assert dropped == ("messages.1.thinking_blocks.0",)


@pytest.mark.parametrize(
    "more",
    [
        {"signature": ""},
        {"signature": "", "extra_content": {"google": {"thought_signature": "G"}}},
        {"provider_specific_fields": {"thought_signature": "G"}},
    ],
)
def test_an_empty_signature_is_none_and_geminis_is_no_claudes(more: dict[str, Any]) -> None:
    foreign = {"type": "thinking", "thinking": "hm", **more}
    body, dropped = build(messages=[USER, thinking(foreign, message=calls("a")), result("a")], strict=True)
    assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]
    assert dropped == ("messages.1.thinking_blocks.0",)


def test_a_streams_pieces_reach_the_model_as_the_block_that_they_were() -> None:
    pieces = [
        {"type": "thinking", "thinking": "let ", "signature": "", "index": 0},
        {"type": "thinking", "thinking": "me see", "index": 0},
        {"type": "thinking", "thinking": "", "signature": "SIG", "index": 0},
    ]
    turns = said(USER, thinking(*pieces, message=calls("a")), result("a"))
    assert turns[1]["content"][0] == {"type": "thinking", "thinking": "let me see", "signature": "SIG"}


ASKED = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "sky"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


def searched(content: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    entries = [{"block": block, "before": {"content": 7}} for block in blocks]
    return {"role": "assistant", "content": content, "extra_content": {"anthropic": {"blocks": entries}}}


def test_what_anthropics_own_tools_said_goes_back() -> None:
    turns = said(USER, searched("I look.Blue.", ASKED, FOUND), USER)
    texts = [{"type": "text", "text": words} for words in ("I look.", "Blue.")]
    assert turns[1]["content"] == [texts[0], ASKED, FOUND, texts[1]]
    body, dropped = build(messages=[USER, searched("x", {"type": "thinking", "thinking": "no"}), USER], strict=True)
    assert body["messages"][1]["content"] == [{"type": "text", "text": "x"}]
    assert dropped == ("messages.1.extra_content.anthropic",)


def test_a_paused_turn_goes_on_at_models_that_take_no_beginning_of_an_answer() -> None:
    turns = said(USER, searched("I look.", ASKED), abilities=ADAPTIVE)
    assert turns[-1] == {"role": "assistant", "content": [{"type": "text", "text": "I look."}, ASKED]}


def test_a_begun_answer_may_have_been_thought_about() -> None:
    begun = thinking(SEALED, message={"role": "assistant", "content": "It is "})
    assert said(USER, begun)[-1]["content"] == [SEALED, {"type": "text", "text": "It is"}]
    cut = thinking(SEALED, message={"role": "assistant", "content": ""})
    body, _ = build(messages=[USER, cut], abilities=ADAPTIVE)
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_a_turn_does_not_end_in_thought() -> None:
    cut = thinking(SEALED, message={"role": "assistant", "content": ""})
    body, dropped = build(messages=[USER, cut, {"role": "user", "content": "Go on"}])
    assert [turn["role"] for turn in body["messages"]] == ["user"]
    assert [block["text"] for block in body["messages"][0]["content"]] == ["Hello", "Go on"]
    assert dropped == ("messages.1.thinking_blocks.0",)


# --- build, then read again

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Talks as the API has them: turns in alternation, every call answered at once."""
    messages: list[Message] = []
    for turn in range(draw(st.integers(0, 4))):
        messages.append(Message("user", tuple(draw(st.lists(st.builds(Text, words), min_size=1, max_size=2)))))
        thoughts = st.builds(Reasoning, words, words) | st.builds(lambda data: Reasoning("", redacted=data), words)
        parts: list[Part] = [*draw(st.lists(thoughts, max_size=2)), Text(draw(words))]
        uses = [
            ToolUse(f"c{turn}_{number}", draw(words), json.dumps(draw(st.dictionaries(words, st.integers()))))
            for number in range(draw(st.integers(0, 3)))
        ]
        messages.append(Message("assistant", (*parts, *uses)))
        results = [ToolResult(use.id, None, (Text(draw(words)),), draw(st.booleans())) for use in uses]
        if results:
            messages.append(Message("user", tuple(draw(st.permutations(results)))))
            messages.append(Message("assistant", (Text(draw(words)),)))
    messages.append(Message("user", (Text(draw(words)),)))
    return Conversation(messages=tuple(messages), tools=(Tool("f", None, None),))


def again(body: Json) -> list[Message]:
    """The messages of a request, read back."""
    messages = []
    for turn in body["messages"]:
        parts: list[Part] = []
        for block in turn["content"]:
            match block:
                case {"type": "text", "text": text}:
                    parts.append(Text(text))
                case {"type": "thinking", "thinking": text, "signature": signature}:
                    parts.append(Reasoning(text, signature))
                case {"type": "redacted_thinking", "data": redacted}:
                    parts.append(Reasoning("", redacted=redacted))
                case {"type": "tool_use", "id": call_id, "name": name, "input": given}:
                    parts.append(ToolUse(call_id, name, json.dumps(given)))
                case {"type": "tool_result", "tool_use_id": call_id, "content": text}:
                    parts.append(ToolResult(call_id, None, (Text(text),), block.get("is_error", False)))
        messages.append(Message(turn["role"], tuple(parts)))
    return messages


@given(conversations())
def test_building_and_reading_again_changes_nothing(conversation: Conversation) -> None:
    built, dropped = build_body(conversation, BuildTarget("h", "m", PLAIN))
    body = json.loads(orjson.dumps(built))
    assert dropped == ()
    assert again(body) == list(conversation.messages)
    sent_to_sdk(body)
