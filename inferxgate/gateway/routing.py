"""From the name that a client asks for to the target that serves it.

The order is the contract's: an alias; ``provider/rest`` where the provider is configured; a bare name to its own
vendor; the first configured provider known to serve it; the only configured provider besides echo. Adding a provider
therefore never moves a name that already had a vendor.

What providers list themselves comes after all of that: it gives a name a target only where there would be none, so a
list that changes moves no name that leads somewhere without it. Where several providers list such a name, the one that
has listed it longest without a break has it, so that it stays there when another one begins to list it.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from inferxgate import errors
from inferxgate.accounts.callers import Caller
from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.catalog import Catalog
from inferxgate.catalog.models import plain_name
from inferxgate.catalog.pricing import Price
from inferxgate.errors import GatewayError
from inferxgate.providers.echo import ECHO
from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider."""

    provider: Provider
    model: str
    """The provider's own name for it."""

    @property
    def name(self) -> str:
        return f"{self.provider.name}/{self.model}"

    @property
    def vendor_model(self) -> str | None:
        """The vendor's name for it, by which it is known; None where that is not known."""
        return self.provider.vendor_model(self.model)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model as ``/v1/models`` and ``models list`` show it."""

    id: str
    """What to ask for."""
    owned_by: str
    provider: str
    target: str
    """``provider/model`` that serves it."""
    context_window: int | None
    """Tokens; None where unknown."""
    price: Price | None
    abilities: Abilities
    discovered: bool = False
    """Whether it is known from its provider's own list alone."""


