"""Who is calling, reduced to what the rest of the gateway asks about them."""

from __future__ import annotations

from typing import Literal

from inferxgate.store.records import Role
from inferxgate.values import dataclass
from inferxgate.workers.limits import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """A known credential's holder."""

    kind: Literal["key", "jwt", "operator"]
    """``operator``: whoever runs the command line beside the data folder; no limits."""
    key_id: str | None
    user_id: str | None
    role: Role
    scopes: tuple[Scope, ...]
    """What its requests are counted by, defaults and ceilings applied: the key, and the user behind it."""
    allowed_models: tuple[str, ...] | None
    """Names and wildcards; None: every model."""
    expires_at_ms: int | None
    """When the credential ends, UTC milliseconds; None: never."""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def tenant(self) -> str:
        """Under whom things are remembered that nobody else may see: the user, else the key."""
        if self.user_id is not None:
            return self.user_id
        return self.kind if self.key_id is None else f"key:{self.key_id}"


OPERATOR = Caller(
    kind="operator",
    key_id=None,
    user_id=None,
    role="admin",
    scopes=(),
    allowed_models=None,
    expires_at_ms=None,
)
