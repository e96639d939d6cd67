"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.terminal import CommandLine


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """The program with empty folders and an empty configuration."""
    return CommandLine(tmp_path)
