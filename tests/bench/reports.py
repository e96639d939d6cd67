"""How long reports take over a large store, and what a record costs in bytes: ``python -m tests.bench.reports``.

Fills a store of its own with made-up usage, as many people would leave it: 200 keys of 50 users, busy ones and quiet
ones, each with one to four of 20 models that it likes, over 90 days, with two failures in a hundred. Records are
inserted in bulk into a store of the second schema; the third one's own step sums them up. The store is deleted at the
end.
"""

from __future__ import annotations

import argparse
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from inferxgate import reports
from inferxgate.store import connections, files, migrations
from inferxgate.store.periods import DAY_MS, HOUR_MS
from inferxgate.store.records import UsageFilter
from inferxgate.store.retention import BATCH_ROWS, Retention, RetentionLimits
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import new_record

KEYS, USERS, MODELS, DAYS = 200, 50, 20, 90
SAMPLES = 20_000
END_MS = 1_795_348_800_000 + 34 * 60_000  # in the middle of an hour, so that every span has ragged edges
BEGIN_MS = END_MS - DAYS * DAY_MS

_INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'usage' AND sql IS NOT NULL"
_FILL = """
    WITH RECURSIVE numbers (number) AS (
        VALUES (:first) UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < :last
    )
    INSERT INTO usage
    SELECT
        printf('use_%026d', number), printf('req_%026d', number), :begin + number * :span / :records, samples.*
    FROM numbers CROSS JOIN samples ON samples.rowid = 1 + abs(random()) % :samples
"""
_SAMPLES = """
    CREATE TEMP TABLE samples AS
    SELECT
        status, http_status, error_code, key_id, user_id, end_user, model_asked, model, provider, stream, input_tokens,
        cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, audio_input_tokens, image_input_tokens,
        output_tokens, reasoning_tokens, audio_output_tokens, image_output_tokens, usage_source, cost_nanos,
        price_version, first_token_ms, duration_ms
    FROM usage LIMIT 0
"""
_ADD_SAMPLE = """
    INSERT INTO samples VALUES (?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, ?, 0, 0, 'provider', ?, '1', ?, ?)
"""


def samples(chance: random.Random) -> Iterator[tuple[object, ...]]:
    """Requests without their time."""
    keys = [f"key_{number:026}" for number in range(KEYS)]
    activity = [1 / (number + 1) ** 0.8 for number in range(KEYS)]
    liked = [chance.sample(range(MODELS), chance.choice((1, 1, 2, 3, 4))) for _ in keys]
    for number in chance.choices(range(KEYS), activity, k=SAMPLES):
        model = chance.choice(liked[number])
        failed = chance.random() < 0.02
        first_ms = int(chance.lognormvariate(6.2 + model / 20, 0.5))
        into, out = int(chance.lognormvariate(7, 1.2)), 0 if failed else int(chance.lognormvariate(5.5, 1))
        name, provider = f"model-{model:02}", f"provider-{model % 4}"
        yield (
            *(("provider_error", 502, "upstream_error") if failed else ("ok", 200, None)),
            *(keys[number], f"user_{number % USERS:026}", name, name, provider, chance.random() < 0.7),
            *(into, into // 3, out, out // 4, (into + 4 * out) * (1 + model) * 100),
            *(None if failed else first_ms, first_ms + out * (8 + model)),
        )


def fill(path: Path, records: int) -> None:
    """Make a store as it was before there were sums, and insert so many records, oldest first."""
    files.prepare(path)
    connection = connections.connect(path)
    migrations.migrate(connection, path, migrations=migrations.MIGRATIONS[:2])
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    connection.execute(_SAMPLES)
    connection.executemany(_ADD_SAMPLE, samples(random.Random(1)))
    indexes = [tuple(row) for row in connection.execute(_INDEXES)]
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    chunk = max(records // DAYS, 1)
    for first in range(0, records, chunk):
        numbers = {"first": first, "last": min(first + chunk, records), "records": records, "samples": SAMPLES}
        connection.execute(_FILL, {**numbers, "begin": BEGIN_MS, "span": END_MS - BEGIN_MS})
    connection.execute("INSERT INTO key_spend SELECT key_id, sum(cost_nanos) FROM usage GROUP BY key_id")
    for _, statement in indexes:
        connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def timed(
    what: str, work: Callable[[], object], *, times: int = 3, choose: Callable[[Sequence[float]], float] = min
) -> None:
    """Print the best (or the worst) of so many times, by the clock and by the processor.

    The processor's is what other programs on the machine do not change much.
    """
    taken = []
    for _ in range(times):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - begin, time.process_time() - cpu_begin))
    wall, cpu = (choose(column) * 1000 for column in zip(*taken, strict=True))
    print(f"{what:<46} {wall:10,.1f} ms, {cpu:10,.1f} of the processor", flush=True)


