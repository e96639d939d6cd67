"""The Pythons that this machine has, from the search path and from pyenv, asked for their version by running them."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from zipapp_targets import PYTHONS

OTHERS = ("2.7", *(f"3.{minor}" for minor in range(5, 11)), "3.15")
"""Versions that a machine may have and that the one-file program must turn away."""

_QUESTION = "import sys; sys.stdout.write('%d.%d\\n%s' % (sys.version_info[0], sys.version_info[1], sys.executable))"


def _ask(command: str) -> tuple[str, str] | None:
    """(version, path) of a Python; None when it does not run, as pyenv's stand-ins for versions not chosen."""
    try:
        done = subprocess.run([command, "-c", _QUESTION], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    version, _, path = done.stdout.partition("\n")
    return (version, path) if done.returncode == 0 and path else None


@cache
def found() -> dict[str, str]:
    """Version to the path of one Python of that version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    commands = [sys.executable]
    commands += [f"python{version}" for version in (*PYTHONS, *OTHERS)]
    commands += sorted(str(path) for path in pyenv.glob("*/bin/python"))
    versions: dict[str, str] = {}
    for answer in map(_ask, commands):
        if answer:
            versions.setdefault(*answer)
    return versions


def supported() -> list[str]:
    """Paths of the Pythons that the one-file program is for; this one at least."""
    return [path for version, path in found().items() if version in PYTHONS]


def others() -> list[str]:
    """Paths of Pythons that it is not for."""
    return [path for version, path in found().items() if version not in PYTHONS]
