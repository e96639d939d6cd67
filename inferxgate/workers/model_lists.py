"""What providers said of the models that they have: one file in the data folder, which all workers read.

It is a cache. Whatever is wrong with it is told in the log once and is never an error: without it, names are those of
the configuration and of the price list. It is only ever replaced as a whole, so no reader sees half of one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from inferxgate.dialects.model_lists import is_name
from inferxgate.providers.provider import Provider
from inferxgate.store.files import locked_folder, make_private_folder
from inferxgate.values import dataclass

log = logging.getLogger(__name__)

MAX_NAMES = 10_000
"""For one provider."""
_MAX_BYTES = 64 * 1024 * 1024
_VERSION = 1
_NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class ModelList:
    """What one provider said last."""

    base_url: str
    """Where that was; what another address lists is another list."""
    fetched_at_s: int
    """Unix seconds."""
    models: Mapping[str, int]
    """Names, and the round since which each has been listed without a break.

    Rounds count up with every writing of the file: clocks can be set back, and two answers can fall into one second.
    """


class ModelLists:
    """The lists in force, as they were when somebody last looked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looking = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._told: str | None = None
        self._lists: Mapping[str, ModelList] = {}

    def look(self) -> None:
        """Read the file where it has changed. For a thread that may wait for a disk; never raises."""
        with self._looking:
            self._look()

    def models(self, provider: Provider) -> Mapping[str, int]:
        """What a provider lists at its address, each with the round since when; nothing where that is off."""
        found = self.of(provider) if provider.discover else None
        return found.models if found is not None else _NOTHING

    def of(self, provider: Provider) -> ModelList | None:
        """What a provider said last, if that was at the address that it has now."""
        found = self._lists.get(provider.name)
        return found if found is not None and found.base_url == provider.base_url else None

    def put(self, said: Mapping[str, tuple[str, Iterable[str]]], *, among: Collection[str], now_s: int) -> None:
        """Write down what providers said: by the provider's name its address, and names of models.

        The lists of others among the configured providers stay, also where another process has just written them.
        ``now_s``: Unix seconds. Raises ``OSError``, and ``StartError`` where the folder cannot be used.
        """
        make_private_folder(self._path.parent)
        with locked_folder(self._path.parent):
            self.look()
            rounds = (since for each in self._lists.values() for since in each.models.values())
            this = 1 + max(rounds, default=0)
            lists = {name: each for name, each in self._lists.items() if name in among}
            for name, (base_url, models) in said.items():
                old = lists.get(name)
                since = old.models if old is not None and old.base_url == base_url else _NOTHING
                lists[name] = ModelList(base_url, now_s, {model: since.get(model, this) for model in models})
            _replace(self._path, _build(lists))
            self.look()

    def _look(self) -> None:
        try:
            with open(self._path, "rb", opener=_without_waiting) as file:
                state = os.fstat(file.fileno())
                seen = (state.st_ino, state.st_mtime_ns, state.st_size)
                if seen == self._seen:
                    return
                self._seen = seen
                data = file.read(_MAX_BYTES + 1) if stat.S_ISREG(state.st_mode) else b""
        except FileNotFoundError:
            self._seen, self._told, self._lists = None, None, {}
            return
        except OSError as error:
            self._seen = None
            self._ignore(f"it cannot be read ({error.strerror})")
            return
        try:
            self._lists = _parse(data)
            self._told = None
        except ValueError as problem:
            self._ignore(str(problem))

    def _ignore(self, why: str) -> None:
        self._lists = {}
        if why != self._told:
            self._told = why
            log.warning("%s is ignored: %s; 'inferxgate models refresh' writes it anew", self._path, why)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place keeps nobody waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def _build(lists: Mapping[str, ModelList]) -> bytes:
    providers = {
        name: {"base_url": each.base_url, "fetched_at": each.fetched_at_s, "models": dict(each.models)}
        for name, each in lists.items()
    }
    return orjson.dumps({"version": _VERSION, "providers": providers})


def _parse(data: bytes) -> dict[str, ModelList]:
    """The lists of a file. Raises ``ValueError`` that says what is wrong with it."""
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES // 1024 // 1024} MiB")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ValueError("it is damaged, or was never written by this program") from None
    if not isinstance(body, dict) or body.get("version") != _VERSION or not isinstance(body.get("providers"), dict):
        raise ValueError("it is of another version, or was never written by this program")
    return {name: _parse_list(name, each) for name, each in body["providers"].items()}


def _parse_list(name: str, raw: Any) -> ModelList:
    if isinstance(raw, dict):
        base_url, fetched_at, models = (raw.get(key) for key in ("base_url", "fetched_at", "models"))
        if (
            isinstance(base_url, str)
            and isinstance(fetched_at, int)
            and isinstance(models, dict)
            and len(models) <= MAX_NAMES
            and all(is_name(model) and type(since) is int and since > 0 for model, since in models.items())
        ):
            return ModelList(base_url, fetched_at, models)
    raise ValueError(f"its list of {name} is damaged")


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner only
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it has its own name by now, or something failed
            os.unlink(name)
