"""How a command ends: the exit codes, and any failure as one line that says what to do."""

from __future__ import annotations

import enum

from inferxgate.errors import GatewayError, StartError, StoreUnavailable


class ExitCode(enum.IntEnum):
    """What the shell is told."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


class CommandFailed(Exception):
    """The command could not do what it was asked. The message is one line that says what to do."""

    def __init__(self, message: str, *, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


class WrongUsage(CommandFailed):
    """The command was asked for something that it cannot mean."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=ExitCode.USAGE)


def one_line(text: str) -> str:
    """The text without line breaks, and without control characters that a terminal would obey."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """The text with every character that is not printed (controls, escapes, bidirectional marks) written out."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def describe(error: Exception) -> tuple[str, ExitCode]:
    """The line to print for a failure, and the code to leave with."""
    match error:
        case CommandFailed():
            return one_line(str(error)), error.code
        case GatewayError():
            return one_line(error.message), ExitCode.FAILED
        case StartError() | StoreUnavailable():
            return one_line(str(error)), ExitCode.FAILED
        case OSError() if error.strerror:
            name = f": {error.filename}" if error.filename else ""
            return one_line(f"{error.strerror}{name}"), ExitCode.FAILED
        case _:
            line = f"internal error, {type(error).__name__}: {error}"
            return f"{one_line(line)} (INFERXGATE_DEBUG=1 shows where)", ExitCode.FAILED
