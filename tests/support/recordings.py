"""Recorded exchanges with real providers, where they are to be had.

They are no part of the repository. ``INFERXGATE_RECORDINGS`` names their folder; else ``shared/recordings`` beside the
checkout is looked for. Tests that need them skip where there are none, and say so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MISSING = "no recordings: set INFERXGATE_RECORDINGS, or put them in ../shared/recordings"


@cache
def folder() -> Path | None:
    """Where the recordings are, or None."""
    named = os.environ.get("INFERXGATE_RECORDINGS")
    place = Path(named) if named else Path(__file__).parents[3] / "shared" / "recordings"
    return place if (place / "INDEX.json").is_file() else None


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded exchange."""

    file: str
    provider: str
    api: str
    status: int
    stream: bool

    def load(self) -> dict[str, Any]:
        """The exchange: ``request`` and ``response`` as the recordings' README describes them."""
        place = folder()
        assert place is not None
        exchange: dict[str, Any] = json.loads((place / self.file).read_text())
        return exchange


@cache
def index() -> tuple[Recording, ...]:
    """All recordings; none where there is no folder."""
    place = folder()
    if place is None:
        return ()
    rows = json.loads((place / "INDEX.json").read_text())
    return tuple(
        Recording(row["file"], row["provider"], row["api"], row["status"], bool(row["stream"])) for row in rows
    )


def find(wanted: Callable[[Recording], bool]) -> list[Recording]:
    """The recordings that are wanted, in the order of the index."""
    return [recording for recording in index() if wanted(recording)]
