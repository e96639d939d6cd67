"""Thoughts that whichever worker gets the next turn finds, also after the gateway was started anew.

They stand in a file of their own, so that one that is full or damaged stops no limit. A turn has a number, in the
order of arrival, and rows of half a page: a longer one would need pages side by side, for which LMDB searches long and
lets the file grow. Each of its calls, and each mark of its state, has a small row that leads to it under a hash of
caller and id or mark: who asks for the call of someone else finds nothing. When the bytes are used up the oldest turns
go. What is too old is not read any more, and removed by whoever comes by: an answer, or the sweep of a worker.

Times are those of the wall clock, since they have to mean something after another boot. An entry from the future, as
a clock that was set back leaves it, is as old as it seems young.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import struct
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from inferxgate.errors import StartError
from inferxgate.workers.reasoning import Maker, Thoughts, Turn
from inferxgate.workers.shared import SharedMemory, SharedUnavailable, Transaction

MAX_BYTES = 64 * 1024 * 1024
_MAP_FACTOR = 4
"""The file may grow to this times the bytes: pages that were freed are not free at once, nor side by side."""
_STATE_KEY = b"state"
_STATE = struct.Struct("<3q")
_PART_KEY = struct.Struct(">QI")
_HEAD = struct.Struct("<dI")
_PLACE = struct.Struct(">QH")
_MARK = b"mark"
_MOST_CALLS = 0xFFFF
_SHARE_OF_A_TURN = 16
"""A turn may take one of so many parts: fewer have to go for it while everybody waits."""
_PART_BYTES = 2000
_SPACE_OF_A_PART = 2048
_SPACE_OF_A_CALL = 128
_SWEEP_EVERY_SECONDS = 60.0
_SWEEP_AT_ONCE = 100

log = logging.getLogger(__name__)


class SharedReasoning:
    """``inferxgate.workers.reasoning.ReasoningMemory`` for one worker among several."""

    def __init__(
        self,
        shared: SharedMemory,
        keep_seconds: float,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` gives Unix seconds."""
        self._shared = shared
        self._turns = shared.database("turns")
        self._calls = shared.database("calls")
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._failing = False
        self._next_sweep = 0.0

    @classmethod
    def open(cls, folder: Path, keep_seconds: float, *, max_bytes: int = MAX_BYTES) -> SharedReasoning:
        """With the memory in ``folder``, created where needed. Raises ``StartError``."""
        map_bytes = _MAP_FACTOR * max_bytes
        shared = SharedMemory.open(folder, map_bytes=map_bytes, preallocated_bytes=0, outlives_boot=True)
        return cls(shared, keep_seconds, max_bytes=max_bytes)

    def close(self) -> None:
        self._shared.close()

    def remember(self, tenant: str, turns: Sequence[Turn]) -> None:
        built = [
            _Kept.build(self._clock(), tenant, turn)
            for turn in turns
            if len(turn.signatures) + len(turn.marks) <= _MOST_CALLS
        ]
        fitting = [kept for kept in built if kept.space <= self._max_bytes // _SHARE_OF_A_TURN]
        if len(fitting) < len(turns):
            log.warning("the thought before a tool call is larger than what is kept of one")

        def put(transaction: Transaction, state: _State) -> None:
            for kept in fitting:
                self._make_room(transaction, state, kept.space)
                self._put(transaction, state, kept)

        if fitting:
            self._write(put)

    def recall(self, tenant: str, call_id: str) -> Thoughts | None:
        kept, position = self._find(_hash(tenant, call_id))
        return None if kept is None else kept.thoughts(position)

    def made_by(self, tenant: str, mark: str) -> Maker | None:
        kept, _ = self._find(_hash(tenant, mark, _MARK))
        return None if kept is None else kept.maker

    def sweep(self) -> None:
        """Remove what is too old, a little at a time; to be called often. Never raises."""
        if time.monotonic() >= self._next_sweep and not self.remove_old():
            self._next_sweep = time.monotonic() + _SWEEP_EVERY_SECONDS

    def remove_old(self, most: int = _SWEEP_AT_ONCE) -> bool:
        """Remove so many of the turns that are too old; whether there may be more of them."""
        try:
            with self._shared.reading() as transaction:
                if not self._oldest_is_old(transaction, _State(transaction, self._shared.meta)):
                    return False
        except SharedUnavailable as error:
            self._tell(error)
            return False
        removed = 0

        def remove(transaction: Transaction, state: _State) -> None:
            nonlocal removed
            while removed < most and self._oldest_is_old(transaction, state):
                self._remove_oldest(transaction, state)
                removed += 1

        return self._write(remove) and removed == most

    # --- within

    def _find(self, key: bytes) -> tuple[_Kept | None, int]:
        """The turn that a hash leads to, unless it is too old, and the place of the hash in it."""
        try:
            with self._shared.reading() as transaction:
                place = transaction.get(key, db=self._calls)
                if place is None:
                    return None, 0
                number, position = _PLACE.unpack(place)
                kept = self._get(transaction, number)
        except SharedUnavailable as error:
            self._tell(error)
            return None, 0
        return (None if kept is None or self._is_old(kept.at_s) else kept), position

    def _put(self, transaction: Transaction, state: _State, kept: _Kept) -> None:
        for part, data in enumerate(kept.parts):
            transaction.put(_PART_KEY.pack(state.next, part), data, db=self._turns)
        for position, each in enumerate(kept.hashes):
            transaction.put(each, _PLACE.pack(state.next, position), db=self._calls)
        state.next += 1
        state.bytes += kept.space

    def _get(self, transaction: Transaction, number: int) -> _Kept | None:
        first = transaction.get(_PART_KEY.pack(number, 0), db=self._turns)
        if first is None:
            return None
        _, count = _HEAD.unpack_from(first)
        rest = (transaction.get(_PART_KEY.pack(number, part), db=self._turns) or b"" for part in range(1, count))
        return _Kept((first, *rest))

    def _make_room(self, transaction: Transaction, state: _State, space: int) -> None:
        removed = 0
        while state.first < state.next:
            full = state.bytes + space > self._max_bytes
            if not full and (removed >= _SWEEP_AT_ONCE or not self._oldest_is_old(transaction, state)):
                return
            self._remove_oldest(transaction, state)
            removed += 1

    def _oldest_is_old(self, transaction: Transaction, state: _State) -> bool:
        if state.first >= state.next:
            return False
        first = transaction.get(_PART_KEY.pack(state.first, 0), db=self._turns)
        return first is None or self._is_old(_HEAD.unpack_from(first)[0])

    def _is_old(self, at_s: float) -> bool:
        return abs(self._clock() - at_s) >= self._keep_seconds

    def _remove_oldest(self, transaction: Transaction, state: _State) -> None:
        number = state.first
        state.first += 1
        kept = self._get(transaction, number)
        if kept is None:
            return
        for part in range(len(kept.parts)):
            transaction.delete(_PART_KEY.pack(number, part), db=self._turns)
        for position, each in enumerate(kept.hashes):
            # The id may have come again, with a later turn.
            if transaction.get(each, db=self._calls) == _PLACE.pack(number, position):
                transaction.delete(each, db=self._calls)
        state.bytes -= kept.space

    def _write(self, work: Callable[[Transaction, _State], None]) -> bool:
        """Do something in one transaction; whether it could be done."""
        try:
            with self._shared.writing() as transaction:
                state = _State(transaction, self._shared.meta)
                work(transaction, state)
                state.save(transaction)
        except SharedUnavailable as error:
            self._tell(error)
            return False
        if self._failing:
            self._failing = False
            log.info("thoughts are kept again")
        return True

    def _tell(self, error: SharedUnavailable) -> None:
        """Log the first failure of several; no request is worse off than without this memory."""
        if not self._failing:
            log.error("thoughts are not kept for clients that do not send them back: %s", error)
        self._failing = True


class _Kept:
    """A turn as it stands in the file: when it came and in how many parts, a line each of the hashes that lead to it,
    its maker and what it was.

    In files of before the maker was known beyond its provider, that stands first in what the turn was.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self.parts = parts
        self.at_s: float = _HEAD.unpack_from(parts[0])[0]
        self._hashes, self._maker, *turn = b"".join(parts)[_HEAD.size :].split(b"\n", 2)
        self._turn = turn[0] if turn else None

    @classmethod
    def build(cls, at_s: float, tenant: str, turn: Turn) -> _Kept:
        hashes = [_hash(tenant, call_id).hex() for call_id in turn.signatures]
        hashes += [_hash(tenant, mark, _MARK).hex() for mark in turn.marks]
        maker = [turn.maker.provider, turn.maker.credential, turn.maker.model]
        content = orjson.dumps(hashes, option=orjson.OPT_APPEND_NEWLINE)
        content += orjson.dumps(maker, option=orjson.OPT_APPEND_NEWLINE)
        content += orjson.dumps([turn.blocks, list(turn.signatures.values())])
        count = -(-(_HEAD.size + len(content)) // _PART_BYTES)
        data = _HEAD.pack(at_s, count) + content
        return cls([data[begin : begin + _PART_BYTES] for begin in range(0, len(data), _PART_BYTES)])

    @cached_property
    def hashes(self) -> list[bytes]:
        """Of its calls, then of its marks."""
        return [bytes.fromhex(each) for each in orjson.loads(self._hashes)]

    @property
    def space(self) -> int:
        """Bytes of the file, roughly."""
        return len(self.parts) * _SPACE_OF_A_PART + len(self.hashes) * _SPACE_OF_A_CALL

    @property
    def maker(self) -> Maker:
        words = orjson.loads(self._maker)
        return Maker(words[0]) if self._turn is None else Maker(*words)

    def thoughts(self, position: int) -> Thoughts:
        blocks, signatures = orjson.loads(self._maker)[1:] if self._turn is None else orjson.loads(self._turn)
        return Thoughts(self.maker, tuple(tuple(block) for block in blocks), signatures[position])


class _State:
    """Which numbers are in use, and how many bytes, within one transaction."""

    def __init__(self, transaction: Transaction, database: Any) -> None:
        self._database = database
        data = transaction.get(_STATE_KEY, db=database)
        self.first, self.next, self.bytes = _STATE.unpack(data) if data else (0, 0, 0)

    def save(self, transaction: Transaction) -> None:
        transaction.put(_STATE_KEY, _STATE.pack(self.first, self.next, self.bytes), db=self._database)


def forget_reasoning(folder: Path) -> None:
    """Remove what was kept in ``folder``. Raises ``StartError``."""
    try:
        for file in folder.glob("*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
    except OSError as error:
        raise StartError(
            f"cannot remove {folder}, which reasoning.keep_hours = 0 asks for: {error.strerror}"
        ) from error


def _hash(tenant: str, name: str, kind: bytes = b"") -> bytes:
    """Of the tenant and a call's id, or a mark; the length keeps them apart, and ``kind`` ids from marks."""
    words = f"{len(tenant)}:{tenant}{name}".encode(errors="surrogatepass")
    return hashlib.blake2b(words, digest_size=16, person=kind).digest()
