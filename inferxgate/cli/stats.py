"""``inferxgate stats``: what was asked, of whom, and what it cost."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from inferxgate.canonical.usage import BUCKETS
from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, WrongUsage
from inferxgate.cli.health import circuits_now, state_words
from inferxgate.cli.options import Command, ConfigOption, JsonOption, opened_store
from inferxgate.cli.output import (
    Column,
    ago,
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

if TYPE_CHECKING:
    # Typer carries its own click and exports no name for these types.
    from typer._click import Command as AnyCommand
    from typer._click import Context

    from inferxgate.config import Loaded
    from inferxgate.store.protocol import Store
    from inferxgate.store.records import Disagreement
    from inferxgate.workers.health import CircuitState

By = Literal["model", "provider", "key", "user", "day", "status"]

_BAR_WIDTH = 20
_OTHERS = "others"
MOST_GROUPS = 50
"""How many groups a terminal shows; --json and --csv have all of them."""


class _Stats(TyperGroup):
    """A group that does something by itself: ``stats`` alone reports."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, AnyCommand | None, list[str]]:
        if args[0] not in self.list_commands(ctx):
            raise WrongUsage(f"No such command '{args[0]}': there is {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


app = options.new_app("Show usage and cost.", cls=_Stats)


@app.callback(invoke_without_command=True, subcommand_metavar="[COMMAND]")
def stats(
    ctx: typer.Context,
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From when: 30m, 24h, 7d, or a date such as 2026-11-01.")
    ] = "7d",
    by: Annotated[
        By, typer.Option("--by", metavar="GROUP", help="model, provider, key, user, day or status.")
    ] = "model",
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the groups as CSV.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show usage and cost, of everyone, as the store has it."""
    if ctx.invoked_subcommand is not None:
        if as_json or as_csv:
            raise WrongUsage(f"Write the options of {ctx.invoked_subcommand} behind it")
        return
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
    states = circuits_now(loaded)
    report["targets"] = reports.circuits(states)
    groups = report[f"by_{by}"]
    if as_json:
        print_json(report)
    elif as_csv:
        _print_csv(by, groups)
    else:
        _print_report(by, report, groups, since_ms)
        _print_left_alone([state for state in states if state.state != "closed"])


@app.command(cls=Command)
def verify(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Prove that records, sums and spend agree.

    Adds up again what is kept, while the gateway may go on; the exit code is 1 where anything disagrees.
    """
    from inferxgate import reports
    from inferxgate.gateway.ledger import recover
    from inferxgate.storage import journal_folder

    with opened_store(config) as (loaded, store):
        recover(store, journal_folder(loaded))
        counters = _compare_counters(loaded, store)
        found = reports.verification(store, counters)
    if as_json:
        print_json(found)
    else:
        _print_verification(found)
    if not found["agrees"]:
        number = found["disagreement_count"]
        raise CommandFailed(
            f"{plural(number, 'figure')} of the store {'does' if number == 1 else 'do'} not agree; report this, and"
            " trust the usage records"
        )


def _compare_counters(loaded: Loaded, store: Store) -> tuple[int, Sequence[Disagreement]] | None:
    """What the workers count budgets by, where they have counted: see ``gateway/agreement.py``."""
    from inferxgate.gateway.agreement import compare
    from inferxgate.storage import journal_folder, shared_folder
    from inferxgate.workers.shared import SharedMemory
    from inferxgate.workers.shared_limits import SharedLimits

    folder = shared_folder(loaded)
    if not (folder / "data.mdb").exists():
        return None
    shared = SharedMemory.open(folder)
    try:
        return compare(store, SharedLimits(shared, "verify"), journal_folder(loaded))
    finally:
        shared.close()


def _print_verification(found: Mapping[str, Any]) -> None:
    since, compared = found["records_since"], found["counters"]
    counters = "not compared: none yet, or requests under way, a killed gateway's too"
    if compared is not None:
        counters = f"{count(compared)} of keys and users compared with the spend"
    fields = [
        ("Records", f"{count(found['records'])} added up again{f', of those kept since {since}' if since else ''}"),
        ("Hours", f"{count(found['hours'])} compared with their records"),
        ("Days", f"{count(found['days'])} compared with their hours"),
        ("Spend", f"{count(found['spenders'])} keys and users compared with the days"),
        ("Counters", counters),
        ("Result", "all agree" if found["agrees"] else f"{count(found['disagreement_count'])} disagree"),
    ]
    print_fields(fields)
    if found["disagreements"]:
        print_line()
        print_table(
            [Column("Sum"), Column("Of"), Column("Figure"), right("Expected"), right("Found")],
            [
                [each["what"], each["of"], each["field"], str(each["expected"]), str(each["found"])]
                for each in found["disagreements"]
            ],
        )
    left = found["disagreement_count"] - len(found["disagreements"])
    if left:
        print_line(f"and {count(left)} more")


def _print_report(by: By, report: Mapping[str, Any], groups: Sequence[Mapping[str, Any]], since_ms: int) -> None:
    totals = report["totals"]
    print_line(f"Since {short_time(since_ms, none='')}")
    print_line()
    print_fields(_summary(totals, report["refusals"]))
    if not groups:
        return
    print_line()
    measure = "cost" if totals["cost"] else "total_tokens" if totals["total_tokens"] else "requests"
    columns = [
        Column(by.capitalize()),
        right("Requests"),
        right("Errors", given_up=2),
        right("Tokens"),
        right("Cost"),
        right("p95 ms", given_up=3),
    ]
    if on_terminal():
        groups = _first_ones(by, groups)
    rows = [_row(by, group) for group in groups]
    if on_terminal():
        columns.append(Column(_SHARES[measure], wraps=False, given_up=1))
        most = max(group[measure] for group in groups if _OTHERS not in group)
        for row, group in zip(rows, groups, strict=True):
            row.append("" if _OTHERS in group else bar(group[measure], most, width=_BAR_WIDTH))
    print_table(columns, rows)


def _print_left_alone(states: Sequence[CircuitState]) -> None:
    if not states:
        return
    print_line()
    print_line("Targets that are left alone now:")
    print_line()
    now_ms = time.time_ns() // 1_000_000
    columns = [
        Column("Target"),
        Column("Key", wraps=False, given_up=2),
        Column("State", wraps=False),
        Column("Since", wraps=False, given_up=1),
        Column("Last error"),
    ]
    rows = [
        [
            f"{each.key.provider}/{each.key.model or '*'}",
            each.key.credential,
            state_words(each),
            ago(round(each.since * 1000), now_ms, none=""),
            each.code,
        ]
        for each in states
    ]
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
        fields.append(("Time", _times(totals["average_duration_ms"], totals["duration_percentiles_ms"])))
    if totals["average_first_token_ms"] is not None:
        fields.append(("First token", _times(totals["average_first_token_ms"], totals["first_token_percentiles_ms"])))
    return fields


def _times(average: float, percentiles: Mapping[str, float]) -> str:
    slower = ", ".join(f"{name} {count(round(value))}" for name, value in percentiles.items())
    return f"{count(round(average))} ms on average; {slower}"


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
        count(round(slow["p95"])) if (slow := group.get("duration_percentiles_ms")) else "",
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
    "error_rate",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    *BUCKETS,
    "cost",
    "unpriced_requests",
    "average_duration_ms",
    "average_first_token_ms",
    *(f"{what}_{name}_ms" for what in ("duration", "first_token") for name in ("p50", "p90", "p95", "p99")),
)
_CSV_NAMES: Mapping[By, tuple[str, ...]] = {"key": ("key_id", "name"), "user": ("user_id", "email")}


def _print_csv(by: By, groups: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(
        sys.stdout, [*_CSV_NAMES.get(by, (by,)), *_CSV_FIGURES], extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(map(_csv_row, groups))


def _csv_row(group: Mapping[str, Any]) -> dict[str, Any]:
    row = {**group, **group["tokens"]}
    for what in ("duration", "first_token"):
        for name, value in (group[f"{what}_percentiles_ms"] or {}).items():
            row[f"{what}_{name}_ms"] = _plain(value, 1)
    return {**row, **{name: _plain(group[name], places) for name, places in _CSV_PLACES.items()}}


_CSV_PLACES: Mapping[str, int] = {"error_rate": 6, "cost": 9, "average_duration_ms": 1, "average_first_token_ms": 1}
"""Figures that are no whole numbers, and how many decimal places say something."""


def _plain(figure: float | None, places: int) -> str:
    """In digits alone, which any spreadsheet reads: never 2e-06."""
    if figure is None:
        return ""
    text = f"{figure:.{places}f}"
    return text.rstrip("0").rstrip(".")
