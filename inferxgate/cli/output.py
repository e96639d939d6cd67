"""Results and notes: tables and figures for people, JSON for machines.

Results go to standard output and everything else to standard error. Where standard output is no terminal there is no
colour and nothing is drawn. Text that came from elsewhere is shown with its control characters written out.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from inferxgate.cli.failures import visible
from inferxgate.values import dataclass

NANOS_PER_DOLLAR = 1_000_000_000


def on_terminal() -> bool:
    """Whether results are read by a person as they appear."""
    return sys.stdout.isatty()


def can_ask() -> bool:
    """Whether there is a person at a terminal to answer a question."""
    return sys.stdin.isatty()


def print_line(text: str = "") -> None:
    """One line of a result."""
    sys.stdout.write(f"{text}\n")


def print_text(text: str) -> None:
    """A piece of running text, at once. A terminal is not given control characters to obey, a pipe gets every byte."""
    if on_terminal():
        text = _CONTROLS.sub(lambda found: visible(found.group()), text)
    sys.stdout.write(text)
    sys.stdout.flush()


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def note(text: str) -> None:
    """One line beside the result, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """One line that must be seen, on standard error."""
    loud = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    note(f"\x1b[1;31m{text}\x1b[0m" if loud else text)


def print_json(value: Any) -> None:
    """A result for machines, which a terminal can show as well."""
    print_line(_json_text(value))


def print_coloured_json(value: Any, *, indent: str) -> None:
    """JSON within a page for people, each line behind ``indent``; coloured where a terminal shows colours."""
    text = "".join(f"{indent}{line}\n" for line in _json_text(value).split("\n"))
    if not on_terminal():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    shown = Text(text.removesuffix("\n"))
    JSONHighlighter().highlight(shown)
    sys.stdout.flush()
    Console(highlight=False).print(shown, soft_wrap=True)


def _json_text(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return re.sub(r"[^\n -~]", lambda found: _json_escape(found.group()), text)


def _json_escape(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    align: Literal["left", "right"] = "left"
    wraps: bool = True
    """Whether a narrow terminal may break its cells; not where people copy them whole."""
    given_up: int | None = None
    """Left out where the terminal is too narrow for all columns, the lowest number first; None: never."""


def right(title: str, *, given_up: int | None = None) -> Column:
    """A column of figures."""
    return Column(title, "right", wraps=False, given_up=given_up)


def print_table(columns: Sequence[Column | str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under their titles: drawn on a terminal, aligned with spaces elsewhere.

    The titles of the columns that a terminal had no room for are returned.
    """
    headed = [column if isinstance(column, Column) else Column(column) for column in columns]
    shown = [[visible(cell) for cell in row] for row in rows]
    if on_terminal():
        return _draw_table(headed, shown)
    _align_table(headed, shown)
    return []


def _draw_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    # Imported here: rich costs as much as the rest of a small command, and a pipe does without.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    lines = [[column.title for column in columns], *rows]
    widths = [max(_width(line[index]) for line in lines) for index in range(len(columns))]
    shown = _fitting(columns, widths, console.width)
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    narrowest = -_GAP
    for index in shown:
        column, least = columns[index], widths[index]
        if column.wraps:
            least = min(least, max(_width(column.title), _NARROWEST))
        narrowest += least + _GAP
        table.add_column(column.title, justify=column.align, overflow="fold", no_wrap=not column.wraps, min_width=least)
    for row in rows:
        table.add_row(*(Text(row[index]) for index in shown))
    if narrowest > console.width:
        # Then the terminal breaks the lines; what is selected across its break is whole all the same.
        console.width = narrowest
    console.print(table)
    return [column.title for index, column in enumerate(columns) if index not in shown]


_GAP = 2
"""How far apart two columns of a table stand."""
_NARROWEST = 10
"""No column is broken to less than this."""


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    """Which columns to show: all, less those that a terminal of this width gives up."""
    shown = list(range(len(columns)))
    order = sorted((column.given_up, index) for index, column in enumerate(columns) if column.given_up is not None)
    for _, index in order:
        if sum(widths[each] + _GAP for each in shown) - _GAP <= width:
            break
        shown.remove(index)
    return shown


def _align_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    lines = [[column.title.upper() for column in columns], *rows]
    widths = [max(_width(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = [_pad(cell, width, column.align) for cell, width, column in zip(line, widths, columns, strict=True)]
        print_line("  ".join(cells).rstrip())


def _pad(cell: str, width: int, align: Literal["left", "right"]) -> str:
    space = " " * (width - _width(cell))
    return space + cell if align == "right" else cell + space


def _width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def print_fields(fields: Sequence[tuple[str, str]], *, indent: str = "", width: int = 0, wraps: bool = False) -> None:
    """One thing, a field a line. ``width``: the least that the names take; ``wraps``: a terminal breaks at words."""
    width = max(width, *(len(name) for name, _ in fields))
    columns = shutil.get_terminal_size().columns if wraps and on_terminal() else 0
    for name, value in fields:
        begin = f"{indent}{name:<{width}}  "
        lines = [visible(value)]
        if columns > len(begin) + _NARROWEST:
            lines = textwrap.wrap(lines[0], columns - len(begin), break_long_words=False, break_on_hyphens=False)
        print_line(f"{begin}{lines[0] if lines else ''}".rstrip())
        for line in lines[1:]:
            print_line(f"{' ' * len(begin)}{line}")


def short_time(ms: int | None, *, none: str) -> str:
    """UTC milliseconds to the minute, for people."""
    if ms is None:
        return none
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def ago(ms: int | None, now_ms: int, *, none: str) -> str:
    """How long before now, in the largest unit that says something."""
    if ms is None:
        return none
    seconds = max(0, now_ms - ms) // 1000
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{count(seconds // unit)} {name} ago"
    return "just now"


def dollars(amount: float) -> str:
    """Dollars as people read them: in cents, and below one dollar the first three digits that say something."""
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}"
    places = min(9, 2 - math.floor(math.log10(abs(amount))))
    return f"${amount:.{places}f}"


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}"


def plural(number: int, thing: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(value: float, most: float, *, width: int) -> str:
    """A bar as long as ``value`` is of ``most``, in eighths of a column; anything above nothing shows."""
    if most <= 0 or value <= 0:
        return ""
    full, rest = divmod(max(1, round(value / most * width * 8)), 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")
