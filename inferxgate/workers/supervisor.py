"""Several processes that serve as one: who starts them, replaces them, and sees them off.

Strategy: the parent has one thread, no event loop and nothing to do with requests, so it can fork at any time. Each
worker has a number, which its replacement inherits, and a socket pair to the parent. Over it a worker tells that it is
ready or why it cannot start, and the parent tells it to stop. Its end means that the other side is gone, however that
came about: the kernel closes it also for a process that was killed.

The first worker starts alone. It makes what is missing (the database, a secret) and meets what is wrong, so that this
is told once; the others follow when it is ready.

A signal to the whole process group is the same as one to the parent: to a worker it means to finish and to stop, which
the parent says as well. What means more than that, an end at once, comes through the socket pair only. SIGHUP means
something to the parent alone: see ``Lookout``.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import logging
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn, Protocol

from inferxgate.errors import StartError
from inferxgate.values import dataclass
from inferxgate.workers.news import NewsPage
from inferxgate.workers.terminal import Terminal

SAME_SIGNAL_SECONDS = 1.0
"""A second signal within this time is the first one delivered twice, as a service manager and a terminal do."""

_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOPPING_SIGNALS, signal.SIGHUP)
_SHORT_LIFE_SECONDS = 5.0
"""A worker that ends sooner is replaced with a delay, so that one that cannot live does not keep a core busy."""
_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0
_ABSENT = 0xFFFF_FFFF
_READY, _ANNOUNCED, _FAILED = b"r", b"a", b"e"

log = logging.getLogger("inferxgate.server")


class Order(enum.Enum):
    """What a worker is told."""

    STOP = b"s"
    FORCE = b"f"
    ANNOUNCE = b"a"
    """Say to people that the server listens: all workers do, and one of them says it."""
    NEWS = b"n"
    """There is something new on the page that all share."""
    PARENT_IS_GONE = b""


class Lookout(Protocol):
    """What the parent looks for beside its workers, to tell them."""

    page: NewsPage
    """Where it writes what they are to know."""
    every_seconds: float
    """How often it is asked to look."""

    def look(self, *, asked: bool) -> Callable[[], None] | None:
        """None where there is nothing new; else what to call once the workers have been told to look at the page.

        ``asked``: by SIGHUP. Must not raise, and keeps the parent from its workers for as long as it takes.
        """


class _Board:
    """A page of memory that the parent and all workers share: how many serve, and how many connections each has."""

    def __init__(self, count: int) -> None:
        self._page = mmap.mmap(-1, 4 * (1 + count))
        self._connections = struct.Struct(f"={count}I")
        self._connections.pack_into(self._page, 4, *[_ABSENT] * count)

    @property
    def missing(self) -> int:
        return int.from_bytes(self._page[:4], "little")

    @missing.setter
    def missing(self, count: int) -> None:
        self._page[:4] = count.to_bytes(4, "little")

    def publish(self, number: int, connections: int) -> None:
        self._page[4 * number : 4 * number + 4] = connections.to_bytes(4, sys.byteorder)

    def fewest(self) -> int:
        return int(min(self._connections.unpack_from(self._page, 4)))


class Line:
    """A worker's end of the socket pair, and its number."""

    def __init__(self, number: int, sock: socket.socket, board: _Board, page: NewsPage | None) -> None:
        self.number = number
        self._sock = sock
        self._board = board
        self._page = page

    def fileno(self) -> int:
        """What becomes readable when there is an order."""
        return self._sock.fileno()

    def ready(self) -> None:
        self._tell(_READY)

    def announced(self) -> None:
        self._tell(_ANNOUNCED)

    def failed(self, why: str) -> None:
        """Say why this worker cannot start; its process ends now."""
        self._tell(_FAILED + why.encode("utf-8", "replace"))

    def orders(self) -> list[Order]:
        """The orders that have come. Does not wait."""
        try:
            said = self._sock.recv(64)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            said = b""
        return [Order(said[at : at + 1]) for at in range(len(said))] or [Order.PARENT_IS_GONE]

    def news(self) -> bytes | None:
        """The latest of what the parent has written; None where there is nothing yet, or where it just writes."""
        return self._page.read() if self._page is not None else None

    def missing(self) -> int:
        """How many of the workers do not serve at this moment."""
        return self._board.missing

    def publish(self, connections: int | None) -> None:
        """Tell the other workers how many connections this one has; None where it takes no more."""
        self._board.publish(self.number, _ABSENT if connections is None else connections)

    def fewest(self) -> int:
        """How many connections the worker has that has the fewest."""
        return self._board.fewest()

    def _tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, which the next look at the orders shows
            self._sock.sendall(message)


