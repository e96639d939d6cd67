"""Who is calling, reduced to what the rest of the gateway asks about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inferxgate.store.records import Role


@dataclass(frozen=True, slots=True)
class Caller:
    """A known credential's holder."""

    kind: Literal["key", "jwt", "operator"]
    """``operator``: whoever runs the command line beside the data folder; no limits."""
    subject: str
    """What limits count by: ``key:<id>``, ``user:<id>`` or ``operator``."""
    key_id: str | None
    user_id: str | None
    role: Role
    requests_per_minute: int
    """The limit in force, defaults and ceilings applied; 0: unlimited."""
    allowed_models: tuple[str, ...] | None
    """Names and wildcards; None: every model."""
    expires_at_ms: int | None
    """When the credential ends, UTC milliseconds; None: never."""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


OPERATOR = Caller(
    kind="operator",
    subject="operator",
    key_id=None,
    user_id=None,
    role="admin",
    requests_per_minute=0,
    allowed_models=None,
    expires_at_ms=None,
)
