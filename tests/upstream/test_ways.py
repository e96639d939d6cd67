"""The way to providers, against real sockets: whom the HTTP engine trusts, and which proxies it goes through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.errors import (
    UPSTREAM_ERROR,
    UPSTREAM_UNREACHABLE,
    StartError,
)
from inferxgate.upstream.http import HttpOptions, HttpUpstream
from inferxgate.upstream.protocol import HttpRequest
from tests.support.certificates import AUTHORITY, server_context
from tests.support.provider import (
    RESET,
    FakeProvider,
    Framing,
    Reply,
    SeenRequest,
    body_reply,
    json_reply,
)
from tests.support.proxy import FakeProxy
from tests.upstream.exchanges import (
    SECRET,
    engine,
    exchange,
    failure,
    request,
    say_the_same_to_everyone,
    serving,
)


@pytest.fixture
def secure() -> Iterator[FakeProvider]:
    with FakeProvider(tls=server_context()) as running:
        yield running


async def test_trusts_the_authority_of_the_configuration(secure: FakeProvider) -> None:
    async with engine(ca_file=str(AUTHORITY)) as upstream:
        await exchange(upstream, request(secure))
        await exchange(upstream, request(secure))
    assert secure.connections == 1


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_a_body_is_the_same_in_tls(secure: FakeProvider, framing: Framing) -> None:
    body = bytes(range(256)) * 8000
    async with engine(ca_file=str(AUTHORITY)) as upstream:
        for whole in (False, True):
            secure.reply_body(body, framing=framing, cuts=7)
            assert await exchange(upstream, request(secure, body=body), whole=whole) == body
            assert secure.last.body == body
        secure.reply(Reply((*body_reply(body, framing=framing).steps[:1], b"4\r\nhalf\r\n", RESET)))
        assert (await failure(upstream, request(secure))).kind is UPSTREAM_ERROR


async def test_trusts_the_file_of_the_environment(secure: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(AUTHORITY))
    async with engine() as upstream:
        await exchange(upstream, request(secure))


async def test_trusts_nothing_else(upstream: HttpUpstream, secure: FakeProvider) -> None:
    error = await failure(upstream, request(secure))
    assert error.kind is UPSTREAM_UNREACHABLE
    who = f"The provider at 127.0.0.1:{secure.port}"
    assert error.message.startswith(f"{who} showed a certificate that is not trusted (")
    assert secure.requests == []


async def test_a_certificate_is_for_its_names_only(secure: FakeProvider) -> None:
    """127.0.0.2 leads to the same machine, but the certificate does not name it."""
    with FakeProxy(lead_to=secure.port) as proxy:
        async with engine(ca_file=str(AUTHORITY), proxy=proxy.url) as upstream:
            error = await failure(upstream, request("https://other.test"))
            assert error.kind is UPSTREAM_UNREACHABLE
            assert "other.test" in error.message
            await exchange(upstream, request("https://provider.test"))


async def test_a_server_without_tls_is_said(upstream: HttpUpstream) -> None:
    async with serving(say_the_same_to_everyone) as port:
        error = await failure(upstream, request(f"https://127.0.0.1:{port}"))
    assert error.kind is UPSTREAM_UNREACHABLE


@pytest.mark.parametrize("content", [None, "no certificate", ""])
def test_a_ca_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(StartError, match=r"ca\.pem"):
        HttpUpstream(HttpOptions(ca_file=str(file)))


async def test_goes_through_the_proxy_of_the_configuration(provider: FakeProvider) -> None:
    url = provider.url.replace("//", f"//user:{SECRET}@")
    provider.handler = lambda seen: json_reply({"target": seen.target})
    async with engine(proxy=url) as upstream:
        body = await exchange(upstream, request("http://provider.test:81", path="/v1/x?a=%2f"))
    assert body == b'{"target":"http://provider.test:81/v1/x?a=%2f"}'
    assert provider.last.headers["proxy-authorization"].startswith("Basic ")
    assert provider.last.headers["host"] == "provider.test:81"


async def test_tunnels_tls_through_a_proxy(secure: FakeProvider) -> None:
    with FakeProxy(lead_to=secure.port) as proxy:
        url = proxy.url.replace("//", "//user:pass@")
        async with engine(ca_file=str(AUTHORITY), proxy=url) as upstream:
            await exchange(upstream, request("https://provider.test"))
            await exchange(upstream, request("https://provider.test"))
    (asked,) = proxy.heads
    assert asked.startswith("CONNECT provider.test:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz" in asked
    assert SECRET not in asked
    assert "proxy-authorization" not in secure.last.headers


async def test_a_proxy_that_refuses_is_said(secure: FakeProvider) -> None:
    with FakeProxy(refuse_with=407) as proxy:
        async with engine(proxy=proxy.url) as upstream:
            error = await failure(upstream, request(secure))
    assert error.kind is UPSTREAM_UNREACHABLE
    unreached = f"The provider at 127.0.0.1:{secure.port} could not be reached"
    assert error.message == f"{unreached}: the proxy refused the way there (status 407)."


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "answered in something that is not HTTP"),
        (b"x" * 40_000, "answered in something that is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "spoke in the tunnel"),
        (b"HTTP/1.1 200 OK\r\n", "ended the connection"),
    ],
)
async def test_a_proxy_that_makes_no_tunnel_is_said(secure: FakeProvider, said: bytes, words: str) -> None:
    with FakeProxy(say=said) as proxy:
        async with engine(ca_file=str(AUTHORITY), proxy=proxy.url) as upstream:
            error = await failure(upstream, request(secure))
    assert error.kind is UPSTREAM_UNREACHABLE
    assert error.message.startswith(f"The provider at 127.0.0.1:{secure.port} could not be reached: the proxy {words}")
    assert secure.requests == []


async def test_speaks_tls_with_a_proxy_that_does(secure: FakeProvider, provider: FakeProvider) -> None:
    with FakeProxy(lead_to=secure.port, tls=server_context()) as proxy:
        async with engine(ca_file=str(AUTHORITY), proxy=proxy.url) as upstream:
            for _ in range(2):
                secure.reply_body(b"x" * 3_000_000, framing="chunked")
                assert len(await exchange(upstream, request("https://provider.test", body=b"y" * 600_000))) == 3_000_000
        assert len(proxy.heads) == 1
        async with engine(proxy=proxy.url) as upstream:
            error = await failure(upstream, request("https://provider.test"))
    assert "the proxy on the way there showed a certificate that is not trusted" in error.message
    secure.handler = lambda seen: json_reply({"target": seen.target})
    async with engine(ca_file=str(AUTHORITY), proxy=secure.url) as upstream:
        assert b"http://provider.test/x" in await exchange(upstream, request("http://provider.test", path="/x"))


async def test_a_proxy_whose_name_does_not_exist_is_said() -> None:
    async with engine(proxy="http://does-not-exist.invalid") as upstream:
        error = await failure(upstream, request("https://provider.test"))
    assert "the name of the proxy on the way there could not be resolved" in error.message


async def test_a_proxy_that_is_not_there_is_said() -> None:
    async with engine(proxy=f"http://user:{SECRET}@127.0.0.1:9") as upstream:
        for url in ("http://provider.test", "https://provider.test"):
            error = await failure(upstream, request(url))
            assert error.kind is UPSTREAM_UNREACHABLE
            assert error.message == (
                "The provider at provider.test could not be reached: "
                "the proxy on the way there is not reachable (Connection refused)."
            )


@pytest.mark.parametrize("proxy", [f"socks5://user:{SECRET}@host", "http://", "", "http://host:port"])
def test_a_proxy_of_another_kind_stops_the_start(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError) as caught:
        HttpUpstream(HttpOptions(proxy=proxy))
    assert SECRET not in str(caught.value)
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(StartError, match="HTTPS_PROXY"):
            HttpUpstream()


async def test_goes_through_the_proxy_of_the_environment(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.handler = lambda seen: json_reply({"target": seen.target})
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{provider.port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1, .direct.invalid")
    async with engine() as upstream:
        assert b"http://provider.test/x" in await exchange(upstream, request("http://provider.test", path="/x"))
        assert await exchange(upstream, request(f"http://127.0.0.1:{provider.port}", path="/x")) == b'{"target":"/x"}'
        assert (await failure(upstream, request("http://a.direct.invalid"))).kind is UPSTREAM_UNREACHABLE


async def test_sends_nothing_of_a_netrc(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\ndefault login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))

    def answer(_: SeenRequest) -> Reply:
        return json_reply({})

    provider.handler = answer
    for proxy in (None, provider.url):
        if proxy is not None:
            monkeypatch.setenv("HTTP_PROXY", proxy)
        async with engine() as upstream:
            await exchange(upstream, HttpRequest("POST", f"{provider.url}/v1", {}, b"{}"))
        assert "authorization" not in provider.last.headers
        assert "proxy-authorization" not in provider.last.headers
