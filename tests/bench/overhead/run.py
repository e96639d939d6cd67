"""What the gateway costs beside a bare floor, as ratios: ``python -m tests.bench.overhead``, which takes a few minutes.

A provider whose answers are made in advance, and a load that does little more than count, run on one core. On another
one are up at once the gateway with every feature on (a key with limits of requests, tokens and requests at once and a
budget; prices, metrics, records, a log line in JSON for each request) and the floor: the least that a gateway in Python
does, under the same web server, with the same client (``floor`` says what). They are asked for a quarter of a second in
turn (A B B A ...), so that both see the same fast and slow moments of the machine; after a few turns, what the one has
used is divided by what the other has. A ratio is the median of those of several rounds; how far they lie apart is
printed beside it.

What is counted is the processor's time of the whole tree of processes, from the moment when all connections stand until
everything is at rest again, so that what is put off until after the answer counts as well. Every answer is looked at: a
wrong one ends the program with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.overhead import wire
from tests.bench.overhead.load import Burst, Heard, Turns, generate
from tests.bench.overhead.processes import (
    REST_SECONDS,
    Cores,
    Server,
    Used,
    cores,
    floor_command,
    helper,
    machine_seconds,
    memory_mib,
    own_seconds,
    started_on,
)
from tests.bench.overhead.provider import provide
from tests.support.process import GatewayProcess, program, provider_section

LIMITS = ("--rpm", "1000000000", "--tpm", "1000000000", "--parallel", "100000", "--budget", "1000000")
GROUPS = ("whole", "prompt", "translated", "streams", "first", "workers", "start", "memory")
_ROOT = Path(__file__).resolve().parents[3]
_CONNECTIONS = 16
_PAUSE_SECONDS = 0.02
_TURN_SECONDS = 0.25


# --- what is compared


@dataclass(frozen=True)
class Side:
    """One side of a comparison: who is asked, and what."""

    who: str
    """floor, gateway, workers (a gateway with two), or direct: nobody is between the load and the provider."""
    model: str
    connections: int
    prompt_bytes: int = 0


@dataclass(frozen=True)
class How:
    """How long a turn lasts, as ``Burst`` has it, and how many there are."""

    times: int
    seconds: float = 0.0
    requests: int = 0
    stagger_seconds: float = 0.0
    pause_seconds: float = 0.0

    @classmethod
    def of(cls, side: Side, seconds: float) -> How:
        """What comes to about so many seconds for each side; a paced stream is not cut short."""
        if side.model.endswith("paced"):
            lasts = wire.CHUNKS * wire.PACE_SECONDS
            stagger = lasts * (side.connections - 1) / side.connections
            return cls(max(1, round(2 * seconds)), requests=side.connections, stagger_seconds=stagger)
        times = max(1, round(seconds / _TURN_SECONDS))
        return cls(times, seconds=seconds / times)


@dataclass(frozen=True)
class Comparison:
    """One row of the table."""

    group: str
    title: str
    against: str
    """What the base is."""
    base: Side
    side: Side
    everywhere: bool = False
    """Whether both run on all cores."""

    @property
    def chunks(self) -> int:
        """In each answer; 0: it is not streamed."""
        return wire.texts_of(self.side.model)

    @property
    def unit(self) -> str:
        return "µs a chunk" if self.chunks else "ms a request"

    def scaled(self, sample: Sample) -> float:
        return sample.cpu_ms * 1_000 / self.chunks if self.chunks else sample.cpu_ms


FLOOR = "the floor"


def _to_floor(group: str, title: str, model: str, connections: int, prompt_bytes: int = 0) -> Comparison:
    base, side = (Side(who, model, connections, prompt_bytes) for who in ("floor", "gateway"))
    return Comparison(group, title, FLOOR, base, side)


def _translated(title: str, model: str) -> Comparison:
    """OpenAI's API at the front, Anthropic's at the back; of a second gateway, so that both can take turns."""
    base = Side("gateway", model, _CONNECTIONS)
    side = Side("gateway-2", f"translated-{model}", _CONNECTIONS)
    return Comparison("translated", title, "passed through", base, side)


COMPARISONS: Sequence[Comparison] = (
    _to_floor("whole", "whole, 1 connection", "whole", 1),
    _to_floor("whole", "whole, 16 connections", "whole", 16),
    _to_floor("whole", "whole, 64 connections", "whole", 64),
    _to_floor("prompt", "whole, a prompt of 300 kB", "whole", _CONNECTIONS, wire.PROMPT_BYTES),
    _to_floor("streams", "stream, all chunks at once", "burst", _CONNECTIONS),
    _to_floor("streams", "stream, paced", "paced", _CONNECTIONS),
    _translated("whole, translated", "whole"),
    _translated("stream at once, translated", "burst"),
    _translated("stream paced, translated", "paced"),
    Comparison(
        "workers",
        "whole, two workers",
        "one worker",
        Side("gateway", "whole", _CONNECTIONS),
        Side("workers", "whole", _CONNECTIONS),
        everywhere=True,
    ),
)


@dataclass(frozen=True)
class Sample:
    """One side in one round."""

    title: str
    round: int
    side: Side
    heard: Heard
    cpu_ms: float
    """A request."""
    cpu_ms_ticks: float


@dataclass(frozen=True)
class Row:
    """Both sides' medians, and the ratios of each round."""

    title: str
    against: str
    base: float
    side: float
    ratios: Sequence[float]

    @classmethod
    def of(cls, title: str, against: str, pairs: Sequence[tuple[float, float]]) -> Row:
        bases, sides = zip(*pairs, strict=True)
        ratios = [side / base for base, side in pairs if base > 0]  # noise may be more than what the floor adds
        return cls(title, against, statistics.median(bases), statistics.median(sides), ratios)

    def __str__(self) -> str:
        ratio = "? | ?"
        if self.ratios:
            ratio = f"{statistics.median(self.ratios):.2f} | {min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return f"| {self.title} | {self.against} | {_short(self.base)} | {_short(self.side)} | {ratio} |"


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


