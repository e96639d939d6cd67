"""What bytes are told by: how they begin, and what a server says of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.upstream.media_types import may_be, recognised


def box(major: bytes, *others: bytes) -> bytes:
    """The first box of an ISO base media file, and something after it."""
    return (16 + 4 * len(others)).to_bytes(4, "big") + b"ftyp" + major + b"\0\0\0\0" + b"".join(others) + b"meta"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"x", "image/png"),
        (b"\xff\xd8\xff\xe0" + b"x", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (box(b"heic", b"mif1", b"heic"), "image/heic"),
        (box(b"heix"), "image/heic"),
        (box(b"mif1", b"heic"), "image/heic"),
        (box(b"mif1", b"miaf"), "image/heif"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"junk before it\n%PDF-1.4", "application/pdf"),
        (box(b"avif", b"mif1"), None),
        (box(b"mif1", b"avif"), None),
        (box(b"isom", b"heic"), None),
        (b"\x00\x00\x00\x18ftyp", None),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b" " * 1024 + b"%PDF-1.4", None),
        (b"\x89PNG", None),
        (b"<html><img src=a.png>", None),
        (b'{"AccessKeyId": "x"}', None),
        (b"", None),
    ],
)
def test_bytes_are_told_by_how_they_begin(data: bytes, media_type: str | None) -> None:
    assert recognised(data) == recognised(bytearray(data)) == media_type


@given(
    st.binary(max_size=400), st.sampled_from([b"", b"RIFF", b"\x00\x00\x00\x20ftypmif1", b"\xff\xff\xff\xffftypmif1"])
)
def test_any_bytes_are_something_or_nothing(data: bytes, beginning: bytes) -> None:
    known = {None, "image/png", "image/jpeg", "image/gif", "image/webp", "image/heic", "image/heif", "application/pdf"}
    assert recognised(beginning + data) in known


PNG, PDF = {"image/png"}, {"application/pdf"}


@pytest.mark.parametrize(
    ("declared", "accepted", "possible"),
    [
        ("image/png", PNG, True),
        ("Image/PNG; charset=binary", PNG, True),
        ("image/jpg", PNG, True),
        ("application/octet-stream", PNG, True),
        ("binary/octet-stream", PDF, True),
        ("", PNG, True),
        ("application/pdf", PDF, True),
        ("application/pdf", PNG, False),
        ("image/png", PDF, False),
        ("text/html; charset=utf-8", PNG | PDF, False),
        ("application/json", PNG | PDF, False),
        ("text/html, image/png", PNG, False),
    ],
)
def test_what_a_server_says_may_leave_no_room(declared: str, accepted: set[str], *, possible: bool) -> None:
    assert may_be(declared, accepted) is possible
