"""Credential to caller, without asking the store each time and without believing anything for long.

A credential that was good is remembered under the SHA-256 of the whole of it. What is remembered is forgotten as soon
as anyone, in any process, changes a user or a key: the store's change stamp is read twice a second, so a revocation, a
disabled user or a changed role is in force within a second, and a change made by this process at once. A "no" is never
remembered: a credential that is not known is looked up every time, so a new key works with its first request.

While the store cannot be read, remembered credentials keep working (for ``STALE_SECONDS`` at most) and others get a
503, never a 401 that would tell a good key that it is bad.

``Authorization: Bearer`` decides; ``X-API-Key`` counts where there is no bearer token, since OpenAI's clients always
send the former.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING

from inferxgate.accounts import credentials, keys
from inferxgate.accounts.callers import Caller
from inferxgate.errors import INVALID_API_KEY, INVALID_TOKEN, STORE_UNAVAILABLE, GatewayError, StoreUnavailable
from inferxgate.values import dataclass

if TYPE_CHECKING:
    from inferxgate.accounts.tokens import Tokens
    from inferxgate.store.protocol import Store

POLL_SECONDS = 0.5
"""How often the change stamp is read: half of the second within which a change is promised to be in force."""
STALE_SECONDS = 3600.0
"""How long remembered credentials outlive the last moment at which the store could be read."""
LOOKUP_SECONDS = 10.0
"""How long a caller waits for the store before being told to come back."""
CACHE_SIZE = 10_000

_KEY_MARK = b"ix-api-key-"
_LONGEST = 8_192
_NEVER = float("inf")

log = logging.getLogger("inferxgate.identity")

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Known:
    caller: Caller
    expires_at_ms: float


class Identity:
    """Who is calling, for one process. ``known`` and ``look_up`` run on the event loop."""

    def __init__(self, store: Store, tokens: Tokens, *, defaults: Mapping[str, int]) -> None:
        self._store = store
        self._tokens = tokens
        self._defaults = defaults
        self._cache: dict[bytes, _Known] = {}
        self._generation = 0
        self._stamp: int | None = None
        self._store_seen_at = time.monotonic()
        self._store_failure: str | None = None
        self._under_way: dict[bytes, asyncio.Task[Caller]] = {}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="identity")
        self._poll_pool = ThreadPoolExecutor(1, thread_name_prefix="change-stamp")
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch the store for changes."""
        self._poller = asyncio.create_task(self._poll(), name="change-stamp")

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._poll_pool.shutdown(wait=False, cancel_futures=True)

    def configure(self, defaults: Mapping[str, int]) -> None:
        """The limits of keys that have none of their own, from now on."""
        if defaults != self._defaults:
            self._defaults = defaults
            self.forget()

    @property
    def store_failure(self) -> str | None:
        """Why the store cannot be read now; None while it can."""
        if self._store_failure is None and time.monotonic() - self._store_seen_at > 5 * POLL_SECONDS + 5:
            return "the store does not answer"
        return self._store_failure

    def forget(self) -> None:
        """Look everyone up again: for changes that this process has just made."""
        self._generation += 1
        self._cache.clear()
        self._under_way.clear()  # whoever comes from now on asks anew

    def known(self, headers: RawHeaders, told: Mapping[bytes, bytes] | None = None) -> Caller | None:
        """The caller, where the credential is remembered. Neither waits nor raises.

        ``told`` are the headers by name, where somebody has made a mapping of them already.
        """
        if told is None:
            told = dict(headers)
        if len(told) == len(headers) and (value := told.get(b"authorization", b""))[:7] == b"Bearer ":
            credential: bytes | None = value[7:].strip()  # as it usually is
        else:
            credential = _credential(headers)
        if credential is None:
            return None
        entry = self._cache.get(sha256(credential).digest())
        if entry is None or (entry.expires_at_ms != _NEVER and entry.expires_at_ms <= time.time() * 1000):
            return None
        if time.monotonic() - self._store_seen_at > STALE_SECONDS:
            return None
        return entry.caller

    async def look_up(self, headers: RawHeaders) -> Caller:
        """The caller, from the store. Raises ``GatewayError``: 401 for no or a bad credential, 503 for no store."""
        credential = _presented(headers)
        name = sha256(credential).digest()
        task = self._under_way.get(name)
        if task is None:
            # Many requests of one caller may arrive before the first answer is there; they share one question.
            task = self._under_way[name] = asyncio.create_task(self._ask(name, credential.decode("latin-1")))
            task.add_done_callback(lambda done: self._asked(name, done))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                return await asyncio.shield(task)
        except TimeoutError:
            raise _store_unavailable() from None

    def _asked(self, name: bytes, task: asyncio.Task[Caller]) -> None:
        if self._under_way.get(name) is task:
            del self._under_way[name]
        if not task.cancelled():
            task.exception()  # seen here, for those who stopped waiting

    async def _ask(self, name: bytes, credential: str) -> Caller:
        generation = self._generation
        loop = asyncio.get_running_loop()
        try:
            caller = await loop.run_in_executor(self._pool, self._resolve, credential)
        except StoreUnavailable as error:
            log.warning("a credential could not be looked up: %s", error)
            raise _store_unavailable() from error
        if generation == self._generation:  # else something changed meanwhile, and this answer may be older than that
            if len(self._cache) >= CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            ends = _NEVER if caller.expires_at_ms is None else caller.expires_at_ms
            self._cache[name] = _Known(caller, ends)
        return caller

    def _resolve(self, credential: str) -> Caller:
        now_ms = time.time_ns() // 1_000_000
        if credential.startswith(_KEY_MARK.decode()):
            return credentials.resolve_key(self._store, credential, defaults=self._defaults, now_ms=now_ms)
        return credentials.resolve_token(self._store, self._tokens, credential, defaults=self._defaults, now_ms=now_ms)

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                stamp = await loop.run_in_executor(self._poll_pool, self._store.change_stamp)
            except StoreUnavailable as error:
                if self._store_failure is None:
                    log.warning("the store cannot be read; remembered credentials keep working: %s", error)
                self._store_failure = str(error)
            except Exception:  # without this watch no revocation would ever be seen: it must not end
                log.exception("reading the change stamp failed")
                self._store_failure = "reading the store failed"
            else:
                if self._store_failure is not None:
                    log.warning("the store can be read again")
                self._store_failure = None
                self._store_seen_at = time.monotonic()
                if stamp != self._stamp:
                    self._stamp = stamp
                    self.forget()
            await asyncio.sleep(POLL_SECONDS)


