"""The scripts in .ci: what people are told to type is what is checked, and a failure cannot pass unseen."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CI = ROOT / ".ci"

SERVE = "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/inferxgate serve"
TEST = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest"

SCRIPTS = sorted(
    path for path in CI.iterdir() if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)


def readme_command(which: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(CI / "readme-command"), which], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("which", "line"), [("serve", SERVE), ("test", TEST)])
def test_the_readme_has_the_two_commands_and_ci_takes_them_from_it(which: str, line: str, tmp_path: Path) -> None:
    assert line in (ROOT / "README.md").read_text("utf-8").splitlines()
    done = readme_command(which, tmp_path)
    assert (done.returncode, done.stdout) == (0, line + "\n"), done.stderr


def test_ci_runs_the_tests_by_the_readmes_line_and_in_no_other_way() -> None:
    run = (CI / "run").read_text("utf-8")
    assert "tests=$(.ci/readme-command test)" in run
    assert run.rstrip().endswith('run bash -c "$tests"')
    without_comments = re.sub(r"^\s*#.*$", "", run, flags=re.MULTILINE)
    # the one other place cuts pytest off the line, to install before the tests what lint and types need
    assert without_comments.count("pytest") == without_comments.count('"${tests% && .venv/bin/pytest}"') == 1
    assert 'readme-command" serve' in (CI / "check-first-command").read_text("utf-8")


def test_an_unknown_command_of_the_readme_is_an_error() -> None:
    assert readme_command("deploy").returncode == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_stops_at_its_first_failure(script: Path) -> None:
    text = script.read_text("utf-8")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE), "without it a failing step would be passed over"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_there_are_scripts() -> None:
    assert {"run", "build-zipapp", "find-python", "readme-command", "check-first-command"} <= {s.name for s in SCRIPTS}


def test_a_commit_is_checked_with_nothing_fetched() -> None:
    """Hooks from elsewhere would run code that no lock of ours names."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
    assert "://" not in hooks


def test_the_lock_of_the_node_package_names_no_host() -> None:
    lock = (ROOT / "tests" / "sdk_node" / "package-lock.json").read_text("utf-8")
    assert '"integrity"' in lock
    assert "://" not in lock
