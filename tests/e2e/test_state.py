"""A conversation with signed thoughts stays where they were signed, or goes on elsewhere without them, and says so.

The providers refuse what another credential or model has signed, so that one wrong piece of state anywhere in a
conversation fails its turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.accumulating import accumulated
from tests.support.clients import Answer, Client
from tests.support.process import GatewayProcess
from tests.support.signing import TOOL, SigningProvider

CONFIG = """
[routing]
retries = 0

[providers.claude]
type = "anthropic"
api_keys = ["claude-key-a-0000", "claude-key-b-0000"]
base_url = "{url}"

[providers.gemini]
api_keys = ["gemini-key-a-0000", "gemini-key-b-0000"]
base_url = "{url}"

[providers.router]
type = "openrouter"
api_keys = ["router-key-a-0000", "router-key-b-0000"]
base_url = "{url}/v1"

[models.two]
strategy = "weighted"
targets = ["claude/claude-sonnet-4-5", "gemini/gemini-3-pro-preview"]

[models.three]
strategy = "weighted"
targets = ["router/some/model", "gemini/gemini-3-pro-preview", "claude/claude-sonnet-4-5"]
"""
CLAUDE, GEMINI, ROUTER = "claude/claude-sonnet-4-5", "gemini/gemini-3-pro-preview", "router/some/model"
KEYS = {name: (f"{name}-key-a-0000", f"{name}-key-b-0000") for name in ("claude", "gemini", "router")}


class World:
    """A gateway before signing providers."""

    def __init__(self, folder: Path, provider: SigningProvider, *arguments: str, config: str = CONFIG) -> None:
        self.provider = provider
        self.gateway = GatewayProcess(folder, config=config.format(url=provider.url), arguments=arguments)

    def __enter__(self) -> Self:
        self.gateway.start()
        self.secret = self.gateway.create_key("--rpm", "0")
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.kill()

    def ask(self, model: str, messages: list[Any], *, stream: bool = False) -> Answer:
        """One request over a connection of its own."""
        client = Client(self.gateway.port, self.secret)
        body = {"model": model, "messages": messages, "tools": [TOOL], "reasoning_effort": "low", "stream": stream}
        try:
            return client.ask("/v1/chat/completions", body)
        finally:
            client.close()


class Loop:
    """A conversation whose tool is called twice."""

    def __init__(self, world: World, model: str, *, keeps: bool = True, stream: bool = False) -> None:
        """``keeps``: whether the client returns fields that it does not know."""
        self._world, self._model, self._keeps, self._stream = world, model, keeps, stream
        self.messages: list[Any] = [{"role": "user", "content": "Look twice."}]
        self.models: list[str] = []
        self.dropped: list[list[str]] = []
        self.text: str | None = None

    def turn(self) -> str:
        """One more; the credential that answered."""
        refused = list(self._world.provider.refused)
        answer = self._world.ask(self._model, self.messages, stream=self._stream)
        assert (answer.status, self._world.provider.refused) == (200, refused), answer.body
        self.models.append(answer.headers["x-inferxgate-model"])
        named = answer.headers.get("x-inferxgate-dropped-params", "")
        self.dropped.append([each for each in named.split(", ") if each])
        message = self._message(answer)
        self.text = message.get("content")
        calls = message.get("tool_calls") or []
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls]
        self.messages += [message, *results]
        return self._world.provider.served[-1]

    def _message(self, answer: Answer) -> dict[str, Any]:
        if self._stream:
            events = [json.loads(line[6:]) for line in answer.body.splitlines() if line.startswith(b"data: {")]
            message = accumulated(events)["choices"][0]["message"]
        else:
            message = json.loads(answer.body)["choices"][0]["message"]
        known = ("role", "content", "tool_calls")
        message = {name: value for name, value in message.items() if value and (self._keeps or name in known)}
        names = ("id", "type", "function", "extra_content") if self._keeps else ("id", "type", "function")
        for call in (calls := message.get("tool_calls", [])):
            call["function"] = {name: call["function"][name] for name in ("name", "arguments")}
        if calls:
            message["tool_calls"] = [{name: call[name] for name in names if name in call} for call in calls]
        return message


@pytest.fixture(scope="module")
def provider() -> Iterator[SigningProvider]:
    with SigningProvider() as fake:
        yield fake


@pytest.fixture(scope="module")
def world(provider: SigningProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("state"), provider) as world:
        yield world


@pytest.fixture(autouse=True)
def up(provider: SigningProvider) -> None:
    provider.down.clear()


def places(names: list[str]) -> set[str]:
    """The places in the history that are named."""
    return {name for name in names if name.startswith("messages.")}


# --- it stays


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("keeps", [True, False], ids=["keeps", "drops"])
def test_every_turn_stays_with_who_made_the_first(world: World, keeps: bool, stream: bool) -> None:
    """Ten loops by turns, whose first turns fall as chance has it."""
    loops = [Loop(world, "two", keeps=keeps, stream=stream) for _ in range(10)]
    served = [[loop.turn() for loop in loops] for _ in range(3)]
    assert served[0] == served[1] == served[2]
    assert all(loop.text == "done" and not any(map(places, loop.dropped)) for loop in loops)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_goes_through_as_it_came_stays_too(world: World, stream: bool) -> None:
    loops = [Loop(world, "three", stream=stream) for _ in range(10)]
    served = [[loop.turn() for loop in loops] for _ in range(3)]
    assert served[0] == served[1] == served[2]
    assert all(loop.text == "done" and not any(map(places, loop.dropped)) for loop in loops)
    assert len(set(served[0])) > 1


@pytest.mark.parametrize("keeps", [True, False], ids=["keeps", "drops"])
@pytest.mark.parametrize(("name", "model"), [("claude", CLAUDE), ("gemini", GEMINI)])
def test_it_stays_with_the_credential_that_made_it(
    provider: SigningProvider, tmp_path: Path, name: str, model: str, keeps: bool
) -> None:
    """Begun with the second while the first was limited, it goes on with the second when the first is back."""
    with World(tmp_path, provider) as world:
        first, second = KEYS[name]
        provider.down[first] = 429
        loop = Loop(world, model, keeps=keeps)
        assert loop.turn() == second
        provider.down.clear()
        assert Loop(world, model).turn() == first, "it is not cooling: nothing else keeps the loop from it"
        assert [loop.turn(), loop.turn()] == [second, second]
        assert (loop.text, [places(each) for each in loop.dropped]) == ("done", [set(), set(), set()])


# --- it goes on elsewhere


LOST = {
    "claude": {"messages.1.thinking_blocks"},
    "gemini": {"messages.1.tool_calls.0.extra_content.google.thought_signature"},
    "router": {"messages.1.reasoning_details"},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("keeps", [True, False], ids=["keeps", "drops"])
@pytest.mark.parametrize("name", ["claude", "gemini"])
def test_another_target_answers_without_it_and_says_so(
    provider: SigningProvider, tmp_path: Path, name: str, keeps: bool, stream: bool
) -> None:
    """The maker is down on the second turn and back on the third: then both have made some of it."""
    others = {key for keys in KEYS.values() for key in keys} - set(KEYS[name])
    with World(tmp_path, provider) as world:
        provider.down.update(dict.fromkeys(others, 503))
        loop = Loop(world, "three", keeps=keeps, stream=stream)
        assert loop.turn() in KEYS[name]
        provider.down = dict.fromkeys(KEYS[name], 503)
        assert loop.turn() not in KEYS[name]
        named = places(loop.dropped[1]) - {"messages.1.thinking_blocks.0"}  # bare text, which Anthropic refuses
        assert named == LOST[name]
        provider.down.clear()
        loop.turn()
        assert loop.text == "done"


@pytest.mark.parametrize("keeps", [True, False], ids=["keeps", "drops"])
@pytest.mark.parametrize(("name", "model"), [("claude", CLAUDE), ("gemini", GEMINI), ("router", ROUTER)])
def test_another_credential_answers_without_it_and_says_so(
    provider: SigningProvider, tmp_path: Path, name: str, model: str, keeps: bool
) -> None:
    with World(tmp_path, provider) as world:
        first, second = KEYS[name]
        loop = Loop(world, model, keeps=keeps)
        assert loop.turn() == first
        provider.down[first] = 429
        assert loop.turn() == second
        assert places(loop.dropped[1]) == (LOST[name] if keeps or name != "router" else set())
        loop.turn()
        assert loop.text == "done"


def test_a_conversation_taken_to_another_model_goes_on_there(world: World) -> None:
    """By its client, with each model by name: what the last one signed is left out for the next."""
    messages: list[Any] = [{"role": "user", "content": "Look twice."}]
    for model in (CLAUDE, GEMINI, ROUTER):
        loop = Loop(world, model)
        loop.messages = messages
        loop.turn()
        assert loop.models == [model]
    assert loop.text == "done"
    assert places(loop.dropped[0]) == {
        "messages.1.thinking_blocks",
        "messages.3.tool_calls.0.extra_content.google.thought_signature",
    }


# --- whoever is asked


def test_every_worker_knows_who_made_it(provider: SigningProvider, tmp_path: Path) -> None:
    with World(tmp_path, provider, "--workers", "4") as world:
        loops = [Loop(world, "three", keeps=number % 2 == 0, stream=number % 3 == 0) for number in range(16)]
        served = [[loop.turn() for loop in loops] for _ in range(3)]
        stays = [number for number, key in enumerate(served[0]) if number % 2 == 0 or key not in KEYS["router"]]
        assert all(served[0][number] == served[1][number] == served[2][number] for number in stays)
        assert all(loop.text == "done" for loop in loops)
        assert not any(places(named) for number in stays for named in loops[number].dropped)


def test_it_is_known_after_a_restart(provider: SigningProvider, tmp_path: Path) -> None:
    with World(tmp_path, provider) as world:
        loops = [Loop(world, "two", keeps=number % 2 == 0) for number in range(8)]
        first = [loop.turn() for loop in loops]
        world.gateway.stop()
        world.gateway.start()
        assert [loop.turn() for loop in loops] == first


def test_with_nothing_kept_unknown_state_goes_to_its_own_dialect(provider: SigningProvider, tmp_path: Path) -> None:
    with World(tmp_path, provider, config=CONFIG + "[reasoning]\nkeep_hours = 0\n") as world:
        loops = [Loop(world, "two") for _ in range(8)]
        served = [[loop.turn() for loop in loops] for _ in range(3)]
        assert served[0] == served[1] == served[2]
        assert all(loop.text == "done" for loop in loops)
