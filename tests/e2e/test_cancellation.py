"""Clients that leave, at each stage of a request: the provider's work ends with them, and nothing is sent afterwards.

How long that takes is what is promised here: within a second. It is measured where the provider sees its connection
end, and what was measured is printed; a machine with other things to do is given more.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.e2e.faults import BODY, FIRST, HEAD, LARGE_PROMPT, SECOND, answer, status
from tests.support.clients import ask, until
from tests.support.faults import CHUNKED, Deaf, chunk_of, chunked, credential, deaf_port, sized
from tests.support.ledger import Record, records_by_request, reserved
from tests.support.process import GatewayProcess, provider_section
from tests.support.provider import HANG, FakeProvider, Reply, SeenRequest, Until, Wait

WITHIN_SECONDS = 1.0
SLACK_SECONDS = 2.0
"""For the scheduler of a busy machine."""
PAUSE_SECONDS = 2
"""That a provider asks for before the next try."""
MOST_SECONDS = 30.0
"""For whatever has to come about before a client leaves."""
Leaving = Literal["closes", "resets"]
BUSY = status(503, {"error": {"message": "Overloaded."}}, {"retry-after": str(PAUSE_SECONDS)})
TALKING = chunked(*[FIRST] * 3, end=(Wait(0.05), chunk_of(FIRST)) * 2000)


@dataclass(frozen=True)
class Stage:
    """Where a request is when its client leaves."""

    name: str
    stream: bool
    reply: Reply | None
    """Of the provider; None: it does not even read."""
    told: bool = False
    """Whether the client has read the beginning of an answer."""
    open: bool = True
    """Whether the provider is at work then, so that it has something to see the end of."""
    behind: bool = False
    """Whether it is the second target, after one that has failed."""
    deaf: Deaf = "full"
    """In which way it does not."""
    prompt: str = "Hello"
    queued: bool = False
    """Whether it waits for another request to end that the provider works on."""


STAGES = [
    *(Stage("connecting", stream, None, open=False) for stream in (False, True)),
    *(
        Stage("sending the request", stream, None, open=False, deaf="silent", prompt=LARGE_PROMPT)
        for stream in (False, True)
    ),
    *(Stage("waiting for the answer to begin", stream, Reply((HANG,))) for stream in (False, True)),
    *(Stage("waiting at the second target", stream, Reply((HANG,)), behind=True) for stream in (False, True)),
    *(Stage("in the pause before another try", stream, BUSY, open=False) for stream in (False, True)),
    *(Stage("waiting for a slot", stream, Reply((HANG,)), open=False, queued=True) for stream in (False, True)),
    Stage("within the headers", True, Reply((HEAD[:40], HANG))),
    Stage("after the headers", False, Reply((HEAD, HANG))),
    Stage("within the body", False, sized(BODY, HANG, keep=30)),
    Stage("while the body drips", False, Reply((HEAD, *(Wait(0.1), b" ") * 500))),
    Stage("waiting for the first token", True, Reply((CHUNKED, HANG))),
    Stage("while only comments come", True, Reply((CHUNKED, *(Wait(0.1), chunk_of(b": wait\n\n")) * 500))),
    Stage("within the first event", True, chunked(FIRST[:20], end=(HANG,))),
    Stage("waiting for the second token", True, chunked(FIRST, end=(HANG,)), told=True),
    Stage("within the second event", True, chunked(FIRST, SECOND[:20], end=(HANG,)), told=True),
    Stage("streaming", True, TALKING, told=True),
]


def connections_to(port: int) -> frozenset[str]:
    """Those that are being made or stand, by their ends on this side, as Linux knows them."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established, syn_sent = "01", "02"
    return frozenset(
        line[1] for line in lines if line[2] == f"0100007F:{port:04X}" and line[3] in (established, syn_sent)
    )


@dataclass
class Visit:
    """One client that leaves."""

    number: int
    stage: Stage
    leaving: Leaving
    left_at: float = 0.0
    """Seconds of the monotonic clock."""
    asked_at: float = 0.0
    freed: threading.Event = field(default_factory=threading.Event)
    """Lets the request end that has the slot."""

    @property
    def name(self) -> str:
        how = "streamed" if self.stage.stream else "whole"
        return f"{self.stage.name}, {how}, the client {self.leaving}"

    @property
    def key(self) -> str:
        return f"visited{self.number}"

    @property
    def model(self) -> str:
        return f"visit{self.number}"


class Providers:
    """One at work for each visit, one that always fails, and one that nobody should ever get to."""

    def __init__(self, visits: list[Visit], deaf: Mapping[Deaf, int]) -> None:
        self.deaf = deaf
        """The ports where nobody reads."""
        self.others = self.to_the_deaf()
        """Those that have made them so."""
        self.visits = {visit.key: visit for visit in visits}
        self.server = FakeProvider(self._reply)

    def to_the_deaf(self) -> Mapping[Deaf, frozenset[str]]:
        """The connections to them."""
        return {kind: connections_to(port) for kind, port in self.deaf.items()}

    def asked(self, key: str) -> list[SeenRequest]:
        return [request for request in self.server.requests if credential(request) == key]

    def _reply(self, request: SeenRequest) -> Reply:
        name = credential(request)
        if name == "failing":
            return status(500)
        visit = self.visits[name]
        if visit.stage.queued:
            return Reply((Until(visit.freed), *answer("openai", stream=False).steps))
        assert visit.stage.reply is not None
        return visit.stage.reply


