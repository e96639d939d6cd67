"""Whose the opaque state of a conversation is, which target it therefore stays with, and what others are sent of it.

Who made a piece of state is known by its mark, or by the id of the tool call that came with it, from the memory of
answers (``workers.reasoning``). What it is bound to is the vendor's to say:

- Anthropic's signatures are bound to the model, and taken on all of Anthropic's platforms, whatever the credential.
- Gemini's are sent back to the model and the credential that made them alone. Google promises no more, and has a
  stand-in for histories from elsewhere.
- What hosts of OpenAI's dialect encrypt is bound to the credential's organisation. Whether another model of the same
  host takes it is the host's to judge, since it is sent on as it came.
- Behind an address that is not the vendor's own nobody knows who signs, and state stays with the credential.

The target that made the last of it comes first, whatever the strategy. Any other is sent the conversation without what
is known to be of somebody else, and each such place is named. State of which nobody knows who made it is left to those
that speak the dialect of its kind, in the plan's order, and goes to all others as far as their dialect has a place for
it: where both ends speak OpenAI's, that is the contract's forwarding.

Sources: Anthropic's pages on extended thinking ("thinking encryption": signatures across platforms, and blocks that
are tied to the model), https://ai.google.dev/gemini-api/docs/thought-signatures, and reports of
``invalid_encrypted_content`` from OpenAI after a change of organisation; read in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from inferxgate.canonical.chat import ChatRequest, Thought
from inferxgate.dialects import openai_chat
from inferxgate.dialects.openai_answers import thinking_block
from inferxgate.dialects.openai_state import Opaque, opaque, says_nothing, without
from inferxgate.gateway.reasoning import mark_of
from inferxgate.gateway.routing import Target
from inferxgate.providers.addresses import is_vendors_host
from inferxgate.providers.provider import Provider
from inferxgate.values import dataclass
from inferxgate.workers.reasoning import Maker, Thoughts

Json = dict[str, Any]
_T = TypeVar("_T")
Rank = Callable[[Target], tuple[int, int]]
"""The smaller the sooner."""

_SIGNATURE = "extra_content.google.thought_signature"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A request as one target is to get it."""

    request: ChatRequest
    dropped: tuple[str, ...] = ()
    """State that it is not sent, by its place in the client's request; also where the client had left it out."""
    removed: tuple[int, ...] = ()
    """Messages that had nothing else in them."""

    def named(self, dropped: Sequence[str]) -> tuple[str, ...]:
        """All that is left out: ``dropped``, which names places in the fitted request, with what was taken before."""
        if not (self.dropped or dropped):
            return ()
        return tuple(dict.fromkeys([*self.dropped, *map(self._place, dropped)]))

    def _place(self, name: str) -> str:
        head, _, rest = name.partition(".")
        number, dot, tail = rest.partition(".")
        if not self.removed or head != "messages" or not number.isdigit():
            return name
        index = int(number)
        for removed in self.removed:
            index += removed <= index
        return f"messages.{index}{dot}{tail}"


