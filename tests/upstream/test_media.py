"""The fetcher against a real TLS server: where it goes, what it takes, what it says, and how it lets go.

Two seams stand for the internet: which addresses a name has, and which addresses are public. The tests' names lead to a
server on loopback, which the real policy refuses.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from inferxgate.dialects.protocol import MediaNeeded, Wanted
from inferxgate.errors import GatewayError, StartError
from inferxgate.upstream.media import FetchLimits, HttpsFetch, NoFetch, SocketAddress
from inferxgate.upstream.public import Address
from tests.support.certificates import AUTHORITY, server_context
from tests.support.provider import (
    CLOSE,
    HANG,
    RESET,
    FakeProvider,
    Framing,
    Reply,
    SeenRequest,
    Step,
    Wait,
    body_reply,
    head,
)
from tests.support.proxy import FakeProxy

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
PDF = b"%PDF-1.7\n" + b"x" * 500
IMAGES = frozenset({"image/png", "image/jpeg"})
URL = "https://provider.test/a.png"


class Names:
    """A resolver: each name has a list of answers, of which the last one is given again and again."""

    def __init__(self, **answers: Sequence[Sequence[SocketAddress]]) -> None:
        self.asked: list[str] = []
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}

    async def __call__(self, host: str, port: int) -> Sequence[SocketAddress]:
        assert port == 443
        self.asked.append(host)
        answers = self._answers.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


def loopback_is_public(address: Address) -> bool:
    return address == ip_address("127.0.0.1")


@pytest.fixture
def host() -> Iterator[FakeProvider]:
    """A web server that has a certificate for ``provider.test`` and gives everybody a picture."""
    with FakeProvider(lambda _: picture(), tls=server_context()) as running:
        yield running


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def picture(data: bytes = PNG, *, kind: str = "image/png", framing: Framing = "length", **more: Any) -> Reply:
    return body_reply(data, headers={"content-type": kind}, framing=framing, **more)


def names_of(host: FakeProvider) -> Names:
    here = [("127.0.0.1", host.port)]
    return Names(provider_test=[here], localhost=[here], other_test=[here], private_test=[[("10.0.0.1", 443)]])


@contextlib.asynccontextmanager
async def fetching(host: FakeProvider, *, names: Names | None = None, **limits: Any) -> AsyncIterator[HttpsFetch]:
    """A fetcher that leaves no complaint behind in the loop."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    fetcher = HttpsFetch(
        FetchLimits(**{"seconds": 30.0, **limits}),
        resolve=names or names_of(host),
        allowed=loopback_is_public,
        trust=ssl.create_default_context(cafile=AUTHORITY),
    )
    try:
        yield fetcher
    finally:
        await fetcher.close()
    await asyncio.sleep(0)
    assert complaints == []


def needed(*urls: str, accepts: frozenset[str] = IMAGES) -> MediaNeeded:
    wanted = [Wanted(url, f"messages.0.content.{place}", accepts) for place, url in enumerate(urls)]
    return MediaNeeded("send the data", wanted)


async def fetched(fetcher: HttpsFetch, *urls: str, accepts: frozenset[str] = IMAGES) -> list[tuple[str, bytes]]:
    found = await fetcher.fetch(needed(*urls, accepts=accepts), request_id="req-1")
    return [(found[url].media_type, base64.b64decode(found[url].base64)) for url in urls]


async def refusal(fetcher: HttpsFetch, *urls: str, accepts: frozenset[str] = IMAGES) -> GatewayError:
    """The 400 that fetching ends with."""
    with pytest.raises(GatewayError) as caught:
        await fetched(fetcher, *urls, accepts=accepts)
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_value")
    assert error.param is not None
    assert error.param in error.message
    assert error.__cause__ is None
    assert "127.0.0.1" not in error.message
    return error


