"""What differs between two configurations: in words, and which of it a running server cannot take over.

Words name settings and entries, never values: any of them may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import BaseModel

from inferxgate.config import Settings
from inferxgate.config_sources import dotted

_FIXED: Mapping[str, frozenset[str] | None] = {
    "server": frozenset(
        {
            "host",
            "port",
            "workers",
            "public_metrics",
            "trusted_proxies",
            "cors_origins",
            "tls_cert",
            "tls_key",
            "log_format",
        }
    ),
    "auth": frozenset({"jwt_secret"}),
    "storage": None,
    "reasoning": None,
}
"""What is built into a server at its start, by section; None: all of the section."""
_MOST_NAMED = 8


def held(started: Settings, read: Settings) -> tuple[Settings, list[str]]:
    """``read``, but with what a server that has ``started`` cannot change; and the names of what differs of it."""
    updates: dict[str, BaseModel] = {}
    named: list[str] = []
    for section, names in _FIXED.items():
        before, after = getattr(started, section), getattr(read, section)
        fields = [name for name in type(before).model_fields if names is None or name in names]
        changed = {name: getattr(before, name) for name in fields if getattr(before, name) != getattr(after, name)}
        if changed:
            updates[section] = after.model_copy(update=changed)
            named += [dotted((section, name)) for name in changed]
    return read.model_copy(update=updates), named


def difference(before: Settings, after: Settings) -> str:
    """What has changed, in words: ``providers +groq, my-vllm changed; limits.requests_per_minute changed``."""
    parts = []
    single: list[str] = []
    for section in type(before).model_fields:
        old, new = getattr(before, section), getattr(after, section)
        if old == new and not isinstance(old, dict):
            continue
        if isinstance(old, dict):
            words = list(_entries(old, new))
            parts += [f"{section} {_few(words)}"] if words else []
        else:
            single += [
                dotted((section, name)) for name in type(old).model_fields if getattr(old, name) != getattr(new, name)
            ]
    if single:
        parts.append(f"{_few(single)} changed")
    return "; ".join(parts)


def _entries(old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    yield from (f"+{dotted((name,))}" for name in new if name not in old)
    yield from (f"-{dotted((name,))}" for name in old if name not in new)
    yield from (f"{dotted((name,))} changed" for name in new if name in old and old[name] != new[name])
    if [name for name in old if name in new] != [name for name in new if name in old]:
        yield "in another order"  # which decides: the first provider that has a model, the first pattern that fits


def _few(words: Iterable[str]) -> str:
    """The words, or the first of them where they are many."""
    all_of_them = list(words)
    more = len(all_of_them) - _MOST_NAMED
    shown = ", ".join(all_of_them[:_MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
