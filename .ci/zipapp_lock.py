"""Write .ci/requirements.lock (what goes into the one-file program) and .ci/build.lock (what builds it).

Run it from the development environment, on purpose and not in a build: ``.venv/bin/python .ci/zipapp_lock.py``. It asks
pip for the newest versions that pyproject.toml allows, and notes the hash of every wheel for every Python and platform
of ``zipapp_targets``, so that a commit is built from the same wheels on any day. A lock names no host: where wheels
come from is the affair of pip's own configuration.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from zipapp_targets import PYTHONS, TARGETS, Target

ROOT = Path(__file__).resolve().parent.parent

BUILD_TOOLS = ("hatchling", "packaging", "pip", "shiv")
"""What ``zipapp_build`` runs or imports. All of it is pure Python, so one hash each serves every machine."""


@dataclass(frozen=True)
class Wheel:
    """One wheel that pip chose."""

    name: str
    version: str
    sha256: str
    requires: Sequence[str]


def choose(requirements: Iterable[str], target: Target, python: str, *, dependencies: bool) -> list[Wheel]:
    """What pip would take for one platform and version of Python."""
    options = ["-qq", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--implementation=cp"]
    options += [f"--python-version={python}", *(f"--platform={tag}" for tag in target.wheel_platforms)]
    options += [] if dependencies else ["--no-deps"]
    with tempfile.TemporaryDirectory() as folder:
        report, wanted = Path(folder, "report.json"), Path(folder, "wanted.txt")
        wanted.write_text("\n".join(requirements))
        options += ["--report", str(report), "--target", folder, "-r", str(wanted)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True)
        chosen = json.loads(report.read_text())["install"]
    return [
        Wheel(
            canonicalize_name(one["metadata"]["name"]),
            one["metadata"]["version"],
            one["download_info"]["archive_info"]["hashes"]["sha256"],
            one["metadata"].get("requires_dist", []),
        )
        for one in chosen
    ]


def pins(roots: Sequence[str], target: Target) -> list[str]:
    """One version of everything that is needed, on any Python.

    pip reads the markers of requirements for the Python that runs it, not for the one it is asked about, so what only
    another Python needs is found here and asked for by name until nothing is missing.
    """
    wanted = list(roots)
    while True:
        wheels = choose(wanted, target, PYTHONS[0], dependencies=True)
        held = {wheel.name for wheel in wheels}
        missing = {
            str(canonicalize_name(needed.name))
            for wheel in wheels
            for needed in map(Requirement, wheel.requires)
            for python in PYTHONS
            if (needed.marker is None or needed.marker.evaluate({**target.marker_environment(python), "extra": ""}))
            and canonicalize_name(needed.name) not in held
        }
        if not missing:
            return sorted(f"{wheel.name}=={wheel.version}" for wheel in wheels)
        wanted += sorted(missing)


def lock(path: Path, title: str, roots: Sequence[str], targets: Sequence[Target], pythons: Sequence[str]) -> None:
    chosen = pins(roots, targets[0])
    hashes: dict[str, set[str]] = {}
    for target in targets:
        for python in pythons:
            for wheel in choose(chosen, target, python, dependencies=False):
                hashes.setdefault(f"{wheel.name}=={wheel.version}", set()).add(wheel.sha256)
            print(f"{path.name}: {target.title}, CPython {python}: every wheel is there", flush=True)
    lines = [f"# {title}", "# Written by .ci/zipapp_lock.py; every hash is that of a wheel.", ""]
    lines += [" \\\n    --hash=sha256:".join([pin, *sorted(hashes[pin])]) for pin in chosen]
    path.write_text("\n".join([*lines, ""]))


def main() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    targets = list(TARGETS.values())
    lock(ROOT / ".ci" / "build.lock", "What builds the one-file program.", BUILD_TOOLS, targets[:1], PYTHONS)
    lock(ROOT / ".ci" / "requirements.lock", "What goes into the one-file program.", wanted, targets, PYTHONS)


if __name__ == "__main__":
    main()
