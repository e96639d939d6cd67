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
from typing import Literal, TextIO

import orjson

Format = Literal["text", "json"]

_MAX_WAITING = 20_000
_GATHER_SECONDS = 0.05
_SECRETS = re.compile(
    r"ix-api-key-[A-Za-z0-9_-]{4,}|\bsk-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"
    r"|(?i:\bbearer )[^\s'\"]+"
)
_FIELDS = ("request_id", "client", "method", "path", "status", "duration_ms", "bytes", "key_id", "user_id")
"""What the access log says of a request, in this order."""

access_log = logging.getLogger("inferxgate.access")


class LogWriter(logging.Handler):
    """Formats messages where they arise and writes them in a thread."""

    def __init__(self, style: Format, stream: TextIO) -> None:
        super().__init__()
        self._json = style == "json"
        self._stream = stream
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
        if len(self._waiting) >= _MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(line)
        self._some.set()
        if record.levelno >= logging.WARNING:
            self._urgent.set()

    def close(self) -> None:
        """Write what is waiting, within two seconds, and end the thread."""
        self._closing = True
        self._urgent.set()
        self._some.set()
        self._thread.join(timeout=2)
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        fields = record.__dict__.get("request")
        traceback = ""
        if record.exc_info:
            traceback = mask(logging.Formatter().formatException(record.exc_info))
        if self._json:
            content = {
                "time": _time(record.created),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": mask(record.getMessage()),
                **(fields if isinstance(fields, dict) else {}),
            }
            if traceback:
                content["traceback"] = traceback
            return orjson.dumps(content, default=str).decode() + "\n"
        if isinstance(fields, dict):
            text = " ".join(f"{name}={_word(fields[name])}" for name in _FIELDS if fields.get(name) is not None)
        else:
            text = visible(mask(record.getMessage()))
        line = (
            f"{_time(record.created)} {record.levelname.lower():7} {record.name.removeprefix('inferxgate.')}: {text}\n"
        )
        if traceback:
            line += "".join(f"    {visible(part)}\n" for part in traceback.splitlines())
        return line

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


def start_logging(level: str, style: Format) -> LogWriter:
    """Send the program's messages from ``level`` on to standard error. Close the result at the end."""
    # A service manager may start the program without a standard error.
    stream = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    writer = LogWriter(style, stream)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(writer)
    root.setLevel(logging.WARNING)  # the libraries' own chatter stays out
    logging.getLogger("inferxgate").setLevel(level.upper())
    return writer


def stop_logging(writer: LogWriter) -> None:
    logging.getLogger().removeHandler(writer)
    writer.close()


def log_request(
    *,
    request_id: str,
    client: str,
    method: str,
    path: str,
    status: int,
    duration_ms: float,
    size: int,
    key_id: str | None,
    user_id: str | None,
) -> None:
    """One line about one answered request. ``path`` comes without its query string, which may hold anything."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    fields = {
        "request_id": request_id,
        "client": client,
        "method": method,
        "path": mask(path) if "-" in path or "eyJ" in path else path,
        "status": status,
        "duration_ms": round(duration_ms, 1),
        "bytes": size,
        "key_id": key_id,
        "user_id": user_id,
    }
    access_log.info("request", extra={"request": fields})


def mask(text: str) -> str:
    """``text`` with everything that looks like a credential replaced."""
    return _SECRETS.sub("***", text)


def visible(text: str) -> str:
    """``text`` with control characters, line breaks among them, written out, so that nobody can forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _word(value: object) -> str:
    """A value of the access log that cannot be mistaken for two."""
    text = visible(str(value))[:500]
    if " " in text or "=" in text or '"' in text:
        return '"' + text.replace('"', "'") + '"'
    return text


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
