"""Shared memory in a folder of its own; scopes with names of their own keep examples of properties apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.workers.shared import SharedMemory


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedMemory]:
    memory = SharedMemory.open(tmp_path_factory.mktemp("shared"))
    yield memory
    memory.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"
