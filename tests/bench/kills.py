"""Kills a gateway under load, over and over, and audits its books.

``python -m tests.bench.kills --rounds 20 --rate 200`` takes a few minutes. It ends with exit code 1 where anything is
missing, doubled or left behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support import kills

_TOLD = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, of all clients together")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two kills, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = kills.run(
            Path(folder),
            rounds=options.rounds,
            rate=options.rate,
            pause_seconds=options.pause,
            seed=options.seed,
            say=lambda line: print(line, flush=True),
        )
    rows = {
        "rounds": f"{outcome.rounds:,}",
        "workers killed": f"{outcome.worker_kills:,}",
        "groups killed": f"{outcome.group_kills:,}",
        "requests": f"{outcome.requests:,}",
        "requests a second": f"{outcome.rate:.1f}",
        "answers a second while it was up": f"{outcome.answer_rate:.1f}",
        "answers received whole": f"{outcome.completed:,}",
        "recorded as lost with their worker": f"{outcome.lost:,}",
        "answers missing from the ledger": f"{len(outcome.missing):,}",
        "requests without any record": f"{len(outcome.unaccounted):,}",
        "duplicates": f"{len(outcome.duplicates):,}",
        "reservations left": f"{outcome.reservations:,}",
        "sums that do not agree": f"{len(outcome.spend):,}",
    }
    for name, value in rows.items():
        print(f"{name:<40} {value:>10}")
    wrong = [*outcome.missing, *outcome.unaccounted, *outcome.duplicates, *outcome.spend]
    for line in [*wrong[:_TOLD], outcome.verification.strip()]:
        if line:
            print(line)
    return 1 if wrong or outcome.reservations or outcome.verification else 0


if __name__ == "__main__":
    sys.exit(main())
