"""What a configuration says of the store, as the store takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferxgate.config import Loaded, load_settings
from inferxgate.errors import StartError
from inferxgate.storage import retention_limits
from inferxgate.store.retention import RetentionLimits


def load(folder: Path, text: str) -> Loaded:
    (folder / "ix.toml").write_text(text, encoding="utf-8")
    return load_settings(config_path=folder / "ix.toml", flags={}, environ={"INFERXGATE_DATA_DIR": str(folder)})


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", RetentionLimits(keep_days=90, keep_rollup_days=400, max_bytes=10 * 1024**3)),
        (
            "[storage]\nkeep_days = 7\nkeep_rollup_days = 30\nmax_mb = 3",
            RetentionLimits(keep_days=7, keep_rollup_days=30, max_bytes=3 * 1024**2),
        ),
        (
            "[storage]\nkeep_days = 0\nkeep_rollup_days = 0\nmax_mb = 0",
            RetentionLimits(keep_days=None, keep_rollup_days=None, max_bytes=None),
        ),
    ],
)
def test_how_long_usage_is_kept(tmp_path: Path, text: str, limits: RetentionLimits) -> None:
    assert retention_limits(load(tmp_path, text)) == limits


@pytest.mark.parametrize("setting", ["keep_days", "keep_rollup_days", "max_mb"])
def test_it_is_never_negative(tmp_path: Path, setting: str) -> None:
    with pytest.raises(StartError, match=f"line 2: storage.{setting}"):
        load(tmp_path, f"[storage]\n{setting} = -1")
