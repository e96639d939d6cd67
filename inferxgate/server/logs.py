"""The log: one line a message on standard error, as text or as JSON, written by a thread of its own.

Several workers share one standard error. Their lines carry the worker's number, and each write consists of whole lines
and is short enough for a pipe to take it in one piece, so that lines never mix.

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
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple, TextIO

import orjson

Format = Literal["text", "json"]

_MAX_WAITING = 20_000
_GATHER_SECONDS = 0.05
_WRITE_BYTES = 4096
"""Linux takes this much into a pipe in one piece, whoever else writes to it."""
_DIRECT_SECONDS = 0.1
"""How long the supervisor waits for a reader of the log that is slow."""
_SECRETS = re.compile(
    r"ix-api-key-[A-Za-z0-9_-]{4,}|\bsk-[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"
    r"|(?i:\bbearer )[^\s'\"]+"
)
_ACCESS = "inferxgate.access"


class RequestLine(NamedTuple):
    """What the access log says of a request."""

    request_id: str
    """Without anything that JSON would have to escape."""
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


class _Lines(logging.Handler):
    """Makes lines of messages, where they arise."""

    def __init__(self, style: Format, stream: TextIO, worker: int | None = None) -> None:
        super().__init__()
        self._json = style == "json"
        self._stream = stream
        self._worker = worker
        self._of_worker = "" if worker is None else f"[{worker}]"
        self._json_end = "}\n" if worker is None else f',"worker":{worker}}}\n'
        self._second = (-1, "")

    def line(self, record: logging.LogRecord) -> str:
        """A message and its traceback, with the line break at the end."""
        try:
            return self._line(record)
        except Exception:  # noqa: BLE001 - a message that cannot be formatted must not fail the request that it is about
            return f"a log message of {record.name} could not be formatted\n"

    def _line(self, record: logging.LogRecord) -> str:
        traceback = mask(logging.Formatter().formatException(record.exc_info)) if record.exc_info else ""
        message = mask(record.getMessage())
        if self._json:
            said: dict[str, str | int] = {
                "time": self._time(record.created),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": message,
            }
            if self._worker is not None:
                said["worker"] = self._worker
            if traceback:
                said["traceback"] = traceback
            return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE).decode()
        name = record.name.removeprefix("inferxgate.")
        line = (
            f"{self._time(record.created)} {record.levelname.lower():7} {name}{self._of_worker}: {visible(message)}\n"
        )
        return line + "".join(f"    {visible(part)}\n" for part in traceback.splitlines())

    def _time(self, seconds: float) -> str:
        """ISO 8601 to the millisecond; the part up to the second is written once a second."""
        whole = int(seconds)
        second, text = self._second
        if whole != second:
            text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = (whole, text)
        return f"{text}.{int((seconds - whole) * 1000):03d}Z"


class LogWriter(_Lines):
    """Writes lines in a thread."""

    def __init__(self, style: Format, stream: TextIO, worker: int | None = None) -> None:
        """``worker`` is the number that the lines carry, where there are several."""
        super().__init__(style, stream, worker)
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._some = threading.Event()
        self._urgent = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self._put(self.line(record))
        if record.levelno >= logging.WARNING:
            self._urgent.set()

    def request(self, said: RequestLine) -> None:
        """One answered request. Past the logging module, whose record of a message costs more than the line."""
        now = self._time(time.time())
        if self._json:
            self._put(
                f'{{"time":"{now}","level":"info","logger":"{_ACCESS}","message":"request"'
                f',"request_id":"{said.request_id}",{_asking(said.client, said.method, said.path, "json")}'
                f',"status":{said.status},"duration_ms":{said.duration_ms},"bytes":{said.bytes}'
                f",{_asked(said.key_id, said.user_id, said.target, said.error, 'json')}{self._json_end}"
            )
            return
        self._put(
            f"{now} info    access{self._of_worker}: request_id={said.request_id}"
            f"{_asking(said.client, said.method, said.path, 'text')} status={said.status}"
            f" duration_ms={said.duration_ms} bytes={said.bytes}"
            f"{_asked(said.key_id, said.user_id, said.target, said.error, 'text')}\n"
        )

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
                for piece in _pieces(lines):
                    self._stream.write(piece)
                    self._stream.flush()
            except (OSError, ValueError):
                # Standard error is closed or full: nobody reads it, and the requests go on.
                time.sleep(_GATHER_SECONDS)
            if closing:
                return


class DirectLog(_Lines):
    """Writes lines at once, without a thread: for the supervisor, which forks."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.line(record)
        try:
            # It must stay able to stop its workers when nobody reads the log.
            if select.select([], [self._stream], [], _DIRECT_SECONDS)[1]:
                self._stream.write(line)
                self._stream.flush()
        except (OSError, ValueError):
            pass  # standard error is closed


