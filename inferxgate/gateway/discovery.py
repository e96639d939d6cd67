"""Asks providers which models they have: in the background of a server, by one worker of all, or when somebody wishes.

Nothing waits for it. A server begins with what was said last, asks for the first time well after its start, and a
provider that does not answer keeps the list that it had.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from inferxgate import errors
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError, StartError
from inferxgate.gateway.tries import OF_THE_CREDENTIAL
from inferxgate.providers.provider import Provider
from inferxgate.upstream.protocol import Upstream
from inferxgate.values import dataclass
from inferxgate.workers.election import Election
from inferxgate.workers.model_lists import MAX_NAMES, ModelLists

log = logging.getLogger(__name__)

MAX_BYTES = 10 * 1024 * 1024
"""For all pages of one list together."""
_MAX_PAGES = 100
_ALL_PAGES_SECONDS = 120.0
_MAX_PROBLEM_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """When to ask, in seconds."""

    first: float = 60.0
    """After the start; and up to half as long again, so that not all gateways of a house ask at once."""
    look: float = 60.0
    """Between two looks whether anything is to be asked."""
    fresh: float = 6 * 3600.0
    """How old a list may be before it is asked for again."""
    again: float = 3600.0
    """After a failure."""


USUAL_PACE = Pace()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking one provider."""

    provider: Provider
    models: Sequence[str] | None
    """None: it did not say."""
    problem: str = ""
    """Why it did not, in words without secrets."""


class Discovery:
    """Keeps the lists of some providers."""

    def __init__(
        self,
        providers: Iterable[Provider],
        upstreams: Mapping[str, Upstream],
        lists: ModelLists,
        *,
        pace: Pace = USUAL_PACE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """See ``configure``; ``clock``: Unix time."""
        self.configure(providers, upstreams)
        self._lists = lists
        self._pace = pace
        self._clock = clock
        self._not_before: dict[str, float] = {}
        self._problems: dict[str, str] = {}

    def configure(self, providers: Iterable[Provider], upstreams: Mapping[str, Upstream]) -> None:
        """``providers``: all that are configured; ``upstreams``: the engine of each by name."""
        self._configured = {provider.name: provider for provider in providers}
        self._upstreams = upstreams

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Those whose lists are wanted."""
        return tuple(provider for provider in self._configured.values() if provider.discover)

    async def refresh(self, providers: Iterable[Provider]) -> list[Answer]:
        """Ask some of them now, all at once, and write down what they say.

        Raises ``OSError`` and ``StartError`` where it cannot be written.
        """
        answers = await asyncio.gather(*(self._answer(provider) for provider in providers))
        said = {
            each.provider.name: (each.provider.base_url, each.models) for each in answers if each.models is not None
        }
        if said:
            await asyncio.to_thread(self._lists.put, said, among=self._configured, now_s=int(self._clock()))
        return answers

    async def keep_fresh(self, election: Election) -> None:
        """Ask whoever has not been asked for long, for ever, as long as this worker is the one that does."""
        await asyncio.sleep(self._pace.first * random.uniform(1, 1.5))  # noqa: S311 - it only spreads the load
        while True:
            if election.won():
                await self.step()
            await asyncio.sleep(self._pace.look)

    async def step(self) -> None:
        """Ask those whose turn it is; what goes wrong is told in the log, once until it changes."""
        now = self._clock()
        due = [provider for provider in self.providers if self._is_due(provider, now)]
        if not due:
            return
        for provider in due:
            self._not_before[provider.name] = now + self._pace.again
        try:
            answers = await self.refresh(due)
        except (OSError, StartError) as error:
            self._tell("", f"what providers list cannot be kept: {error}")
            return
        self._tell("", "")
        for answer in answers:
            self._tell(answer.provider.name, answer.problem)
            if answer.models is not None:
                log.info("%s lists %d models", answer.provider.name, len(answer.models))

    def _is_due(self, provider: Provider, now: float) -> bool:
        if now < self._not_before.get(provider.name, 0.0):
            return False
        known = self._lists.of(provider)
        return known is None or not now - self._pace.fresh < known.fetched_at_s <= now

    def _tell(self, about: str, problem: str) -> None:
        if problem and self._problems.get(about) != problem:
            log.warning("%s%s", problem, "; the list of before stays" if about else "")
        self._problems[about] = problem

    async def _answer(self, provider: Provider) -> Answer:
        try:
            async with asyncio.timeout(_ALL_PAGES_SECONDS):
                return Answer(provider, await self._ask_with_each_key(provider))
        except TimeoutError:
            problem = f"The provider has not said in {_ALL_PAGES_SECONDS:g} seconds which models it has."
        except GatewayError as error:
            problem = error.message
            if error.kind is errors.UPSTREAM_AUTH_ERROR:
                setting = "api_keys" if provider.other_keys else "api_key"
                problem += f" Look at providers.{provider.name}.{setting}."
        return Answer(provider, None, _named(provider, problem))

    async def _ask_with_each_key(self, provider: Provider) -> list[str]:
        """What the first credential is told that is not refused. Raises ``GatewayError``: the last refusal."""
        *first, last = provider.with_each_key()
        for each in first:
            try:
                return await self._ask(each)
            except GatewayError as error:
                if error.kind not in OF_THE_CREDENTIAL:
                    raise
        return await self._ask(last)

    async def _ask(self, provider: Provider) -> list[str]:
        """All pages of a provider's list. Raises ``GatewayError``."""
        dialect, upstream = DIALECTS[provider.row.dialect], self._upstreams[provider.name]
        names: dict[str, None] = {}
        left, after = MAX_BYTES, None
        for _ in range(_MAX_PAGES):
            response = await upstream.send(provider.list_request(after))
            try:
                data = await response.read(limit=left)
            finally:
                await response.close()
            if response.status != 200:
                raise dialect.parse_error(response.status, response.headers, data, self._clock())
            page = dialect.parse_models(data)
            names.update(dict.fromkeys(page.names))
            if len(names) > MAX_NAMES:
                raise _endless(f"more than {MAX_NAMES:,} models")
            if page.after is None:
                return [*names]
            left, after = left - len(data), page.after
        raise _endless(f"more than {_MAX_PAGES} pages of models")


def _endless(what: str) -> GatewayError:
    return GatewayError(errors.UPSTREAM_INVALID_RESPONSE, f"The provider lists {what}, which is too much to keep.")


def _named(provider: Provider, problem: str) -> str:
    """A problem with the provider's name and without what it may have repeated of our credential."""
    for secret in provider.secrets():
        problem = problem.replace(secret, "****")
    problem = " ".join(problem.split())[:_MAX_PROBLEM_CHARACTERS]
    for begin in ("The provider's ", "The provider "):
        if problem.startswith(begin):
            return f"The provider {provider.name}{begin.removeprefix('The provider')}{problem.removeprefix(begin)}"
    return f"The provider {provider.name} said: {problem}"