@dataclass
class _Worker:
    """A living worker, as the parent knows it."""

    pid: int
    sock: socket.socket
    started_at: float
    ready: bool = False
    failure: bytes | None = None
    """Why it cannot start, as far as it has been read."""


@dataclass
class _Place:
    """One of the workers that there should be."""

    number: int
    worker: _Worker | None = None
    start_at: float = 0.0
    delay_seconds: float = 0.0


class Supervisor:
    """Keeps a number of workers at work until a signal comes."""

    def __init__(
        self,
        count: int,
        work: Callable[[Line], None],
        *,
        on_stop: Callable[[], None],
        on_death: Callable[[int], None],
        lookout: Lookout | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``work`` is a worker's whole life, in a process of its own, and may raise ``StartError`` until it is ready.

        ``on_stop`` is called once, when stopping begins; ``on_death`` with the number of each worker that has ended.
        """
        self._work = work
        self._on_stop = on_stop
        self._on_death = on_death
        self._lookout = lookout
        self._clock = clock
        self._look_at = clock()
        self._hung_up = False
        self._terminal = Terminal()
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._board = _Board(count)
        self._wakes, self._wake = socket.socketpair()
        self._signals: list[float] = []
        self._asked_at: float | None = None
        self._forced = False
        self._announced = False
        self._failure: str | None = None

    def run(self) -> None:
        """Return when all workers have ended after a signal. Raises ``StartError`` where one could not start."""
        gc.collect()
        gc.freeze()  # what is loaded now stays shared: the workers' collectors would otherwise write to all of it
        with self._heeding_signals():
            while True:
                self._heed_signals()
                self._look_out()
                self._start_what_is_due()
                self._count_missing()
                if self._asked_at is not None and not self._living():
                    break
                self._listen()
        if self._failure is not None:
            raise StartError(self._failure)

    # --- what the workers say

    def _listen(self) -> None:
        """Wait for a word or the end of a worker, for a signal, or until a worker is due."""
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        places = {place.worker.sock.fileno(): place for place in self._places if place.worker is not None}
        for descriptor in places:
            poll.register(descriptor, select.POLLIN)
        heard = poll.poll(self._patience_ms())
        self._heed_signals()  # first, so that a worker that ended by the same signal is not taken for a dead one
        for descriptor, _ in heard:
            if place := places.get(descriptor):
                self._hear(place)
            else:
                with contextlib.suppress(BlockingIOError):
                    self._wakes.recv(64)

    def _patience_ms(self) -> int | None:
        due = [place.start_at for place in self._places if self._is_awaited(place)]
        if self._lookout is not None and self._asked_at is None:
            due.append(self._look_at)
        return max(0, int((min(due) - self._clock()) * 1000) + 1) if due else None

    def _is_awaited(self, place: _Place) -> bool:
        """Whether only time keeps a worker from being started."""
        return place.worker is None and self._asked_at is None and (place.number == 1 or self._may_follow())

    def _may_follow(self) -> bool:
        return self._announced or any(worker.ready for worker in self._living())

    def _hear(self, place: _Place) -> None:
        worker = place.worker
        if worker is None:
            return
        try:
            said = worker.sock.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        if not said:
            self._ended(place, worker)
        elif worker.failure is not None:
            worker.failure += said
        else:
            words, failed, why = said.partition(_FAILED)
            worker.failure = why if failed else None
            worker.ready = worker.ready or _READY in words
            self._announced = self._announced or _ANNOUNCED in words
            self._announce(worker)

    def _announce(self, worker: _Worker) -> None:
        if not self._announced and self._asked_at is None and all(p.worker and p.worker.ready for p in self._places):
            self._order(worker, Order.ANNOUNCE)

    def _ended(self, place: _Place, worker: _Worker) -> None:
        worker.sock.close()  # nobody else holds its other end, so the process has ended or is about to
        _, status = os.waitpid(worker.pid, 0)
        place.worker = None
        self._board.publish(place.number, _ABSENT)
        self._on_death(place.number)
        if self._asked_at is not None:
            return
        code = os.waitstatus_to_exitcode(status)
        said = "" if worker.failure is None else f": {worker.failure.decode('utf-8', 'replace')}"
        if not self._announced and (said or (code > 0 and not worker.ready)):
            self._failure = said[2:] or f"a worker ended with exit code {code} before it was ready"
            self._begin_to_stop()
            return
        now = self._clock()
        if now - worker.started_at < _SHORT_LIFE_SECONDS:
            place.delay_seconds = min(max(_FIRST_DELAY_SECONDS, 2 * place.delay_seconds), _LONGEST_DELAY_SECONDS)
        else:
            place.delay_seconds = 0.0
        place.start_at = now + place.delay_seconds
        when = f"in {place.delay_seconds:g} s" if place.delay_seconds else "now"
        log.warning(
            "worker %d (process %d) %s%s; another one starts %s", place.number, worker.pid, _end(code), said, when
        )

    # --- what the workers are told

    def _order(self, worker: _Worker, order: Order) -> None:
        with contextlib.suppress(OSError):  # it has just ended, or is stuck so thoroughly that its buffer is full
            worker.sock.send(order.value)

    def _look_out(self) -> None:
        asked, now = self._hung_up, self._clock()
        if self._lookout is None or self._asked_at is not None or not (asked or now >= self._look_at):
            return
        self._hung_up = False
        self._terminal.look()
        told = self._lookout.look(asked=asked)
        self._look_at = self._clock() + self._lookout.every_seconds
        if told is not None:
            for worker in self._living():
                self._order(worker, Order.NEWS)
            told()

    def _living(self) -> list[_Worker]:
        return [place.worker for place in self._places if place.worker is not None]

    def _count_missing(self) -> None:
        serving = sum(worker.ready for worker in self._living())
        self._board.missing = len(self._places) - serving

    def _begin_to_stop(self) -> None:
        self._asked_at = self._clock()
        self._on_stop()
        for worker in self._living():
            self._order(worker, Order.STOP)

    # --- signals

    @contextlib.contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        for sock in (self._wakes, self._wake):
            sock.settimeout(0)
        before = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wakes.close()
            self._wake.close()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._terminal.has_just_gone():
            self._hung_up = True
        else:
            self._signals.append(self._clock())

    def _heed_signals(self) -> None:
        signals, self._signals = self._signals, []
        for at in signals:
            if self._asked_at is None:
                self._begin_to_stop()
            elif not self._forced and at - self._asked_at >= SAME_SIGNAL_SECONDS:
                self._forced = True
                for worker in self._living():
                    self._order(worker, Order.FORCE)
                for number in _STOPPING_SIGNALS:  # the third one ends the parent as it would any other program
                    signal.signal(number, signal.SIG_DFL)

    # --- births

    def _start_what_is_due(self) -> None:
        now = self._clock()
        for place in self._places:
            if self._is_awaited(place) and place.start_at <= now:
                self._start(place)

    def _start(self, place: _Place) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal must find the parent's handlers or the worker's, never the parent's in the worker.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            ours.close()
            theirs.close()
            self._not_forked(place, error)
            return
        if pid == 0:
            ours.close()
            self._live(place, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.settimeout(0)
        place.worker = _Worker(pid, ours, self._clock())
        log.info("worker %d is process %d", place.number, pid)

    def _not_forked(self, place: _Place, error: OSError) -> None:
        place.delay_seconds = min(max(_FIRST_DELAY_SECONDS, 2 * place.delay_seconds), _LONGEST_DELAY_SECONDS)
        place.start_at = self._clock() + place.delay_seconds
        log.error(
            "worker %d cannot be started: %s; tried again in %g s", place.number, error.strerror, place.delay_seconds
        )

    def _live(self, place: _Place, sock: socket.socket) -> NoReturn:
        """A worker's life, from the fork to its exit; it never returns into what the parent was doing."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _STOPPING_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for held in [self._wakes, self._wake, *(worker.sock for worker in self._living())]:
                held.close()  # else the others would not learn that the parent is gone as long as this one lives
            sock.settimeout(0)
            line = Line(place.number, sock, self._board, self._lookout.page if self._lookout is not None else None)
            try:
                self._work(line)
                code = 0
            except StartError as error:
                line.failed(str(error))
        except BaseException:  # noqa: BLE001 - nothing may get past here, back into the parent's own affairs
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)


def _end(code: int) -> str:
    """How a process ended, from its exit code."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with exit code {code}"
