"""What each command may load. A command that loads less starts sooner, and people feel every tenth of a second.

Python itself is asked (``-X importtime``), so it does not matter from where or how late a module is imported. The times
themselves are measured elsewhere: a test that waits for a clock fails on a busy machine.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import CommandLine

OURS_FOR_VERSION = {
    "inferxgate",
    "inferxgate.__main__",
    "inferxgate.cli",
    "inferxgate.cli.failures",
    "inferxgate.cli.main",
    "inferxgate.errors",
    "inferxgate.values",
}
OURS_FOR_HELP = OURS_FOR_VERSION | {"inferxgate.cli.root", "inferxgate.cli.options"}
LIBRARIES_FOR_HELP = {"typer", "shellingham", "annotated_doc"}

SERVER = {"uvicorn", "starlette", "uvloop", "httptools", "prometheus_client"}
CLIENTS = {"aiohappyeyeballs", "httpx"}
ACCOUNTS = {"bcrypt", "jwt"}
DATABASE = {"sqlite3"}
ENGINES = {"aiohappyeyeballs", "httptools", "prometheus_client"}
"""What a request goes by."""
SETTINGS = {"pydantic"}
PRICES = {"genai_prices"}
TABLES = {"rich"}
EVERYTHING = SERVER | CLIENTS | ACCOUNTS | DATABASE | SETTINGS | PRICES | TABLES

FORBIDDEN = [
    (["--version"], EVERYTHING | {"typer", "asyncio", "ssl", "socket", "http"}),
    (["--help"], EVERYTHING | {"asyncio", "ssl", "http"}),
    ([], EVERYTHING | {"asyncio", "ssl", "http"}),
    (["nonsense"], EVERYTHING - SETTINGS),
    (["keys", "create", "--help"], EVERYTHING - SETTINGS),
    (["keys", "create"], EVERYTHING - SETTINGS - DATABASE),
    (["keys", "list"], EVERYTHING - SETTINGS - DATABASE),
    (["users", "list"], EVERYTHING - SETTINGS - DATABASE),
    (["stats"], EVERYTHING - SETTINGS - DATABASE),
    (["config", "show"], EVERYTHING - SETTINGS),
    (["models", "prices"], EVERYTHING - SETTINGS - DATABASE | {"lmdb"}),
    (["models", "list"], EVERYTHING - SETTINGS - DATABASE - ENGINES),
    (["chat", "-m", "echo", "hi"], EVERYTHING - SETTINGS - DATABASE - ENGINES),
    (["chat", "-m", "m", "hi", "--url", "http://127.0.0.1:1"], EVERYTHING - SETTINGS - {"httpx"} - TABLES),
]
"""What a command must not load."""


def imported(*arguments: str, environment: dict[str, str] | None = None) -> set[str]:
    """Every module that Python loads for a command line, beyond those that it loads for nothing at all."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}
    return names if arguments == ("-c", "pass") else names - nothing()


@functools.cache
def nothing() -> frozenset[str]:
    """What an interpreter loads by itself, hooks of the environment included."""
    return frozenset(imported("-c", "pass"))


def loaded_by(cli: CommandLine, *arguments: str) -> set[str]:
    return imported("-m", "inferxgate", *arguments, environment=cli.environment)


def libraries(names: set[str]) -> set[str]:
    """The packages among them that belong neither to Python nor to us."""
    tops = {name.partition(".")[0] for name in names}
    # "org" is no library: Python's own copy module asks for Jython's, and attempts are listed too.
    return {top for top in tops if top not in sys.stdlib_module_names and top not in ("inferxgate", "org")}


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "inferxgate"}


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_loads_nothing_but_itself(cli: CommandLine, flag: str) -> None:
    names = loaded_by(cli, flag)
    assert libraries(names) == set()
    assert ours(names) <= OURS_FOR_VERSION


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_loads_typer_and_no_command(cli: CommandLine, arguments: list[str]) -> None:
    names = loaded_by(cli, *arguments)
    assert libraries(names) <= LIBRARIES_FOR_HELP
    assert ours(names) <= OURS_FOR_HELP


@pytest.mark.parametrize(("arguments", "forbidden"), FORBIDDEN, ids=lambda value: " ".join(sorted(value)[:3]))
def test_a_command_loads_only_what_it_needs(cli: CommandLine, arguments: list[str], forbidden: set[str]) -> None:
    names = loaded_by(cli, *arguments)
    assert "inferxgate.cli.main" in names
    assert not {name.partition(".")[0] for name in names} & forbidden


def test_serve_loads_nothing_of_other_commands(cli: CommandLine) -> None:
    """It has loaded all that it needs by the time it finds its port taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = loaded_by(cli, "serve", "--port", str(taken.getsockname()[1]))
    assert "inferxgate.server.run" in names
    assert libraries(names) & ({"httpx", "httpx2", "pydantic_settings", "jwt"} | PRICES | TABLES) == set()


def test_this_measure_sees_late_imports(cli: CommandLine) -> None:
    """The store is opened by ``keys create`` inside a function; a measure that missed that would hold nothing."""
    assert "sqlite3" in loaded_by(cli, "keys", "create")
    assert "pydantic.main" in loaded_by(cli, "keys", "create")
