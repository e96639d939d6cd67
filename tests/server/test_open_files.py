"""The limit on open files: a server has as many as the machine's owner allows, however it was started."""

from __future__ import annotations

import contextlib
import resource
import socket
from pathlib import Path

import pytest

from inferxgate.server.open_files import MOST
from tests.support.process import GatewayProcess

HEALTH = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"


def limited(limits: str) -> list[str]:
    """A shell with these limits, which becomes the program."""
    return ["sh", "-c", f'{limits} && exec "$0" "$@"']


def limits_of(pid: int) -> tuple[str, str]:
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            _, _, _, soft, hard, _ = line.split()
            return soft, hard
    raise AssertionError


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_low_soft_limit_is_raised(tmp_path: Path, workers: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gateway = GatewayProcess(tmp_path, arguments=["--workers", str(workers)], before=limited("ulimit -Sn 64"))
    with gateway, contextlib.ExitStack() as stack:
        assert gateway.process is not None
        serving = [gateway.process.pid, *children_of(gateway.process.pid)]
        assert len(serving) == (1 if workers == 1 else 1 + workers)
        allowed = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
        assert {limits_of(pid)[0] for pid in serving} == {str(allowed)}
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=30)) for _ in range(200)
        ]
        for connection in connections:
            connection.sendall(HEALTH)
        for connection in connections:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert "files open" not in gateway.log


def test_a_low_hard_limit_is_told_with_what_to_do(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, before=limited("ulimit -Sn 64 && ulimit -Hn 264")) as gateway:
        assert gateway.process is not None
        assert limits_of(gateway.process.pid) == ("264", "264")
        assert gateway.stop() == 0
    assert "a worker may have 264 files open, which is enough for about 100 requests at once" in gateway.log
    assert "LimitNOFILE= of systemd" in gateway.log
