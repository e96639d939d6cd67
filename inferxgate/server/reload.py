"""The configuration is read again, at SIGHUP or when its file changes, and taken over without anybody noticing.

Strategy: one process decides, the only one or the supervisor. It reads file, environment and flags as at the start and
makes all that they ask for, which finds whatever is wrong. Only then is anything changed: the requests that come later
have the new configuration as a whole, those under way keep theirs to the end. What is wrong is told in one line, and
nothing changes. Workers get the settings themselves, through memory that they share with the supervisor, so that none
of them can read anything else; one that is started later is born with them.

A change of the file that cannot be used is not told before it is met twice: it may not be written to its end yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import pickle
from collections.abc import Callable

from inferxgate.catalog.price_list import FILE_NAME
from inferxgate.config import Loaded
from inferxgate.config_changes import difference, held
from inferxgate.config_warnings import provider_warnings, target_warnings
from inferxgate.config_watch import Source, stamp_of
from inferxgate.errors import StartError
from inferxgate.runtime import Prepared, prepare
from inferxgate.server.logs import set_level
from inferxgate.values import dataclass
from inferxgate.workers.news import LONGEST, NewsPage
from inferxgate.workers.supervisor import Line

LOOK_SECONDS = 0.5
"""How often the file is looked at: a change is in force after twice this at most."""

log = logging.getLogger("inferxgate.server")


@dataclass(frozen=True, slots=True)
class State:
    """What is in force, and whether the file could be read since."""

    loaded: Loaded
    version: int = 0
    """Counts the configurations that came into force."""
    mistaken: bool = False
    """The file cannot be used as it is now."""


@dataclass(frozen=True, slots=True)
class Change:
    """Another configuration, to be taken over and then told of."""

    state: State
    prepared: Prepared
    words: str
    warnings: tuple[str, ...]

    def tell(self) -> None:
        """Say that it is in force."""
        for warning in self.warnings:
            log.warning("%s", warning)
        log.info("the configuration was read again: %s", self.words)


class Reloading:
    """Decides what is in force. Not for two threads at once."""

    def __init__(self, source: Source, loaded: Loaded) -> None:
        """``loaded``: what the source said at the start."""
        self.state = State(loaded)
        self._source = source
        self._started = loaded.settings
        self._fixed: list[str] = []
        """What differs from the start and cannot be taken over, as it was last told."""
        self._doubted: object = None
        """What the files were when they were met with a mistake that was not told yet."""
        self._prices = loaded.data_dir / FILE_NAME
        self._prices_seen = stamp_of(self._prices)
        source.watch.also(self._prices)

    def look(self, make: Callable[[Loaded], Prepared], *, asked: bool) -> Change | None:
        """What has come into force, if the files have changed or somebody has ``asked``, and nothing is wrong.

        ``make`` makes what a configuration asks for, or raises ``StartError``.
        """
        watch = self._source.watch
        if not watch.has_changed() and not asked:
            return None
        try:
            read = self._read()
            settings, fixed = held(self._started, read.settings)
            prepared = make(dataclasses.replace(read, settings=settings))
        except StartError as error:
            self._failed(str(error), asked=asked)
            return None
        except Exception:  # a fault of ours must end neither a gateway that serves nor its watch
            log.exception("reading the configuration again failed; the one before stays in force")
            watch.dealt_with()
            self.state = dataclasses.replace(self.state, mistaken=True)
            return None
        watch.dealt_with()
        return self._changed(prepared, fixed)

    def _read(self) -> Loaded:
        read = self._source.read()
        if read.path is None and self.state.loaded.path is not None:
            raise StartError(f"There is no configuration file {self._source.path} any more")
        return read

    def _changed(self, prepared: Prepared, fixed: list[str]) -> Change:
        before = self.state.loaded
        prices, self._prices_seen = self._prices_seen, stamp_of(self._prices)
        words = [difference(before.settings, prepared.loaded.settings)]
        if prices != self._prices_seen:
            words.append("another price list")
        known = {*_seldom_meant(before)}
        warnings = [each for each in _seldom_meant(prepared.loaded) if each not in known]
        if fixed and fixed != self._fixed:
            warnings.append(f"{', '.join(fixed)} changed in the configuration: only a restart brings that into force")
        self._fixed = fixed
        self.state = State(prepared.loaded, self.state.version + 1)
        said = "; ".join(word for word in words if word)
        return Change(self.state, prepared, said or "nothing that is in force has changed", tuple(warnings))

    def _failed(self, why: str, *, asked: bool) -> None:
        watch = self._source.watch
        if not asked and self._doubted != watch.seen:
            self._doubted = watch.seen
            return
        watch.dealt_with()
        log.error("the configuration cannot be read again, so the one before stays in force: %s", why)
        self.state = dataclasses.replace(self.state, mistaken=True)


def _seldom_meant(loaded: Loaded) -> tuple[str, ...]:
    return (*provider_warnings(loaded, os.environ), *target_warnings(loaded.settings))


@dataclass(frozen=True, slots=True)
class Hands:
    """How one process takes a configuration over: made in a thread, adopted on the loop."""

    make: Callable[[Loaded], Prepared]
    adopt: Callable[[Prepared], None]


class Alone:
    """The configuration of a process that has no others beside it."""

    def __init__(self, reloading: Reloading) -> None:
        self._reloading = reloading
        self.asked = asyncio.Event()
        """To be set when somebody wants it to be read again."""

    def mistaken(self) -> bool:
        return self._reloading.state.mistaken

    async def keep(self, hands: Hands) -> None:
        """Look, and take over what has changed, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.asked.wait()
            asked = self.asked.is_set()
            self.asked.clear()
            change = await asyncio.to_thread(self._reloading.look, hands.make, asked=asked)
            if change is not None:
                hands.adopt(change.prepared)
                change.tell()