class Router:
    """The names that this gateway serves."""

    def __init__(
        self,
        providers: Iterable[Provider],
        aliases: Mapping[str, str],
        catalog: Catalog,
        discovered: Callable[[Provider], Mapping[str, int]] = lambda _: {},
    ) -> None:
        """``aliases``: name to ``provider/model`` or bare model name, each naming exactly one target.

        ``discovered``: what a provider's own list has, each with a number that is the smaller the longer it has been
        there; asked for each name that leads nowhere else, so it must answer from memory.
        """
        self._providers = {provider.name: provider for provider in (*providers, ECHO)}
        self._aliases = aliases
        self._catalog = catalog
        self._discovered = discovered
        self._listed: dict[str, frozenset[str]] = {}
        """By provider, the models that it is known to have without its own list."""

    @property
    def providers(self) -> tuple[Provider, ...]:
        """All providers in the order of the configuration, echo last."""
        return tuple(self._providers.values())

    def resolve(self, name: str) -> Target:
        """The target of a name. Raises ``GatewayError`` (404, ``model_not_found``) with near matches."""
        target = self._find(self._aliases.get(name, name))
        if target is None:
            raise GatewayError(errors.MODEL_NOT_FOUND, self._not_found(name), param="model")
        return target

    def allowed(self, caller: Caller, name: str, target: Target) -> bool:
        """Whether a caller's list of models lets them use this name.

        A rule matches the name that was asked for, or the target as ``provider/model``. A rule without a provider also
        matches the target's model where the bare name leads to this very target.
        """
        if caller.allowed_models is None:
            return True
        rules = caller.allowed_models
        if any(fnmatch.fnmatchcase(each, rule) for rule in rules for each in (name, target.name)):
            return True
        if not any(fnmatch.fnmatchcase(target.model, rule) for rule in rules):
            return False
        bare = self._find(target.model)
        return bare is not None and bare.name == target.name

    def models(self, caller: Caller) -> list[ModelEntry]:
        """Every model that can be listed and that the caller may use, by name, with what is known of it."""
        return [self._entry(name, target) for name, target in self.listed(caller)]

    def listed(self, caller: Caller) -> list[tuple[str, Target]]:
        """The names of those models and where they lead; looking up what is known of thousands would take seconds."""
        targets: dict[str, Target] = {}
        for name in self._listed_names():
            target = self._find(self._aliases.get(name, name))
            if target is not None and self.allowed(caller, name, target):
                targets.setdefault(name, target)
        for name, target in self._discovered_names():
            if self.allowed(caller, name, target):
                targets.setdefault(name, target)
        return sorted(targets.items(), key=lambda item: item[0])

    def entry(self, caller: Caller, name: str) -> ModelEntry:
        """One model, listed or not. Raises ``GatewayError``: 404 also for one that the caller may not use."""
        target = self.resolve(name)
        if not self.allowed(caller, name, target):
            raise GatewayError(
                errors.MODEL_NOT_FOUND, f"There is no model '{name}' for this credential.", param="model"
            )
        return self._entry(name, target)

    def _entry(self, name: str, target: Target) -> ModelEntry:
        provider, row = target.provider, target.provider.row
        priced = provider.price_id is not None
        facts = self._catalog.facts(target.name, row.type, row.price_id, target.vendor_model, priced=priced)
        return ModelEntry(
            name,
            row.owner,
            provider.name,
            target.name,
            facts.context_window,
            facts.price,
            facts.abilities,
            discovered=target.model in self._discovered(provider) and target.model not in self._listed_of(provider),
        )

    def _find(self, name: str) -> Target | None:
        prefix, slash, rest = name.partition("/")
        if slash and rest and prefix in self._providers:
            provider = self._providers[prefix]
            return Target(provider, rest) if provider is not ECHO or rest in ECHO.models else None
        if name in ECHO.models:
            return Target(ECHO, name)
        vendor = self._providers.get(self._catalog.vendor_of(name) or "")
        if vendor is not None:
            return Target(vendor, name)
        configured = [provider for provider in self._providers.values() if provider is not ECHO]
        for provider in configured:
            if self._serves(provider, name):
                return Target(provider, name)
        if len(configured) == 1:
            return Target(configured[0], name)
        listing = [provider for provider in configured if name in self._discovered(provider)]
        longest = min(listing, key=lambda provider: self._discovered(provider).get(name, 0), default=None)
        return Target(longest, name) if longest is not None else None

    def _serves(self, provider: Provider, model: str) -> bool:
        """Whether a provider is known to have a model of this name."""
        if model in provider.models:
            return True
        if "/" in model and not provider.row.slashed_names:
            return False
        return self._catalog.knows(provider.listed_id, model)

    def _models_of(self, provider: Provider) -> Iterable[str]:
        return (*provider.models, *self._catalog.chat_models(provider.listed_id))

    def _listed_of(self, provider: Provider) -> frozenset[str]:
        if provider.name not in self._listed:
            self._listed[provider.name] = frozenset(self._models_of(provider))
        return self._listed[provider.name]

    def _discovered_of(self, provider: Provider) -> Iterator[str]:
        """The models that only a provider's own list tells of."""
        for model in self._discovered(provider):
            if model not in self._listed_of(provider) and self._catalog.may_chat(provider.listed_id, model):
                yield model

    def _discovered_names(self) -> Iterator[tuple[str, Target]]:
        """They are listed as ``provider/model``, which means the same whatever other lists come to say."""
        for provider in self._providers.values():
            for model in self._discovered_of(provider):
                if (name := f"{provider.name}/{model}") not in self._aliases:
                    yield name, Target(provider, model)

    def _listed_names(self) -> Iterable[str]:
        yield from self._aliases
        for provider in self._providers.values():
            for model in self._models_of(provider):
                bare = self._find(model)
                same = bare is not None and bare.provider is provider and bare.model == model
                yield model if same and model not in self._aliases else f"{provider.name}/{model}"

    def _not_found(self, name: str) -> str:
        if name in self._aliases:
            return f"The alias '{name}' leads to '{self._aliases[name]}', which no configured provider serves."
        discovered = itertools.islice(self._discovered_names(), _MOST_COMPARED)
        names = itertools.chain(self._listed_names(), (each for each, _ in discovered))
        near = self._near_of_providers(name) or _alike(name, names)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        prefix, slash, _ = name.partition("/")
        absent = f" The provider {prefix} is not configured here." if slash and prefix in ROWS else ""
        configured = ", ".join(self._providers)
        return (
            f"There is no model '{name}'.{absent}{hint} Configured providers: {configured}; "
            "GET /v1/models lists what can be asked for, and 'provider/model' reaches any model of a provider."
        )

    def _near_of_providers(self, name: str) -> list[str]:
        """What a name probably meant whose provider is one letter or two away from a configured one."""
        prefix, slash, rest = name.partition("/")
        if not slash or prefix in ROWS:
            return []
        near = []
        for each in difflib.get_close_matches(prefix, self._providers, n=_MOST_NEAR):
            provider = self._providers[each]
            known = self._serves(provider, rest) or rest in self._discovered(provider)
            models = [rest] if known else _alike(rest, self._models_of(provider))
            near += [f"{each}/{model}" for model in models or ["..."]]
        return near[:_MOST_NEAR]


_MOST_NEAR = 3
_MOST_COMPARED = 1_000
"""Of the names that providers list, how many an unknown name is compared with: that takes time, and anybody may ask."""


def _alike(name: str, listed: Iterable[str]) -> list[str]:
    """The listed names most like another, the likeliest first: other spellings of the same model, else near ones.

    They are compared as their vendors spell them, so that ``claude-sonnet-4-5`` is ``anthropic/claude-sonnet-4.5``
    and not ``anthropic/claude-3-sonnet``.
    """
    by_plain_name: dict[str, list[str]] = {}
    for each in dict.fromkeys(listed):
        by_plain_name.setdefault(plain_name(each), []).append(each)
    asked = plain_name(name)
    plain = [asked] if asked in by_plain_name else difflib.get_close_matches(asked, by_plain_name, n=_MOST_NEAR)
    return [each for found in plain for each in by_plain_name[found]][:_MOST_NEAR]
