"""The HTTP engine against a real socket: what it sends, what it takes for an answer, and how it lets go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from inferxgate.errors import (
    INTERNAL_ERROR,
    UPSTREAM_ERROR,
    UPSTREAM_INVALID_RESPONSE,
    UPSTREAM_TIMEOUT,
    UPSTREAM_UNREACHABLE,
    GatewayError,
)
from inferxgate.upstream.http import HttpUpstream
from tests.support.certificates import AUTHORITY, server_context
from tests.support.provider import (
    CLOSE,
    HANG,
    RESET,
    Encoding,
    FakeProvider,
    Framing,
    Reply,
    Wait,
    body_reply,
    head,
    sse_body,
    sse_reply,
)
from tests.upstream.exchanges import LIMIT, SECRET, drain, engine, exchange, failure, read_all, request, serving

# ---------------------------------------------------------------------------------------------------- what is sent


async def test_sends_what_it_was_given(upstream: HttpUpstream, provider: FakeProvider) -> None:
    await exchange(upstream, request(provider, body=b'{"a": 1}', headers={"X-Extra": "ä b"}))
    seen = provider.last
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/chat/completions", b'{"a": 1}')
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    assert seen.headers["x-extra"].encode("latin-1").decode() == "ä b"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["host"] == f"127.0.0.1:{provider.port}"
    assert seen.headers["user-agent"].startswith("inferxgate/")
    assert seen.headers["content-length"] == "8"
    assert "transfer-encoding" not in seen.headers


async def test_a_header_given_replaces_ours_whatever_its_case(upstream: HttpUpstream, provider: FakeProvider) -> None:
    headers = {"User-Agent": "mine", "ACCEPT-Encoding": "br", "Content-Type": "application/json"}
    await exchange(upstream, request(provider, headers=headers))
    names = [name.lower() for name, _ in provider.last.raw_headers]
    assert len(names) == len(set(names))
    assert provider.last.headers["user-agent"] == "mine"
    assert provider.last.headers["accept-encoding"] == "identity"
    assert provider.last.headers["content-type"] == "application/json"


@pytest.mark.parametrize("target", ["/a%2Fb/%e4%bd/c:d?x=%2f&y=a+b%20c", "/plain", "/?q=%25&q=1", "/a//b/../c"])
async def test_the_url_goes_out_as_given(upstream: HttpUpstream, provider: FakeProvider, target: str) -> None:
    await exchange(upstream, request(provider, path=target))
    assert provider.last.target == target


@pytest.mark.parametrize("size", [0, 1, 300_000, 5_000_000])
async def test_a_body_of_any_size_arrives(upstream: HttpUpstream, provider: FakeProvider, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await exchange(upstream, request(provider, body=body))
    assert provider.last.body == body
    assert provider.last.headers["content-length"] == str(size)


async def test_an_answer_that_comes_before_the_body_is_sent_is_taken(upstream: HttpUpstream) -> None:
    async with serving(refuse_early) as port:
        response = await upstream.send(request(f"http://127.0.0.1:{port}", body=b"x" * 50_000_000))
        assert response.status == 413
        assert await response.read(limit=100) == b"large"
        await response.close()


@pytest.mark.parametrize("name", ["a\r\nx-evil", "good"])
async def test_headers_that_are_not_fit_for_http_are_refused(
    upstream: HttpUpstream, provider: FakeProvider, name: str
) -> None:
    error = await failure(upstream, request(provider, headers={name: f"{SECRET}\r\nx-evil: 1"}))
    assert error.kind is INTERNAL_ERROR
    assert provider.requests == []


@pytest.mark.parametrize(
    "url", ["", "http://", "no-scheme/v1", "http://host:99999/v1", f"http://[{SECRET}", f"ftp://host/?k={SECRET}"]
)
async def test_a_url_that_cannot_be_used_is_said(upstream: HttpUpstream, url: str) -> None:
    assert (await failure(upstream, request(url, path=""))).kind is INTERNAL_ERROR


# ---------------------------------------------------------------------------------------------------- what comes back


async def test_gives_status_and_headers(upstream: HttpUpstream, provider: FakeProvider) -> None:
    start = head(429, [("X-One", "1"), ("x-one", "2"), ("Retry-After", "7"), ("content-length", "2")])
    provider.reply(Reply((start, b"no")))
    response = await upstream.send(request(provider))
    assert response.status == 429
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-one"] == "1, 2"
    assert await response.read(limit=2) == b"no"
    await response.close()


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
async def test_a_body_is_the_same_however_it_comes(
    upstream: HttpUpstream, provider: FakeProvider, framing: Framing, seed: int, encoding: Encoding | None
) -> None:
    body = b"".join(sse_body([{"text": f"naïve 日本 {number} " * 9} for number in range(99)]))
    for whole in (False, True):
        provider.reply_body(body, framing=framing, cuts=seed, encoding=encoding, delay_seconds=0.0005)
        assert await exchange(upstream, request(provider), whole=whole) == body


async def test_chunks_are_given_as_they_come(upstream: HttpUpstream, provider: FakeProvider) -> None:
    """The next part never comes, so that nothing can be waiting for it."""
    encodings: tuple[Encoding | None, ...] = (None, "gzip", "deflate")
    for encoding in encodings:
        provider.reply(sse_reply([f"{number}" * 100 for number in range(3)], encoding=encoding).cut_short(HANG, keep=3))
        response = await upstream.send(request(provider))
        chunks = response.chunks()
        got = b""
        while got.count(b"data: ") < 2:
            got += await anext(chunks)
        await response.close()


async def test_a_wrong_answer_in_http_is_for_the_caller_to_judge(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply_body(b"<html>hello</html>", headers={"content-type": "text/html"})
    assert await exchange(upstream, request(provider)) == b"<html>hello</html>"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(upstream: HttpUpstream, provider: FakeProvider, status: int) -> None:
    provider.reply_json({}, status=status, headers={"location": f"{provider.url}/elsewhere"})
    response = await upstream.send(request(provider))
    assert response.status == status
    await response.close()
    assert len(provider.requests) == 1


async def test_informational_answers_are_passed_over(upstream: HttpUpstream, provider: FakeProvider) -> None:
    provider.reply(Reply((b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", *body_reply(b"ok").steps)))
    assert await exchange(upstream, request(provider)) == b"ok"


async def test_an_answer_without_body_ends(upstream: HttpUpstream, provider: FakeProvider) -> None:
    provider.reply(Reply((b"HTTP/1.1 204 No Content\r\n\r\n",)))
    assert await exchange(upstream, request(provider)) == b""
    assert await exchange(upstream, request(provider)) != b""
    assert provider.connections == 1


async def test_a_whole_answer_has_a_limit(upstream: HttpUpstream, provider: FakeProvider) -> None:
    framings: tuple[Framing, ...] = ("length", "chunked", "close")
    for framing in framings:
        provider.reply_body(b"x" * 1001, framing=framing)
        response = await upstream.send(request(provider))
        with pytest.raises(GatewayError) as caught:
            await response.read(limit=1000)
        assert caught.value.kind is UPSTREAM_INVALID_RESPONSE
        await response.close()


async def test_what_was_squeezed_meets_the_limit_before_it_fills_the_memory(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply_body(bytes(60_000_000), encoding="gzip")
    response = await upstream.send(request(provider))
    with pytest.raises(GatewayError) as caught:
        await response.read(limit=1_000_000)
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE
    await response.close()


GZIP = b"".join(step for step in body_reply(b"x" * 5000, encoding="gzip").steps[1:] if isinstance(step, bytes))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip at all"),
        ("deflate", b"\x78nonsense"),
        ("gzip", GZIP[:-9]),
        ("gzip", GZIP + b"x"),
        ("br", b"x"),
    ],
    ids=["no gzip", "no deflate", "cut short", "too long", "not asked for"],  # gzip's own header holds the time
)
async def test_a_broken_encoding_is_an_invalid_response(
    upstream: HttpUpstream, provider: FakeProvider, encoding: str, body: bytes
) -> None:
    start = head(200, {"content-encoding": encoding, "content-length": str(len(body))})
    provider.reply(Reply((start, body)))
    assert (await failure(upstream, request(provider))).kind is UPSTREAM_INVALID_RESPONSE


START = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = START + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        Reply((START + b"content-length: 10\r\n\r\n", Wait(0.05), b"half", CLOSE)),
        Reply((START + b"content-length: 10\r\n\r\n", Wait(0.05), b"half", RESET)),
        Reply((CHUNKED, Wait(0.05), b"4\r\nhalf\r\n", CLOSE)),
        Reply((CHUNKED, Wait(0.05), b"4\r\nhalf\r\n", RESET)),
        Reply((CHUNKED, Wait(0.05), b"8\r\nhalf", CLOSE)),
        Reply((CHUNKED + b"4\r\nhalf\r\n", CLOSE)),
        Reply((CHUNKED, CLOSE)),
        Reply((START + b"\r\n", Wait(0.05), b"half", RESET)),
        Reply((START + b"\r\nhalf", RESET)),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
async def test_a_body_that_breaks_off_is_an_error(
    upstream: HttpUpstream, provider: FakeProvider, reply: Reply, whole: bool
) -> None:
    provider.reply(reply)
    error = await failure(upstream, request(provider), whole=whole)
    assert error.kind is UPSTREAM_ERROR
    assert "broke off" in error.message
    assert "127.0.0.1" in error.message


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x16\x03\x01\x00\x00\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        START + b"content-length: x\r\n\r\n",
        START + b"content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        START + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        START + b"x-large: " + b"a" * 40_000 + b"\r\n\r\n",
        START + b"x: y\r\n" * 3000 + b"\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"4\r\nhalf\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_an_invalid_response(
    upstream: HttpUpstream, provider: FakeProvider, raw: bytes
) -> None:
    provider.reply_raw(raw, end=HANG)
    error = await failure(upstream, request(provider))
    assert error.kind is UPSTREAM_INVALID_RESPONSE
    await provider.until_closed_early()


async def test_chunked_encoding_that_breaks_in_the_middle_is_an_invalid_response(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply(Reply((CHUNKED, Wait(0.05), b"4\r\nhalf\r\n", Wait(0.05), b"zz\r\n", HANG)))
    assert (await failure(upstream, request(provider))).kind is UPSTREAM_INVALID_RESPONSE


# ---------------------------------------------------------------------------------------------------- connections


async def test_a_connection_is_used_again(upstream: HttpUpstream, provider: FakeProvider) -> None:
    for number in range(3):
        provider.reply_sse([{"number": number}, "[DONE]"])
        await exchange(upstream, request(provider))
        await exchange(upstream, request(provider), whole=True)
    assert provider.connections == 1


async def test_many_at_once_are_not_queued(upstream: HttpUpstream, provider: FakeProvider) -> None:
    for _ in range(150):
        provider.reply(HANG)
    sending = [asyncio.create_task(upstream.send(request(provider))) for _ in range(150)]
    await provider.until(lambda provider: len(provider.requests) == 150)
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    await provider.until_closed_early(count=150)


async def test_an_idle_connection_that_was_closed_is_not_used(upstream: HttpUpstream, provider: FakeProvider) -> None:
    """The farewell has arrived, but the loop has had no chance to see it: nothing awaits in between."""
    await exchange(upstream, request(provider))
    provider.drop_connections()
    await exchange(upstream, request(provider))
    assert provider.connections == 2
    assert len(provider.requests) == 2


@pytest.mark.parametrize("seen", [False, True])
async def test_an_idle_connection_that_spoke_is_not_used(
    upstream: HttpUpstream, provider: FakeProvider, seen: bool
) -> None:
    """Otherwise the next caller would get what was said to nobody, whether or not the loop has seen it arrive."""
    evil = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
    provider.reply(Reply((*body_reply(b"first").steps, Wait(0.05), evil)))
    assert await exchange(upstream, request(provider)) == b"first"
    if seen:
        await asyncio.sleep(0.3)
    else:
        time.sleep(0.3)
    provider.reply_body(b"second")
    assert await exchange(upstream, request(provider)) == b"second"
    assert provider.connections == 2


async def test_a_connection_that_closed_with_the_request_is_an_error_and_nothing_is_sent_twice(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    await exchange(upstream, request(provider))
    for end in (CLOSE, RESET):
        provider.reply(end)
        assert (await failure(upstream, request(provider))).kind is UPSTREAM_ERROR
        await exchange(upstream, request(provider))
    assert len(provider.requests) == 5


async def test_a_provider_that_says_close_is_asked_on_a_new_connection(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply(Reply((START + b"connection: close\r\ncontent-length: 2\r\n\r\nok",)))
    assert await exchange(upstream, request(provider)) == b"ok"
    await exchange(upstream, request(provider))
    assert provider.connections == 2


async def test_a_request_that_says_close_is_the_last_of_its_connection(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    await exchange(upstream, request(provider, headers={"Connection": "Close"}))
    await exchange(upstream, request(provider))
    assert provider.connections == 2


async def test_a_name_with_several_addresses_is_reached_at_one_that_answers(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    """The provider listens in IPv4 alone."""
    await exchange(upstream, request(f"http://localhost:{provider.port}"))
    assert provider.last.headers["host"] == f"localhost:{provider.port}"


async def test_the_answer_to_head_has_no_body(upstream: HttpUpstream, provider: FakeProvider) -> None:
    provider.reply(Reply((START + b"content-length: 5\r\n\r\n",)))
    response = await upstream.send(request(provider, method="HEAD", body=b""))
    assert (response.status, response.headers["content-length"]) == (200, "5")
    assert await response.read(limit=0) == b""
    await response.close()
    assert "content-length" not in provider.last.headers


@pytest.mark.parametrize("tls", [False, True])
async def test_what_nobody_reads_stays_with_the_provider(*, tls: bool) -> None:
    piece = b"x" * 100_000
    with FakeProvider(tls=server_context() if tls else None) as provider:
        provider.reply_body([piece] * 1000, framing="chunked")
        async with engine(ca_file=str(AUTHORITY)) as upstream:
            response = await upstream.send(request(provider, idle=0.5))
            before = 0
            while before != provider.last.written_bytes:
                before = provider.last.written_bytes
                await asyncio.sleep(1)
            assert before < 60_000_000
            assert await read_all(response) == piece * 1000
            await response.close()
            await exchange(upstream, request(provider))
        assert provider.connections == 1


async def test_no_cookie_is_kept(upstream: HttpUpstream, provider: FakeProvider) -> None:
    provider.reply_json({}, headers={"set-cookie": "session=1; Path=/"})
    await exchange(upstream, request(provider))
    await exchange(upstream, request(provider))
    assert "cookie" not in provider.last.headers


async def test_a_provider_that_is_not_there(upstream: HttpUpstream) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        error = await failure(upstream, request(f"http://127.0.0.1:{port}", path=f"/?key={SECRET}"))
    assert error.kind is UPSTREAM_UNREACHABLE
    assert error.message == f"The provider at 127.0.0.1:{port} could not be reached (Connection refused)."


async def test_a_name_that_does_not_exist(upstream: HttpUpstream) -> None:
    error = await failure(upstream, request("http://does-not-exist.invalid"))
    assert error.kind is UPSTREAM_UNREACHABLE
    assert error.message == (
        "The provider at does-not-exist.invalid could not be reached: the name of its host could not be resolved."
    )


# ---------------------------------------------------------------------------------------------------- timeouts


async def test_connecting_has_a_timeout(upstream: HttpUpstream) -> None:
    with full_backlog() as port:
        error = await failure(upstream, request(f"http://127.0.0.1:{port}", connect=0.2))
    assert error.kind is UPSTREAM_TIMEOUT
    assert error.message == f"The provider at 127.0.0.1:{port} could not be reached within 0.2 seconds."


async def test_a_tls_greeting_counts_as_connecting(upstream: HttpUpstream, provider: FakeProvider) -> None:
    error = await failure(upstream, request(f"https://127.0.0.1:{provider.port}", connect=0.2))
    assert error.kind is UPSTREAM_TIMEOUT
    assert "could not be reached" in error.message
    assert (await provider.until_closed_early()).stage == "request"


async def test_the_first_byte_has_a_timeout(upstream: HttpUpstream, provider: FakeProvider) -> None:
    await exchange(upstream, request(provider))  # so that the connection is an old one, too
    provider.reply(HANG)
    error = await failure(upstream, request(provider, connect=5, first_byte=0.2))
    assert error.kind is UPSTREAM_TIMEOUT
    assert "did not begin to answer within 0.2 seconds" in error.message
    assert (await provider.until_closed_early()).stage == "headers"


async def test_connecting_may_take_longer_than_the_first_byte(upstream: HttpUpstream, provider: FakeProvider) -> None:
    """Each phase has its own time; a slow answer is not a slow connection."""
    provider.reply(Reply((Wait(0.3), *body_reply(b"late").steps)))
    assert await exchange(upstream, request(provider, connect=0.2, first_byte=5)) == b"late"


@pytest.mark.parametrize("start", [CHUNKED, START + b"content-length: 99\r\n\r\n", START + b"\r\n"])
async def test_silence_in_the_body_has_a_timeout(upstream: HttpUpstream, provider: FakeProvider, start: bytes) -> None:
    provider.reply(Reply((start, Wait(0.05), b"4\r\nhalf\r\n", HANG)))
    error = await failure(upstream, request(provider, idle=0.3))
    assert error.kind is UPSTREAM_TIMEOUT
    assert "fell silent for 0.3 seconds" in error.message
    assert (await provider.until_closed_early()).stage == "body"


async def test_a_stream_lives_as_long_as_it_speaks(upstream: HttpUpstream, provider: FakeProvider) -> None:
    provider.reply_sse([f"{number}" for number in range(12)], delay_seconds=0.1)
    assert (await exchange(upstream, request(provider, idle=0.6))).count(b"data") == 12


async def test_a_reader_that_takes_its_time_is_not_the_provider_being_silent(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply_sse(["one", "two", "three"], delay_seconds=0.05)
    response = await upstream.send(request(provider, idle=0.3))
    got = b""
    async for chunk in response.chunks():
        got += chunk
        await asyncio.sleep(0.5)
    await response.close()
    assert got.count(b"data") == 3


@pytest.mark.parametrize(
    "reply",
    [
        Reply((HANG,)),
        Reply((CHUNKED, *(step for _ in range(200) for step in (Wait(0.05), b"4\r\ndrip\r\n")))),
    ],
)
async def test_a_whole_answer_has_a_total_timeout(upstream: HttpUpstream, provider: FakeProvider, reply: Reply) -> None:
    provider.reply(reply)
    error = await failure(upstream, request(provider, total=0.4), whole=True)
    assert error.kind is UPSTREAM_TIMEOUT
    assert "did not finish its answer within 0.4 seconds" in error.message
    await provider.until_closed_early()


# ---------------------------------------------------------------------------------------------------- letting go


async def test_cancelling_while_it_waits_for_an_answer_cuts_the_connection(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply(HANG)
    sending = asyncio.create_task(upstream.send(request(provider)))
    await provider.until(lambda provider: len(provider.requests) == 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (await provider.until_closed_early()).stage == "headers"


async def test_cancelling_while_it_connects_cuts_the_connection(upstream: HttpUpstream, provider: FakeProvider) -> None:
    sending = asyncio.create_task(upstream.send(request(f"https://127.0.0.1:{provider.port}")))
    await provider.until(lambda provider: provider.connections == 1)
    await asyncio.sleep(0.1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await provider.until(lambda provider: provider.open_connections == 0)


async def test_cancelling_while_the_proxy_thinks_cuts_the_connection(provider: FakeProvider) -> None:
    async with engine(proxy=provider.url) as upstream:
        for reply in (Reply((HANG,)), Reply((b"HTTP/1.1 200 OK\r\n\r\n", HANG))):  # before and in the tunnel's TLS
            provider.reply(reply)
            asked = len(provider.requests)
            sending = asyncio.create_task(upstream.send(request("https://127.0.0.1:9")))
            await provider.until(lambda provider, asked=asked: len(provider.requests) > asked)  # type: ignore[misc]  # mypy cannot infer a lambda's default
            await asyncio.sleep(0.1)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await provider.until(lambda provider: provider.open_connections == 0)


async def test_cancelling_an_upload_that_is_stuck_cuts_the_connection(upstream: HttpUpstream) -> None:
    """Nobody reads the body; what waits to be written must not keep the connection."""
    async with serving(send_until_it_fails) as port:
        sending = asyncio.create_task(upstream.send(request(f"http://127.0.0.1:{port}", body=b"x" * 50_000_000)))
        await asyncio.sleep(0.2)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending


async def test_closing_while_an_upload_is_stuck_cuts_the_connection(upstream: HttpUpstream) -> None:
    def answer_in_the_middle(connection: socket.socket) -> None:
        connection.sendall(CHUNKED)
        send_until_it_fails(connection, b"4\r\ndrip\r\n")

    async with serving(answer_in_the_middle) as port:
        response = await upstream.send(request(f"http://127.0.0.1:{port}", body=b"x" * 50_000_000))
        await asyncio.sleep(0.2)
        await response.close()


async def test_closing_the_engine_does_not_wait_for_an_upload_that_is_stuck() -> None:
    upstream = HttpUpstream()
    async with serving(send_until_it_fails) as port:
        sending = asyncio.create_task(upstream.send(request(f"http://127.0.0.1:{port}", body=b"x" * 50_000_000)))
        await asyncio.sleep(0.2)
        await upstream.close()
        with pytest.raises(GatewayError) as caught:
            await sending
        assert caught.value.kind is UPSTREAM_ERROR


@pytest.mark.parametrize("tls", [False, True])
async def test_closing_in_the_middle_of_a_body_cuts_the_connection(*, tls: bool) -> None:
    with FakeProvider(tls=server_context() if tls else None) as provider:
        provider.reply(sse_reply(["x"] * 5, delay_seconds=0.02).cut_short(HANG, keep=6))
        async with engine(ca_file=str(AUTHORITY)) as upstream:
            response = await upstream.send(request(provider))
            chunks = response.chunks()
            await anext(chunks)
            await response.close()
            assert (await provider.until_closed_early()).stage == "body"
            await response.close()


async def test_cancelling_a_reader_and_closing_cuts_the_connection(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    provider.reply(sse_reply(["x"]).cut_short(HANG, keep=2))
    response = await upstream.send(request(provider))
    reading = asyncio.create_task(read_all(response))
    await asyncio.sleep(0.1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await response.close()
    assert (await provider.until_closed_early()).stage == "body"


async def test_closing_without_reading_cuts_the_connection(upstream: HttpUpstream, provider: FakeProvider) -> None:
    provider.reply(Reply((CHUNKED, HANG)))
    response = await upstream.send(request(provider))
    await response.close()
    await provider.until_closed_early()


async def test_closing_after_the_end_keeps_the_connection_even_when_another_uses_it(
    upstream: HttpUpstream, provider: FakeProvider
) -> None:
    first = await upstream.send(request(provider))
    await first.read(limit=LIMIT)
    provider.reply(sse_reply(["a", "b"], delay_seconds=0.1))
    second = await upstream.send(request(provider))
    await first.close()
    assert await read_all(second) == b"data: a\n\ndata: b\n\n"
    await second.close()
    assert provider.connections == 1


async def test_closing_the_engine_ends_what_is_under_way(provider: FakeProvider) -> None:
    upstream = HttpUpstream()
    provider.reply(sse_reply(["x"]).cut_short(HANG, keep=2))
    response = await upstream.send(request(provider))
    reading = asyncio.create_task(read_all(response))
    await asyncio.sleep(0.1)
    await upstream.close()
    with pytest.raises(GatewayError) as caught:
        await reading
    assert caught.value.kind is UPSTREAM_ERROR
    await response.close()
    await provider.until_closed_early()
    assert (await failure(upstream, request(provider))).kind is UPSTREAM_UNREACHABLE
    await upstream.close()


# ---------------------------------------------------------------------------------------------------- helpers


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port that answers no greeting, because nobody accepts and the queue is full."""
    with socket.socket() as server, contextlib.ExitStack() as held:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # more than the queue of length nought holds
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(server.getsockname())
        yield server.getsockname()[1]


def send_until_it_fails(connection: socket.socket, what: bytes = b"HTTP/1.1 103 Early Hints\r\n\r\n") -> None:
    """Read nothing, and speak until the other side is gone."""
    for _ in range(200):
        connection.sendall(what)
        time.sleep(0.05)
    raise AssertionError("the other side is still there")


def refuse_early(connection: socket.socket) -> None:
    """Refuse a body while it is still coming, then read the rest, as well-behaved servers do."""
    connection.recv(1000)
    connection.sendall(head(413, {"content-length": "5", "connection": "close"}) + b"large")
    drain(connection)
