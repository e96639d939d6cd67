"""The supervisor with workers that do nothing but live and die. A program of its own each time, because it forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import logging, os, select, signal, sys, time
from inferxgate.errors import StartError
from inferxgate.workers.news import NewsPage
from inferxgate.workers.supervisor import Line, Order, Supervisor

logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.INFO)
SPEED = 50  # the supervisor's seconds in one of ours

def say(text):
    os.write(1, f"{text}\\n".encode())

class Lookout:
    every_seconds = 1e6  # never by itself

    def __init__(self):
        self.page = NewsPage()
        self.count = 0

    def look(self, *, asked):
        if not asked:
            return None
        self.count += 1
        self.page.write(b"news %d" % self.count)
        return lambda: say(f"told of {self.count}")

def serve(line, until=(Order.STOP, Order.FORCE, Order.PARENT_IS_GONE)):
    line.ready()
    while True:
        select.select([line], [], [])
        for order in line.orders():
            say(f"{line.number} {order.name}")
            if order is Order.ANNOUNCE:
                line.announced()
            if order is Order.NEWS:
                say(f"{line.number} knows {line.news().decode()}")
            if order in until:
                return

def supervise(count, work, **more):
    try:
        Supervisor(
            count, work, on_stop=lambda: say("stopping"), on_death=lambda number: say(f"{number} died"),
            clock=lambda: time.monotonic() * SPEED, **more,
        ).run()
    except StartError as error:
        say(f"StartError {error}")
    try:
        os.waitpid(-1, os.WNOHANG)
        say("a child is left")
    except ChildProcessError:
        say("done")
"""


def begin(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )


def announced(process: subprocess.Popen[str]) -> str:
    """The line with which one of the workers is told to announce: the first that there is."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line.endswith(" ANNOUNCE"), (line, process.communicate(timeout=60))
    return line


def ended(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """The rest of what it says, and its log."""
    out, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    return out.splitlines(), log


def test_one_of_the_workers_announces_once_all_are_ready() -> None:
    process = begin("supervise(3, serve)")
    announced(process)
    process.send_signal(signal.SIGTERM)
    said, log = ended(process)
    each = [1, 2, 3]
    assert sorted(said[:-1]) == sorted(["stopping", *(f"{n} STOP" for n in each), *(f"{n} died" for n in each)])
    assert said[-1] == "done"
    assert log.count(" is process ") == 3


def test_the_first_worker_starts_alone() -> None:
    """Whatever it finds wrong is told once, and what it makes is there when the others come."""
    process = begin("""
def work(line):
    if line.number == 1:
        time.sleep(0.5)
        raise StartError("the disk is on fire")
    serve(line)
supervise(4, work)
""")
    said, log = ended(process)
    assert said == ["1 died", "stopping", "StartError the disk is on fire", "done"]
    assert log.count(" is process ") == 1


def test_a_later_one_that_cannot_start_ends_the_start() -> None:
    process = begin("""
def work(line):
    if line.number == 3:
        raise StartError("x" * 10_000 + "y")
    serve(line)
supervise(3, work)
""")
    said, _ = ended(process)
    assert {"1 STOP", "2 STOP", "3 died", "stopping"} <= set(said)
    assert said[-2:] == ["StartError " + "x" * 10_000 + "y", "done"]


def test_a_crash_before_anything_is_served_ends_the_start() -> None:
    process = begin("""
def work(line):
    raise ValueError("a fault of ours")
supervise(2, work)
""")
    said, log = ended(process)
    assert said[-2:] == ["StartError a worker ended with exit code 1 before it was ready", "done"]
    assert "ValueError: a fault of ours" in log


def test_a_worker_that_cannot_live_is_replaced_ever_more_slowly() -> None:
    process = begin("""
import tempfile
lived = os.path.join(tempfile.mkdtemp(), "lived")
def work(line):
    if not os.path.exists(lived):
        open(lived, "w").close()
        serve(line, until=(Order.ANNOUNCE,))
    os._exit(3)
supervise(1, work)
""")
    assert process.stderr is not None
    delays = []
    for line in process.stderr:
        if "ended with exit code 3; another one starts in " in line:
            delays.append(line.rpartition("starts in ")[2].strip())
            if len(delays) == 7:
                break
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert delays == ["1 s", "2 s", "4 s", "8 s", "16 s", "30 s", "30 s"]
    process.communicate(timeout=60)


def test_what_a_worker_publishes_is_known_until_it_takes_it_back() -> None:
    process = begin("""
def work(line):
    line.publish(10 * line.number)
    serve(line, until=(Order.ANNOUNCE,))
    while line.missing():
        time.sleep(0.01)
    say(f"fewest {line.fewest()}")
    line.publish(None)
    say(f"fewest {line.fewest()}" if line.fewest() != 0xFFFF_FFFF else "nobody")
    serve(line)
supervise(1, work)
""")
    announced(process)
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["fewest 10", "nobody"]
    process.send_signal(signal.SIGTERM)
    ended(process)


def test_a_worker_learns_that_its_parent_was_killed() -> None:
    process = begin("supervise(3, serve)")
    announced(process)
    process.kill()
    out, _ = process.communicate(timeout=60)  # which ends when the last of them has closed its standard output
    assert sorted(out.splitlines()) == ["1 PARENT_IS_GONE", "2 PARENT_IS_GONE", "3 PARENT_IS_GONE"]


def test_a_second_signal_forces_and_one_within_a_second_does_not() -> None:
    process = begin("""
SPEED = 1
supervise(2, lambda line: serve(line, until=(Order.FORCE,)))
""")
    announced(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert sorted(process.stdout.readline().strip() for _ in range(3)) == ["1 STOP", "2 STOP", "stopping"]
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, _ = ended(process)
    assert sorted(said[:-1]) == ["1 FORCE", "1 died", "2 FORCE", "2 died"]


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_sighup_is_for_the_parent_which_tells_all_workers(send: Callable[[int, int], None]) -> None:
    process = begin("supervise(3, serve, lookout=Lookout())")
    assert process.stdout is not None
    announced(process)
    for number in (1, 2):
        send(process.pid, signal.SIGHUP)
        told = {process.stdout.readline().strip() for _ in range(7)}
        knows = {f"{worker} knows news {number}" for worker in (1, 2, 3)}
        assert told == knows | {f"{worker} NEWS" for worker in (1, 2, 3)} | {f"told of {number}"}
    process.send_signal(signal.SIGTERM)
    out, log = ended(process)
    assert out[-1] == "done"
    assert "another one starts" not in log


def test_a_worker_that_is_not_ready_yet_learns_of_news_when_it_is() -> None:
    process = begin(
        """
def work(line):
    select.select([line], [], [], 60)
    serve(line)
supervise(1, work, lookout=Lookout())
"""
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert "is process" in process.stderr.readline()
    process.send_signal(signal.SIGHUP)
    told = {process.stdout.readline().strip() for _ in range(4)}
    assert told == {"told of 1", "1 NEWS", "1 knows news 1", "1 ANNOUNCE"}
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0][-1] == "done"


def test_without_a_lookout_sighup_changes_nothing() -> None:
    process = begin("supervise(1, serve)")
    announced(process)
    os.killpg(process.pid, signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == ["stopping", "1 STOP", "1 died", "done"]
