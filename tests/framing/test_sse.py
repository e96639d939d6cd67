"""Server-sent events: any cut of the bytes gives the same events, and they are the ones that the standard says."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError
from inferxgate.framing.sse import SSEDecoder, SSEEvent, build_event


def decode(*pieces: bytes, max_event_bytes: int = 10**6) -> list[tuple[bytes, str]]:
    decoder = SSEDecoder(max_event_bytes)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [(event.data, event.event) for event in events + decoder.flush()]


def reference(stream: bytes) -> list[tuple[bytes, str]]:
    """The standard's algorithm, line by line over the whole stream; an event at the end counts."""
    events: list[tuple[bytes, str]] = []
    data, kind = None, b""
    for line in [*re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if data is not None:
                events.append((data[:-1], kind.decode("utf-8", "replace")))
            data, kind = None, b""
            continue
        if line[:1] == b":":
            continue
        field, value = line, b""
        if (colon := line.find(b":")) >= 0:
            field, value = line[:colon], line[colon + 1 :]
            if value[:1] == b" ":
                value = value[1:]
        if field == b"data":
            data = (data or b"") + value + b"\n"
        elif field == b"event":
            kind = value
    return events


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
texts = st.text(alphabet='a :{}"é日🎈\ufeff\u2028', max_size=8).map(str.encode)
lines = st.one_of(
    st.builds(b"data: %b".__mod__, texts),
    st.builds(b"data:%b".__mod__, texts),
    st.builds(b"event: %b".__mod__, texts),
    st.builds(b": %b".__mod__, texts),
    st.sampled_from([b"", b"", b"data", b"event", b"id: 7", b"retry: 10", b"data\x00: x", b" data: x", b"\xff\xfe"]),
)
streams = st.builds(
    lambda start, pairs, end: start + b"".join(line + stop for line, stop in pairs) + end,
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef\xbb\xbf\xef\xbb\xbf"]),
    st.lists(st.tuples(lines, line_ends), max_size=12),
    st.sampled_from([b"", b"data: end", b"\r", b"\n"]),
)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    stream = draw(st.one_of(streams, st.lists(st.sampled_from(b"\r\n:da \xef\xbb\xbf"), max_size=24).map(bytes)))
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return stream, [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


@given(cut_streams())
@example((b"data: a\r\n\r\ndata: b\n\n", [b"data: a\r", b"\n\r", b"\ndata: b\n", b"\n"]))
@example((b"\xef\xbb\xbfdata: a\n\n", [b"\xef", b"\xbb", b"\xbfdata: a\n\n"]))
@example((b"data: a\r\r", [b"data: a\r", b"", b"\r"]))
def test_any_cut_gives_the_events_of_the_standard(case: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = case
    assert decode(*pieces) == reference(stream)


@given(streams)
def test_byte_by_byte_is_the_same_as_at_once(stream: bytes) -> None:
    assert decode(*(stream[place : place + 1] for place in range(len(stream)))) == decode(stream) == reference(stream)


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [(b"a", ""), (b"b", "")]),
        (b"data:a\r\n\r\n", [(b"a", "")]),
        (b"data:  a \n\n", [(b" a ", "")]),
        (b"data: a\ndata: b\ndata:\n\n", [(b"a\nb\n", "")]),
        (b"event: ping\ndata: {}\n\ndata: x\n\n", [(b"{}", "ping"), (b"x", "")]),
        (b"event: nothing\n\n: comment\n\n", []),
        (b": comment\ndata: a\n\n", [(b"a", "")]),
        (b"data:\n\n", [(b"", "")]),
        (b"id: 1\nretry: 5\ndata: a\n\n", [(b"a", "")]),
        (b"data: no blank line\n", [(b"no blank line", "")]),
        (b"data: no line end", [(b"no line end", "")]),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n", [(b"a", ""), (b"b", "")]),
        (b"", []),
        (b"\xef\xbb\xbfdata: a\n\n", [(b"a", "")]),
        (b"\xef\xbb", []),
    ],
)
def test_decodes(stream: bytes, events: list[tuple[bytes, str]]) -> None:
    assert decode(stream) == events


def test_gives_an_event_as_soon_as_its_blank_line_is_here() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\n") == []
    assert decoder.feed(b"\r") == [SSEEvent(b"a")]
    assert decoder.feed(b"\ndata: b\n\nda") == [SSEEvent(b"b")]
    assert decoder.feed(b"ta: c\n\n") == [SSEEvent(b"c")]
    assert decoder.flush() == []


def test_a_character_may_be_cut_anywhere() -> None:
    stream = 'data: {"text":"日本🎈"}\n\n'.encode()
    for place in range(len(stream)):
        assert decode(stream[:place], stream[place:]) == [(stream[6:-2], "")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_over_the_limit_is_refused_however_it_comes(size: int) -> None:
    fits, too_large = b"data: " + b"x" * 94, b"data: " + b"x" * 95
    good, bad = b"data: a\n\n" + fits + b"\n\n" + fits + b"\n\n", fits + b"\n\n" + too_large + b"\n\n"
    assert len(decode(*_pieces(good, size), max_event_bytes=100)) == 3
    with pytest.raises(GatewayError) as caught:
        decode(*_pieces(bad, size), max_event_bytes=100)
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE


def test_an_event_over_the_limit_is_refused_in_one_read_too() -> None:
    assert len(decode(b"data: " + b"x" * 94 + b"\n\n", max_event_bytes=100)) == 1
    with pytest.raises(GatewayError) as caught:
        decode(b"data: " + b"x" * 95 + b"\n\n", max_event_bytes=100)
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE


def test_a_stream_without_any_blank_line_is_refused() -> None:
    decoder = SSEDecoder(max_event_bytes=10_000)
    for _ in range(10):
        assert decoder.feed(b"x" * 1000) == []
    with pytest.raises(GatewayError):
        decoder.feed(b"x" * 1000)


def test_a_giant_event_in_small_pieces_is_looked_at_once() -> None:
    """Not timed: looking at all of it for every piece would keep this test busy for hours."""
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(200_000):
        assert not decoder.feed(b"0123456789abcdef" * 10)
    (event,) = decoder.feed(b"\n\n")
    assert len(event.data) == 32_000_000


@given(st.binary(max_size=60))
def test_what_is_built_is_what_is_decoded(data: bytes) -> None:
    assert decode(build_event(data)) == [(re.sub(rb"\r\n|\r", b"\n", data), "")]


def test_a_byte_order_mark_may_be_cut_anywhere() -> None:
    stream = b"\xef\xbb\xbfdata: a\n\n"
    for place in range(4):
        assert decode(stream[:place], b"", stream[place:]) == [(b"a", "")]
    assert decode(b"\xef\xbb", b"data: a\n\n") == [], "the start of a mark that does not come is a part of its line"


def test_a_pause_within_a_line_end_is_no_end_of_an_event() -> None:
    assert decode(b"data: a\r", b"", b"\ndata: b\n\n") == [(b"a\nb", "")]


def test_builds_one_line_as_it_is() -> None:
    assert build_event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert build_event(b"[DONE]") == b"data: [DONE]\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_builds_a_line_of_data_for_each_line(end: bytes) -> None:
    assert build_event(end.join([b"a", b"", b"b"])) == b"data: a\ndata: \ndata: b\n\n"


def _pieces(stream: bytes, size: int) -> list[bytes]:
    return [stream[start : start + size] for start in range(0, len(stream), size)]
