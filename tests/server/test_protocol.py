"""What is not HTTP, too long or too slow; and how everything else is answered, byte by byte."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from inferxgate.server.cycle import connection_of
from inferxgate.server.protocol import HEAD_BYTES, GatewayProtocol
from tests.server.conftest import CHAT, World
from tests.server.serving import exchange, served

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"


def refusal(said: bytes) -> tuple[int, str]:
    """Status and message of an answer that must be in the contract's form."""
    head, _, body = said.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert b"content-type: application/json" in lines
    assert b"connection: close" in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    error = json.loads(body)["error"]
    assert set(error) == {"type", "message", "code", "param"}
    return int(lines[0].split()[1]), error["message"]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,  # TLS towards a plain port
        b"FETCH /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"Bad Header: x\r\n\r\n",
        GET + b"Content-Length: abc\r\n\r\n",
        GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_told_so_in_json(world: World, data: bytes) -> None:
    assert refusal(await exchange(world.process.port, data))[0] == 400


async def test_a_head_without_end_is_refused(world: World) -> None:
    for pieces in ([GET + b"X: "] + [b"x" * 20_000] * 4, [GET] + [b"X: " + b"x" * 9_000 + b"\r\n"] * 8):
        status, message = refusal(await exchange(world.process.port, *pieces, pause_seconds=0.005))
        assert (status, f"{HEAD_BYTES // 1024} kB" in message) == (431, True)


async def test_a_large_head_is_taken(world: World) -> None:
    said = await exchange(world.process.port, GET + b"X: " + b"x" * 30_000 + b"\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")


async def test_a_head_in_single_bytes_is_taken(world: World) -> None:
    data = GET + b"Connection: close\r\n\r\n"
    said = await exchange(world.process.port, *[data[place : place + 1] for place in range(len(data))])
    assert said.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", ["Upgrade", "upgrade", "UPGRADE"])
async def test_an_offer_to_switch_protocols_is_overlooked_and_the_body_is_read(world: World, name: str) -> None:
    """Java's HTTP client offers HTTP/2 with its first request, body and all."""
    body = json.dumps(CHAT | {"messages": [{"role": "user", "content": "a\r\nupgrade: b"}]}).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"{name}: h2c\r\n"
        f"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nAuthorization: Bearer {world.secret(rpm=0)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    last = GET + b"Connection: close\r\n\r\n"
    for pieces, answers in (([request, request, last], 3), ([request[:-20], request[-20:], last], 2)):
        said = await exchange(world.process.port, *pieces, pause_seconds=0.2)
        assert said.count(b"HTTP/1.1 200 OK") == answers
        assert b"a\\r\\nupgrade: b" in said


class Impatient(GatewayProtocol):
    """The same with less patience."""

    head_seconds = 0.2


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.mark.parametrize("sent", [b"", b"GET", GET, GET + b"\r\n" + GET])
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes) -> None:
    async with served(hello, Impatient) as port:
        said = await exchange(port, sent)
    assert said.count(b"HTTP/1.1 200 OK") == sent.count(b"\r\n\r\n")


async def test_a_slow_answer_is_not_a_slow_head() -> None:
    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await hello(scope, receive, send)

    async with served(slowly, Impatient) as port:
        said = await exchange(port, GET + b"Connection: close\r\n\r\n")
    assert said.endswith(b"hi")


