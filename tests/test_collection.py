"""The tests themselves: every worker of a parallel run has to find the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def collected(seed: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-q", "tests"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_tests_have_the_same_names_in_every_process() -> None:
    first, second = collected("1"), collected("2")
    assert len(first) > 1_000
    changed = set(first) ^ set(second)
    assert not changed, f"random values, times or sets of values in the names of tests: {sorted(changed)[:5]}"