def unfetched(error: GatewayError) -> bool:
    """Whether an error says no more than that the URL could not be fetched."""
    return error.message == (
        f"'{error.param}' could not be fetched: its URL must be a public one that gives the data itself over https "
        "within 30 seconds. The data can also be sent as a data URL."
    )


# ---------------------------------------------------------------------------------------------------- what is asked


async def test_a_picture_is_fetched_by_a_request_that_says_nothing_of_anyone(host: FakeProvider) -> None:
    async with fetching(host) as fetcher:
        assert await fetched(fetcher, "https://provider.test:443/a b.png?sig=%2f&x=1#top") == [("image/png", PNG)]
    seen = host.last
    assert (seen.method, seen.target, seen.body) == ("GET", "/a%20b.png?sig=%2f&x=1", b"")
    assert seen.headers == {
        "host": "provider.test",
        "accept": "image/jpeg, image/png",
        "accept-encoding": "identity",
        "user-agent": "inferxgate",
        "connection": "close",
    }


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("seed", range(3))
async def test_bytes_are_the_same_however_they_come(host: FakeProvider, framing: Framing, seed: int) -> None:
    host.reply(picture(framing=framing, cuts=seed, delay_seconds=0.001))
    async with fetching(host) as fetcher:
        assert await fetched(fetcher, URL) == [("image/png", PNG)]


async def test_a_url_in_several_places_is_fetched_once(host: FakeProvider) -> None:
    async with fetching(host) as fetcher:
        assert await fetched(fetcher, URL, URL, "https://localhost/b", URL) == [("image/png", PNG)] * 4
    assert sorted(seen.headers["host"] for seen in host.requests) == ["localhost", "provider.test"]


async def test_nothing_is_kept_for_the_next_request(host: FakeProvider) -> None:
    host.reply(body_reply(PNG, headers={"set-cookie": "a=b", "cache-control": "max-age=999", "etag": '"1"'}))
    async with fetching(host) as fetcher:
        await fetched(fetcher, URL)
        await fetched(fetcher, URL)
    assert len(host.requests) == host.connections == 2
    assert "cookie" not in host.last.headers
    assert "if-none-match" not in host.last.headers


async def test_the_type_that_is_passed_on_is_that_of_the_bytes(host: FakeProvider) -> None:
    async with fetching(host) as fetcher:
        for kind in ("image/jpeg", "image/jpg", "application/octet-stream"):
            host.reply(picture(kind=kind))
            assert await fetched(fetcher, URL) == [("image/png", PNG)]
        host.reply(body_reply(PDF))
        assert await fetched(fetcher, URL, accepts=IMAGES | {"application/pdf"}) == [("application/pdf", PDF)]


async def test_it_is_off_as_an_engine_too() -> None:
    engine, what = NoFetch(), needed(URL)
    with pytest.raises(MediaNeeded) as caught:
        await engine.fetch(what, request_id="req-1")
    assert caught.value is what
    assert (what.status, what.code, what.param) == (400, "unsupported_parameter", "messages.0.content.0")
    await engine.close()


# ---------------------------------------------------------------------------------------------------- where it goes


async def test_the_real_policy_refuses_where_the_tests_servers_are() -> None:
    """With nothing put in its place: the system's own names, and public addresses only."""
    with FakeProvider() as plain:
        fetcher = HttpsFetch()
        assert "could not be fetched" in (await refusal(fetcher, "https://localhost/a.png")).message
        assert "could not be fetched" in (await refusal(fetcher, "https://no-such-host.invalid/a.png")).message
        await fetcher.close()

        async def here(_: str, __: int) -> Sequence[SocketAddress]:
            return [("127.0.0.1", plain.port)]

        fetcher = HttpsFetch(resolve=here)
        assert "could not be fetched" in (await refusal(fetcher, URL)).message
        assert plain.connections == 0