async def answers(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    """So many bodies whose lengths are told."""
    bodies = []
    async with asyncio.timeout(20):
        for _ in range(count):
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = re.findall(rb"\r\ncontent-length: (\d+)\r\n", head)
            bodies.append(await reader.readexactly(int(length)))
    return bodies


def replying(status: int = 200, headers: Sequence[tuple[bytes, bytes]] = (), *bodies: bytes) -> ASGIApp:
    """An application with one answer."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


def asking(path: str, version: str = "1.1", *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/{version}", "Host: localhost", *lines, "")).encode()


LAST = ("Connection: close",)
SIZED = (b"content-length", b"2")


async def test_pipelined_requests_are_answered_one_by_one_and_in_order() -> None:
    running = 0

    async def later_ones_faster(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.2 if scope["path"] == "/0" else 0)
        running -= 1
        await replying(200, [SIZED], scope["path"].encode())(scope, _receive, send)

    async with served(later_ones_faster) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(asking(f"/{number % 10}") for number in range(30)))  # more than may wait at once
        assert await answers(reader, 30) == [b"/%d" % (number % 10) for number in range(30)]
        writer.close()


async def test_a_client_that_pipelines_and_leaves_has_its_request_cancelled() -> None:
    begun = asyncio.Event()
    cancelled: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    paths = []

    async def wait(scope: Scope, _receive: Receive, _send: Send) -> None:
        paths.append(scope["path"])
        connection_of(scope).cancels_with = "gone"
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as why:
            cancelled.set_result((*why.args, connection_of(scope).client_left))
            raise

    async with served(wait) as port, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking("/first") + asking("/second"))
        await begun.wait()
        writer.close()
        assert await cancelled == ("gone", True)
    assert paths == ["/first"]


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_client_is_seen_to_leave_whatever_it_has_sent(size: int) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        connection_of(scope).cancels_with = "gone"
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with served(wait) as port, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await begun.wait()
        writer.close()
        await cancelled.wait()


async def test_who_serves_is_told_that_the_client_left() -> None:
    told: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def listen(_scope: Scope, receive: Receive, send: Send) -> None:
        kinds = [(await receive())["type"], (await receive())["type"]]
        await send({"type": "http.response.start", "status": 200, "headers": []})  # goes nowhere, and does no harm
        told.set_result(kinds)

    async with served(listen) as port, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking("/"))
        await asyncio.sleep(0.05)
        writer.close()
        assert await told == ["http.request", "http.disconnect"]


async def test_an_answer_after_which_the_client_leaves_cancels_nothing() -> None:
    ended = asyncio.Event()

    async def linger(scope: Scope, receive: Receive, send: Send) -> None:
        connection_of(scope).cancels_with = "gone"
        await hello(scope, receive, send)
        await asyncio.sleep(0.2)
        ended.set()

    async with served(linger) as port, asyncio.timeout(20):
        assert (await exchange(port, asking("/", "1.1", *LAST))).endswith(b"hi")
        await ended.wait()


async def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    async with served(replying(200, [], b"one ", b"two")) as port:
        head, _, body = (await exchange(port, asking("/", "1.0"))).partition(b"\r\n\r\n")
        chunked = await exchange(port, asking("/", "1.1", *LAST))
    assert body == b"one two"
    assert b"transfer-encoding" not in head
    assert b"\r\nconnection: close" in head
    assert chunked.endswith(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.parametrize("header", [(b"x-a", b"1\r\nx-evil: 1"), (b"x-a", b"1\nx-evil: 1"), (b"x\r\nx-evil", b"1")])
async def test_a_header_with_a_line_break_is_never_sent(header: tuple[bytes, bytes]) -> None:
    async with served(replying(200, [SIZED, header], b"hi")) as port:
        said = await exchange(port, GET + b"\r\n")
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"evil" not in said
    assert b"\r\nconnection: close\r\n" in said


@pytest.mark.parametrize("bodies", [[b"h"], [b"hi!"], [b"h", b"i!"], [b"", b""]])
async def test_a_body_of_another_length_than_was_told_ends_the_connection(bodies: list[bytes]) -> None:
    async with served(replying(200, [SIZED], *bodies)) as port:
        said = await exchange(port, GET + b"\r\n" + GET + b"\r\n")  # reads to the end, though nothing asked for one
    assert said.count(b"HTTP/1.1") <= 1
    assert len(said.partition(b"\r\n\r\n")[2]) < 2


@pytest.mark.parametrize("headers", [[SIZED], []])
async def test_an_application_that_ends_too_early_ends_the_connection(headers: list[tuple[bytes, bytes]]) -> None:
    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"h", "more_body": True})

    async with served(half) as port:
        said = await exchange(port, GET + b"\r\n" + GET + b"\r\n")
    assert said.count(b"HTTP/1.1 ") == 1
    assert not said.endswith(b"0\r\n\r\n"), "the client must see that this is not the whole answer"


async def test_an_application_that_says_nothing_is_a_500() -> None:
    async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        pass

    async with served(nothing) as port:
        said = await exchange(port, GET + b"\r\n")
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nconnection: close\r\n" in said


async def test_head_gets_the_head_alone_and_the_connection_goes_on() -> None:
    async with served(replying(200, [SIZED], b"hi")) as port:
        said = await exchange(port, asking("/").replace(b"GET", b"HEAD") + asking("/", "1.1", *LAST))
    first, second, body = said.split(b"\r\n\r\n")
    assert b"\r\ncontent-length: 2" in first
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"hi"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_framing(status: int) -> None:
    async with served(replying(status, [], b"")) as port:
        said = await exchange(port, asking("/") + asking("/", "1.1", *LAST))
    first, second, rest = said.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert second.startswith(b"HTTP/1.1 %d " % status)
    assert b"transfer-encoding" not in said
    assert rest == b""


@pytest.mark.parametrize("reads", [True, False])
async def test_a_client_that_asks_is_told_to_send_its_body_where_it_is_wanted(reads: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = b"no"
        while reads:
            message = await receive()
            body = message["body"] or body
            if not message["more_body"]:
                break
        await replying(200, [SIZED], body)(scope, receive, send)

    async with served(app) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        first = await reader.readuntil(b"\r\n\r\n")
        if reads:
            assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hi")
            assert await answers(reader, 1) == [b"hi"]
        else:
            assert first.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(2) == b"no"
        writer.close()


@pytest.mark.parametrize("headers", [[SIZED], []])
async def test_head_and_first_piece_go_out_together(headers: list[tuple[bytes, bytes]]) -> None:
    async def slowly(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await asyncio.sleep(0.3)  # time enough for a head by itself to arrive
        await send({"type": "http.response.body", "body": b"hi"})

    async with served(slowly) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking("/"))
        assert b"\r\n\r\n" in (said := await reader.read(65_536))
        assert b"hi" in said
        writer.close()


async def test_a_body_is_received_whole_however_it_comes() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05 if scope["path"] == "/late" else 0)
        pieces, more = [], True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        body = b"".join(pieces)
        await replying(200, [(b"content-length", b"%d" % len(body))], body)(scope, receive, send)

    data = bytes(range(256)) * 2_000  # several times what may wait
    async with served(echo) as port:
        for path in ("/late", "/soon"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data))
            for place in range(0, len(data), 50_000):
                writer.write((b"" if place else head) + data[place : place + 50_000])
                await asyncio.sleep(0)
            assert await answers(reader, 1) == [data]
            writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1.5 if scope["path"] == "/slow" else 0)
        await hello(scope, receive, send)

    async with served(app, idle_seconds=1) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in ("/", "/slow", "/"):
            writer.write(asking(path))
            assert await answers(reader, 1) == [b"hi"]
        assert await reader.read() == b"", "nobody asked for anything more"
        writer.close()


async def test_a_connection_is_idle_too_when_it_was_answered_before_it_had_asked() -> None:
    async with served(hello, idle_seconds=1) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert await answers(reader, 1) == [b"hi"]
        writer.write(b"ab")
        assert await reader.read() == b""
        writer.close()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10_000), max_size=6), st.integers(0, 70_000))
async def test_however_requests_are_cut_they_are_answered_the_same(places: list[int], size: int) -> None:
    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        got, more = 0, True
        while more:
            message = await receive()
            got += len(message["body"])
            more = message["more_body"]
        body = f"{scope['method']} {scope['path']} {got}".encode()
        await replying(200, [(b"content-length", b"%d" % len(body))], body)(scope, receive, send)

    post = b"POST /%%61 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    chunked = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
    data = asking("/first?q") + post + chunked + asking("/last")
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    async with served(tell) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for begin, end in itertools.pairwise(bounds):
            writer.write(data[begin:end])
            await asyncio.sleep(0)
        assert await answers(reader, 4) == [b"GET /first 0", b"POST /a %d" % size, b"POST /c 5", b"GET /last 0"]
        writer.close()


# --- what clients may not do to a connection

INNER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
OFFER = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(INNER)


@pytest.mark.parametrize(
    "pieces",
    [
        (OFFER, INNER),
        (OFFER[: OFFER.index(b"grade: h2c")], OFFER[OFFER.index(b"grade: h2c") :], INNER),
        (asking("/z") + OFFER, INNER),
        (OFFER + INNER[:5], INNER[5:]),
    ],
)
async def test_a_body_is_never_taken_for_a_request(pieces: tuple[bytes, ...]) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await hello(scope, receive, send)

    async with served(app, idle_seconds=1) as port:
        said = await exchange(port, *pieces, pause_seconds=0.2)
    assert seen in (["/a"], ["/z", "/a"])
    assert said.count(b"HTTP/1.1 200 OK") == len(seen)


UNREAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


@pytest.mark.parametrize(("asked", "after"), [(asking("/"), b"\r\n"), (asking("/"), b"\r\n\r\n"), (UNREAD, b"a")])
async def test_what_begins_no_request_keeps_no_connection_open(asked: bytes, after: bytes) -> None:
    """Blank lines, and a body that comes after its answer."""
    async with served(hello, idle_seconds=1) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asked)
        assert await answers(reader, 1) == [b"hi"]
        writer.write(after)
        assert await reader.read() == b""
        writer.close()


async def test_who_sends_thousands_of_requests_ahead_is_let_go() -> None:
    asked = 0

    async def never(_scope: Scope, _receive: Receive, _send: Send) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)

    async with served(never) as port:
        assert await exchange(port, asking("/") * 4_000) == b""
    assert asked == 1


async def test_the_beginning_of_another_request_ends_no_answer() -> None:
    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await hello(scope, receive, send)

    async with served(slowly, Impatient) as port:
        assert (await exchange(port, asking("/") + b"GE")).endswith(b"\r\n\r\nhi")


async def test_a_body_is_no_part_of_the_next_head() -> None:
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000
    async with served(hello) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request + asking("/")[:9])
        assert await answers(reader, 1) == [b"hi"]
        writer.write(asking("/")[9:])
        assert await answers(reader, 1) == [b"hi"]
        writer.close()


@pytest.mark.parametrize("version", ["0.9", "2.0"])
async def test_other_versions_are_refused(world: World, version: str) -> None:
    assert refusal(await exchange(world.process.port, asking("/health/live", version)))[0] == 400
