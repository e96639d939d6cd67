"""The store that a configuration names, for those who need nothing else; kept light for the command line."""

from __future__ import annotations

from pathlib import Path

from inferxgate.config import Loaded, database_path
from inferxgate.store.retention import RetentionLimits
from inferxgate.store.sqlite import SQLiteStore


def open_store(loaded: Loaded) -> SQLiteStore:
    """The store, created and migrated where needed. Raises ``StartError`` of one line."""
    return SQLiteStore.open(database_path(loaded.settings, loaded.data_dir))


def retention_limits(loaded: Loaded) -> RetentionLimits:
    """How long, and how much, usage is kept."""
    storage = loaded.settings.storage
    return RetentionLimits(
        keep_days=storage.keep_days or None,
        keep_rollup_days=storage.keep_rollup_days or None,
        max_bytes=storage.max_mb * 1024 * 1024 or None,
    )


def journal_folder(loaded: Loaded) -> Path:
    """Where the workers' journals stand."""
    return loaded.data_dir / "journal"


def shared_folder(loaded: Loaded) -> Path:
    """Where the memory stands that all workers share."""
    return loaded.data_dir / "workers"


def reasoning_folder(loaded: Loaded) -> Path:
    """Where thoughts are kept for clients that drop them."""
    return loaded.data_dir / "reasoning"


def model_lists_file(loaded: Loaded) -> Path:
    """Where it is kept what providers said of the models that they have."""
    return loaded.data_dir / "models.json"