class ForWorkers:
    """The supervisor's part: it looks, and writes what the workers are to take over. See ``Lookout``."""

    every_seconds = LOOK_SECONDS

    def __init__(self, reloading: Reloading) -> None:
        """Raises ``StartError`` where something is wrong."""
        self.page = NewsPage()
        self.prepared = prepare(reloading.state.loaded)
        """What a worker that is started now is born with: also where the files that it was made of are wrong by now."""
        self._reloading = reloading

    @property
    def state(self) -> State:
        """What holds for a worker that is started now."""
        return self._reloading.state

    def look(self, *, asked: bool) -> Callable[[], None] | None:
        before = self.state
        change = self._reloading.look(_make_for_workers, asked=asked)
        if self.state == before:
            return None
        self.page.write(pickle.dumps(self.state))
        if change is None:
            return lambda: None
        self.prepared = change.prepared
        set_level(self.state.loaded.settings.server.log_level)
        return change.tell


def _make_for_workers(loaded: Loaded) -> Prepared:
    if len(pickle.dumps(loaded)) > LONGEST - _OF_STATE_BYTES:
        raise StartError(f"{loaded.path} is larger than workers can be told at once; a restart reads it")
    return prepare(loaded)


_OF_STATE_BYTES = 64 * 1024
"""For all that a state holds beside the configuration."""


class AmongWorkers:
    """A worker's part: it takes over what the supervisor has written."""

    def __init__(self, line: Line, born_with: State) -> None:
        self._line = line
        self._state = born_with
        self.told = asyncio.Event()
        """To be set when the supervisor says that there is something new."""

    def mistaken(self) -> bool:
        return self._state.mistaken

    async def keep(self, hands: Hands) -> None:
        """Take over what comes, for ever."""
        while True:
            await self.told.wait()
            self.told.clear()
            news = self._line.news()
            if news is None:
                continue
            before = self._state
            self._state = state = pickle.loads(news)  # noqa: S301 - our own supervisor's, from memory that nobody else has
            if state.version == before.version:
                continue
            try:
                hands.adopt(await asyncio.to_thread(hands.make, state.loaded))
            except StartError as error:  # the supervisor has just made the same
                log.error("this worker cannot take the new configuration and keeps the one before: %s", error)
                continue
            log.debug("configuration %d is in force", state.version)
