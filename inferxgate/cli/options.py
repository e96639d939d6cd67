"""What the commands share: their options, the look of their help, and the way they open settings and store.

Settings and store are imported when a command opens them and not before: reading a help text needs neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from inferxgate.cli.failures import ExitCode

if TYPE_CHECKING:
    # Typer carries its own click and exports no name for this type.
    from typer._click import Context

    from inferxgate.config import Loaded
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


class Group(TyperGroup):
    """A group of commands that prints its help when none of them is named."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.USAGE)
        return super().parse_args(ctx, args)


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