# --- the set-up


def config(provider: str) -> str:
    """Every model of ``wire.PATHS``, under an alias, of a provider with prices."""
    parts = []
    for model, path in wire.PATHS.items():
        base, target = provider + path.removesuffix("/chat/completions"), wire.OPENAI_MODEL
        if model.startswith("translated"):
            base, target = provider + path.removesuffix("/v1/messages"), wire.ANTHROPIC_MODEL
            parts.append(f'[providers.of-{model}]\ntype = "anthropic"\napi_key = "sk-provider"\nbase_url = "{base}"\n')
        else:
            parts.append(provider_section(f"of-{model}", base, api_key="sk-provider"))
        parts.append(f'[models.{model}]\ntargets = ["of-{model}/{target}"]\n')
    return "".join(parts) + '[pricing."of-*/*"]\ninput = 0.15\noutput = 0.6\n'


class Bench:
    """All that is up, and the figures so far."""

    def __init__(
        self, folder: Path, provider_port: int, load: Connection, where: Cores, *, rest_seconds: float = REST_SECONDS
    ) -> None:
        self._folder = folder
        self._rest_seconds = rest_seconds
        self._provider_port = provider_port
        self._load = load
        self.cores = where
        self._servers: dict[str, Server] = {}
        self._keys: dict[str, str] = {"direct": "sk-provider"}
        self.samples: list[Sample] = []
        self.rows: list[Row] = []
        self.wrong: list[str] = []

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()

    def server(self, who: str) -> Server:
        """A running one; ``who`` may be any name that begins with floor, gateway or workers."""
        if who not in self._servers:
            self._servers[who], self._keys[who] = self.new_server(who)
            self._servers[who].start(self.cores.all if who == "workers" else self.cores.measured)
        return self._servers[who]

    def new_server(self, who: str) -> tuple[Server, str]:
        """One that was not started, and a key for it."""
        provider = f"http://127.0.0.1:{self._provider_port}"
        if who.startswith("floor"):
            key = "sk-" + who
            given = {"FLOOR_PROVIDER": provider, "FLOOR_KEY_SHA256": sha256(key.encode()).hexdigest()}
            environment = {**os.environ, **given, "PYTHONPATH": str(_ROOT)}
            return self._new(floor_command(), environment), key
        beside = GatewayProcess(self._folder / who, config=config(provider))
        key = beside.create_key("--name", "load", *LIMITS)
        workers = ["--workers", "2"] if who == "workers" else []
        command = [*program(), "serve", "--port", "{port}", "--log-format", "json", *workers]
        return self._new(command, beside.environment), key

    def _new(self, command: Sequence[str], environment: Mapping[str, str]) -> Server:
        return Server(command, environment=environment, folder=self._folder, rest_seconds=self._rest_seconds)

    def ask(
        self, title: str, number: int, sides: Sequence[Side], how: How, *, everywhere: bool = False
    ) -> Sequence[Sample]:
        """Let the sides take turns; ``number`` is the round's."""
        servers = {side.who: self.server(side.who) for side in sides if side.who != "direct"}
        with self._moved(servers.values() if everywhere else ()):
            self._load.send(Turns([self._burst(side, how) for side in sides], how.times))
            self._load.recv()
            before = {who: server.rest() for who, server in servers.items()}
            self._load.send(None)
            heard: Sequence[Heard] = self._load.recv()
            used = {who: server.rest() - before[who] for who, server in servers.items()}
        samples = []
        for side, each in zip(sides, heard, strict=True):
            if each.bad:
                self.wrong.append(f"{title}, {side.who}: {each.bad} answers are wrong, such as {each.complaint}")
            of_all = used.get(side.who, Used(0, 0))
            cpu, ticks = (1_000 * seconds / max(each.whole, 1) for seconds in (of_all.exact, of_all.ticks))
            samples.append(Sample(title, number, side, each, cpu, ticks))
        self.samples += samples
        return samples

    def _burst(self, side: Side, how: How) -> Burst:
        is_direct = side.who == "direct"
        path = wire.PATHS[side.model] if is_direct else "/v1/chat/completions"
        return Burst(
            port=self._provider_port if is_direct else self.server(side.who).port,
            request=wire.request(side.model, key=self._keys[side.who], path=path, prompt_bytes=side.prompt_bytes),
            texts=wire.texts_of(side.model),
            connections=side.connections,
            seconds=how.seconds,
            requests=how.requests,
            stagger_seconds=how.stagger_seconds,
            pause_seconds=how.pause_seconds,
        )

    @contextlib.contextmanager
    def _moved(self, servers: Collection[Server]) -> Iterator[None]:
        """On all cores within, and on the measured one again afterwards."""
        for server in servers:
            server.move(self.cores.all)
        yield
        for server in servers:
            server.move(self.cores.measured)


