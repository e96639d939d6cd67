"""Work that would hold up the event loop: store calls and password hashes, each in a bounded pool of its own.

They are apart so that someone who tries passwords cannot keep anyone from reading the store.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from inferxgate.errors import TOO_MANY_ATTEMPTS, GatewayError

_MAX_WAITING = 64
"""Sign-ins that may wait for a thread; beyond that, waiting would take longer than clients wait."""

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """The pools of one server."""

    def __init__(self) -> None:
        # Hashing a password takes a quarter of a second of one core on purpose; half of the cores stay for requests.
        hashers = max(1, (os.cpu_count() or 2) // 2)
        self._store = ThreadPoolExecutor(4, thread_name_prefix="store")
        self._passwords = ThreadPoolExecutor(hashers, thread_name_prefix="passwords")
        self._hashing = asyncio.Semaphore(hashers)
        self._large = asyncio.Lock()
        self._waiting = 0

    def close(self) -> None:
        self._store.shutdown(wait=False, cancel_futures=True)
        self._passwords.shutdown(wait=False, cancel_futures=True)

    async def in_store(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store call. Its exceptions pass through."""
        return await asyncio.get_running_loop().run_in_executor(self._store, lambda: work(*args, **kwargs))

    async def in_store_alone(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """``in_store`` for what takes tens of megabytes: one after the other, so that it stays at that."""
        async with self._large:
            return await self.in_store(work, *args, **kwargs)

    async def hash_password(
        self, claim: Callable[[], None], work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``work`` when a thread is free, and ``claim`` right before it.

        ``claim`` may raise; since it runs that late, what waits for a thread claims nothing yet. Raises
        ``GatewayError`` 429 when too many are waiting already.
        """
        if self._waiting >= _MAX_WAITING:
            raise GatewayError(
                TOO_MANY_ATTEMPTS,
                "Too many people are signing in at this moment. Try again shortly.",
                retry_after_seconds=2,
            )
        self._waiting += 1
        try:
            async with self._hashing:
                claim()
                return await asyncio.get_running_loop().run_in_executor(self._passwords, lambda: work(*args, **kwargs))
        finally:
            self._waiting -= 1
