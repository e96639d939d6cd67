"""Many clients and several providers that fail at random: every request ends in a right answer or in a right error.

What is random follows from one seed, which a failure prints and ``INFERXGATE_FAULTS_SEED`` sets; how the processes are
scheduled is chance all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.faults import a_error, dated, encoded, limited_in, o_error, sse, status
from tests.e2e.hostile import DONE, HTML, Json, chunk, completion, event, message, wire
from tests.support.clients import until
from tests.support.faults import credential, drip
from tests.support.ledger import Record, records_by_request, reserved, under_way
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import CLOSE, HANG, RESET, FakeProvider, Reply, SeenRequest, Step, Wait

SECONDS = 15.0
CLIENTS = 24
WORKERS = 2
HANG_SECONDS = 40.0
"""No request takes so long, whatever happens to it."""
FAULT_SHARE = 0.45
WORDS = 8
PROVIDERS = {"alpha": "openai", "beta": "openai", "gamma": "openai", "delta": "anthropic"}
"""And whose API each speaks."""
ALIASES = {
    "ordered": list(PROVIDERS),
    "weighted": list(reversed(PROVIDERS)),
    "least_busy": ["gamma", "delta", "beta"],
    "lowest_latency": ["beta", "alpha"],
    "cheapest": ["delta", "alpha"],
}
"""By their strategies."""
MODELS = [*ALIASES, *ALIASES, *(f"{name}/m" for name in PROVIDERS)]
ROUTING = """
[server]
public_metrics = true
[routing]
retries = 2
max_wait_seconds = 2
queue_seconds = 2
min_failures = 8
failure_ratio = 0.7
window_seconds = 5
cooldown_seconds = 0.3
max_cooldown_seconds = 1
set_aside_seconds = 1
[pricing."*"]
input = 1
output = 2
"""
TIMES = {"connect_timeout_seconds": 1, "first_byte_timeout_seconds": 1, "idle_timeout_seconds": 1, "timeout_seconds": 2}
ERRORS = {
    400: {"invalid_value", "context_length_exceeded"},
    404: {"model_not_found"},
    429: {"upstream_rate_limited", "upstream_quota_exceeded"},
    502: {"upstream_error", "upstream_invalid_response", "upstream_unreachable", "upstream_auth_error"},
    503: {"upstream_overloaded", "no_target_available"},
    504: {"upstream_timeout"},
}
"""All that these providers can be told of, by status."""
IN_STREAM = {code for codes in ERRORS.values() for code in codes}


def said(provider: str, nonce: str) -> str:
    """What a provider answers to a request, and nobody else to any."""
    return " ".join([provider, *(f"{nonce}.{number}" for number in range(WORDS))])


# --- the providers ----------------------------------------------------------------------------------------------------


def right(provider: str, nonce: str, *, stream: bool) -> Reply:
    text = said(provider, nonce)
    if PROVIDERS[provider] == "anthropic":
        if not stream:
            return status(200, message({"type": "text", "text": text}))
        return sse(*_anthropic_events(text), kind="anthropic")
    if not stream:
        return status(200, completion(message={"role": "assistant", "content": text}))
    words = _words(text)
    return sse(*map(chunk, words[:-1]), chunk(words[-1], "stop"), DONE)


def _words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


def _anthropic_events(text: str) -> list[Json]:
    opens: Json = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}},
        opens,
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in _words(text)
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]


REFUSALS: list[Callable[[], Reply]] = [
    lambda: status(400, o_error("No.", "invalid_request_error")),
    lambda: status(400, a_error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")),
    lambda: status(401, o_error("No.", "invalid_request_error", "invalid_api_key")),
    lambda: status(402, o_error("No.", "billing_error")),
    lambda: status(404, o_error("No such model.", "not_found_error", "model_not_found")),
    lambda: status(408),
    lambda: limited_in("0"),
    lambda: limited_in("1"),
    lambda: limited_in("3"),
    dated,
    lambda: status(500, a_error("api_error", "Internal server error")),
    lambda: status(502, HTML, kind="text/html"),
    lambda: status(503, a_error("overloaded_error", "Overloaded"), {"retry-after": "1"}),
    lambda: status(504),
    lambda: status(529, a_error("overloaded_error", "Overloaded")),
    lambda: status(200, HTML, kind="text/html"),
    lambda: status(200, a_error("overloaded_error", "Overloaded")),
    lambda: status(307, headers={"location": "/elsewhere"}),
    lambda: encoded(b"{}", "application/json"),
    lambda: Reply((b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE)),
    lambda: Reply((CLOSE,)),
    lambda: Reply((RESET,)),
    lambda: Reply((HANG,)),
]


class Providers(FakeProvider):
    """All of them at one port."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._reply)
        self._random = random.Random(seed)
        self.faults = True
        self.asked: dict[str, list[tuple[str, float]]] = defaultdict(list)
        """By nonce: which provider was asked, and when, in seconds of the monotonic clock."""
        self.chosen: Counter[str] = Counter()

    def _reply(self, request: SeenRequest) -> Reply:
        provider = credential(request).partition("-")[0]
        asked = request.json()
        content = asked["messages"][-1]["content"]
        nonce = content if isinstance(content, str) else content[0]["text"]
        self.asked[nonce].append((provider, time.monotonic()))
        reply = right(provider, nonce, stream=bool(asked.get("stream")))
        if not self.faults or self._random.random() > FAULT_SHARE:
            self.chosen["right"] += 1
            return self._slowed(reply)
        if self._random.random() < 0.5:
            self.chosen["refused"] += 1
            return self._random.choice(REFUSALS)()
        self.chosen["broken"] += 1
        return self._broken(provider, reply)

    def _slowed(self, reply: Reply) -> Reply:
        """With pauses between its pieces, now and then."""
        pause = self._random.choice([0.0, 0.0, 0.01, 0.05])
        return Reply(tuple(step for each in reply.steps for step in ((Wait(pause), each) if pause else (each,))))

    def _broken(self, provider: str, reply: Reply) -> Reply:
        """A right answer that is not told to its end."""
        steps = list(reply.steps)
        place = self._random.randrange(len(steps))
        piece = steps[place]
        assert isinstance(piece, bytes)
        part = piece[: self._random.randrange(len(piece) + 1)]
        end = self._random.choice(["close", "reset", "hang", "error", "nonsense", "drip"])
        before: tuple[Step, ...] = tuple(steps[:place])
        match end:
            case "close" | "reset" | "hang":
                return Reply((*before, part, {"close": CLOSE, "reset": RESET, "hang": HANG}[end]))
            case "error" if place:
                error = a_error("overloaded_error", "Overloaded")
                told = event(error) if PROVIDERS[provider] == "anthropic" else b"data: %b\n\n" % wire(error)
                return Reply((*before, b"%x\r\n%b\r\n" % (len(told), told), b"0\r\n\r\n", CLOSE))
            case "drip":
                return Reply((*before, *drip(piece[:60], 0.005), piece[60:], *steps[place + 1 :]))
            case _:
                return Reply((*before, part, b"\x00nonsense\r\n\r\n", CLOSE))


