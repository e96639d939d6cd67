"""Compressed bodies: any cut gives the same bytes, in bounded pieces, and none ends in the middle unnoticed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError
from inferxgate.upstream.inflate import PIECE_BYTES, Inflater


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


SQUEEZES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare": ("deflate", raw_deflate),
    "two members": ("gzip", lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])),
    "padded": ("gzip", lambda data: gzip.compress(data) + bytes(20)),
}

bodies = st.one_of(
    st.binary(max_size=300), st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(0, 200_000))
)


@pytest.mark.parametrize("name", SQUEEZES)
@given(body=bodies, places=st.lists(st.floats(0, 1), max_size=6))
def test_any_cut_gives_the_same_bytes(name: str, body: bytes, places: list[float]) -> None:
    encoding, squeeze = SQUEEZES[name]
    squeezed = squeeze(body)
    cuts = sorted(int(place * len(squeezed)) for place in places)
    inflater = Inflater(encoding)
    pieces = [
        piece
        for start, end in zip([0, *cuts], [*cuts, len(squeezed)], strict=True)
        for piece in inflater.feed(squeezed[start:end])
    ]
    inflater.flush()
    assert b"".join(pieces) == body
    assert max(map(len, pieces), default=0) <= PIECE_BYTES


@pytest.mark.parametrize("name", ["gzip", "zlib", "bare", "two members"])
@given(body=st.binary(max_size=300), place=st.floats(0, 1, exclude_max=True, exclude_min=True))
def test_an_end_in_the_middle_is_seen(name: str, body: bytes, place: float) -> None:
    encoding, squeeze = SQUEEZES[name]
    squeezed = squeeze(body)
    kept = max(1, int(place * len(squeezed)))
    if name == "two members" and kept == len(gzip.compress(body[: len(body) // 2])):
        return  # a whole member is a whole body
    inflater = Inflater(encoding)
    for _ in inflater.feed(squeezed[:kept]):
        pass
    with pytest.raises(GatewayError) as caught:
        inflater.flush()
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE


def test_what_was_compressed_is_there_as_soon_as_it_was_flushed() -> None:
    squeeze = zlib.compressobj(wbits=31)
    inflater = Inflater("gzip")
    for part in (b"one", b"two" * 1000, b"three"):
        sent = squeeze.compress(part) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(inflater.feed(sent)) == part


def test_nothing_at_all_is_an_empty_body() -> None:
    Inflater("gzip").flush()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(GatewayError) as caught:
        Inflater(encoding)
    assert caught.value.kind is UPSTREAM_INVALID_RESPONSE


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_nonsense_is_refused(encoding: str) -> None:
    inflater = Inflater(encoding)
    with pytest.raises(GatewayError) as caught:
        list(inflater.feed(b"\xff nonsense that is neither"))
    assert caught.value.__context__ is None
