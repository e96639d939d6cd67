"""How targets and their credentials fare, in words."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from inferxgate.cli.output import note

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inferxgate.config import Loaded
    from inferxgate.gateway.explain import CredentialHealth
    from inferxgate.gateway.routing import Target
    from inferxgate.workers.health import CircuitKey, CircuitState

_WORDS = {"open": "open", "half_open": "half-open", "cooling": "cooling", "set_aside": "set aside", "closed": ""}


def circuits_now(loaded: Loaded) -> list[CircuitState]:
    """What the gateway of this data folder has found, running or not; where it cannot be read a note says so."""
    from inferxgate.storage_health import read_circuits
    from inferxgate.workers.shared import SharedUnavailable

    try:
        return read_circuits(loaded)
    except SharedUnavailable as error:
        note(f"How the targets fare cannot be read: {error}")
        return []


def state_words(state: CircuitState) -> str:
    """``open 12 s``, ``half-open``: how it is, and how long yet."""
    word = _WORDS[state.state]
    if state.until is None or state.state == "half_open":
        return word
    return f"{word} {short_duration(max(1, round(state.until - time.time())))}"


def short_duration(seconds: int) -> str:
    """To the nearest of a unit that leaves few digits: ``90 s``, ``9 min``, ``2 h``."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{round(seconds / unit)} {name}"
    return f"{seconds} s"


def credentials_in_words(credentials: Sequence[CredentialHealth]) -> str:
    """How one target fares; empty where it is well."""
    unwell = [each.state for each in credentials if each.state is not None]
    if not unwell:
        return ""
    if len(credentials) == 1:
        return state_words(unwell[0])
    counts = Counter(each.state for each in unwell)
    told = []
    for name, number in counts.items():
        first = min((each for each in unwell if each.state == name), key=lambda each: each.until or 0.0)
        # With several keys "set aside" is what people look for, and not when it ends.
        words = _WORDS[name] if name == "set_aside" else state_words(first)
        told.append(f"{number} of {len(credentials)} keys {words}")
    return ", ".join(told)


def targets_in_words(targets: Sequence[Target], states: Mapping[CircuitKey, CircuitState]) -> str:
    """How what a name leads to fares, in a list that has the targets of aliases below; empty where all is well."""
    words = [credentials_in_words(health_of(target, states)) for target in targets]
    if len(targets) == 1:
        return words[0]
    number = sum(1 for each in words if each)
    return f"{number} of {len(targets)} targets, see below" if number else ""


def unwell(targets: Sequence[Target], states: Mapping[CircuitKey, CircuitState]) -> list[dict[str, Any]]:
    """What is not well of all that a name leads to, for programs."""
    from inferxgate import reports

    found = (each.state for target in targets for each in health_of(target, states))
    return reports.circuits(dict.fromkeys(state for state in found if state is not None))


def health_of(target: Target, states: Mapping[CircuitKey, CircuitState]) -> Sequence[CredentialHealth]:
    """How a target fares with each of its provider's credentials."""
    from inferxgate.gateway.explain import credential_health

    return [credential_health(each, states) for each in target.with_each_key()]