# --- the clients ------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """How one request ended for its client."""

    model: str
    stream: bool
    kind: str
    """``answer``, ``error``, ``in-stream error`` or ``left``."""
    http_status: int = 0
    code: str | None = None


@dataclass
class Soak:
    url: str
    key: str
    providers: Providers
    seed: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By request id, which is its nonce as well."""
    wrong: list[str] = field(default_factory=list)

    async def client(self, number: int, until_at: float) -> None:
        chance = random.Random(self.seed * 1000 + number)
        async with httpx.AsyncClient(base_url=self.url, timeout=HANG_SECONDS) as client:
            count = 0
            while time.monotonic() < until_at:
                count += 1
                nonce = f"n{number}x{count}"
                outcome = Outcome(chance.choice(MODELS), chance.random() < 0.6, "left")
                leaves_after = chance.random() if chance.random() < 0.15 else None
                try:
                    async with asyncio.timeout(leaves_after):
                        await self._ask(client, nonce, outcome)
                except TimeoutError:
                    if leaves_after is None:
                        raise
                    outcome.kind = "left"
                except httpx.TimeoutException:
                    self.wrong.append(f"{nonce}: it hangs")
                except (AssertionError, httpx.HTTPError, ValueError, KeyError) as error:
                    self.wrong.append(f"{nonce} ({outcome}): {type(error).__name__}: {error}")
                self.outcomes[nonce] = outcome

    async def _ask(self, client: httpx.AsyncClient, nonce: str, outcome: Outcome) -> None:
        body = {"model": outcome.model, "stream": outcome.stream, "messages": [{"role": "user", "content": nonce}]}
        headers = {"authorization": f"Bearer {self.key}", "x-request-id": nonce}
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as told:
            pieces = []
            began: float | None = None
            async for piece in told.aiter_text():
                began = began or time.monotonic()
                pieces.append(piece)
        text = "".join(pieces)
        outcome.http_status = told.status_code
        served = told.headers.get("x-inferxgate-model", "").partition("/")[0]
        if told.status_code != 200:
            error = json.loads(text)["error"]
            assert set(error) == {"type", "message", "code", "param"}
            outcome.kind, outcome.code = "error", error["code"]
            assert outcome.code in ERRORS[told.status_code], error
        elif outcome.stream:
            read_stream(text, said(served, nonce), outcome)
            assert began is not None
            assert max(at for _, at in self.providers.asked[nonce]) <= began, "nobody is asked after the first bytes"
        else:
            [choice] = json.loads(text)["choices"]
            assert choice["message"]["content"] == said(served, nonce)
            assert choice["finish_reason"] == "stop"
            outcome.kind = "answer"
        if outcome.kind != "error":
            assert self.providers.asked[nonce][-1][0] == served


def read_stream(text: str, whole: str, outcome: Outcome) -> None:
    *events, rest = text.split("\n\n")
    assert rest == "", "a stream ends with a whole event"
    *said, last = [each.removeprefix("data: ") for each in events if not each.startswith(":")]
    chunks: list[Any] = [json.loads(each) for each in said]
    assert not any("error" in each for each in chunks)
    choices = [choice for each in chunks for choice in each["choices"]]
    told = "".join(choice["delta"].get("content") or "" for choice in choices)
    if last == "[DONE]":
        assert told == whole
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
        outcome.kind = "answer"
        return
    outcome.kind, outcome.code = "in-stream error", json.loads(last)["error"]["code"]
    assert outcome.code in IN_STREAM
    assert told == whole[: len(told)]


def check_records(soak: Soak, records: dict[str, list[Record]]) -> list[str]:
    """What is wrong with the records: there is one of each request, which says how it ended."""
    wrong = []
    for nonce, outcome in soak.outcomes.items():
        found = [(each["status"], each["http_status"], each["error_code"]) for each in records[nonce]]
        match outcome.kind:
            case "left":  # it may not have come far enough to be admitted, or have ended just then
                right = len(found) <= 1
            case "answer":
                right = found == [("ok", 200, None)]
            case _:
                right = found == [("provider_error", outcome.http_status, outcome.code)]
        if not right:
            wrong.append(f"{nonce} ({outcome}): the records are {found}")
    return wrong


def configuration(providers: Providers) -> str:
    config = ROUTING
    for name, kind in PROVIDERS.items():
        url = providers.base_url if kind == "openai" else providers.url
        more: dict[str, Any] = {"max_parallel_requests": 6} if name == "beta" else {}
        section = provider_section(name, url, api_key=name, **TIMES, **more)
        if name == "gamma":
            section = section.replace('api_key = "gamma"', 'api_keys = ["gamma-1", "gamma-2"]')
        config += section.replace('type = "openai"', f'type = "{kind}"')
    for strategy, names in ALIASES.items():
        targets = json.dumps([f"{name}/m" for name in names])
        config += f'[models.{strategy}]\nstrategy = "{strategy}"\ntargets = {targets}\n'
    return config


def test_every_request_ends_in_a_right_answer_or_a_right_error(tmp_path: Path) -> None:
    seed = int(os.environ.get("INFERXGATE_FAULTS_SEED") or random.randrange(10**6))
    print(f"INFERXGATE_FAULTS_SEED={seed}")
    with Providers(seed) as providers:
        arguments = ["--workers", str(WORKERS)]
        with GatewayProcess(tmp_path, config=configuration(providers), arguments=arguments) as gateway:
            key = gateway.create_key("--rpm", "0", "--budget", "1000000")
            soak = Soak(gateway.url, key, providers, seed)

            async def run() -> None:
                end = time.monotonic() + SECONDS
                await asyncio.gather(*(soak.client(number, end) for number in range(CLIENTS)))

            asyncio.run(run())
            until(lambda: under_way(gateway.url) == 0, "a request is still counted")
            until(lambda: reserved(gateway.data_dir) == {}, "a reservation is left")
            providers.faults = False
            until(lambda: recovers(soak), "not all providers are used again")
            assert gateway.stop() == 0
        assert "Traceback" not in gateway.log
        assert "never retrieved" not in gateway.log
        wrong = soak.wrong + check_records(soak, records_by_request(gateway.data_dir))
    ends = Counter((each.kind, each.code) for each in soak.outcomes.values())
    print(len(soak.outcomes), "requests:", dict(ends), dict(providers.chosen))
    assert not wrong, "\n".join([f"seed {seed}: {len(wrong)} of {len(soak.outcomes)}", *wrong])
    assert {kind for kind, _ in ends} == {"answer", "error", "in-stream error", "left"}, "all of it was tried"


def recovers(soak: Soak) -> bool:
    """Whether each provider answers at once as many as it takes: no slot, probe or connection was lost."""
    lock, served = threading.Lock(), Counter[str]()

    def ask(name: str) -> None:
        body = {"model": f"{name}/m", "messages": [{"role": "user", "content": f"after-{name}"}]}
        headers = {"authorization": f"Bearer {soak.key}"}
        answer = httpx.post(f"{soak.url}/v1/chat/completions", json=body, headers=headers, timeout=HANG_SECONDS)
        with lock:
            served[name] += answer.status_code == 200

    threads = [threading.Thread(target=ask, args=(name,)) for name in PROVIDERS for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return served == dict.fromkeys(PROVIDERS, 6)
