"""The entry of the program: which module holds which command, and how every run ends.

Typing a command should not feel like starting a server. So ``--version`` is answered before anything is imported, the
commands are known by name and one line of help, and only the module of the command that was asked for is loaded.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from inferxgate import __version__
from inferxgate.cli.failures import ExitCode, describe, one_line

PROGRAM = "inferxgate"


_GC_THRESHOLD = 20_000
"""New objects between two collections. With Python's own 700, a start-up collects a hundred times."""


def main() -> NoReturn:
    """Run the command line and leave the process with its exit code."""
    gc.set_threshold(_GC_THRESHOLD)
    # pydantic would read every installed package's metadata in search of plugins, and run what it finds.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _open_closed_streams()
    sys.exit(_run(sys.argv[1:]))


def _open_closed_streams() -> None:
    """A stream that the caller has closed becomes the null device, before a database file is given its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open as long as the process


def _run(arguments: list[str]) -> int:
    try:
        if arguments in (["--version"], ["-V"]):
            sys.stdout.write(f"{PROGRAM} {__version__}\n")
            code = int(ExitCode.DONE)
        else:
            # Imported here and not above: this is what --version does without.
            from inferxgate.cli.root import run_command

            code = run_command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has written ^C into whatever line there was
        _complain("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - the last one to hear of a failure: it becomes one line, never a traceback
        return _failed(error)
    return code


def _failed(error: Exception) -> ExitCode:
    if os.environ.get("INFERXGATE_DEBUG", "0") not in {"", "0"}:
        import traceback

        traceback.print_exception(error)
    message, code = describe(error)
    try:
        sys.stdout.flush()
    except OSError:
        _give_up_stdout()
    _complain(message)
    return code


def _give_up_stdout() -> None:
    """Our reader has left, or its disk is full: the rest goes nowhere, or Python would complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    try:
        sys.stderr.write(f"{PROGRAM}: {one_line(message)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # standard error is closed or full: the exit code has to say it
