"""What the commands share: their options, the look of their help, and the way they open settings and store.

Settings and store are imported when a command opens them and not before: reading a help text needs neither.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from inferxgate.cli.failures import ExitCode, WrongUsage

if TYPE_CHECKING:
    # Typer carries its own click and exports no name for this type.
    from typer._click import Command as AnyCommand
    from typer._click import Context, HelpFormatter

    from inferxgate.config import Loaded
    from inferxgate.config_watch import Source
    from inferxgate.store.sqlite import SQLiteStore

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def _nearest_config(ctx: typer.Context, value: Path | None) -> Path | None:
    """A ``--config`` behind the command wins over one in front of it."""
    if value is not None:
        return value
    in_front: Path | None = ctx.find_root().params.get("config")
    return in_front


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file, in place of INFERXGATE_CONFIG.",
        callback=_nearest_config,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Period = Literal["total", "day", "week", "month"]
"""``inferxgate.store.records.BudgetPeriod``, which a help text must not load; a test holds them alike."""
BudgetPeriodOption = Annotated[
    Period | None,
    typer.Option(
        "--budget-period", metavar="PERIOD", help="When the budget begins anew, in UTC: day, week, month; total: never."
    ),
]


class Command(TyperCommand):
    """A command whose help names each argument once, in capitals, as the options name their values."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        names = ((_shown(each), each.required) for each in self.get_params(ctx) if isinstance(each, TyperArgument))
        return ["[OPTIONS]", *(name if required else f"[{name}]" for name, required in names)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        for title, kind in (("Arguments", TyperArgument), ("Options", TyperOption)):
            found = [(each, each.get_help_record(ctx)) for each in self.get_params(ctx) if isinstance(each, kind)]
            rows = [(_shown(each) or record[0], record[1]) for each, record in found if record is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _shown(parameter: object) -> str:
    """What the help calls an argument; nothing for an option."""
    return parameter.metavar or parameter.name if isinstance(parameter, TyperArgument) else ""


class Group(TyperGroup):
    """A group of commands that prints its help when none of them is named, and knows slips of the finger."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, AnyCommand | None, list[str]]:
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            near = nearest(args[0], names)
            hint = f"did you mean '{near}'?" if near else f"there are {', '.join(names)}"
            raise WrongUsage(f"No such command '{args[0]}': {hint}")
        return super().resolve_command(ctx, args)


_NEAR = 0.7
"""How much of two words has to be alike (1 is all) for one to be a slip for the other."""


def nearest(word: str, words: Collection[str]) -> str | None:
    """The one of ``words`` that was probably meant."""
    return next(iter(difflib.get_close_matches(word, words, n=1, cutoff=_NEAR)), None)


def new_app(about: str, *, cls: type[TyperGroup] = Group, epilog: str | None = None) -> typer.Typer:
    """An empty command line with our look: plain help, ``-h``, and failures that ``main`` reports."""
    return typer.Typer(
        cls=cls,
        help=about,
        epilog=epilog,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_CONTEXT,
    )


def load(config: Path | None, flags: Mapping[str, object] | None = None) -> Loaded:
    """The settings in force. Raises ``StartError``."""
    from inferxgate.config import load_settings

    return load_settings(config_path=config, flags=flags or {})


def source(config: Path | None, flags: Mapping[str, object]) -> Source:
    """Where the settings come from, for a program that reads them more than once. Raises ``StartError``."""
    from inferxgate.config import config_file
    from inferxgate.config_watch import Source, Watch

    path = config_file(config)
    return Source(path, lambda: load(config, flags), Watch(path))


@contextlib.contextmanager
def opened_store(config: Path | None) -> Iterator[tuple[Loaded, SQLiteStore]]:
    """The settings and the store that they name. Raises ``StartError`` and ``StoreUnavailable``."""
    from inferxgate.storage import open_store

    loaded = load(config)
    store = open_store(loaded)
    try:
        yield loaded, store
    finally:
        store.close()
