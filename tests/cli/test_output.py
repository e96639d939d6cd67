"""How results look: to people on a terminal, to programs in a pipe."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferxgate.cli import output
from inferxgate.cli.failures import one_line, visible
from tests.support.terminal import CommandLine, Terminal, without_colour

COLUMNS: list[output.Column | str] = ["Name", output.right("Spent"), "Note"]
ROWS = [["ann", "$1.00", ""], ["日本語", "$1,000.00", "x"], ["a\x1b[31mb", "", ""]]


def test_a_piped_table_is_aligned_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "NAME            SPENT  NOTE",
        "ann             $1.00",
        "日本語      $1,000.00  x",
        "a\\x1b[31mb",
    ]


def on_terminal(folder: Path, environment: dict[str, str]) -> str:
    """What the table looks like on a terminal."""
    cli = CommandLine(folder, environment=environment)
    print_it = "from tests.cli import test_output as t; t.output.print_table(t.COLUMNS, t.ROWS)"
    with Terminal([sys.executable, "-c", print_it], cli.environment, columns=60) as terminal:
        assert terminal.end() == 0
        return terminal.seen


def test_a_terminal_gets_lines(tmp_path: Path) -> None:
    seen = on_terminal(tmp_path, {})
    assert "\x1b[1m" in seen
    assert "───" in without_colour(seen)


def test_nothing_in_a_table_can_command_the_terminal(tmp_path: Path) -> None:
    seen = on_terminal(tmp_path, {})
    assert "\x1b[31m" not in seen
    assert "a\\x1b[31mb" in seen


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_that_wants_no_colour_gets_none(tmp_path: Path, environment: dict[str, str]) -> None:
    assert "\x1b[3" not in on_terminal(tmp_path, environment)


def test_json_keeps_umlauts_and_writes_out_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "Zoë \x9b31m \u202e \ud800 日本 \x7f 🙂", "n": 1.5}
    output.print_json(value)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert "Zoë \\u009b31m \\u202e \\ud800 日本 \\u007f 🙂" in text


@given(st.text())
def test_what_is_shown_in_a_line_can_always_be_printed(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    assert "\n" not in one_line(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=3)))
def test_json_means_what_it_was(value: object) -> None:
    caught = io.StringIO()
    before, sys.stdout = sys.stdout, caught
    try:
        output.print_json(value)
    finally:
        sys.stdout = before
    assert json.loads(caught.getvalue()) == value
    assert all(line.isprintable() for line in caught.getvalue().splitlines())


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "$0.00"),
        (1, "$1.00"),
        (1234.567, "$1,234.57"),
        (0.5, "$0.500"),
        (0.012345, "$0.0123"),
        (0.000012345, "$0.0000123"),
        (0.000000001, "$0.000000001"),
    ],
)
def test_dollars(amount: float, shown: str) -> None:
    assert output.dollars(amount) == shown


@given(st.floats(min_value=0, max_value=1e9), st.floats(min_value=0, max_value=1e9))
def test_bars_grow_with_their_value_and_never_past_their_width(one: float, other: float) -> None:
    less, more = sorted([one, other])
    width = 12
    shorter, longer = output.bar(less, more, width=width), output.bar(more, more, width=width)
    assert len(shorter) <= len(longer) <= width
    assert bool(shorter) == (less > 0)
    if more > 0:
        assert longer == "█" * width


def test_times() -> None:
    assert output.short_time(0, none="never") == "1970-01-01 00:00 UTC"
    assert output.short_time(None, none="never") == "never"
    assert output.ago(None, 0, none="never") == "never"
    assert [output.ago(0, ms, none="") for ms in (-5, 59_999, 60_000, 7_199_999, 86_400_000 * 1200)] == [
        "just now",
        "just now",
        "1 min ago",
        "1 h ago",
        "1,200 d ago",
    ]
    assert output.plural(1, "key") == "1 key"
    assert output.plural(1200, "key") == "1,200 keys"
