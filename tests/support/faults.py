"""Providers that fail before a request can be read: ports at which nobody answers, each in a way of its own.

What a provider does once it has read a request is scripted with ``tests.support.provider``; here are some more of its
replies, which break off, hang or drip at any place.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from tests.support.provider import Reply, SeenRequest, Step, Wait, head

Deaf: TypeAlias = Literal["refuses", "full", "silent", "resets"]
"""``refuses``: nobody listens. ``full``: so many wait to be accepted that no connection comes about. ``silent``: the
connection comes about, and nobody reads. ``resets``: it is reset as soon as it has come about."""


def credential(request: SeenRequest) -> str:
    """The credential that a request came with, by which one port can be many providers."""
    sent = "".join(request.headers.get(name, "") for name in _CREDENTIALS)
    return sent.removeprefix("Bearer ")


_CREDENTIALS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")


@contextlib.contextmanager
def deaf_port(kind: Deaf) -> Iterator[int]:
    """A port on the loopback interface."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        if kind == "full":
            listener.listen(0)
            for _ in range(4):  # the system takes one or two more than it was told to
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
        elif kind == "silent":
            listener.listen(512)
        elif kind == "resets":
            listener.listen(64)
            thread = threading.Thread(target=_reset_all, args=(listener,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield port


def _reset_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the listener was shut down: the test is over
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()


def drip(data: bytes, seconds: float) -> tuple[Step, ...]:
    """One byte after the other, with a pause before each."""
    return tuple(step for number in range(len(data)) for step in (Wait(seconds), data[number : number + 1]))


def chunk_of(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
LAST_CHUNK = b"0\r\n\r\n"


def chunked(*pieces: bytes, end: Sequence[Step] = (LAST_CHUNK,)) -> Reply:
    """An event stream, a chunk for each piece; ``end`` in the place of the last chunk."""
    return Reply((CHUNKED, *map(chunk_of, pieces), *end))


def sized(body: bytes, *steps: Step, keep: int | None = None, length: int | None = None) -> Reply:
    """A JSON body, or its first ``keep`` bytes, then ``steps``. ``length`` is what the head says if not the truth."""
    said = {"content-type": "application/json", "content-length": str(len(body) if length is None else length)}
    return Reply((head(200, said), body[:keep], *steps))