def measure_reports(store: SQLiteStore) -> None:
    for name, days in (("24 hours", 1), ("7 days", 7), ("30 days", 30), ("90 days", 90)):
        everyone = UsageFilter(END_MS - days * DAY_MS + 1, END_MS)
        timed(f"stats of everyone, {name}", partial(reports.stats, store, everyone))
    for name, who in (("user", {"user_id": f"user_{1:026}"}), ("key", {"key_id": f"key_{1:026}"})):
        which = UsageFilter(BEGIN_MS + 1, END_MS, **who)
        timed(f"stats of one {name}, 90 days", partial(reports.stats, store, which))
    month = (END_MS - 30 * DAY_MS) // DAY_MS * DAY_MS
    keys = [f"key_{number:026}" for number in range(KEYS)]
    timed("spend of every key, 30 days", lambda: store.spend_since("key", month))
    timed("spend of every key, all time", lambda: store.spend_by_key(keys, now_ms=END_MS))


def measure_writes(store: SQLiteStore) -> None:
    """Batches of a thousand as the ledger carries them, of a thousand different moments of an hour."""
    chance = random.Random(2)
    drawn = list(samples(chance))
    batches = [
        [
            new_record(
                started_at_ms=END_MS + chance.randrange(HOUR_MS),
                key_id=str(sample[3]),
                user_id=str(sample[4]),
                model=str(sample[6]),
                provider=str(sample[7]),
                duration_ms=chance.randrange(50_000),
            )
            for sample in chance.sample(drawn, 1_000)
        ]
        for _ in range(5)
    ]
    waiting = iter(batches)
    timed("writing a batch of 1,000 records", lambda: store.add_usage(next(waiting), ()), times=len(batches))


def measure_retention(store: SQLiteStore) -> None:
    retention = Retention(store, RetentionLimits(keep_days=DAYS - 1, keep_rollup_days=None, max_bytes=None))
    timed(f"retention, the slowest step of {BATCH_ROWS:,}", lambda: retention.step(END_MS), times=50, choose=max)


def measure_bytes(path: Path, records: int) -> None:
    connection = sqlite3.connect(path)
    sizes = dict(connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
    owners = dict(connection.execute("SELECT name, tbl_name FROM sqlite_master"))
    raw, rolled = (
        sum(size for name, size in sizes.items() if owners.get(name) in tables)
        for tables in ({"usage"}, {"usage_rollups", "usage_series"})
    )
    counts = [
        connection.execute("SELECT count(*) FROM usage_rollups WHERE span_hours = ?", (span,)).fetchone()[0]
        for span in (1, 24)
    ]
    connection.close()
    print(f"records: {raw / records:.0f} bytes each; sums: {rolled / records:.0f} more for each record,")
    print(f"in {counts[0]:,} rows of hours and {counts[1]:,} of days ({rolled / sum(counts):.0f} bytes a row)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made; it is deleted at the end")
    parser.add_argument("--verify", action="store_true", help="prove the sums as well, which reads every record")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "inferxgate.db"
        timed("making the records", lambda: fill(path, asked.records), times=1)
        timed("summing them up, once, at the upgrade", lambda: SQLiteStore.open(path).close(), times=1)
        store = SQLiteStore.open(path)
        print(f"{asked.records:,} records in {path.stat().st_size / 1e6:,.0f} MB")
        measure_bytes(path, asked.records)
        measure_reports(store)
        if asked.verify:
            timed("verifying every sum", store.verify_usage, times=1)
        measure_writes(store)
        measure_retention(store)
        print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        store.close()


if __name__ == "__main__":
    main()