def _credential(headers: RawHeaders) -> bytes | None:
    """The credential that decides; None where there is none, or where there are several different ones."""
    credential = None
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            if credential is not None and credential != value[7:].strip():
                return None
            credential = value[7:].strip()
    if credential is not None:
        return credential
    for name, value in headers:
        if name == b"x-api-key" and value.lstrip().startswith(_KEY_MARK):
            return value.strip()
    return None


def _presented(headers: RawHeaders) -> bytes:
    """The credential that the request presents. Raises ``GatewayError`` 401 where it can be seen not to be one."""
    sent = [value for name, value in headers if name == b"authorization"]
    bearers = [value[7:].strip() for value in sent if value[:7].lower() == b"bearer "]
    if len(set(bearers)) > 1:
        raise GatewayError(INVALID_API_KEY, "Several different Authorization headers were sent; send one.")
    if bearers:
        credential = bearers[0]
        if credential.startswith(_KEY_MARK):
            return _key(credential)
        if credential.count(b".") == 2 and len(credential) <= _LONGEST:
            if not credential.isascii():
                raise GatewayError(INVALID_TOKEN, "The token is malformed; sign in again.")
            return credential
        raise GatewayError(
            INVALID_API_KEY,
            "Invalid API key provided: the bearer token is neither a key of this gateway (ix-api-key-...) nor a token"
            " of /auth/login.",
        )
    for name, value in headers:
        if name == b"x-api-key":
            if value.count(b".") == 2 and value.lstrip().startswith(b"eyJ"):
                raise GatewayError(
                    INVALID_TOKEN, "X-API-Key takes an API key; send the token as 'Authorization: Bearer <token>'."
                )
            return _key(value.strip())
    if sent:
        raise GatewayError(INVALID_API_KEY, "The Authorization header must have the form 'Bearer <key or token>'.")
    raise GatewayError(
        INVALID_API_KEY,
        "No API key provided. Send 'Authorization: Bearer ix-api-key-...' or 'X-API-Key: ix-api-key-...'; routes for"
        " people take the token of POST /auth/login, as 'Authorization: Bearer <token>'.",
    )


def _key(credential: bytes) -> bytes:
    """``credential`` if its checksum is right: mistyped and foreign keys are told so without asking the store."""
    if len(credential) > _LONGEST or not keys.looks_like_key(credential.decode("latin-1")):
        raise GatewayError(INVALID_API_KEY, "Invalid API key provided.")
    return credential


def _store_unavailable() -> GatewayError:
    return GatewayError(
        STORE_UNAVAILABLE,
        "The gateway cannot read its store right now, so it cannot tell who is calling. Try again shortly.",
        retry_after_seconds=5,
    )