# --- the measurements


def compare(bench: Bench, wanted: Sequence[Comparison], rounds: int, seconds: float) -> None:
    """Processor time: all comparisons once, then all of them again."""
    pairs: dict[Comparison, list[tuple[float, float]]] = {comparison: [] for comparison in wanted}
    for number in range(rounds):
        for each in wanted:
            how = How.of(each.side, seconds)
            base, side = bench.ask(each.title, number, (each.base, each.side), how, everywhere=each.everywhere)
            pairs[each].append((each.scaled(base), each.scaled(side)))
        _tell(f"round {number + 1} of {rounds} is done")
    bench.rows += [Row.of(f"{each.title}, {each.unit}", each.against, pairs[each]) for each in wanted]


def first_chunk(bench: Bench, rounds: int, seconds: float) -> None:
    """What is added to the time until the first chunk, at one connection that pauses between its requests."""
    title, pairs, alone = "first chunk, one connection", [], []
    sides = [Side(who, "first", 1) for who in ("direct", "floor", "gateway")]
    how = replace(How.of(sides[0], 2 * seconds), pause_seconds=_PAUSE_SECONDS)
    for number in range(rounds):
        direct, floor, gateway = (sample.heard.first_ms for sample in bench.ask(title, number, sides, how))
        pairs.append((floor - direct, gateway - direct))
        alone.append(direct)
    bench.rows.append(Row.of(f"{title}, ms more than the {statistics.median(alone):.2f} without", FLOOR, pairs))


def starts(bench: Bench, count: int) -> None:
    """From exec to the first 200 of /health, and the memory then; the gateway's data folder is there already."""
    servers = [bench.new_server(who)[0] for who in ("floor-start", "gateway-start")]
    seconds: list[tuple[float, float]] = []
    mib: list[tuple[float, float]] = []
    for number in range(-1, count):
        (floor_seconds, floor_mib), (gateway_seconds, gateway_mib) = (_started(server, bench) for server in servers)
        if number >= 0:  # the one before makes the database and the compiled files
            seconds.append((floor_seconds, gateway_seconds))
            mib.append((floor_mib, gateway_mib))
    bench.rows.append(Row.of("from exec to the first answer, seconds", FLOOR, seconds))
    bench.rows.append(Row.of("resident, idle, MiB", FLOOR, mib))


def _started(server: Server, bench: Bench) -> tuple[float, float]:
    seconds = server.start(bench.cores.measured)
    server.rest()
    mib = memory_mib(server.pid)
    server.stop()
    return seconds, mib


