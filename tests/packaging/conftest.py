"""The one-file program as its tests need it: where it is, and a cache that most of them share."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.packaging import pythons


@dataclass(frozen=True)
class Program:
    """The built file with the environment to run it in."""

    path: Path
    environment: Mapping[str, str]
    before: Sequence[str] = field(default=())
    """A command that runs it, such as one that takes rights away."""

    def run(
        self, *arguments: str, python: str = "", cwd: Path | None = None, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it by a Python, or by its first line when none is given."""
        command = [*self.before, *([python] if python else []), str(self.path), *arguments]
        environment = {**self.environment, **(more or {})}
        return subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
        )

    def start(self, *arguments: str, python: str) -> subprocess.Popen[str]:
        command = [*self.before, python, str(self.path), *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def cache(self) -> Path:
        return Path(self.environment["INFERXGATE_CACHE_DIR"])


@pytest.fixture(scope="session")
def built() -> Path:
    """The file that INFERXGATE_PYZ names; a visible skip where none has been built."""
    named = os.environ.get("INFERXGATE_PYZ")
    if not named:
        pytest.skip("INFERXGATE_PYZ names no built file; build one with .ci/build-zipapp")
    path = Path(named).absolute()
    assert path.is_file(), f"INFERXGATE_PYZ names {path}, and there is no such file"
    return path


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "INFERXGATE_CACHE_DIR": str(folder / "cache"),
        "INFERXGATE_DATA_DIR": str(folder / "data"),
        "INFERXGATE_CONFIG": str(folder / "config.toml"),
    }


@pytest.fixture
def fresh(built: Path, tmp_path: Path) -> Program:
    """The program on a machine that has never run it."""
    (tmp_path / "config.toml").touch()
    return Program(built, _environment(tmp_path))


@pytest.fixture(scope="session")
def warm_cache(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder into which it has been unpacked."""
    folder = tmp_path_factory.mktemp("warm")
    assert Program(built, _environment(folder)).run("--version", python=pythons.supported()[0]).returncode == 0
    return folder / "cache"


@pytest.fixture
def program(built: Path, warm_cache: Path, tmp_path: Path) -> Program:
    """The program on a machine that has run it before; everything but the cache is the test's own."""
    (tmp_path / "config.toml").touch()
    return Program(built, {**_environment(tmp_path), "INFERXGATE_CACHE_DIR": str(warm_cache)})


@pytest.fixture(scope="session")
def without_rights(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """A command in front of another, under which the modes of files hold for root too; empty for everybody else.

    A visible skip where root cannot give up that right.
    """
    if os.geteuid() != 0:
        return ()
    folder = tmp_path_factory.mktemp("closed")
    folder.chmod(0o555)
    command = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
    if shutil.which("setpriv"):
        writable = subprocess.run([*command, "test", "-w", str(folder)], capture_output=True, check=False)
        if writable.returncode == 1 and not writable.stderr:
            return command
    pytest.skip("root reads and writes whatever the modes say, and setpriv cannot take that right away here")
