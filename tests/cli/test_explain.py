"""What a request would become, told without asking anyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferxgate.workers.health import CircuitKey
from tests.support.health import digest, health_in
from tests.support.provider import FakeProvider
from tests.support.terminal import CommandLine, without_colour

SECRETS = ("sk-canary-41c07d", "sk-canary-99ef10", "canary-header-77")
CONFIG = """
[chat]
model = "smart"
[routing]
retries = 4
max_parallel_requests = 300
[providers.openai]
api_keys = ["sk-canary-41c07d", "sk-canary-99ef10"]
base_url = "{url}/v1"
headers = {{ X-Own = "canary-header-77" }}
max_parallel_requests = 20
[providers.anthropic]
api_key = "sk-canary-41c07d"
base_url = "{url}"
[models.smart]
fallback_on = ["context_length"]
targets = [
  {{ model = "anthropic/claude-sonnet-4-5", params = {{ seed = 3 }}, first_byte_timeout_seconds = 7 }},
  {{ model = "openai/gpt-4o", weight = 3 }},
]
[models.drawn]
strategy = "weighted"
targets = ["anthropic/claude-sonnet-4-5", {{ model = "openai/gpt-4o", weight = 3 }}]
[models.many]
targets = [{{ model = "anthropic/claude-sonnet-4-5", params = {{ logprobs = true }} }}, "openai/gpt-4o"]
"""


@pytest.fixture
def configured(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, config=CONFIG.format(url="http://127.0.0.1:1"))


def test_nobody_is_asked_and_nothing_is_written(tmp_path: Path) -> None:
    with FakeProvider() as provider:
        cli = CommandLine(tmp_path, config=CONFIG.format(url=provider.url))
        for arguments in (["--explain", "hi"], ["--explain", "hi", "--json"], ["--explain", "hi", "--no-stream"]):
            cli.well("chat", *arguments)
        assert provider.connections == 0
    assert not cli.data_dir.exists()


@pytest.mark.parametrize("more", [[], ["--no-stream"]])
def test_what_is_shown_is_what_chat_then_sends(tmp_path: Path, more: list[str]) -> None:
    with FakeProvider() as provider:
        cli = CommandLine(tmp_path, config=CONFIG.format(url=provider.url))
        arguments = ["-m", "openai/gpt-4o", "-s", "Be brief.", "What broke?", *more]
        [shown] = cli.well("chat", "--explain", "--json", *arguments).json["targets"]
        cli.well("chat", *arguments)
        sent = provider.last
        assert shown["request"]["body"] == sent.json()
        assert shown["request"]["url"] == provider.url + sent.target
        for name, value in shown["request"]["headers"].items():
            masked = sent.headers[name.lower()]
            for secret in SECRETS:
                masked = masked.replace(secret, "****")
            assert value == masked


def test_each_target_is_shown_with_its_own_request_in_the_order_of_the_tries(configured: CommandLine) -> None:
    done = configured.well("chat", "--explain", "-s", "Be brief.", "What broke?", stdin="line 1\n")
    assert done.err == ""
    first, second, limits = _blocks(done.out)
    assert "2, ordered: in the order of the configuration" in done.out
    assert first.startswith("1. anthropic/claude-sonnet-4-5\n")
    assert "Weight" not in first + second, "weights count for nothing in an order that is fixed"
    assert "\n   POST http://127.0.0.1:1/v1/messages\n" in first
    assert "\n   x-api-key: ****\n" in first
    assert '"text": "What broke?\\n\\nline 1\\n"' in first
    assert "\n   Left out        seed\n" in first
    assert '\n   Sets            {"seed":3}\n' in first
    assert "\n   Times out       connecting 10 s, first byte 7 s, silence 300 s\n" in first
    assert second.startswith("2. openai/gpt-4o\n")
    assert "\n   authorization: Bearer ****\n" in second
    assert "\n   X-Own: ****\n" in second
    assert "\n   Keys            2; the next where" in second
    assert "\n   At once         20 requests at the provider\n" in second
    assert '"stream": true' in second
    assert "Left out" not in second
    assert "\n   Goes on for     every failure of a provider and prompts that are too long\n" in limits
    assert "\n   Retries         4 at targets" in limits
    assert "\n   At once         300 requests in the whole gateway\n" in limits
    assert not any(secret in done.out for secret in SECRETS)


def _blocks(page: str) -> tuple[str, str, str]:
    """What is said of the first target, of the second, and of the limits."""
    _, _, rest = page.partition("\n1. ")
    first, _, rest = rest.partition("\n2. ")
    second, _, limits = rest.partition("\nLimits\n")
    return f"1. {first}", f"2. {second}", f"\n{limits}"


def test_json_has_all_of_it(configured: CommandLine) -> None:
    text = "data:image/png;base64," + "A" * 5_000
    done = configured.well("chat", "--explain", "--json", "--no-stream", text)
    assert (done.json["model"], done.json["strategy"], done.json["order_by"]) == ("smart", "ordered", "rule")
    assert (done.json["stream"], done.json["fallback_on"]) == (False, ["context_length"])
    first, second = done.json["targets"]
    assert first["request"]["body"]["messages"][0]["content"][0]["text"] == text
    assert second["request"]["body"]["messages"] == [{"role": "user", "content": text}]
    assert second["request"]["headers"]["authorization"] == "Bearer ****"
    assert first["dropped"] == ["seed"]
    assert (first["params"], first["timeouts"]["first_byte_seconds"]) == ({"seed": 3}, 7)
    assert [each["credential"] for each in second["credentials"]] == [digest(SECRETS[0]), digest(SECRETS[1])]
    assert second["max_parallel_requests"] == 20
    assert 0 < first["likely_cost"] < first["worst_cost"]
    assert (second["likely_cost"], second["price_version"]) == (None, None), "on a server of one's own"
    assert first["price_version"].startswith("genai-prices")
    assert done.json["limits"]["retries"] == 4
    assert done.json["prompt"]["likely_tokens"] > 1_000
    assert not any(secret in done.out for secret in SECRETS)


def test_people_see_long_texts_shortened(configured: CommandLine) -> None:
    out = configured.well("chat", "--explain", "word " * 1_000).out
    assert "... (5,000 characters)" in out
    assert len(out) < 6_000
    data = configured.well("chat", "--explain", "data:image/png;base64," + "A" * 5_000).out
    assert "AAA... (5,022 characters)" in data
    assert "A" * 80 not in data


def test_an_order_that_nobody_can_know_is_said_to_be_one(configured: CommandLine) -> None:
    page = configured.well("chat", "--explain", "-m", "drawn", "hi").out
    assert "Each request draws its own order; this is the likeliest.\n" in page
    assert page.index("1. openai/gpt-4o\n   Weight          3 of 4 (75%)") < page.index("2. anthropic/")


def test_a_target_that_cannot_be_asked_says_why(configured: CommandLine) -> None:
    first, second, _ = _blocks(configured.well("chat", "--explain", "-m", "many", "hi").out)
    assert "\n   Not asked       400 unsupported_parameter: " in first
    assert "POST" not in first
    assert "POST" in second
    shown = configured.well("chat", "--explain", "-m", "many", "hi", "--json").json["targets"]
    assert (shown[0]["request"], shown[0]["refusal"]["param"]) == (None, "logprobs")
    assert shown[1]["refusal"] is None


def test_what_is_left_alone_now_is_told(configured: CommandLine) -> None:
    with health_in(configured.data_dir) as health:
        health.failed(CircuitKey("anthropic", "claude-sonnet-4-5", digest(SECRETS[0])), "upstream_error")
        health.set_aside(CircuitKey("openai", "", digest(SECRETS[1])), "upstream_auth_error")
    first, second, _ = _blocks(configured.well("chat", "--explain", "hi").out)
    assert "\n   State           open 60 min (upstream_error)\n" in first
    assert "\n   State           1 of 2 keys set aside (upstream_auth_error)\n" in second
    shown = configured.well("chat", "--explain", "hi", "--json").json["targets"]
    assert shown[0]["credentials"][0]["health"]["state"] == "open"
    assert [each["health"] and each["health"]["state"] for each in shown[1]["credentials"]] == [None, "set_aside"]


@pytest.mark.parametrize("colours", [True, False])
def test_on_a_terminal_json_is_coloured_and_nothing_is_wider_than_it(configured: CommandLine, colours: bool) -> None:
    environment = {} if colours else {"NO_COLOR": "1"}
    with configured.on_terminal("chat", "--explain", "Say \x1b[31mred", environment=environment) as terminal:
        assert terminal.end() == 0
    assert ('\x1b[32m"gpt-4o"' in terminal.seen) is colours
    assert "\x1b[31m" not in terminal.seen, "what was asked is no order to the terminal"
    lines = without_colour(terminal.seen).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("                   ") and "refused key" in line for line in lines), "broken at a word"


def test_what_it_cannot_explain_is_one_line(configured: CommandLine) -> None:
    line = configured.fails("chat", "--explain", "--url", "http://127.0.0.1:1", "hi", code=2)
    assert line.startswith("--explain tells what the gateway in here would do, and --url (INFERXGATE_URL) asks another")
    asked = configured.run("chat", "--explain", "hi", environment={"INFERXGATE_URL": "http://127.0.0.1:1"})
    assert asked.code == 2
    assert configured.fails("chat", "--explain", code=2).startswith("There is nothing to ask")
    assert "There is no model 'nothing'" in configured.fails("chat", "--explain", "-m", "nothing", "hi")
    with configured.on_terminal("chat", "--explain") as terminal:
        assert terminal.end() == 2
    assert "There is nothing to ask" in terminal.seen


def test_the_model_is_chosen_as_chat_does(cli: CommandLine) -> None:
    done = cli.well("chat", "--explain", "hi")
    page = done.out
    assert "1. echo/echo\n" in page
    assert done.err.startswith("The built-in model echo repeats what you say.")
    assert "\n   Keys            none is sent\n" in page
    assert "\n   Cost            about $0.00 with an answer of 500 tokens, $0.00 at most\n" in page
