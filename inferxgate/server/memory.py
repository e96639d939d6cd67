"""What a start leaves in memory, and how Python looks after it from then on."""

from __future__ import annotations

import gc


def settle_memory() -> None:
    """Take all that there is now out of later searches for garbage.

    What the start has made stays to the end, and it is most of what there ever is: a full search of it holds up every
    request for tens of milliseconds, and finds nothing.
    """
    gc.collect()
    gc.freeze()