class Carried:
    """The state of one request's conversation. Nothing is looked up before it is asked for, and nothing twice."""

    def __init__(
        self,
        request: ChatRequest,
        targets: Sequence[Target],
        providers: Sequence[Provider],
        *,
        recall: Callable[[str], Thoughts | None],
        made_by: Callable[[str], Maker | None],
    ) -> None:
        """``targets``: all that the request may be sent to; ``providers``: all there are; ``recall``: the thoughts of a
        tool call of this caller; ``made_by``: who made what goes by a mark."""
        self._messages: Sequence[Json] = request.source.body["messages"]
        self._targets = targets
        self._answers = [index for index, each in enumerate(self._messages) if each.get("role") == "assistant"]
        """Which of them are assistants': the others carry no state."""
        if not self._answers:  # the beginning of a conversation: nothing of what follows is asked for
            return
        self._own = request.source.dialect
        self._providers = providers
        self._found: dict[int, list[Opaque]] = {}
        self._recall = _once(recall)
        self._made_by = _once(made_by)
        # Who speaks the client's dialect puts no state into fields that its client does not know.
        self._hidden = any(target.provider.row.dialect != self._own for target in targets)

    def rank(self) -> Rank | None:
        """Who should be asked first; None where there is no state, or only one target."""
        if not self._answers or (len(self._targets) == 1 and not self._targets[0].provider.other_keys):
            return None
        for index in reversed(self._answers):
            message = self._messages[index]
            found = self._state(index)
            maker = self._maker(message, found)
            if maker is not None:
                return lambda target: (0 if _is(maker, target) else 1 if self._takes(maker, target) else 2, 0)
            if found:
                return self._plan_order(found[-1].dialect)
        return None

    def fitted(self, request: ChatRequest, target: Target) -> Fitted:
        """The request for one target, with what this one made put back where its client left it out.

        ``request``: the one whose state this is, whatever else was changed in it.
        """
        if not self._answers:
            return Fitted(request)
        verbatim = target.provider.row.dialect == self._own
        dropped: list[str] = []
        removed: list[int] = []
        changed: dict[int, Json] = {}
        for index in self._answers:
            message = self._messages[index]
            new, lost = self._fit(message, self._state(index), target, verbatim=verbatim)
            dropped += [f"messages.{index}.{place}" for place in lost]
            if verbatim and lost and new is not message and says_nothing(new):
                removed.append(index)
            elif new is not message:
                changed[index] = new
        if not (dropped or changed):
            return Fitted(request)
        gone, numbered = set(removed), enumerate(self._messages)
        messages = [changed.get(index, message) for index, message in numbered if index not in gone]
        body = {**request.source.body, "messages": messages}
        request = replace(request, source=replace(request.source, body=body))
        return Fitted(request, tuple(dict.fromkeys(dropped)), tuple(removed))

    # --- one message

    def _state(self, index: int) -> list[Opaque]:
        """The state that is in a message."""
        found = self._found.get(index)
        if found is None:
            found = self._found[index] = opaque(self._messages[index])
        return found

    def _fit(self, message: Json, found: Sequence[Opaque], target: Target, *, verbatim: bool) -> tuple[Json, list[str]]:
        """An assistant's message for a target, and the places of what it is not sent."""
        if found and (maker := self._maker(message, found)) is not None and not self._takes(maker, target):
            return without(message, (each.path for each in found)), [each.place for each in found]
        if not self._hidden or any(each.whole for each in found):
            return message, []
        return self._mended(message, target, verbatim=verbatim)

    def _mended(self, message: Json, target: Target, *, verbatim: bool) -> tuple[Json, list[str]]:
        """A message with the state that its client left out; the places of what is not the target's."""
        calls = message.get("tool_calls")
        if not isinstance(calls, list):
            return message, []
        new: Json = {**message, "tool_calls": list(calls)}
        lost: list[str] = []
        has_thought = _has_thought(message.get("thinking_blocks"))
        for index, call in enumerate(calls):
            if not isinstance(call, dict) or not isinstance(call.get("id"), str):
                continue
            if has_thought and _has_signature(call):
                continue
            thoughts = self._recall(call["id"])
            if thoughts is None:
                continue
            blocks = thoughts.blocks if not has_thought else ()
            signature = thoughts.signature if not _has_signature(call) else None
            if verbatim or not self._takes(thoughts.maker, target):
                lost += ["thinking_blocks"] if blocks else []
                lost += [f"tool_calls.{index}.{_SIGNATURE}"] if signature else []
                continue
            if blocks:
                new["thinking_blocks"] = [thinking_block(Thought(*block)) for block in blocks]
            if signature:
                new["tool_calls"][index] = {**call, "extra_content": {"google": {"thought_signature": signature}}}
        return (message if new == message else new), lost

    def _maker(self, message: Json, found: Sequence[Opaque]) -> Maker | None:
        """Who made the state in a message, or what its client left out of it."""
        for each in found:
            if (maker := self._made_by(mark_of(each.word))) is not None:
                return maker
        calls = message.get("tool_calls")
        for call in calls if self._hidden and isinstance(calls, list) else ():
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                thoughts = self._recall(call["id"])
                return None if thoughts is None else thoughts.maker  # all calls of a message came in one answer
        return None

    # --- what is bound to what

    def _takes(self, maker: Maker, target: Target) -> bool:
        """Whether a target can read what was made by somebody."""
        provider = target.provider
        if _is(maker, target):
            return True
        here = maker.provider == provider.name and maker.credential in ("", provider.credential)
        if here and provider.row.dialect == openai_chat.NAME:
            return True
        other = next((each for each in self._providers if each.name == maker.provider), None)
        return other is not None and maker.model == target.model and _shares_state(other, provider)

    def _plan_order(self, dialect: str) -> Rank:
        """Those first that speak a dialect, and all in the plan's order: the next turn then goes the same way."""
        places = {target.name: place for place, target in reversed(list(enumerate(self._targets)))}
        return lambda target: (0 if target.provider.row.dialect == dialect else 1, places.get(target.name, 0))


def _is(maker: Maker, target: Target) -> bool:
    """Whether a target is who made something, as far as is known."""
    provider = target.provider
    return (
        maker.provider == provider.name
        and maker.credential in ("", provider.credential)
        and maker.model in ("", target.model)
    )


def _shares_state(one: Provider, other: Provider) -> bool:
    """Whether two providers, or two credentials of one, read each other's state: both are at a vendor that says so."""
    row = one.row
    return (
        row.type == other.row.type
        and row.state_of_any_credential
        and is_vendors_host(row, one.base_url)
        and is_vendors_host(row, other.base_url)
    )


def _once(look_up: Callable[[str], _T]) -> Callable[[str], _T]:
    """A look-up that remembers what it found."""
    known: dict[str, _T] = {}

    def find(name: str) -> _T:
        if name not in known:
            known[name] = look_up(name)
        return known[name]

    return find


def _has_thought(blocks: object) -> bool:
    """Whether what came back has a signature in it: text alone, all that some clients keep, is refused."""
    return isinstance(blocks, list) and any(
        isinstance(block, dict) and (block.get("signature") or block.get("data") or _has_signature(block))
        for block in blocks
    )


def _has_signature(carrier: Mapping[str, Any]) -> bool:
    return bool(carrier.get("extra_content") or carrier.get("provider_specific_fields"))
