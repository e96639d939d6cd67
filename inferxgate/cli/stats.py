"""``inferxgate stats``: what was asked, of whom, and what it cost."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from inferxgate.cli import options
from inferxgate.cli.failures import WrongUsage
from inferxgate.cli.options import Command, ConfigOption, JsonOption, opened_store
from inferxgate.cli.output import (
    Column,
    bar,
    count,
    dollars,
    on_terminal,
    plural,
    print_fields,
    print_json,
    print_line,
    print_table,
    right,
    short_time,
)
from inferxgate.cli.values import usage

app = options.new_app("Show usage and cost.")

By = Literal["model", "provider", "key", "user", "day"]

_BAR_WIDTH = 20
_OTHERS = "others"
MOST_GROUPS = 50
"""How many groups a terminal shows; --json and --csv have all of them."""


@app.command(cls=Command)
def stats(
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From when: 30m, 24h, 7d, or a date such as 2026-11-01.")
    ] = "7d",
    by: Annotated[By, typer.Option("--by", metavar="GROUP", help="model, provider, key, user or day.")] = "model",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the groups as CSV.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show usage and cost, of everyone, as the store has it."""
    if as_json and as_csv:
        raise WrongUsage("--json and --csv exclude each other: give one")
    from inferxgate import reports
    from inferxgate.gateway.ledger import recover
    from inferxgate.storage import journal_folder
    from inferxgate.store.records import UsageFilter

    now_ms = time.time_ns() // 1_000_000
    with usage():
        since_ms = reports.parse_since(since, now_ms)
    with opened_store(config) as (loaded, store):
        recover(store, journal_folder(loaded))  # what a killed gateway left counts too
        report = reports.stats(store, UsageFilter(since_ms=since_ms, until_ms=now_ms + 1))
    groups = report[f"by_{by}"]
    if as_json:
        print_json(report)
    elif as_csv:
        _print_csv(by, groups)
    else:
        _print_report(by, report, groups, since_ms)


def _print_report(by: By, report: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], since_ms: int) -> None:
    totals = report["totals"]
    print_line(f"Since {short_time(since_ms, none='')}")
    print_line()
    print_fields(_summary(totals, report["refusals"]))
    if not groups:
        return
    print_line()
    measure = "cost" if totals["cost"] else "total_tokens" if totals["total_tokens"] else "requests"
    columns = [Column(by.capitalize()), right("Requests"), right("Errors", given_up=2), right("Tokens"), right("Cost")]
    if on_terminal():
        groups = _first_ones(by, groups)
    rows = [_row(by, group) for group in groups]
    if on_terminal():
        columns.append(Column(_SHARES[measure], wraps=False, given_up=1))
        most = max(group[measure] for group in groups if _OTHERS not in group)
        for row, group in zip(rows, groups, strict=True):
            row.append("" if _OTHERS in group else bar(group[measure], most, width=_BAR_WIDTH))
    print_table(columns, rows)


_SHARES = {"cost": "Share of cost", "total_tokens": "Share of tokens", "requests": "Share of requests"}


def _summary(totals: Mapping[str, Any], refusals: Mapping[str, int]) -> list[tuple[str, str]]:
    refused = ", ".join(f"{reason} {count(number)}" for reason, number in refusals.items())
    into, out = count(totals["prompt_tokens"]), count(totals["completion_tokens"])
    fields = [
        ("Requests", f"{count(totals['requests'])}, {count(totals['errors'])} failed"),
        ("Refused", f"{count(totals['refused'])}{f' ({refused})' if refused else ''}"),
        ("Tokens", f"{count(totals['total_tokens'])}: {into} in, {out} out"),
        ("Cost", f"{dollars(totals['cost'])}{_unpriced(totals['unpriced_requests'])}"),
    ]
    if totals["average_duration_ms"] is not None:
        first = totals["average_first_token_ms"]
        to_first = f", {count(round(first))} ms to the first token" if first is not None else ""
        fields.append(("Time", f"{count(round(totals['average_duration_ms']))} ms on average{to_first}"))
    return fields


def _first_ones(by: By, groups: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """As many groups as a person looks through, the newest days or the largest others, and the rest as one."""
    if len(groups) <= MOST_GROUPS:
        return groups
    shown, rest = (
        (groups[-MOST_GROUPS:], groups[:-MOST_GROUPS]) if by == "day" else (groups[:MOST_GROUPS], groups[MOST_GROUPS:])
    )
    figures = ("requests", "errors", "total_tokens", "cost", "unpriced_requests")
    return [*shown, {_OTHERS: True, **{name: sum(group[name] for group in rest) for name in figures}}]


def _unpriced(requests: int) -> str:
    return f", and {plural(requests, 'request')} whose price is unknown" if requests else ""


def _row(by: By, group: Mapping[str, Any]) -> list[str]:
    unknown = "+?" if group["unpriced_requests"] else ""
    return [
        _name(by, group),
        count(group["requests"]),
        count(group["errors"]),
        count(group["total_tokens"]),
        f"{dollars(group['cost'])}{unknown}",
    ]


def _name(by: By, group: Mapping[str, Any]) -> str:
    if _OTHERS in group:
        return "(others)"
    match by:
        case "key":
            return group["name"] or group["key_id"] or "(no key)"
        case "user":
            return group["email"] or group["user_id"] or "(nobody)"
        case _:
            return group[by] or "(none)"


_CSV_FIGURES = (
    "requests",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cost",
    "unpriced_requests",
    "average_duration_ms",
    "average_first_token_ms",
)
_CSV_NAMES: Mapping[By, tuple[str, ...]] = {"key": ("key_id", "name"), "user": ("user_id", "email")}


def _print_csv(by: By, groups: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(
        sys.stdout, [*_CSV_NAMES.get(by, (by,)), *_CSV_FIGURES], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows({**group, **{name: _plain(name, group[name]) for name in _CSV_PLACES}} for group in groups)


_CSV_PLACES: Mapping[str, int] = {"cost": 9, "average_duration_ms": 1, "average_first_token_ms": 1}
"""Figures that are no whole numbers, and how many decimal places say something."""


def _plain(name: str, figure: float | None) -> str:
    """In digits alone, which any spreadsheet reads: never 2e-06."""
    if figure is None:
        return ""
    text = f"{figure:.{_CSV_PLACES[name]}f}"
    return text.rstrip("0").rstrip(".")
