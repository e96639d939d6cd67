"""Targets that fare badly, as a gateway's workers write it down in its data folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferxgate.providers.openai import ROW
from inferxgate.providers.provider import Provider
from inferxgate.workers.health import HealthPolicy
from inferxgate.workers.shared import SharedMemory
from inferxgate.workers.shared_health import SharedHealth

_POLICY = HealthPolicy(min_failures=1, cooldown_seconds=3_600, max_cooldown_seconds=3_600, set_aside_seconds=36_000)


@contextmanager
def health_in(data_dir: Path) -> Iterator[SharedHealth]:
    """What a worker of a gateway with this data folder says of its targets: a failure is enough to open a circuit."""
    folder = data_dir / "workers"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory = SharedMemory.open(folder)
    try:
        yield SharedHealth(memory, _POLICY)
    finally:
        memory.close()


def digest(api_key: str) -> str:
    """What a credential goes by."""
    return Provider(name="any", row=ROW, base_url="", api_key=api_key).credential
