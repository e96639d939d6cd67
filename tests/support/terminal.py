"""The program as people and scripts use it: run to its end with pipes, or talked to on a real terminal.

done = CommandLine(tmp_path).run("keys", "create")
assert done.code == 0

with CommandLine(tmp_path).on_terminal("chat") as terminal:
    terminal.expect("> ")
    terminal.press("hello\\n")
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.process import program

PATIENCE_SECONDS = 60.0
"""How long anything may take before a test calls it hanging; no test measures by it."""

_INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


@dataclass(frozen=True, slots=True)
class Done:
    """How one run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """The program with a data folder, a configuration and a home of its own."""

    def __init__(self, folder: Path, *, config: str = "", environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.config_path = folder / "config.toml"
        self.config_path.write_text(config)
        self.environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
            "HOME": str(folder),
            "TERM": "xterm",
            "INFERXGATE_CONFIG": str(self.config_path),
            "INFERXGATE_DATA_DIR": str(self.data_dir),
            **(environment or {}),
        }
        self.prefix: list[str] = []
        """What stands before the program, such as ``without_rights()``."""

    def run(
        self, *arguments: str | bytes, stdin: str | bytes | None = None, environment: Mapping[str, str] | None = None
    ) -> Done:
        """Run it to its end with pipes; without ``stdin``, from the null device."""
        done = subprocess.run(
            [*self.prefix, *program(), *arguments],
            check=False,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL if stdin is None else None,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def well(self, *arguments: str | bytes, stdin: str | bytes | None = None) -> Done:
        """Run it to its end, which must be a good one."""
        done = self.run(*arguments, stdin=stdin)
        assert done.code == 0, done
        return done

    def fails(self, *arguments: str | bytes, code: int = 1, stdin: str | bytes | None = None) -> str:
        """Run it to its end, which must be ``code`` with one line that says why; that line."""
        done = self.run(*arguments, stdin=stdin)
        assert done.code == code, done
        assert done.out == ""
        return only_line(done.err)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start it with pipes, for tests that act while it runs."""
        return subprocess.Popen([*program(), *arguments], env=self.environment, **options)

    def on_terminal(self, *arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> Terminal:
        """Start it on a terminal of its own."""
        return Terminal([*program(), *arguments], {**self.environment, **(environment or {})}, columns)


def only_line(text: str) -> str:
    """The single line of a failure, which is never a traceback."""
    assert text.startswith("inferxgate: "), text
    assert text.endswith("\n"), text
    assert text.count("\n") == 1, text
    return text.removeprefix("inferxgate: ").removesuffix("\n")


class Terminal:
    """A program with a real terminal as its input, its output and its controlling one."""

    def __init__(self, command: list[str], environment: Mapping[str, str], columns: int) -> None:
        self.seen = ""
        """All that the program has written so far, with line ends as the program meant them."""
        self._read_up_to = 0
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._fd = ours
        self.process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - the child needs the terminal as its own
        )
        os.close(theirs)

    def expect(self, text: str) -> str:
        """Wait until the program writes ``text``; what came since the last such wait, up to its end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.seen.find(text, self._read_up_to)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"the program never wrote {text!r}, only:\n{self.seen}")
        begin, self._read_up_to = self._read_up_to, found + len(text)
        return self.seen[begin : self._read_up_to]

    def press(self, text: str) -> None:
        """Press these keys; ``\\x03`` is Ctrl-C and ``\\x04`` Ctrl-D."""
        os.write(self._fd, text.encode())

    def press_until(self, keys: str, text: str) -> None:
        """Press these keys, again and again, until the program writes ``text``.

        For Ctrl-C at a prompt: a signal that comes just before Python's line editor begins to wait is not seen by it
        before the next key. Nobody but a program presses a key at that moment.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.seen[self._read_up_to :]:
            if time.monotonic() > deadline:
                raise AssertionError(f"the program never wrote {text!r}, only:\n{self.seen}")
            self.press(keys)
            while text not in self.seen[self._read_up_to :] and select.select([self._fd], [], [], 1.0)[0]:
                self._read(deadline)
        self.expect(text)

    def end(self) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"the program went silent after:\n{self.seen}")
        try:
            data = os.read(self._fd, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:  # Linux says so when the program has closed the terminal
                raise
            return False
        self.seen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE_SECONDS)
        os.close(self._fd)


def without_colour(text: str) -> str:
    """The text without the escape sequences that colour it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
