"""The log: one line a message on standard error, as text or as JSON, written by a thread of its own.

The event loop only puts lines into a bounded queue, so a slow reader of the log never holds up a request; lines that do
not fit are counted, and the count is written. Warnings and worse are on their way at once, the rest within a twentieth
of a second.

What a client sends reaches the log only with its control characters written out, and headers, bodies and query strings
not at all. Whatever still looks like a secret (in a traceback, say) is masked.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TextIO

import orjson

Format = Literal["text", "json"]

_MAX_WAITING = 20_000
_GATHER_SECONDS = 0.05
_SECRETS = re.compile(
    r"ix-api-key-[A-Za-z0-9_-]{4,}|\bsk-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"
    r"|(?i:\bbearer )[^\s'\"]+"
)
_ACCESS = "inferxgate.access"


class RequestLine(NamedTuple):
    """What the access log says of a request."""

    request_id: str
    client: str
    method: str
    path: str
    """Without its query string, which may hold anything."""
    status: int
    duration_ms: float
    bytes: int
    key_id: str | None
    user_id: str | None
    target: str | None = None
    """``provider/model`` of a completion."""
    error: str | None = None
    """The error's code, also where it came within a stream that had begun."""


class LogWriter(logging.Handler):
    """Formats messages where they arise and writes them in a thread."""

    def __init__(self, style: Format, stream: TextIO) -> None:
        super().__init__()
        self._json = style == "json"
        self._stream = stream
        self._second = (-1.0, "")
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._urgent = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - a message that cannot be formatted must not fail the request that it is about
            line = f"a log message of {record.name} could not be formatted\n"
        self._put(line)
        if record.levelno >= logging.WARNING:
            self._urgent.set()

    def request(self, said: RequestLine) -> None:
        """One answered request. Past the logging module, whose record of a message costs more than the line."""
        now = self._time(time.time())
        path = mask(said.path) if "-" in said.path or "eyJ" in said.path else said.path
        if self._json:
            content = {"time": now, "level": "info", "logger": _ACCESS, "message": "request", **said._asdict()}
            content["path"] = path
            self._put(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE).decode())
            return
        line = (
            f"{now} info    access: request_id={said.request_id} client={_word(said.client)} method={said.method}"
            f" path={_word(path)} status={said.status} duration_ms={said.duration_ms} bytes={said.bytes}"
        )
        key = "" if said.key_id is None else f" key_id={said.key_id}"
        user = "" if said.user_id is None else f" user_id={said.user_id}"
        target = "" if said.target is None else f" target={_word(said.target)}"
        error = "" if said.error is None else f" error={_word(said.error)}"
        self._put(f"{line}{key}{user}{target}{error}\n")

    def _put(self, line: str) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(line)
        if not self._some.is_set():
            self._some.set()

    def close(self) -> None:
        """Write what is waiting, within two seconds, and end the thread."""
        self._closing = True
        self._urgent.set()
        self._some.set()
        self._thread.join(timeout=2)
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        traceback = mask(logging.Formatter().formatException(record.exc_info)) if record.exc_info else ""
        message = mask(record.getMessage())
        if self._json:
            said = {
                "time": self._time(record.created),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
            }
            if traceback:
                said["traceback"] = traceback
            return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE).decode()
        name = record.name.removeprefix("inferxgate.")
        line = f"{self._time(record.created)} {record.levelname.lower():7} {name}: {visible(message)}\n"
        return line + "".join(f"    {visible(part)}\n" for part in traceback.splitlines())

    def _time(self, seconds: float) -> str:
        """ISO 8601 to the millisecond; the part up to the second is written once a second."""
        whole, rest = divmod(seconds, 1)
        second, text = self._second
        if whole != second:
            text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (whole, text)
        return f"{text}.{int(rest * 1000):03d}Z"

    def _write_on(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            if not self._closing:
                self._urgent.wait(_GATHER_SECONDS)  # gather a few lines for one write
            self._urgent.clear()
            closing = self._closing
            lines = []
            while self._waiting:
                lines.append(self._waiting.popleft())
            if self._dropped:
                lines.append(f"{self._dropped} log lines were dropped: standard error is read too slowly\n")
                self._dropped = 0
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):
                # Standard error is closed or full: nobody reads it, and the requests go on.
                time.sleep(_GATHER_SECONDS)
            if closing:
                return


_writer: LogWriter | None = None
"""The one that ``start_logging`` made, where requests are logged."""


def start_logging(level: str, style: Format) -> LogWriter:
    """Send the program's messages from ``level`` on to standard error. Close the result with ``stop_logging``."""
    global _writer  # noqa: PLW0603 - logging is the process's own, here as in the standard library
    # A service manager may start the program without a standard error.
    stream = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    writer = LogWriter(style, stream)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(writer)
    root.setLevel(logging.WARNING)  # the libraries' own chatter stays out
    logging.getLogger("inferxgate").setLevel(level.upper())
    if logging.getLogger(_ACCESS).isEnabledFor(logging.INFO):
        _writer = writer
    return writer


def stop_logging(writer: LogWriter) -> None:
    global _writer  # noqa: PLW0603 - see start_logging
    _writer = None
    logging.getLogger().removeHandler(writer)
    writer.close()


def log_request(line: RequestLine) -> None:
    """One line about one answered request."""
    if _writer is not None:
        _writer.request(line)


def mask(text: str) -> str:
    """``text`` with everything that looks like a credential replaced."""
    return _SECRETS.sub("***", text)


def visible(text: str) -> str:
    """``text`` with control characters, line breaks among them, written out, so that nobody can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _word(text: str) -> str:
    """A value of the access log that cannot be mistaken for two."""
    text = visible(text)[:500]
    if " " in text or "=" in text or '"' in text:
        return '"' + text.replace('"', "'") + '"'
    return text
