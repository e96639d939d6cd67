"""What some bytes are, by how they begin: what a server says of them is not taken for true.

Only formats that a provider takes and that cannot be mistaken are known here. Text is not: anything is text.

Sources: the formats' own specifications (PNG, RFC 2083; JPEG, ISO 10918-1; GIF89a; WebP, RFC 9649; HEIF with its
brands, ISO 23008-12; PDF, whose header readers accept within the first 1024 bytes, ISO 32000-1).
"""

from __future__ import annotations

from collections.abc import Collection

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"mif1": "image/heif",
}
"""Of still images. A file of the general brand ``mif1`` may name what it really is among its further brands."""
_PDF_WITHIN_BYTES = 1024
_SAYING_NOTHING = frozenset({"", "application/octet-stream", "binary/octet-stream"})
"""Types that servers give to what they know nothing of; the second is that of Amazon's S3."""


def recognised(data: bytes | bytearray) -> str | None:
    """The media type of ``data``; None for everything that is not known."""
    for signature, media_type in _SIGNATURES:
        if data.startswith(signature):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return _still_image(data)
    return "application/pdf" if b"%PDF-" in data[:_PDF_WITHIN_BYTES] else None


def _still_image(data: bytes | bytearray) -> str | None:
    """An image in an ISO base media file: its first box names the major brand, and from byte 16 on the others."""
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = [bytes(data[place : place + 4]) for place in (8, *range(16, size - 3, 4))]
    if brands[0] not in _BRANDS or b"avif" in brands:
        return None
    return "image/heic" if "image/heic" in {_BRANDS.get(brand) for brand in brands} else "image/heif"


def may_be(declared: str, accepted: Collection[str]) -> bool:
    """Whether what a server declares (its ``content-type``) leaves room for one of the accepted types.

    Names of images are used loosely (``image/jpg``), so that any of them stands for all.
    """
    kind = declared.partition(";")[0].strip().lower()
    if kind in _SAYING_NOTHING or kind in accepted:
        return True
    return kind.startswith("image/") and any(each.startswith("image/") for each in accepted)