def memory(bench: Bench, requests: Sequence[int]) -> Mapping[int, float]:
    """MiB resident in a gateway that nothing else has asked, after so many requests."""
    side = Side("gateway-memory", "whole", _CONNECTIONS)
    server = bench.server(side.who)
    server.rest()
    found = {0: memory_mib(server.pid)}
    for total in requests:
        more = total - max(found) - _CONNECTIONS  # each connection begins with one
        bench.ask(f"memory, {total} requests", 0, [side], How(1, requests=more))
        found[total] = memory_mib(server.pid)
        _tell(f"{total} requests are done")
    return found


# --- what is printed


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def tell_rows(bench: Bench) -> None:
    print("\n| what | against | that takes | the gateway | ratio | least to most |\n|---|---|---|---|---|---|")
    print(*bench.rows, sep="\n")


def tell_memory(found: Mapping[int, float]) -> None:
    print("\n| requests | the gateway's memory, MiB resident |\n|---|---|")
    print(*(f"| {total:,} | {mib:.1f} |" for total, mib in found.items()), sep="\n")
    *_, before, last = found.values()
    print(f"\nThe last of these requests have made it grow by {last - before:.1f} MiB.")


def tell_machine(where: Cores, begin: tuple[float, float], own: float) -> Mapping[str, object]:
    """How much other programs disturbed it."""
    busy, total = (now - then for now, then in zip(machine_seconds(), begin, strict=True))
    others = max(0.0, (busy - (own_seconds() - own)) / total) if total else 0.0
    machine = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "measured_on": sorted(where.measured),
        "helpers_on": sorted(where.helpers),
        "load_average": os.getloadavg(),
        "others": others,
    }
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(
        f"\nPython {machine['python']}, {machine['cores']} cores; measured on {machine['measured_on']}, load and"
        f" provider on {machine['helpers_on']}. Load average at the end {loads}; other programs (or the host) took"
        f" {others:.0%} of the machine's time meanwhile."
    )
    return machine


# --- the program


def _names(text: str) -> Sequence[str]:
    names = text.split(",")
    if unknown := set(names) - set(GROUPS):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    return names


def _counts(text: str) -> Sequence[int]:
    return sorted(int(part.replace("_", "")) for part in text.split(","))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_names, help=f"some of {', '.join(GROUPS)}; else all but memory")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=1, help="that each side is asked in a round (default: %(default)s)"
    )
    parser.add_argument("--starts", type=int, default=5, help="of each side (default: %(default)s)")
    parser.add_argument(
        "--rest",
        type=float,
        default=REST_SECONDS,
        help="seconds to be idle before and after a measurement (default: %(default)s)",
    )
    parser.add_argument("--memory", action="store_true", help="measure memory as well, which takes minutes")
    parser.add_argument(
        "--requests",
        type=_counts,
        default=(10_000, 100_000),
        metavar="N,N",
        help="after how many requests memory is read (default: 10000,100000)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures, of every round")
    asked = parser.parse_args(argv)
    asked.only = list(asked.only or GROUPS[:-1]) + (["memory"] if asked.memory else [])
    return asked


def measure(bench: Bench, asked: argparse.Namespace) -> Mapping[int, float] | None:
    if wanted := [comparison for comparison in COMPARISONS if comparison.group in asked.only]:
        compare(bench, wanted, asked.rounds, asked.seconds)
    if "first" in asked.only:
        first_chunk(bench, asked.rounds, asked.seconds)
    if "start" in asked.only:
        starts(bench, asked.starts)
    return memory(bench, asked.requests) if "memory" in asked.only else None


def main(argv: Sequence[str] | None = None) -> int:
    asked, where = _arguments(argv), cores()
    begin, own, wall = machine_seconds(), own_seconds(), time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(started_on(where.helpers))  # this process looks on, so it stays there as well
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="overhead-")))
        provider_port = stack.enter_context(helper(provide, where.helpers)).recv()
        load = stack.enter_context(helper(generate, where.helpers))
        bench = Bench(folder, provider_port, load, where, rest_seconds=asked.rest)
        stack.callback(bench.close)
        held = measure(bench, asked)
        if bench.rows:
            tell_rows(bench)
        if held is not None:
            tell_memory(held)
        machine = tell_machine(where, begin, own)
    print(f"It took {time.monotonic() - wall:.0f} seconds.")
    if asked.json:
        rows = [asdict(row) for row in bench.rows]
        figures = {"machine": machine, "rows": rows, "memory": held}
        asked.json.write_text(json.dumps({**figures, "samples": [asdict(each) for each in bench.samples]}, indent=1))
    print(*bench.wrong, sep="\n", file=sys.stderr)
    return 1 if bench.wrong else 0
