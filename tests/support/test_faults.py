"""Ports at which nobody answers, and replies in pieces: what others rely on when a test of theirs is green."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.faults import chunk_of, chunked, deaf_port, drip, sized
from tests.support.provider import CLOSE, FakeProvider, Reply
from tests.support.test_provider import ask


def test_a_port_that_refuses() -> None:
    with deaf_port("refuses") as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_at_which_no_connection_comes_about() -> None:
    with deaf_port("full") as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.3)


def test_a_port_at_which_nobody_reads() -> None:
    with deaf_port("silent") as port, socket.create_connection(("127.0.0.1", port), timeout=0.3) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_port_that_resets() -> None:
    with (
        deaf_port("resets") as port,
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as client,
    ):
        client.recv(1)


def test_replies_in_pieces() -> None:
    with FakeProvider() as provider:
        provider.reply(chunked(b"ab", end=(*drip(chunk_of(b"c"), 0.01), b"0\r\n\r\n")))
        provider.reply(sized(b"0123456789", b"x", CLOSE, keep=2, length=3))
        began = time.monotonic()
        assert ask(provider, {}) == (200, b"abc")
        assert time.monotonic() - began >= 0.06, "a pause before each of its six bytes"
        assert ask(provider, {}) == (200, b"01x")
        assert Reply(drip(b"ab", 1)).steps[1::2] == (b"a", b"b")
