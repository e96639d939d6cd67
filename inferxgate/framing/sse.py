"""Server-sent events: bytes in, events out, whatever the cuts.

The rules are those of the HTML standard, section "Server-sent events" (https://html.spec.whatwg.org/multipage/server-sent-events.html),
with one departure: an event that the end of the stream left without its blank line is still an event, because many
providers leave that line out. ``id`` and ``retry`` are for clients that reconnect, which nobody does here.

Strategy: line endings are made LF on the way in (only where there is a CR at all), so that the end of an event is
always two LFs. What has arrived is split at those in one call, and the block that nearly every provider sends, a
single ``data: `` line, is taken without looking at lines; one such block in one read is not even split. What is left
over is kept in a ``bytearray`` and only looked at again when a blank line has arrived, so that a giant event in small
pieces costs what its bytes cost.
"""

from __future__ import annotations

from inferxgate.errors import UPSTREAM_INVALID_RESPONSE, GatewayError
from inferxgate.values import dataclass

MAX_EVENT_BYTES = 64 * 1024 * 1024
"""The largest event by default: an image in base64 fits, a stream that never ends an event does not."""

_BOM = b"\xef\xbb\xbf"
_LF = 10


@dataclass(slots=True)
class SSEEvent:
    """One event."""

    data: bytes
    """The data lines, joined with LF. Empty where the event had only ``data:``, as some keep-alives have."""
    event: str = ""
    """The event's type; empty where the stream named none."""


class SSEDecoder:
    """Decodes one stream."""

    __slots__ = ("_after_cr", "_max_event_bytes", "_pending", "_start")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()
        """The event that is not complete yet."""
        self._start: bytes | None = b""
        """The stream's first bytes while they may still become a byte order mark."""
        self._after_cr = False
        """Whether the last byte was a CR, whose LF may still come."""

    def feed(self, data: bytes) -> list[SSEEvent]:
        """The events that ``data`` completes. Raises ``upstream_invalid_response`` for one that is too large."""
        if self._start is not None:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        if not data:
            return []
        pending = self._pending
        if data[-2:] == b"\n\n" and data[:6] == b"data: " and not pending and data.find(b"\n") == len(data) - 2:
            if len(data) - 2 > self._max_event_bytes:
                raise self._too_large()
            return [SSEEvent(data[6:-2])]  # one event in one read: what most providers' streams are made of
        if not (b"\n\n" in data or (data[0] == _LF and pending and pending[-1] == _LF)):
            pending += data
            if len(pending) > self._max_event_bytes + 1:  # its last byte may be the first half of the blank line
                raise self._too_large()
            return []
        if pending:
            data = bytes(pending) + data
            pending.clear()
        *blocks, rest = data.split(b"\n\n")
        if rest:
            pending += rest
        if len(data) > self._max_event_bytes and max(len(rest) - 1, *map(len, blocks)) > self._max_event_bytes:
            raise self._too_large()
        events = []
        for block in blocks:
            if block[:6] == b"data: " and b"\n" not in block:
                events.append(SSEEvent(block[6:]))
            elif (event := _parse_block(block)) is not None:
                events.append(event)
        return events

    def flush(self) -> list[SSEEvent]:
        """The event that the end of the stream completes, if there is one."""
        block = bytes(self._pending)
        self._pending.clear()
        event = _parse_block(block)
        return [] if event is None else [event]

    def _without_bom(self, data: bytes) -> bytes:
        start = (self._start or b"") + data
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _with_lf(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr and data[0] == _LF:
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _too_large(self) -> GatewayError:
        self._pending.clear()
        return GatewayError(
            UPSTREAM_INVALID_RESPONSE,
            f"The provider's stream holds an event of more than {self._max_event_bytes} bytes.",
        )


def _parse_block(block: bytes) -> SSEEvent | None:
    """The event of some lines; None where none of them is data."""
    data: list[bytes] = []
    kind = b""
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            kind = value.removeprefix(b" ")
    if not data:
        return None
    return SSEEvent(data[0] if len(data) == 1 else b"\n".join(data), kind.decode("utf-8", "replace"))


def build_event(data: bytes) -> bytes:
    """``data`` as an event on the wire."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
    return b"data: %b\n\n" % data
