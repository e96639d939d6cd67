"""Clients that all ask at the same moment, each over a connection of its own, so that every worker has some of them."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client was told, whole, and when (Unix seconds)."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes
    asked_at: float
    told_at: float

    @property
    def code(self) -> str | None:
        """Of an error."""
        return json.loads(self.body)["error"]["code"] if self.status >= 400 else None

    @property
    def complete(self) -> bool:
        """Whether it is an answer that nothing is missing of, streamed or whole."""
        if self.headers["content-type"].startswith("text/event-stream"):
            return self.status == 200 and self.body.endswith(b"data: [DONE]\n\n")
        return self.status == 200 and bool(json.loads(self.body)["choices"])


class Client:
    """One connection."""

    def __init__(self, port: int, secret: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        self._connection.connect()
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    def ask(self, path: str, body: object = None) -> Answer:
        """GET a path, or POST a body to it."""
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
        asked_at = time.time()
        self._connection.request(method, path, data, self._headers)
        response = self._connection.getresponse()
        told = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, told, asked_at, time.time())

    def close(self) -> None:
        self._connection.close()


def ask(port: int, secret: str, path: str, body: object = None) -> Answer:
    """One question over a new connection."""
    client = Client(port, secret)
    try:
        return client.ask(path, body)
    finally:
        client.close()


class Crowd:
    """Clients that have asked, and their answers as they come."""

    def __init__(self, answers: list[concurrent.futures.Future[Answer]]) -> None:
        self._answers = answers

    def told(self, count: int) -> list[Answer]:
        """The answers that have come, once there are so many."""
        for done, _ in enumerate(concurrent.futures.as_completed(self._answers, _SECONDS), start=1):
            if done >= count:
                break
        return [answer.result() for answer in self._answers if answer.done()]

    def all(self) -> list[Answer]:
        return self.told(len(self._answers))


@contextmanager
def crowd(port: int, secret: str, bodies: list[dict[str, Any]]) -> Iterator[Crowd]:
    """Connect a client for each chat request; then send all of them at once."""
    together = threading.Barrier(len(bodies))

    def run(body: dict[str, Any]) -> Answer:
        client = Client(port, secret)
        try:
            together.wait(_SECONDS)
            return client.ask("/v1/chat/completions", body)
        finally:
            client.close()

    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as threads:
        yield Crowd([threads.submit(run, body) for body in bodies])


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for something to become true, and fail when it does not."""
    for _ in range(2_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(what or "it did not come about")
