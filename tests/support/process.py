"""The gateway as its users run it: a real process with a data folder and a configuration of its own.

with GatewayProcess(tmp_path, config=CONFIG) as gateway:
    key = gateway.create_key()
    httpx.post(gateway.url + "/v1/chat/completions", ...)
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 60.0
STOP_SECONDS = 60.0

_LISTENING = re.compile(r"https?://(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0):(\d+)")
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "SYSTEMROOT",
    "TMPDIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "COVERAGE_PROCESS_START",
)


def provider_section(name: str, base_url: str, **settings: object) -> str:
    """A configuration's section for a provider that speaks OpenAI's API; ``settings`` as TOML knows them."""
    lines = [f"[providers.{name}]", 'type = "openai"', f'base_url = "{base_url}"']
    settings.setdefault("api_key", "sk-canary-1f4d9b7c2e")
    lines += [f"{setting} = {json.dumps(value)}" for setting, value in settings.items()]
    return "\n".join(lines) + "\n"


def without_rights() -> list[str]:
    """What to put before a command for it to run without root's powers over files and ports; nothing for others."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def program() -> list[str]:
    """The command under test: what ``INFERXGATE_TEST_BIN`` names (a built artefact), else this interpreter's."""
    named = os.environ.get("INFERXGATE_TEST_BIN")
    return named.split() if named else [sys.executable, "-m", "inferxgate"]


class GatewayProcess:
    """One ``inferxgate serve`` on a free port, and the command line beside it."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "",
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        before: Sequence[str] = (),
    ) -> None:
        """``folder`` takes the configuration and the data; ``environment`` is added to an otherwise bare one.

        ``before``: what stands before the command that serves, as ``nice`` would.
        """
        self.folder = folder
        self.data_dir = folder / "data"
        self.config_path = folder / "config.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.config_path.write_text(config)
        self._arguments = arguments
        self._before = before
        self.environment = {name: os.environ[name] for name in _INHERITED if name in os.environ} | {
            "INFERXGATE_CONFIG": str(self.config_path),
            "INFERXGATE_DATA_DIR": str(self.data_dir),
            **(environment or {}),
        }
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.lines: list[str] = []
        """What the server wrote to standard error so far."""
        self._reader: threading.Thread | None = None
        self._listening = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """As an OpenAI SDK wants it."""
        return self.url + "/v1"

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def start(self) -> Self:
        """Start it and wait until it says where it listens."""
        self._listening.clear()
        self.process = subprocess.Popen(
            [*self._before, *program(), "serve", "--port", str(self.port), *self._arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        if not self._listening.wait(START_SECONDS) or self.port == 0:
            self.kill()
            raise AssertionError(f"the gateway did not start:\n{self.log}")
        return self

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.lines.append(line)
            if not self._listening.is_set() and (match := _LISTENING.search(line)):
                self.port = int(match[1])
                self._listening.set()
        self._listening.set()

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        return self.signal(signal.SIGTERM)

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        code = self.process.wait(STOP_SECONDS)
        if self._reader is not None:
            self._reader.join(10)
        return code

    def kill(self) -> None:
        """End it as a power-hungry kernel would: no goodbye."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.wait()

    def run(self, *arguments: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run another command of the program beside it."""
        done = subprocess.run(
            [*program(), *arguments],
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def create_key(self, *arguments: str) -> str:
        """A new key's secret."""
        return self.run("keys", "create", *arguments).stdout.strip()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
