"""Work beside the event loop: how much of it at once."""

from __future__ import annotations

import asyncio
import threading
import time

from inferxgate.server.threads import Threads


async def test_what_is_large_is_done_one_after_the_other() -> None:
    threads = Threads()
    lock = threading.Lock()
    together = []

    def work() -> None:
        alone = lock.acquire(blocking=False)
        together.append(not alone)
        time.sleep(0.05)
        if alone:
            lock.release()

    await asyncio.gather(*(threads.in_store_alone(work) for _ in range(4)))
    assert together == [False] * 4
    together.clear()
    await asyncio.gather(*(threads.in_store(work) for _ in range(4)))
    assert any(together), "which anything else is not"
    threads.close()
