"""One holds the office, and another one after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from inferxgate.workers.election import Election

HOLDS = """
import sys
from pathlib import Path
from inferxgate.workers.election import Election

election = Election(Path(sys.argv[1]))
print(election.won(), flush=True)
sys.stdin.readline()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    first, second = Election(tmp_path / "office"), Election(tmp_path / "office")
    assert first.won()
    assert not second.won()
    assert first.won(), "it stays with whom it was given"
    first.close()
    assert second.won()
    second.close()


def test_a_killed_one_has_a_successor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "office")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    election = Election(tmp_path / "office")
    assert not election.won()
    holder.kill()
    holder.communicate()
    assert election.won()
    election.close()
