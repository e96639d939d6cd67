"""How the targets fare, for a process that serves nobody: what the configuration says of it, and what is written."""

from __future__ import annotations

from inferxgate.config import Loaded, Settings
from inferxgate.storage import shared_folder
from inferxgate.workers.health import CircuitState, HealthPolicy
from inferxgate.workers.shared_health import read_states


def build_health_policy(settings: Settings) -> HealthPolicy:
    """What the configuration says about when a target is left alone."""
    routing = settings.routing
    return HealthPolicy(
        window_seconds=routing.window_seconds,
        min_failures=routing.min_failures,
        failure_ratio=routing.failure_ratio,
        cooldown_seconds=routing.cooldown_seconds,
        max_cooldown_seconds=routing.max_cooldown_seconds,
        set_aside_seconds=routing.set_aside_seconds,
    )


def read_circuits(loaded: Loaded) -> list[CircuitState]:
    """The circuits of the gateway that uses this data folder, whether or not it runs. Raises ``SharedUnavailable``."""
    return read_states(shared_folder(loaded), build_health_policy(loaded.settings))
