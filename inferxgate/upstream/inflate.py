"""Bodies that came compressed although nobody asked: gzip and deflate, as they arrive, a bounded piece at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError

PIECE_BYTES = 256 * 1024
"""How much is decompressed at a time, so that a body that grows a thousandfold meets the reader's limit first."""

_GZIP, _ZLIB, _RAW = 31, 15, -15


class Inflater:
    """Decompresses one body."""

    def __init__(self, encoding: str) -> None:
        """``encoding`` is the response's ``content-encoding``. Raises ``upstream_invalid_response`` for any other."""
        self._gzip = encoding in {"gzip", "x-gzip"}
        if not self._gzip and encoding != "deflate":
            raise GatewayError(
                UPSTREAM_INVALID_RESPONSE, "The provider compressed its answer in a way that nobody asked for."
            )
        self._inflate: zlib._Decompress | None = None
        self._ended = False
        """Whether a whole member is behind us. In gzip, others may follow, and padding with zeros."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What can be decompressed now. Raises ``upstream_invalid_response`` where ``data`` is nonsense."""
        while data:
            if self._inflate is None:
                if self._ended and self._gzip and not (data := data.lstrip(b"\0")):
                    return
                self._inflate = zlib.decompressobj(self._window(data[0]))
            piece = self._step(self._inflate, data)
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail
            while len(piece) == PIECE_BYTES and not data and not self._inflate.eof:
                if piece := self._step(self._inflate, b""):  # zlib may hold some of it back when its room was used up
                    yield piece
            if self._inflate.eof:
                data = self._inflate.unused_data
                self._inflate, self._ended = None, True

    def flush(self) -> None:
        """The body has ended. Raises ``upstream_invalid_response`` where it ended in the middle."""
        if self._inflate is not None:
            raise _broken()

    def _window(self, first_byte: int) -> int:
        if self._gzip:
            return _GZIP
        # "deflate" means zlib's format, but some servers send the bare one; the low four bits tell (RFC 1950, 2.2)
        return _ZLIB if first_byte & 0x0F == 8 else _RAW

    def _step(self, inflate: zlib._Decompress, data: bytes) -> bytes:
        try:
            return inflate.decompress(data, PIECE_BYTES)
        except zlib.error:
            fault = _broken()
        raise fault


def _broken() -> GatewayError:
    return GatewayError(UPSTREAM_INVALID_RESPONSE, "The provider's compressed answer is broken.")