def _pieces(lines: list[str]) -> Iterator[str]:
    """The lines, gathered into writes that reach a pipe in one piece. A longer line is a piece by itself."""
    gathered: list[str] = []
    size = 0
    for line in lines:
        length = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
        if gathered and size + length > _WRITE_BYTES:
            yield "".join(gathered)
            gathered, size = [], 0
        gathered.append(line)
        size += length
    if gathered:
        yield "".join(gathered)


_writer: LogWriter | None = None
"""The one that ``start_logging`` made, where requests are logged."""
_made: LogWriter | None = None
"""The same, whether or not they are."""


def start_logging(level: str, style: Format, worker: int | None = None) -> LogWriter:
    """Send the program's messages from ``level`` on to standard error. Close the result with ``stop_logging``.

    ``worker`` is the number that the lines carry, where there are several.
    """
    global _made  # noqa: PLW0603 - logging is the process's own, here as in the standard library
    _made = LogWriter(style, _standard_error(), worker)
    _send_to(_made, level)
    return _made


def start_direct_logging(level: str, style: Format) -> DirectLog:
    """The same for a process without threads."""
    writer = DirectLog(style, _standard_error())
    _send_to(writer, level)
    return writer


def _standard_error() -> TextIO:
    # A service manager may start the program without a standard error.
    return sys.stderr or open(os.devnull, "w", encoding="utf-8")


def _send_to(writer: _Lines, level: str) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(writer)
    root.setLevel(logging.WARNING)  # the libraries' own chatter stays out
    set_level(level)


def set_level(level: str) -> None:
    """The least severe messages to log from now on."""
    global _writer  # noqa: PLW0603 - see start_logging
    logging.getLogger("inferxgate").setLevel(level.upper())
    _writer = _made if logging.getLogger(_ACCESS).isEnabledFor(logging.INFO) else None


def stop_logging(writer: LogWriter | DirectLog) -> None:
    global _made, _writer  # noqa: PLW0603 - see start_logging
    _made = _writer = None
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


def _asking(client: str, method: str, path: str, style: Format) -> str:
    """A part of an access line that most requests have in common with an earlier one."""
    make = _asking_kept if len(path) <= _KEPT_CHARS else _asking_made
    return make(client, method, path, style)


def _asked(key_id: str | None, user_id: str | None, target: str | None, error: str | None, style: Format) -> str:
    """Another one."""
    make = _asked_kept if target is None or len(target) <= _KEPT_CHARS else _asked_made
    return make(key_id, user_id, target, error, style)


def _asking_made(client: str, method: str, path: str, style: Format) -> str:
    path = mask(path) if "-" in path or "eyJ" in path else path
    if style == "json":
        return _members({"client": client, "method": method, "path": path})
    return f" client={_word(client)} method={method} path={_word(path)}"


def _asked_made(key_id: str | None, user_id: str | None, target: str | None, error: str | None, style: Format) -> str:
    if style == "json":
        return _members({"key_id": key_id, "user_id": user_id, "target": target, "error": error})
    key = "" if key_id is None else f" key_id={key_id}"
    user = "" if user_id is None else f" user_id={user_id}"
    of_target = "" if target is None else f" target={_word(target)}"
    of_error = "" if error is None else f" error={_word(error)}"
    return f"{key}{user}{of_target}{of_error}"


def _members(content: dict[str, str | None]) -> str:
    """A JSON object without its braces."""
    return orjson.dumps(content).decode()[1:-1]


_KEPT_CHARS = 200
"""What clients choose is kept only up to this length, so that they cannot fill the memory."""
_asking_kept = lru_cache(maxsize=32)(_asking_made)  # a client may ask for any number of paths
_asked_kept = lru_cache(maxsize=1024)(_asked_made)


def _word(text: str) -> str:
    """A value of the access log that cannot be mistaken for two."""
    text = visible(text)[:500]
    if " " in text or "=" in text or '"' in text:
        return '"' + text.replace('"', "'") + '"'
    return text
