from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.store.sqlite import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store of this test is."""
    return tmp_path / "data" / "inferxgate.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore.open(path)
    yield opened
    opened.close()
