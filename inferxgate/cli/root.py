"""The commands by name, and what the options in front of them mean."""

from __future__ import annotations

import importlib
import io
import sys
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer
from typer.core import TyperArgument, TyperOption
from typer.main import get_command as build_command

from inferxgate import __version__
from inferxgate.cli.failures import ExitCode, WrongUsage
from inferxgate.cli.options import ConfigOption, Group, nearest, new_app

if TYPE_CHECKING:
    # Typer carries its own click and exports no name for these types.
    from typer._click import Command, Context, HelpFormatter

PROGRAM = "inferxgate"
Shell = Literal["bash", "zsh", "fish"]


class Entry(NamedTuple):
    """Where a command lives, and its line in the help."""

    module: str
    """Has ``app``, a ``typer.Typer``."""
    help: str


COMMANDS = {
    "serve": Entry("inferxgate.cli.serve", "Run the gateway."),
    "keys": Entry("inferxgate.cli.keys", "Create, list, change, rotate and revoke API keys."),
    "users": Entry("inferxgate.cli.users", "Create, list and change the people who may sign in."),
    "models": Entry("inferxgate.cli.models", "List models with their prices; show where a name goes."),
    "stats": Entry("inferxgate.cli.stats", "Show usage and cost."),
    "chat": Entry("inferxgate.cli.chat", "Ask a model, alone or in a pipe."),
    "config": Entry("inferxgate.cli.config", "Show, check and create the configuration."),
}


class LazyGroup(Group):
    """A group that knows its commands from ``COMMANDS`` and loads one only when it is run."""

    def list_commands(self, ctx: Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        app: typer.Typer = importlib.import_module(entry.module).app
        command = build_command(app)
        command.name, command.short_help = cmd_name, entry.help
        return command

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it with the value alone
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _print_completion(shell: Shell | None) -> None:
    if shell is None:
        return
    # The generator loads every command to see its options; nothing else should.
    from inferxgate.cli.completion import completion_script

    typer.echo(completion_script(shell, root_command()), nl=False)
    raise typer.Exit


def _root(
    *,
    config: ConfigOption = None,  # what it means is in options.py: the command's own --config asks for it
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    show_completion: Annotated[
        Shell | None,
        typer.Option(
            "--show-completion",
            metavar="SHELL",
            help="Print the completion script for bash, zsh or fish.",
            is_eager=True,
            callback=_print_completion,
        ),
    ] = None,
) -> None:
    """Typer reads the options in front of a command from this signature; their callbacks do what they ask for."""


def root_command() -> Command:
    """The whole command line, as one command that loads its parts when they are asked for."""
    app = new_app(
        "One OpenAI-compatible API in front of many providers of language models.",
        cls=LazyGroup,
        epilog=f"'{PROGRAM} COMMAND --help' says more about a command.",
    )
    app.callback()(_root)
    return build_command(app)


_WORDS = (
    ("Input should be a valid integer", "must be a whole number"),
    ("Input should be a valid number", "must be a number"),
)
"""How the validation library's messages begin, and what we say in their place."""


def _in_our_words(error: typer.TyperException) -> str:
    """The message of a mistake in the options, with their names as they were typed."""
    message = error.format_message().rstrip(".")
    asked: str | None = getattr(error, "option_name", None)
    if message.startswith("No such option") and asked:
        # Compared without the dashes, which make short names look alike.
        near = nearest(asked.lstrip("-"), [name.lstrip("-") for name in getattr(error, "possibilities", None) or ()])
        return f"No such option: {asked}{f'; did you mean --{near}?' if near else ''}"
    parameter = getattr(error, "param", None)
    if not isinstance(parameter, TyperOption | TyperArgument) or not message.startswith("Invalid value"):
        return message
    name = max(parameter.opts, key=len) if isinstance(parameter, TyperOption) else parameter.display_name_raw
    said = str(error).removeprefix("Value error, ").rstrip(".")
    ours = next((words for begin, words in _WORDS if said.startswith(begin)), None)
    return f"{name} {ours}" if ours else f"{name}: {said}"


def run_command(arguments: list[str]) -> int:
    """Run one command; its exit code. Raises what the command raises, and ``WrongUsage`` for a call it cannot read."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale that cannot show a character gets a question mark in its place, not a failure.
            stream.reconfigure(errors="replace")
    try:
        result = root_command().main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        context: Context | None = getattr(error, "ctx", None)
        hint = f"; see '{context.command_path} --help'" if context is not None else ""
        raise WrongUsage(f"{_in_our_words(error)}{hint}") from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if result == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt  # Typer has turned it into a number
    return result if isinstance(result, int) else ExitCode.DONE
