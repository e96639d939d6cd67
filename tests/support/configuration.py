"""A folder with a configuration file, to read settings from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from inferxgate.config import Loaded, load_settings
from inferxgate.errors import StartError

SECRET = "a-secret-of-more-than-thirty-two-bytes"


class Folder:
    """A folder with a configuration file, and an environment in which only it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "ix.toml"

    def load(
        self, text: str = "", *, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
    ) -> Loaded:
        self.file.write_text(text, encoding="utf-8")
        given = {"INFERXGATE_DATA_DIR": str(self.path / "data"), **(environ or {})}
        return load_settings(config_path=self.file, flags=flags or {}, environ=given)

    def refused(
        self, text: str = "", *, environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
    ) -> str:
        """The line that stops the start, with the folder's own path taken out of it."""
        with pytest.raises(StartError) as stopped:
            self.load(text, environ=environ, flags=flags)
        line = str(stopped.value)
        assert "\n" not in line
        return line.replace(f"{self.path}{os.sep}", "")