@pytest.mark.parametrize("bad", ["10.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "64:ff9b::1", "fe80::1%lo"])
async def test_a_name_with_one_address_that_is_not_public_is_refused(bad: str) -> None:
    with FakeProvider() as plain:
        here = ("127.0.0.1", plain.port)
        for places in ([here, (bad, 443)], [(bad, 443), here]):
            async with fetching(plain, names=Names(provider_test=[places])) as fetcher:
                assert unfetched(await refusal(fetcher, URL))
        assert plain.connections == 0


async def test_a_name_is_resolved_once_so_that_it_cannot_change_its_mind(host: FakeProvider) -> None:
    names = Names(provider_test=[[("127.0.0.1", host.port)], [("10.0.0.1", 443)]])
    async with fetching(host, names=names) as fetcher:
        assert await fetched(fetcher, URL) == [("image/png", PNG)]
        assert names.asked == ["provider.test"]
        assert unfetched(await refusal(fetcher, URL)), "the next time it is asked again"


async def test_an_address_that_does_not_answer_is_passed_over(host: FakeProvider, closed_port: int) -> None:
    places = [("127.0.0.1", closed_port), ("127.0.0.1", host.port)]
    async with fetching(host, names=Names(provider_test=[places])) as fetcher:
        assert await fetched(fetcher, URL) == [("image/png", PNG)]


async def test_the_certificate_has_to_be_the_names(host: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with fetching(host) as fetcher:
        assert unfetched(await refusal(fetcher, "https://other.test/a.png"))
    assert host.requests == []
    assert "it showed a certificate that is not trusted" in caplog.text


async def test_the_certificate_has_to_be_of_an_authority(host: FakeProvider) -> None:
    fetcher = HttpsFetch(resolve=names_of(host), allowed=loopback_is_public)
    assert "could not be fetched" in (await refusal(fetcher, URL)).message
    assert host.requests == []


def test_a_ca_file_that_cannot_be_used_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with pytest.raises(StartError, match="SSL_CERT_FILE"):
        HttpsFetch()


async def test_no_proxy_is_used(host: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeProxy(lead_to=host.port) as proxy:
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with fetching(host) as fetcher:
            await fetched(fetcher, URL)
        assert proxy.heads == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://provider.test/a.png", "https://"),
        ("https://user:hunter2@provider.test/a.png", "a user or a password"),
        ("https://provider.test:8443/a.png", "another port"),
        ("https://127.0.0.1/a.png", "addresses in numbers"),
        ("https://[::1]/a.png", "addresses in numbers"),
        ("https://2130706433/a.png", "addresses in numbers"),
        ("https:///a.png", "the name of a host"),
    ],
)
async def test_what_is_spelt_wrong_is_said_before_anything_is_fetched(host: FakeProvider, url: str, words: str) -> None:
    names = names_of(host)
    async with fetching(host, names=names) as fetcher:
        error = await refusal(fetcher, URL, url)
    assert words in error.message
    assert "hunter2" not in error.message
    assert error.param == "messages.0.content.1"
    assert names.asked == []


# ---------------------------------------------------------------------------------------------------- redirects


def redirect(to: str, status: int = 302) -> Reply:
    return body_reply(b"elsewhere", status=status, headers={"location": to, "set-cookie": "a=b"})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(host: FakeProvider, status: int) -> None:
    host.reply(redirect("https://localhost/b.png?x=1", status))
    names = names_of(host)
    async with fetching(host, names=names) as fetcher:
        assert await fetched(fetcher, URL) == [("image/png", PNG)]
    assert names.asked == ["provider.test", "localhost"]
    assert (host.last.target, host.last.headers["host"]) == ("/b.png?x=1", "localhost")
    assert "cookie" not in host.last.headers
    assert "referer" not in host.last.headers


@pytest.mark.parametrize(("location", "target"), [("b.png", "/x/b.png"), ("/b?c", "/b?c"), ("?c", "/x/a.png?c")])
async def test_a_redirect_may_be_relative(host: FakeProvider, location: str, target: str) -> None:
    host.reply(redirect(location))
    async with fetching(host) as fetcher:
        await fetched(fetcher, "https://provider.test/x/a.png?q")
    assert host.last.target == target


@pytest.mark.parametrize(
    "location",
    [
        "https://private.test/a.png",
        "//private.test/a.png",
        "http://provider.test/a.png",
        "https://127.0.0.1/a.png",
        "https://[::ffff:7f00:1]/a.png",
        "https://0x7f000001/a.png",
        "https://user:pass@provider.test/",
        "https://provider.test:22/",
        "https://nowhere.test/",
        "https://[::1",
        "file:///etc/passwd",
        "data:image/png;base64,iVBORw0KGgo=",
        "https://provider.test/\x7f",
    ],
)
async def test_a_redirect_is_looked_at_like_the_first_url(host: FakeProvider, location: str) -> None:
    host.reply(redirect(location))
    async with fetching(host) as fetcher:
        assert unfetched(await refusal(fetcher, URL))
    assert len(host.requests) == 1


async def test_a_name_is_resolved_again_after_a_redirect(host: FakeProvider) -> None:
    host.reply(redirect(URL))
    names = Names(provider_test=[[("127.0.0.1", host.port)], [("10.0.0.1", 443)]])
    async with fetching(host, names=names) as fetcher:
        assert unfetched(await refusal(fetcher, URL))
    assert names.asked == ["provider.test"] * 2
    assert len(host.requests) == 1


async def test_redirects_come_to_an_end(host: FakeProvider) -> None:
    for number in range(3):
        host.reply(redirect(f"/{number}"))
    async with fetching(host) as fetcher:
        assert await fetched(fetcher, URL) == [("image/png", PNG)]
        host.handler = lambda seen: redirect(seen.target)
        assert unfetched(await refusal(fetcher, URL))
    assert len(host.requests) == 4 + 4


async def test_the_body_of_a_redirect_is_not_waited_for(host: FakeProvider) -> None:
    host.reply(Reply((head(302, {"location": "/b", "content-length": "99"}), HANG)))
    async with fetching(host) as fetcher:
        assert await fetched(fetcher, URL) == [("image/png", PNG)]
    await host.until_closed_early()


async def test_a_redirect_to_nowhere_in_particular(host: FakeProvider) -> None:
    host.handler = lambda _: Reply((head(302, {"content-length": "0"}),))
    async with fetching(host) as fetcher:
        assert unfetched(await refusal(fetcher, URL))


# ---------------------------------------------------------------------------------------------------- how much


LARGE = "is too large to be fetched"


async def test_a_length_that_is_too_large_is_enough_to_refuse(host: FakeProvider) -> None:
    host.reply(Reply((head(200, {"content-type": "image/png", "content-length": "1001"}), HANG)))
    async with fetching(host, bytes_each=1000) as fetcher:
        assert LARGE in (await refusal(fetcher, URL)).message
    await host.until_closed_early()


@pytest.mark.parametrize("size", [1000, 1001])
async def test_a_body_is_bounded_whatever_it_says_of_its_length(host: FakeProvider, size: int) -> None:
    data = PNG[:1000].ljust(size, b"x")
    host.reply(picture(data, framing="chunked", cuts=7))
    async with fetching(host, bytes_each=1000) as fetcher:
        if size > 1000:
            assert LARGE in (await refusal(fetcher, URL)).message
        else:
            assert await fetched(fetcher, URL) == [("image/png", data)]


async def test_a_body_without_end_is_cut(host: FakeProvider) -> None:
    start = head(200, {"content-type": "image/png", "transfer-encoding": "chunked"})
    host.reply(Reply((start, *[b"400\r\n" + b"x" * 1024 + b"\r\n"] * 10, HANG)))
    async with fetching(host, bytes_each=5000) as fetcher:
        assert LARGE in (await refusal(fetcher, URL)).message
    await host.until_closed_early()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_all_of_a_request_is_bounded(host: FakeProvider, framing: Framing) -> None:
    host.handler = lambda _: picture(PNG[:1000], framing=framing)
    urls = [f"https://provider.test/{number}" for number in range(4)]
    async with fetching(host, bytes_each=1000, bytes_in_all=3999, at_once=1) as fetcher:
        assert len(await fetched(fetcher, *urls[:3])) == 3
        assert len(await fetched(fetcher, *urls[:3])) == 3, "each request has its own bound"
        assert LARGE in (await refusal(fetcher, *urls)).message


async def test_the_urls_of_a_request_are_bounded(host: FakeProvider) -> None:
    async with fetching(host, urls=2) as fetcher:
        await fetched(fetcher, URL, "https://provider.test/b", URL)
        error = await refusal(fetcher, URL, URL, "https://provider.test/b", "https://provider.test/c")
    assert error.param == "messages.0.content.3"
    assert "at most 2" in error.message
    assert len(host.requests) == 2


async def test_no_more_are_fetched_at_once_for_one_request(host: FakeProvider) -> None:
    host.handler = lambda _: Reply((HANG,))
    async with fetching(host, at_once=2, seconds=0.5) as fetcher:
        await refusal(fetcher, *[f"https://provider.test/{number}" for number in range(9)])
    assert len(host.requests) == 2


async def test_no_more_are_fetched_at_once_in_all(host: FakeProvider) -> None:
    host.handler = lambda _: Reply((HANG,))
    async with fetching(host, at_once=2, at_once_in_all=3, seconds=0.5) as fetcher:
        urls = [f"https://provider.test/{number}" for number in range(2)]
        ends = await asyncio.gather(*(refusal(fetcher, *urls) for _ in range(3)))
    assert len(ends) == 3
    assert len(host.requests) == 3


def dripping(pieces: int) -> Reply:
    """A picture, a byte at a time."""
    start = head(200, {"content-type": "image/png", "content-length": str(pieces)})
    drops: list[Step] = [PNG[:8]]
    for _ in range(pieces - 8):
        drops += [Wait(0.02), b"x"]
    return Reply((start, *drops))


@pytest.mark.parametrize(
    "reply",
    [
        Reply((HANG,)),
        Reply((b"HTTP/1.1 200 OK\r\n", HANG)),
        Reply((head(200, {"content-type": "image/png", "content-length": "9"}), HANG)),
        dripping(500),
        Reply((Wait(0.2), *redirect("/1").steps)),
    ],
    ids=["no answer", "no headers", "no body", "drop by drop", "slow redirects"],
)
async def test_there_is_one_bound_on_the_time(host: FakeProvider, reply: Reply) -> None:
    host.handler = lambda _: reply
    async with fetching(host, seconds=0.4) as fetcher:
        assert "could not be fetched" in (await refusal(fetcher, URL)).message
    await host.until(lambda host: host.open_connections == 0)


async def test_all_of_a_request_together_has_that_time(host: FakeProvider) -> None:
    host.handler = lambda _: Reply((Wait(0.3), *picture().steps))
    async with fetching(host, seconds=0.7, at_once=1) as fetcher:
        await refusal(fetcher, *[f"https://provider.test/{number}" for number in range(4)])
    assert len(host.requests) < 4


async def test_a_name_that_is_never_resolved_takes_no_longer(host: FakeProvider) -> None:
    async def never(_: str, __: int) -> Sequence[SocketAddress]:
        await asyncio.Event().wait()
        return []

    fetcher = HttpsFetch(FetchLimits(seconds=0.2), resolve=never)
    assert "could not be fetched" in (await refusal(fetcher, URL)).message


# ---------------------------------------------------------------------------------------------------- what comes


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("text/html", b"<html></html>"),
        ("text/html", PNG),
        ("image/png", b"<html></html>"),
        ("image/png", PDF),
        ("application/pdf", PDF),
        ("image/png", b"GIF89a"),
        ("image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("image/png", b""),
    ],
)
async def test_what_is_not_taken_is_refused_with_what_is(host: FakeProvider, kind: str, data: bytes) -> None:
    host.reply(picture(data, kind=kind))
    async with fetching(host) as fetcher:
        error = await refusal(fetcher, URL)
    assert "must lead to data of one of these types: image/jpeg, image/png." in error.message


async def test_each_place_of_a_url_takes_what_it_takes(host: FakeProvider) -> None:
    host.reply(body_reply(PDF))
    file = Wanted(URL, "messages.0.content.0", frozenset({"application/pdf"}))
    image = Wanted(URL, "messages.2.content.1", IMAGES)
    async with fetching(host) as fetcher:
        with pytest.raises(GatewayError) as caught:
            await fetcher.fetch(MediaNeeded("", [file, image]), request_id="req-1")
    assert caught.value.param == "messages.2.content.1"
    assert len(host.requests) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
async def test_what_came_compressed_is_refused_and_never_inflated(host: FakeProvider, encoding: str) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    headers = {"content-type": "image/png", "content-encoding": encoding, "content-length": str(len(bomb))}
    host.reply(Reply((head(200, headers), bomb)))
    async with fetching(host) as fetcher:
        assert unfetched(await refusal(fetcher, URL))


START = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n"
CHUNKED = START + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        Reply((START + b"content-length: 5000\r\n\r\n" + PNG, CLOSE)),
        Reply((START + b"content-length: 5000\r\n\r\n" + PNG, RESET)),
        Reply((CHUNKED + b"%x\r\n" % len(PNG) + PNG + b"\r\n", CLOSE)),
        Reply((CHUNKED + b"%x\r\n" % len(PNG) + PNG + b"\r\n", RESET)),
        Reply((CHUNKED + b"%x\r\n" % len(PNG) + PNG + b"\r\nzz\r\n", CLOSE)),
        Reply((START + b"\r\n" + PNG, CLOSE)),
        Reply((START + b"\r\n" + PNG, RESET)),
        Reply((START + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + PNG, CLOSE)),
        Reply((START + b"content-length: x\r\n\r\n" + PNG, CLOSE)),
        Reply((START + b"x-large: " + b"a" * 40_000 + b"\r\n\r\n", CLOSE)),
        Reply((START + b"x: y\r\n" * 3000 + b"\r\n", CLOSE)),
        Reply((b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE)),
        Reply((CLOSE,)),
        Reply((RESET,)),
        body_reply(PNG, status=404, headers={"content-type": "image/png"}),
        body_reply(PNG, status=206, headers={"content-type": "image/png"}),
        body_reply(PNG, status=500, headers={"content-type": "image/png"}),
        Reply((b"HTTP/1.1 204 No Content\r\n\r\n",)),
        Reply((b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", HANG)),
    ],
)
async def test_what_is_no_whole_answer_is_no_picture(host: FakeProvider, reply: Reply) -> None:
    host.handler = lambda _: reply
    async with fetching(host) as fetcher:
        assert unfetched(await refusal(fetcher, URL))


# ---------------------------------------------------------------------------------------------------- what is said


async def test_a_network_cannot_be_mapped_by_what_is_said(host: FakeProvider, closed_port: int) -> None:
    """Neither by the message nor by anything else that a client is told."""

    async def places(name: str, _: int) -> Sequence[SocketAddress]:
        match name:
            case "private.test":
                return [("192.168.0.1", 443)]
            case "closed.test":
                return [("127.0.0.1", closed_port)]
            case "empty.test":
                return []
            case "strange.test":
                return [("not an address", 443)]
            case "silent.test":
                await asyncio.Event().wait()
            case "unknown.test":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [("127.0.0.1", host.port)]

    host.handler = lambda _: body_reply(b"", status=403)
    fetcher = HttpsFetch(
        FetchLimits(seconds=0.5),
        resolve=places,
        allowed=loopback_is_public,
        trust=ssl.create_default_context(cafile=AUTHORITY),
    )
    told = set()
    for name in ("private", "closed", "empty", "strange", "silent", "unknown", "other", "provider"):
        error = await refusal(fetcher, f"https://{name}.test/a.png")
        told.add((error.message, error.param, error.kind, error.status, error.type, error.code, str(error.headers)))
    assert len(told) == 1
    await fetcher.close()


@pytest.mark.parametrize(
    ("url", "reply", "why"),
    [
        ("https://private.test/x?key=hunter2", None, "private.test is at 10.0.0.1, which is not public"),
        ("https://nowhere.test/x?key=hunter2", None, "its name could not be resolved"),
        ("https://other.test/x?key=hunter2", None, "it showed a certificate that is not trusted"),
        ("https://provider.test/x?key=hunter2", body_reply(b"", status=404), "it answered with status 404"),
        ("https://provider.test/x?key=hunter2", Reply((CLOSE,)), "it ended the connection without an answer"),
        ("https://provider.test/x?key=hunter2", redirect("http://a.test/?key=hunter2"), "it redirects to what must be"),
        (
            "https://provider.test/x?key=hunter2",
            Reply((START + b"content-length: 9\r\n\r\n", CLOSE)),
            "its answer broke off",
        ),
        ("https://provider.test/x?key=hunter2", picture(kind="text/html"), "its type is text/html"),
    ],
)
async def test_the_log_says_why_without_the_query(
    host: FakeProvider, caplog: pytest.LogCaptureFixture, url: str, reply: Reply | None, why: str
) -> None:
    caplog.set_level(logging.INFO)
    if reply is not None:
        host.handler = lambda _: reply
    async with fetching(host) as fetcher:
        await refusal(fetcher, url)
    [record] = [each for each in caplog.records if each.name.startswith("inferxgate")]
    assert record.levelname == "INFO"
    assert record.getMessage().startswith(f"request req-1: {url.partition('?')[0]} could not be fetched: {why}")
    assert "hunter2" not in caplog.text


async def test_the_log_names_the_end_of_the_redirects(host: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host.reply(redirect("https://private.test/x?key=hunter2"))
    async with fetching(host) as fetcher:
        await refusal(fetcher, URL)
    assert "https://private.test/x could not be fetched: private.test is at 10.0.0.1" in caplog.text
    assert "hunter2" not in caplog.text


# ---------------------------------------------------------------------------------------------------- letting go


@pytest.mark.parametrize(
    "reply",
    [Reply((HANG,)), Reply((head(200, {"content-type": "image/png", "content-length": "99999"}), PNG, HANG))],
    ids=["before an answer", "within it"],
)
async def test_cancelling_cuts_the_connections(host: FakeProvider, reply: Reply) -> None:
    host.handler = lambda _: reply
    async with fetching(host) as fetcher:
        fetch = asyncio.create_task(fetched(fetcher, URL, "https://provider.test/b"))
        await host.until(lambda host: len(host.requests) == 2)
        fetch.cancel("client gone")
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await fetch
        assert cancelled.value.args == ("client gone",), "whoever records the end reads why"
        await host.until_closed_early(count=2)


async def test_cancelling_while_it_greets_cuts_the_connection() -> None:
    with FakeProvider() as plain:
        async with fetching(plain) as fetcher:
            fetch = asyncio.create_task(fetched(fetcher, URL))
            await plain.until(lambda plain: plain.connections == 1)
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
            await plain.until(lambda plain: plain.open_connections == 0)


async def test_the_first_that_fails_ends_the_others(host: FakeProvider) -> None:
    def answer(seen: SeenRequest) -> Reply:
        return Reply((HANG,)) if seen.target == "/hang" else body_reply(b"", status=404).then()

    host.handler = answer
    async with fetching(host) as fetcher:
        error = await refusal(fetcher, "https://provider.test/hang", "https://provider.test/missing")
        assert error.param == "messages.0.content.1"
    await host.until(lambda host: host.open_connections == 0)
