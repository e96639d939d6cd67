"""Who is at the other end, and who may say so for another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.errors import StartError
from inferxgate.server.addresses import Addresses, is_local_request, is_loopback, parse_address, throttle_name


def scope(peer: str | None, *headers: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "client": None if peer is None else (peer, 40000),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }


FORWARDED = "X-Forwarded-For"


@pytest.mark.parametrize(
    ("trusted", "peer", "headers", "client"),
    [
        ([], "9.9.9.9", [(FORWARDED, "1.2.3.4")], "9.9.9.9"),
        (["10.0.0.0/8"], "9.9.9.9", [(FORWARDED, "1.2.3.4")], "9.9.9.9"),
        (["10.0.0.0/8"], "10.1.1.1", [], "10.1.1.1"),
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "1.2.3.4")], "1.2.3.4"),
        # What stands to the left of the first address that is no proxy of ours is the client's own invention.
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "6.6.6.6, 1.2.3.4")], "1.2.3.4"),
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "6.6.6.6, 1.2.3.4, 10.2.2.2")], "1.2.3.4"),
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "6.6.6.6"), (FORWARDED, "1.2.3.4")], "1.2.3.4"),
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "10.3.3.3, 10.2.2.2")], "10.3.3.3"),
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "1.2.3.4, nonsense")], "10.1.1.1"),
        (["10.0.0.0/8"], "10.1.1.1", [(FORWARDED, "")], "10.1.1.1"),
        (["10.1.1.1"], "10.1.1.1", [(FORWARDED, "1.2.3.4:5678")], "1.2.3.4"),
        (["10.1.1.1"], "::ffff:10.1.1.1", [(FORWARDED, "[2001:db8::1]:443")], "2001:db8::1"),
        (["::1"], "::1", [(FORWARDED, "::ffff:1.2.3.4")], "1.2.3.4"),
        (["10.1.1.1"], "10.1.1.1", [("X-Real-IP", "1.2.3.4"), ("Forwarded", "for=1.2.3.4")], "10.1.1.1"),
        (["10.1.1.1"], None, [(FORWARDED, "1.2.3.4")], "unknown"),
    ],
)
def test_the_client_is_the_peer_unless_a_trusted_proxy_says_otherwise(
    trusted: list[str], peer: str | None, headers: list[tuple[str, str]], client: str
) -> None:
    assert Addresses(trusted).client(scope(peer, *headers)) == client


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_nothing_that_a_stranger_writes_changes_their_address(value: str) -> None:
    assert Addresses(["10.0.0.0/8"]).client(scope("9.9.9.9", (FORWARDED, value))) == "9.9.9.9"


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_what_a_client_writes_never_gets_past_what_our_proxy_adds(value: str) -> None:
    assert Addresses(["10.0.0.0/8"]).client(scope("10.0.0.1", (FORWARDED, f"{value}, 1.2.3.4"))) == "1.2.3.4"


def test_a_proxy_that_is_no_address_stops_the_start() -> None:
    with pytest.raises(StartError, match=r"server\.trusted_proxies: 'proxy\.local'"):
        Addresses(["proxy.local"])


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("LocalHost", True),
        ("localhost.", True),
        ("0.0.0.0", False),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("", False),
        ("2130706433", False),
    ],
)
def test_loopback(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("peer", "headers", "local"),
    [
        ("127.0.0.1", [("Host", "localhost:3000")], True),
        ("127.0.0.1", [("Host", "127.0.0.1:3000")], True),
        ("127.0.0.1", [("Host", "localhost")], True),
        ("::1", [("Host", "[::1]:3000")], True),
        ("::1", [("Host", "[::1]")], True),
        ("192.168.1.5", [("Host", "localhost:3000")], False),
        (None, [("Host", "localhost:3000")], False),
        ("127.0.0.1", [], False),
        ("127.0.0.1", [("Host", "evil.example:3000")], False),
        ("127.0.0.1", [("Host", "localhost:3000@evil.example")], False),
        ("127.0.0.1", [("Host", "localhost/x")], False),
        ("127.0.0.1", [("Host", "localhost?")], False),
        ("127.0.0.1", [("Host", "[::1]evil.example")], False),
        ("127.0.0.1", [("Host", "localhost"), ("Host", "evil.example")], False),
        *(
            ("127.0.0.1", [("Host", "localhost:3000"), (name, "x")], False)
            for name in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
        ),
    ],
)
def test_a_local_request_comes_from_this_machine_and_for_no_one_else(
    peer: str | None, headers: list[tuple[str, str]], *, local: bool
) -> None:
    assert is_local_request(scope(peer, *headers)) is local


def test_clients_are_throttled_by_what_one_customer_is_given() -> None:
    assert throttle_name("1.2.3.4") == throttle_name("::ffff:1.2.3.4") == "1.2.3.4"
    assert throttle_name("2001:db8::1") == throttle_name("2001:db8::ffff:1")
    assert throttle_name("2001:db8::1") != throttle_name("2001:db8:0:1::1")
    assert throttle_name("unknown") == "unknown"


@given(st.text(max_size=40))
def test_an_address_is_one_or_is_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or parse_address(str(address)) == address
