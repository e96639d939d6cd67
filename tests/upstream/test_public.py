"""Which URLs and addresses are public: a table of every form that filters have been walked around with."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.upstream.public import is_public, parse_public_url

NOT_PUBLIC_V4 = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared between carriers and customers",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "the inside of a cloud",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "relays",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "255.255.255.255/32": "broadcast",
}
NOT_PUBLIC_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "::/96": "IPv4-compatible",
    "::ffff:0:0/96": "IPv4-mapped",
    "::ffff:0:0:0/96": "IPv4-translated",
    "64:ff9b::/96": "NAT64",
    "64:ff9b:1::/48": "NAT64 of one's own",
    "100::/64": "discarded",
    "2001::/32": "Teredo",
    "2001:2::/48": "benchmarks",
    "2001:10::/28": "ORCHID",
    "2001:20::/28": "ORCHID",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "unique local",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
EMBEDDING = {
    "::ffff:127.0.0.1": "mapped loopback",
    "::ffff:8.8.8.8": "mapped, although public",
    "::ffff:a9fe:a9fe": "mapped metadata",
    "64:ff9b::10.0.0.1": "NAT64 of a private one",
    "64:ff9b::7f00:1": "NAT64 of loopback",
    "2002:7f00:1::1": "6to4 of loopback",
    "2002:a00:1::": "6to4 of a private one",
    "2002:808:808::1": "6to4 of a public one",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:0:a9fe:a9fe::1": "Teredo with metadata as its server",
    "::127.0.0.1": "compatible loopback",
    "fd00:ec2::254": "a cloud's metadata",
    "fe80::1%eth0": "link-local with its zone",
    "2606:4700::1%eth0": "public with a zone",
    "169.254.169.254": "a cloud's metadata",
    "100.100.100.200": "a cloud's metadata",
    "192.0.0.192": "a cloud's metadata",
}
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"]
PUBLIC += ["168.63.129.15", "168.63.129.17", "169.253.255.255", "172.15.255.255", "172.32.0.0", "223.255.255.255"]
PUBLIC += ["2606:4700::6810:84e5", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888", "2003::1", "2400:cb00::1"]


@pytest.mark.parametrize("network", [*NOT_PUBLIC_V4, *NOT_PUBLIC_V6])
def test_nothing_of_a_special_network_is_public(network: str) -> None:
    """Its edges, and some of what lies between."""
    whole = IPv6Network(network) if ":" in network else IPv4Network(network)
    numbers = random.Random(network)
    within = [whole[numbers.randrange(whole.num_addresses)] for _ in range(50)]
    for address in [whole[0], whole[-1], *within]:
        assert not is_public(address), address


@pytest.mark.parametrize("address", EMBEDDING)
def test_an_address_within_an_address_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        for kind in ("private", "loopback", "link_local", "multicast", "reserved", "unspecified"):
            assert not getattr(address, f"is_{kind}")


# ---------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("text", "host", "target"),
    [
        ("https://a.test/x.png", "a.test", "/x.png"),
        ("HTTPS://A.Test/X", "a.test", "/X"),
        ("https://a.test", "a.test", "/"),
        ("https://a.test?x=1", "a.test", "/?x=1"),
        ("https://a.test:443/x", "a.test", "/x"),
        ("https://a.test:/x", "a.test", "/x"),
        ("https://a.test./x", "a.test", "/x"),
        ("https://a.test/x#part", "a.test", "/x"),
        ("https://a.test#@b.test/", "a.test", "/"),
        ("https://a.test/@b.test/x@y", "a.test", "/@b.test/x@y"),
        ("https://a.test/a b/ü%20%C3?q=ä&r=%2f", "a.test", "/a%20b/%C3%BC%20%C3?q=%C3%A4&r=%2f"),
        ("https://a.test/a\\b", "a.test", "/a%5Cb"),
        ("https://a.test/a\u2028b", "a.test", "/a%E2%80%A8b"),
        ("https://bücher.example/", "xn--bcher-kva.example", "/"),
        ("https://BÜCHER.example/", "xn--bcher-kva.example", "/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", "/"),
        ("https://\uff41\u3002test/", "a.test", "/"),
        ("https://my_bucket.a.test/", "my_bucket.a.test", "/"),
        ("https://0x.test/", "0x.test", "/"),
        ("https://1.a/", "1.a", "/"),
        ("https://127.0.0.1.nip.test/", "127.0.0.1.nip.test", "/"),
        ("https://localhost/", "localhost", "/"),
    ],
)
def test_a_url_is_read(text: str, host: str, target: str) -> None:
    read = parse_public_url(text)
    assert (read.host, read.target) == (host, target)
    assert parse_public_url(read.url) == read, "what it is written as is read as the same"


SCHEME, HOST, USER, PORT = "an https:// URL", "the name of a host", "a user or a password", "another port"
REFUSED = {
    "http://a.test/": SCHEME,
    "ftp://a.test/": SCHEME,
    "file:///etc/passwd": SCHEME,
    "gopher://a.test/": SCHEME,
    "//a.test/": SCHEME,
    "/x.png": SCHEME,
    "https:a.test": SCHEME,
    "https:/a.test": SCHEME,
    " https://a.test/": SCHEME,
    "https://a.test\\@b.test/": SCHEME,
    "https:\\\\a.test/": SCHEME,
    "https://a.test/\r\nHost: b.test": SCHEME,
    "https://a.test/\x00": SCHEME,
    "https://a.te\tst/": SCHEME,
    "https://a.test/" + "x" * 9000: SCHEME,
    "https://": HOST,
    "https:///x": HOST,
    "https://:443/": HOST,
    "https://./": HOST,
    "https://a..test/": HOST,
    "https://.a.test/": HOST,
    "https://a.test../": HOST,
    "https://a b.test/": HOST,
    "https://a%2etest/": HOST,
    "https://%31%32%37.0.0.1/": HOST,
    "https://-a.test/": HOST,
    "https://a-.test/": HOST,
    "https://" + "a" * 64 + ".test/": HOST,
    "https://" + "a." * 126 + "test/": HOST,
    "https://a/b.test\uff0f@c.test/": "",
    "https://a\uff0fb.test/": HOST,
    "https://a\uff20b.test/": HOST,
    "https://a\uff1a80.test/": HOST,
    "https://\u2024.test/": HOST,
    "https://a\u00ad..test/": HOST,
    "https://127.0.0.1/": HOST,
    "https://8.8.8.8/": HOST,
    "https://127.0.0.1./": HOST,
    "https://127.1/": HOST,
    "https://127.0.1/": HOST,
    "https://2130706433/": HOST,
    "https://017700000001/": HOST,
    "https://0177.0.0.1/": HOST,
    "https://0x7f000001/": HOST,
    "https://0x7f.0.0.1/": HOST,
    "https://0X7F.1/": HOST,
    "https://0x/": HOST,
    "https://0/": HOST,
    "https://a.test.1/": HOST,
    "https://a.0x1/": HOST,
    "https://\uff11\uff12\uff17.0.0.1/": HOST,
    "https://127\u30020\u30020\u30021/": HOST,
    "https://\u2460\u2461\u2466.0.0.1/": HOST,
    "https://[::1]/": HOST,
    "https://[::]/": HOST,
    "https://[::ffff:127.0.0.1]/": HOST,
    "https://[fe80::1%25eth0]/": HOST,
    "https://[2606:4700::1]/": HOST,
    "https://[::1]:443/": HOST,
    "https://[::1/": HOST,
    "https://::1/": HOST,
    "https://user@a.test/": USER,
    "https://user:secret@a.test/": USER,
    "https://@a.test/": USER,
    "https://a.test@b.test/": USER,
    "https://a.test:443@b.test/": USER,
    "https://a.test:80/": PORT,
    "https://a.test:8443/": PORT,
    "https://a.test:0443/": PORT,
    "https://a.test:443:443/": PORT,
    "https://a.test:+443/": PORT,
    "https://a.test:\uff14\uff14\uff13/": PORT,
    "https://a.test/\ud800": "Unicode",
}


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=lambda value: ascii(value)[:60])
def test_a_url_is_refused_for_how_it_is_spelt(text: str, words: str) -> None:
    if not words:  # everything after the first slash is a path
        assert parse_public_url(text).host == "a"
        return
    with pytest.raises(ValueError, match=words) as refused:
        parse_public_url(text)
    assert "secret" not in str(refused.value)


@given(st.text(max_size=60).map("https://".__add__))
def test_whatever_is_read_is_a_name_and_fit_for_a_request_line(text: str) -> None:
    try:
        read = parse_public_url(text)
    except ValueError:
        return
    assert read.url.isascii()
    assert read.url.isprintable()
    assert " " not in read.url
    assert set(read.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
    assert read.target.startswith("/")
    assert "#" not in read.target


def test_what_is_shown_has_no_query_and_an_end() -> None:
    assert parse_public_url("https://a.test/x?token=secret").shown == "https://a.test/x"
    assert len(parse_public_url("https://a.test/" + "x" * 1000).shown) == 200
