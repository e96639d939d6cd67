"""Whose the state of a conversation is, who therefore comes first, and what others are sent of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.canonical.chat import ChatRequest
from inferxgate.catalog.abilities import Abilities
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.openai_sizes import PromptSize
from inferxgate.dialects.openai_state import opaque
from inferxgate.gateway.admission import Admitted, Offer
from inferxgate.gateway.reasoning import maker_of, mark_of
from inferxgate.gateway.routing import Plan, Strategy, Target
from inferxgate.gateway.selection import Selection
from inferxgate.gateway.state import Carried
from inferxgate.providers import anthropic, gemini, openai
from inferxgate.providers.provider import Provider
from inferxgate.workers.health import LocalHealth
from inferxgate.workers.reasoning import Block, Maker, Thoughts

PROXY = "http://127.0.0.1:1"


def targets_of(provider: Provider, model: str) -> tuple[Target, ...]:
    return Target(provider, model).with_each_key()


CLAUDES = Provider("claude", anthropic.ROW, PROXY, "key-a", ("key-b",))
VENDOR = Provider("anthropic", anthropic.ROW, "https://api.anthropic.com", "key-c", ("key-d",))
EUROPE = replace(VENDOR, name="anthropic-eu", base_url="https://eu.api.anthropic.com", api_key="key-e", other_keys=())
GEMINIS = Provider("gemini", gemini.ROW, PROXY, "key-f", ("key-g",))
OPENAI = Provider("openai", openai.ROW, PROXY, "key-h", ("key-i",))
CLAUDE, OTHER_CLAUDE = targets_of(CLAUDES, "claude-sonnet-4-5")
HERE, OTHER_HERE = targets_of(VENDOR, "claude-sonnet-4-5")
[THERE] = targets_of(EUROPE, "claude-sonnet-4-5")
GEMINI, OTHER_GEMINI = targets_of(GEMINIS, "gemini-3-pro")
GPT, OTHER_GPT = targets_of(OPENAI, "gpt-5")
PROVIDERS = (CLAUDES, VENDOR, EUROPE, GEMINIS, OPENAI)
TARGETS = (CLAUDE, OTHER_CLAUDE, HERE, OTHER_HERE, THERE, GEMINI, OTHER_GEMINI, GPT, OTHER_GPT)

BLOCKS = [
    {"type": "thinking", "thinking": "let me see", "signature": "SIG"},
    {"type": "redacted_thinking", "data": "OPAQUE"},
]
KEPT: tuple[Block, ...] = (("let me see", "SIG", None, None), ("", None, "OPAQUE", None))
GOOGLE = {"google": {"thought_signature": "TS"}}


def call(call_id: str, **more: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}


class World:
    """A request, the memory of answers, and how often that was asked."""

    def __init__(
        self,
        *messages: dict[str, Any],
        targets: tuple[Target, ...] = TARGETS,
        thoughts: dict[str, Thoughts] | None = None,
        makers: dict[str, Maker] | None = None,
    ) -> None:
        """``makers``: by the state they made."""
        self.asked: Counter[str] = Counter()
        self.thoughts = thoughts or {}
        self.makers = {mark_of(word): maker for word, maker in (makers or {}).items()}
        self.request = parse_request({"model": "m", "messages": [{"role": "user", "content": "x"}, *messages]})
        self.carried = Carried(self.request, targets, PROVIDERS, recall=self.recall, made_by=self.made_by)

    def recall(self, call_id: str) -> Thoughts | None:
        self.asked[call_id] += 1
        return self.thoughts.get(call_id)

    def made_by(self, mark: str) -> Maker | None:
        self.asked[mark] += 1
        return self.makers.get(mark)

    def sent(self, target: Target) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """The messages after the first one, as a target gets them, and what is named."""
        fitted = self.carried.fitted(self.request, target)
        messages: list[dict[str, Any]] = fitted.request.source.body["messages"]
        return messages[1:], fitted.dropped

    def order(self, *targets: Target) -> list[Target]:
        rank = self.carried.rank()
        assert rank is not None
        return sorted(targets, key=rank)


def claudes(*call_ids: str, maker: Target = CLAUDE) -> dict[str, Thoughts]:
    return {each: Thoughts(maker_of(maker), KEPT) for each in call_ids}


# --- put back where it was left out


def test_thinking_is_put_back_where_it_was_left_out() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call("call_a"), call("call_b")]}
    world = World(turn, thoughts=claudes("call_a", "call_b"))
    assert world.sent(CLAUDE) == ([{**turn, "thinking_blocks": BLOCKS}], ())


def test_what_the_client_brought_back_is_left_alone() -> None:
    own = [{"type": "thinking", "thinking": "mine", "signature": "S"}]
    turn = {"role": "assistant", "content": "x", "thinking_blocks": own, "tool_calls": [call("call_a")]}
    world = World(turn, thoughts=claudes("call_a"))
    fitted = world.carried.fitted(world.request, CLAUDE)
    assert fitted.request is world.request


def test_what_anthropics_own_tools_said_brings_no_thought_back() -> None:
    extra = {"anthropic": {"blocks": [{"block": {"type": "x_tool_result"}, "before": {}}]}}
    turn = {"role": "assistant", "content": "x", "extra_content": extra, "tool_calls": [call("call_a")]}
    assert World(turn, thoughts=claudes("call_a")).sent(CLAUDE) == ([{**turn, "thinking_blocks": BLOCKS}], ())


def test_thoughts_among_the_content_are_not_put_back_twice() -> None:
    turn = {"role": "assistant", "content": BLOCKS, "tool_calls": [call("call_a")]}
    assert World(turn, thoughts=claudes("call_a")).sent(CLAUDE) == ([turn], ())


def test_thought_that_came_back_without_its_signature_is_put_back_whole() -> None:
    bare = [{"type": "thinking", "thinking": "let me see", "signature": ""}]
    turn = {"role": "assistant", "content": "x", "thinking_blocks": bare, "tool_calls": [call("call_a")]}
    assert World(turn, thoughts=claudes("call_a")).sent(CLAUDE) == ([{**turn, "thinking_blocks": BLOCKS}], ())


def test_geminis_signature_of_a_thought_is_put_back_as_its_own() -> None:
    turn = {"role": "assistant", "tool_calls": [call("c")]}
    thoughts = {"c": Thoughts(maker_of(GEMINI), (("hm", None, None, "TS"),))}
    [back], _ = World(turn, thoughts=thoughts).sent(GEMINI)
    assert back["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "", "extra_content": GOOGLE}]
    assert World(back, thoughts=thoughts).sent(GEMINI) == ([back], ())


def test_a_calls_own_signature_is_put_back_on_that_call() -> None:
    turn = {"role": "assistant", "tool_calls": [call("call_a"), call("call_b")]}
    maker = maker_of(GEMINI)
    thoughts = {"call_a": Thoughts(maker, (), "TS"), "call_b": Thoughts(maker)}
    [back], dropped = World(turn, thoughts=thoughts).sent(GEMINI)
    assert (back["tool_calls"], dropped) == ([call("call_a", extra_content=GOOGLE), call("call_b")], ())
    same, dropped = World(turn, thoughts=thoughts).sent(OTHER_GEMINI)
    assert (same, dropped) == ([turn], ("messages.1.tool_calls.0.extra_content.google.thought_signature",))


def test_what_an_earlier_version_kept_is_its_providers_whatever_the_credential() -> None:
    turn = {"role": "assistant", "tool_calls": [call("call_a")]}
    world = World(turn, thoughts={"call_a": Thoughts(Maker("claude"), KEPT)})
    for target in (CLAUDE, OTHER_CLAUDE):
        assert world.sent(target) == ([{**turn, "thinking_blocks": BLOCKS}], ())
    assert world.sent(HERE) == ([turn], ("messages.1.thinking_blocks",))


def test_unknown_ids_and_odd_messages_pass() -> None:
    turns: list[dict[str, Any]] = [
        {"role": "assistant", "tool_calls": [call("call_x"), "odd", {"id": 7}]},
        {"role": "assistant", "tool_calls": "odd"},
        {"role": "tool", "content": "y"},
    ]
    world = World(*turns, thoughts=claudes("call_a"))
    assert all(world.sent(target) == (turns, ()) for target in TARGETS)


# --- what others are sent


@pytest.mark.parametrize(
    ("maker", "takers"),
    [
        (CLAUDE, (CLAUDE,)),
        (HERE, (HERE, OTHER_HERE, THERE)),
        (THERE, (HERE, OTHER_HERE, THERE)),
        (GEMINI, (GEMINI,)),
        (GPT, (GPT,)),
    ],
    ids=lambda value: value.name if isinstance(value, Target) else "",
)
def test_state_goes_only_to_those_who_can_read_it(maker: Target, takers: tuple[Target, ...]) -> None:
    kept = {"role": "assistant", "content": "so", "thinking_blocks": BLOCKS}
    world = World(kept, makers={"SIG": maker_of(maker)})
    for target in TARGETS:
        taken = any(target is each for each in takers)
        lost: tuple[list[dict[str, Any]], tuple[str, ...]]
        lost = [{"role": "assistant", "content": "so"}], ("messages.1.thinking_blocks",)
        assert world.sent(target) == (([kept], ()) if taken else lost), target


def test_what_its_client_left_out_is_named_where_it_is_lost() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call("call_a")]}
    world = World(turn, thoughts=claudes("call_a"))
    for target in (OTHER_CLAUDE, HERE, GEMINI, GPT):
        assert world.sent(target) == ([turn], ("messages.1.thinking_blocks",))


@pytest.mark.parametrize(
    ("model", "maker", "taken"),
    [("claude-opus-4-5", HERE, False), ("gemini-2.5-pro", GEMINI, False), ("gpt-5-mini", GPT, True)],
)
def test_another_model_takes_it_only_where_that_is_the_hosts_to_judge(model: str, maker: Target, taken: bool) -> None:
    turn = {"role": "assistant", "content": "so", "thinking_blocks": BLOCKS}
    _, dropped = World(turn, makers={"SIG": maker_of(maker)}).sent(replace(maker, model=model))
    assert dropped == (() if taken else ("messages.1.thinking_blocks",))


def test_state_of_unknown_makers_goes_through() -> None:
    turn = {"role": "assistant", "content": "so", "thinking_blocks": BLOCKS, "reasoning_details": [{"data": "D"}]}
    world = World(turn)
    assert all(world.sent(target) == ([turn], ()) for target in TARGETS)


def test_each_message_is_its_own_makers() -> None:
    first = {"role": "assistant", "content": "a", "thinking_blocks": [{"type": "thinking", "signature": "S1"}]}
    second = {"role": "assistant", "content": "b", "thinking_blocks": [{"type": "thinking", "signature": "S2"}]}
    world = World(first, second, makers={"S1": maker_of(CLAUDE), "S2": maker_of(OTHER_CLAUDE)})
    assert world.sent(CLAUDE) == ([first, {"role": "assistant", "content": "b"}], ("messages.2.thinking_blocks",))
    assert world.sent(OTHER_CLAUDE) == (
        [{"role": "assistant", "content": "a"}, second],
        ("messages.1.thinking_blocks",),
    )


def test_no_message_that_says_nothing_goes_to_a_host_as_it_is() -> None:
    thought = {"role": "assistant", "content": None, "thinking_blocks": BLOCKS}
    asked = {"role": "user", "content": "y"}
    world = World(thought, asked, makers={"OPAQUE": maker_of(CLAUDE)})
    fitted = world.carried.fitted(world.request, GPT)
    assert fitted.request.source.body["messages"][1:] == [asked]
    assert fitted.named(["seed", "messages.0.name", "messages.1.x"]) == (
        "messages.1.thinking_blocks", "seed", "messages.0.name", "messages.2.x",
    )  # fmt: skip
    assert world.sent(GEMINI)[0] == [{"role": "assistant", "content": None}, asked], "its dialect leaves it out itself"


# --- who comes first


def test_who_made_the_last_state_comes_first_then_who_can_read_it() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call("call_a")]}
    world = World(turn, thoughts=claudes("call_a", maker=OTHER_HERE))
    assert world.order(GPT, HERE, GEMINI, THERE, OTHER_HERE) == [OTHER_HERE, HERE, THERE, GPT, GEMINI]
    later = {"role": "assistant", "content": "b", "thinking_blocks": [{"type": "thinking", "signature": "S2"}]}
    world = World(turn, later, thoughts=claudes("call_a"), makers={"S2": maker_of(GEMINI)})
    assert world.order(GPT, CLAUDE, GEMINI) == [GEMINI, GPT, CLAUDE]
    stateless = {"role": "assistant", "content": "b", "tool_calls": [call("call_b")]}
    world = World(turn, stateless, thoughts=claudes("call_a"))
    assert world.order(GPT, GEMINI, CLAUDE) == [CLAUDE, GPT, GEMINI]


@pytest.mark.parametrize(
    ("carried", "first"),
    [
        ({"thinking_blocks": BLOCKS}, CLAUDE),
        ({"extra_content": GOOGLE}, GEMINI),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "D"}]}, GPT),
    ],
)
def test_state_of_unknown_makers_stays_with_its_dialect_in_the_plans_order(
    carried: dict[str, Any], first: Target
) -> None:
    world = World({"role": "assistant", "content": "x", **carried}, targets=(GPT, CLAUDE, HERE, GEMINI))
    for drawn in ((GPT, HERE, GEMINI, CLAUDE), (HERE, CLAUDE, GEMINI, GPT)):
        order = world.order(*drawn)
        assert order[0] is first
        assert [each for each in order if each is CLAUDE or each is HERE] == [CLAUDE, HERE]


def test_nothing_is_looked_up_where_there_is_no_state() -> None:
    answered = {"role": "assistant", "content": "Hello!"}
    called = {"role": "assistant", "content": None, "tool_calls": [call("call_a")]}
    for messages, targets in (((answered,), TARGETS), ((answered, called), (GPT, OTHER_GPT)), ((called,), (GPT,))):
        world = World(*messages, targets=targets)
        assert world.carried.rank() is None
        fitted = world.carried.fitted(world.request, GPT)
        assert fitted.request is world.request
        assert not world.asked


def test_nothing_is_looked_up_twice() -> None:
    turn = {"role": "assistant", "content": None, "thinking_blocks": BLOCKS, "tool_calls": [call("call_a")]}
    world = World(turn, {**turn, "thinking_blocks": []}, {"role": "assistant", "tool_calls": [call("call_b")]})
    for target in TARGETS:
        world.carried.rank()
        world.sent(target)
    assert set(world.asked.values()) == {1}


def test_one_target_needs_no_order() -> None:
    turn = {"role": "assistant", "content": "x", "thinking_blocks": BLOCKS}
    world = World(turn, targets=(THERE,))
    assert world.carried.rank() is None
    assert not world.asked


STRATEGIES: list[Strategy] = ["ordered", "weighted", "least_busy", "lowest_latency", "cheapest"]
ALIAS = (replace(CLAUDE, weight=100), HERE, replace(GPT, weight=1_000_000), replace(GEMINI, weight=7))


@given(st.sampled_from(STRATEGIES), st.randoms(use_true_random=False), st.sampled_from(TARGETS))
def test_the_maker_comes_first_whatever_the_strategy(strategy: Strategy, random: Random, maker: Target) -> None:
    """And all others after it, each once, in the order that the strategy gives them without it."""
    offers = tuple(Offer(target, Abilities(), None, 10, 0) for target in ALIAS)
    admitted = Admitted("use_1", 0, Plan("alias", ALIAS, strategy), offers, PromptSize(1, 1, 0))
    state = random.getstate()
    plain = Selection(LocalHealth(), chance=random.random).order(admitted, stream=False)
    turn = {"role": "assistant", "content": None, "tool_calls": [call("call_a")]}
    rank = World(turn, thoughts=claudes("call_a", maker=maker)).carried.rank()
    random.setstate(state)
    ranked = Selection(LocalHealth(), chance=random.random).order(admitted, stream=False, rank=rank)
    first = [offer for offer in plain if maker_of(offer.target) == maker_of(maker)]
    assert ranked[: len(first)] == first
    others = [offer for offer in plain if offer not in first]
    able = [offer for offer in others if _reads(offer.target, maker_of(maker))]
    assert ranked[len(first) :] == able + [offer for offer in others if offer not in able]


# --- whatever the conversation

MADE = [*TARGETS, None]
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["kept", "dropped", "none"]),
        st.integers(0, len(MADE) - 1),
        st.sampled_from([None, "", "text"]),
        st.booleans(),
    ),
    max_size=8,
)


@given(TURNS, st.integers(0, len(TARGETS) - 1))
def test_no_target_ever_gets_what_another_made(turns: list[tuple[str, int, str | None, bool]], place: int) -> None:
    """And everything else is as it was, in its order; what is gone is named, and nothing else is."""
    target, thoughts, makers, messages = TARGETS[place], {}, {}, []
    for number, (kind, by, content, calls) in enumerate(turns):
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if calls:
            message["tool_calls"] = [call(f"call_{number}")]
        made = MADE[by]
        if kind == "kept":
            message["thinking_blocks"] = [{"type": "thinking", "thinking": "t", "signature": f"S{number}"}]
        if made is not None and kind != "none":
            makers[f"S{number}"] = maker_of(made)
            if calls and made.provider.name != OPENAI.name:
                thoughts[f"call_{number}"] = Thoughts(maker_of(made), (("t", f"S{number}", None, None),))
        messages.append(message)
    world = World(*messages, thoughts=thoughts, makers=makers)
    before = repr(world.request)
    fitted = world.carried.fitted(world.request, target)
    assert repr(world.request) == before, "other attempts are built from it"
    sent = fitted.request.source.body["messages"][1:]
    kept = [message for number, message in enumerate(messages, 1) if number not in fitted.removed]
    assert [_bare(message) for message in sent] == [_bare(message) for message in kept]
    foreign = {word for word, maker in makers.items() if not _reads(target, maker)}
    assert not foreign & {each.word for message in sent for each in opaque(message)}
    named = {int(name.split(".")[1]) - 1 for name in fitted.dropped}
    lost = {f"S{number}": number for number, (kind, *_) in enumerate(turns) if kind == "kept"}
    lost |= {thought.blocks[0][1] or "": int(each[5:]) for each, thought in thoughts.items()}
    assert named == {number for word, number in lost.items() if word in foreign}


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "thinking_blocks"}


def _reads(target: Target, maker: Maker) -> bool:
    vendors = {HERE.provider.name, THERE.provider.name}
    if target.provider.name in vendors:
        return maker.provider in vendors
    return maker == maker_of(target)


def test_a_request_is_fitted_with_what_an_attempt_has_set() -> None:
    turn = {"role": "assistant", "content": "x", "thinking_blocks": BLOCKS}
    world = World(turn, makers={"SIG": maker_of(CLAUDE)})
    source = replace(world.request.source, body={**world.request.source.body, "seed": 7})
    changed: ChatRequest = replace(world.request, source=source)
    body = world.carried.fitted(changed, GPT).request.source.body
    assert (body["seed"], body["messages"][1]) == (7, {"role": "assistant", "content": "x"})