def config_of(visit: Visit, url: str, deaf: Mapping[Deaf, int]) -> str:
    stage = visit.stage
    base_url = (f"http://127.0.0.1:{deaf[stage.deaf]}" if stage.reply is None else url) + "/v1"
    bound = {"max_parallel_requests": 1} if stage.queued else {}
    targets = ["failing/m"] * stage.behind + [f"{visit.key}/m"] + ["never/m"] * stage.open
    section = provider_section(visit.key, base_url, api_key=visit.key, **bound)
    return f"{section}[models.{visit.model}]\ntargets = {json.dumps(targets)}\n"


@contextmanager
def connected(port: int, secret: str, visit: Visit) -> Iterator[socket.socket]:
    """A client that has sent its request."""
    body = json.dumps(
        {
            "model": visit.model,
            "stream": visit.stage.stream,
            "messages": [{"role": "user", "content": visit.stage.prompt}],
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n"
        f"X-Request-Id: {visit.model}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=MOST_SECONDS) as client:
        visit.asked_at = time.monotonic()
        client.sendall(head.encode() + body)
        yield client


def leave(client: socket.socket, visit: Visit) -> None:
    if visit.leaving == "resets":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visit.left_at = time.monotonic()
    client.close()


def run(visit: Visit, gateway: GatewayProcess, secret: str, providers: Providers) -> float | None:
    """Ask, and leave at the stage; how long after that the provider saw its connection end, where it has one."""
    stage, server = visit.stage, providers.server
    with ExitStack() as stack:
        if stage.queued:
            threads = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(visit.freed.set)
            first = threads.submit(ask, gateway.port, secret, "/v1/chat/completions", _plain(visit))
            server.wait_for(lambda _: bool(providers.asked(visit.key)), MOST_SECONDS)
        client = stack.enter_context(connected(gateway.port, secret, visit))
        if stage.told:
            assert b'"Hel"' in _read_until(client, b'"Hel"')
        elif stage.reply is None:
            until(lambda: providers.to_the_deaf()[stage.deaf] > providers.others[stage.deaf])
        elif stage.open or stage.name.startswith("in the pause"):
            server.wait_for(lambda _: bool(providers.asked(visit.key)), MOST_SECONDS)
        time.sleep(0.5)  # let it get into the stage
        leave(client, visit)
        if stage.queued:
            time.sleep(0.5)  # the place in the queue is given up by now
            visit.freed.set()
            assert first.result().status == 200
            assert ask(gateway.port, secret, "/v1/chat/completions", _plain(visit)).status == 200, "the slot is free"
    if not stage.open:
        return None
    [request] = providers.asked(visit.key)
    server.wait_for(lambda _: request.ended_early is not None, MOST_SECONDS)
    assert request.ended_early is not None
    return request.ended_early.at_seconds - visit.left_at


def _plain(visit: Visit) -> dict[str, Any]:
    return {"model": f"{visit.key}/m", "messages": [{"role": "user", "content": "Hello"}]}


def _read_until(client: socket.socket, awaited: bytes) -> bytes:
    read = b""
    while awaited not in read and (piece := client.recv(4096)):
        read += piece
    return read


def check_record(visit: Visit, records: list[Record]) -> None:
    [record] = records
    stage = visit.stage
    assert (record["status"], record["error_code"]) == ("client_closed", None), visit.name
    assert record["http_status"] == (200 if stage.told else 499), visit.name
    assert record["provider"] == (visit.key if not stage.queued else record["provider"]), visit.name
    stayed_ms = (visit.left_at - visit.asked_at) * 1000
    assert record["duration_ms"] <= stayed_ms + (WITHIN_SECONDS + SLACK_SECONDS) * 1000, visit.name


@pytest.mark.parametrize("workers", [1, 4])
def test_what_a_client_left_ends(tmp_path: Path, workers: int) -> None:
    leavings: tuple[Leaving, ...] = ("closes", "resets")
    kinds = [(stage, leaving) for stage in STAGES for leaving in leavings]
    visits = [Visit(number, stage, leaving) for number, (stage, leaving) in enumerate(kinds)]
    with (
        deaf_port("full") as full,
        deaf_port("silent") as silent,
        (providers := Providers(visits, {"full": full, "silent": silent})).server as server,
    ):
        config = '[pricing."*"]\ninput = 1\noutput = 2\n'
        config += provider_section("failing", server.base_url, api_key="failing")
        config += provider_section("never", server.base_url, api_key="never")
        config += "".join(config_of(visit, server.url, providers.deaf) for visit in visits)
        with GatewayProcess(tmp_path, config=config, arguments=["--workers", str(workers)]) as gateway:
            secret = gateway.create_key("--rpm", "0", "--budget", "1000")
            with ThreadPoolExecutor(len(visits)) as threads:
                took = list(threads.map(lambda visit: run(visit, gateway, secret, providers), visits))
            time.sleep(PAUSE_SECONDS + 1)  # by now whoever meant to try again has done so
            assert providers.to_the_deaf() == providers.others
            assert reserved(gateway.data_dir) == {}
            assert gateway.stop() == 0
        assert "Traceback" not in gateway.log
        records = records_by_request(gateway.data_dir)
    measured = {visit.name: seconds for visit, seconds in zip(visits, took, strict=True) if seconds is not None}
    print(json.dumps({name: round(seconds, 3) for name, seconds in measured.items()}, indent=1))
    assert {name for name, seconds in measured.items() if seconds > WITHIN_SECONDS + SLACK_SECONDS} == set()
    for visit in visits:
        check_record(visit, records[visit.model])
        expected = 0 if visit.stage.reply is None else 2 if visit.stage.queued else 1
        assert len(providers.asked(visit.key)) == expected, visit.name
    assert not providers.asked("never")
