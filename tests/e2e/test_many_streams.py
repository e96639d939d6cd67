"""Many paced streams at once through one worker: each arrives whole, and none takes much memory.

``python -m tests.bench.streams`` does it with 2,000 of them.
"""

from __future__ import annotations

from pathlib import Path

import uvloop

from tests.bench import streams
from tests.support.process import GatewayProcess

STREAMS, PIECES, SECONDS = 400, 8, 4.0


def test_many_streams_at_once(tmp_path: Path) -> None:
    with (
        streams.providing(PIECES, SECONDS) as port,
        GatewayProcess(
            tmp_path, config=streams.config(port), before=["sh", "-c", 'ulimit -Sn 64; exec "$0" "$@"']
        ) as it,
    ):
        assert it.process is not None
        pid, key = it.process.pid, it.create_key(*streams.LIMITS)
        uvloop.run(streams.ask(it.port, key, streams.WARM_UP, PIECES, pid=pid))
        figures = uvloop.run(streams.ask(it.port, key, STREAMS, PIECES, pid=pid))
    assert figures.whole == STREAMS
    assert figures.most_open > STREAMS / 2
    assert figures.kb_of_each("pss") < 100
