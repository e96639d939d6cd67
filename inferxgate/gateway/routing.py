"""From the name that a client asks for to the targets that can serve it.

The order is the contract's: an alias, then one with a ``*`` that fits; ``provider/rest`` where the provider is
configured; a bare name to its own vendor; the first configured provider known to serve it; the only configured provider
besides echo. Adding a provider therefore never moves a name that already had a vendor.

What providers list themselves comes after all of that: it gives a name a target only where there would be none, so a
list that changes moves no name that leads somewhere without it. Where several providers list such a name, the one that
has listed it longest without a break has it, so that it stays there when another one begins to list it.

What a name leads to does not depend on how its targets fare: see ``selection`` for which of them is asked first.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import Any, Literal, NamedTuple

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
from inferxgate.values import dataclass
from inferxgate.workers.health import CircuitKey

Strategy = Literal["ordered", "weighted", "least_busy", "lowest_latency", "cheapest"]
_MOST_OUTPUT = frozenset({"max_tokens", "max_completion_tokens"})
FallbackOn = Literal["context_length", "content_filter"]


class Circuits(NamedTuple):
    """What the health of a target is kept by."""

    own: CircuitKey
    """Its own failures."""
    credential: CircuitKey
    """Refusals of its credential, whatever the model."""
    permission: CircuitKey
    """Refusals that may be of this model alone."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider."""

    provider: Provider
    """With the credential to be used, and with this target's own timeouts."""
    model: str
    """The provider's own name for it."""
    weight: int = 1
    """Its part among the targets of an alias that goes by weights."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are set in every request to it, whatever the client says."""
    circuits: Circuits = field(init=False, repr=False, compare=False)
    """What its health is kept by; made once, as every request asks for all of them more than once."""
    name: str = field(init=False, repr=False, compare=False)
    """``provider/model``."""
    vendor_model: str | None = field(init=False, repr=False, compare=False)
    """The vendor's name for it, by which it is known; None where that is not known."""

    def __post_init__(self) -> None:
        provider, model, credential = self.provider.name, self.model, self.provider.credential
        object.__setattr__(self, "name", f"{provider}/{model}")
        object.__setattr__(self, "vendor_model", self.provider.vendor_model(model))
        object.__setattr__(
            self,
            "circuits",
            Circuits(
                CircuitKey(provider, model, credential),
                CircuitKey(provider, "", credential),
                CircuitKey(provider, model, credential, "refused"),
            ),
        )

    def laid_over(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body with the fields that this target sets in it.

        The most that an answer may have goes by two names, and hosts refuse both at once: what is set here, under
        whichever, takes the place of what the client says under the other.
        """
        set_here = _MOST_OUTPUT & self.params.keys()
        kept = {name: value for name, value in body.items() if not (set_here and name in _MOST_OUTPUT)}
        return {**kept, **self.params}

    def with_each_key(self) -> tuple[Target, ...]:
        """This target once for each credential of its provider, the preferred one first."""
        if not self.provider.other_keys:
            return (self,)
        return tuple(replace(self, provider=provider) for provider in self.provider.with_each_key())


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """A target as an alias names it."""

    model: str
    """``provider/model`` or a bare name. A ``*`` stands for what the alias's own stood for."""
    weight: int = 1
    timeouts: Mapping[str, float] = field(default_factory=dict)
    """Fields of ``Timeouts`` that are not the provider's."""
    params: Mapping[str, Any] = field(default_factory=dict)

    def laid_over(self, target: Target) -> Target:
        """A target with what is said here."""
        provider = target.provider
        if self.timeouts:
            said = dict(self.timeouts)
            total = said.pop("total_seconds", provider.total_seconds)
            provider = replace(provider, timeouts=replace(provider.timeouts, **said), total_seconds=total)
        return Target(provider, target.model, self.weight, self.params)


@dataclass(frozen=True, slots=True)
class Alias:
    """A name of the configuration's own."""

    targets: tuple[AliasTarget, ...]
    """In order of preference."""
    strategy: Strategy = "ordered"
    fallback_on: frozenset[FallbackOn] = frozenset()

    @classmethod
    def of(cls, *models: str, strategy: Strategy = "ordered") -> Alias:
        """One that says no more than its targets."""
        return cls(tuple(AliasTarget(model) for model in models), strategy)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a name leads to."""

    name: str
    """As it was asked for."""
    targets: tuple[Target, ...]
    """At least one, in order of preference."""
    strategy: Strategy = "ordered"
    fallback_on: frozenset[FallbackOn] = frozenset()
    named: int = 1
    """How many targets were named, those that nobody serves included."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model as ``/v1/models`` and ``models list`` show it."""

    id: str
    """What to ask for."""
    owned_by: str
    provider: str
    target: str
    """``provider/model`` that serves it; of several, the preferred one."""
    targets: tuple[str, ...]
    """All of them, in order of preference."""
    strategy: Strategy
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
        aliases: Mapping[str, Alias],
        catalog: Catalog,
        discovered: Callable[[Provider], Mapping[str, int]] = lambda _: {},
    ) -> None:
        """``aliases``: by their names; of those with a ``*`` the first that fits holds.

        ``discovered``: what a provider's own list has, each with a number that is the smaller the longer it has been
        there; asked for each name that leads nowhere else, so it must answer from memory.
        """
        self._providers = {provider.name: provider for provider in (*providers, ECHO)}
        self.providers = tuple(self._providers.values())
        """All providers in the order of the configuration, echo last."""
        self._aliases = aliases
        self._wild = [(name, alias) for name, alias in aliases.items() if "*" in name]
        self._catalog = catalog
        self._plans: dict[str, Plan] = {}
        """Of what does not depend on the providers' own lists, which change."""
        self._discovered = discovered
        self._listed: dict[str, frozenset[str]] = {}
        """By provider, the models that it is known to have without its own list."""

    def plan(self, name: str) -> Plan:
        """What a name leads to. Raises ``GatewayError`` (404, ``model_not_found``) with near matches."""
        found = self._plans.get(name)
        if found is not None:
            return found
        found = self._made_plan(name, self._find)
        if found is None or len(found.targets) < found.named:
            found = self._made_plan(name, self._find_anywhere)
            if found is None:
                raise GatewayError(errors.MODEL_NOT_FOUND, self._not_found(name), param="model")
            return found
        if len(self._plans) >= _MAX_PLANS:  # names are the clients' to choose
            self._plans.clear()
        self._plans[name] = found
        return found

    def permitted(self, caller: Caller, plan: Plan) -> tuple[Target, ...]:
        """The targets of a plan that a caller's list of models lets them use.

        A rule that matches the name that was asked for grants all of them; one that matches a target as
        ``provider/model`` grants that. A rule without a provider also matches a target's model where the bare name
        leads to this very target.
        """
        rules = caller.allowed_models
        if rules is None or _fits(plan.name, rules):
            return plan.targets
        return tuple(target for target in plan.targets if self._grants(rules, target))

    def models(self, caller: Caller) -> list[ModelEntry]:
        """Every model that can be listed and that the caller may use, by name, with what is known of it."""
        return [self._entry(plan, targets) for plan, targets in self._plans_of(caller)]

    def listed(self, caller: Caller) -> list[tuple[str, Target]]:
        """The names of those models and where they lead; looking up what is known of thousands would take seconds."""
        return [(plan.name, targets[0]) for plan, targets in self._plans_of(caller)]

    def _plans_of(self, caller: Caller) -> list[tuple[Plan, tuple[Target, ...]]]:
        plans: dict[str, Plan] = {}
        for name in self._listed_names():
            plan = None if name in plans else self._made_plan(name, self._find_anywhere)
            if plan is not None:
                plans[name] = plan
        for name, target in self._discovered_names():
            plans.setdefault(name, Plan(name, (target,)))
        found = ((plan, self.permitted(caller, plan)) for _, plan in sorted(plans.items()))
        return [(plan, targets) for plan, targets in found if targets]

    def entry(self, caller: Caller, name: str) -> ModelEntry:
        """One model, listed or not. Raises ``GatewayError``: 404 also for one that the caller may not use."""
        plan = self.plan(name)
        targets = self.permitted(caller, plan)
        if not targets:
            raise GatewayError(
                errors.MODEL_NOT_FOUND, f"There is no model '{name}' for this credential.", param="model"
            )
        return self._entry(plan, targets)

    def _entry(self, plan: Plan, targets: tuple[Target, ...]) -> ModelEntry:
        target = targets[0]
        provider, row = target.provider, target.provider.row
        priced = provider.price_id is not None
        facts = self._catalog.facts(target.name, row.type, row.price_id, target.vendor_model, priced=priced)
        return ModelEntry(
            plan.name,
            row.owner,
            provider.name,
            target.name,
            tuple(each.name for each in targets),
            plan.strategy,
            facts.context_window,
            facts.price,
            facts.abilities,
            discovered=self._alias(plan.name)[0] is None
            and target.model in self._discovered(provider)
            and target.model not in self._listed_of(provider),
        )

    def _made_plan(self, name: str, find: Callable[[str], Target | None]) -> Plan | None:
        alias, stood_for = self._alias(name)
        if alias is None:
            target = find(name)
            return None if target is None else Plan(name, (target,))
        found = [(each, self._find_target(each.model.replace("*", stood_for), find)) for each in alias.targets]
        targets = tuple(each.laid_over(target) for each, target in found if target is not None)
        return Plan(name, targets, alias.strategy, alias.fallback_on, len(found)) if targets else None

    def _find_target(self, model: str, find: Callable[[str], Target | None]) -> Target | None:
        """Where a target of an alias leads. One of a provider that is not configured goes to no other provider, unless
        that has such names: who wrote down a provider does not want another one to get the prompts."""
        target = find(model)
        prefix, slash, _ = model.partition("/")
        if target is None or not slash or prefix in self._providers:
            return target
        provider = target.provider
        has_such_names = provider.row.slashed_names or provider.price_id is None  # a server of one's own has any
        return target if has_such_names or model in provider.models else None

    def _alias(self, name: str) -> tuple[Alias | None, str]:
        """The alias of a name, and what its ``*`` stands for."""
        if (exact := self._aliases.get(name)) is not None and "*" not in name:
            return exact, ""
        for pattern, alias in self._wild:
            head, _, tail = pattern.partition("*")
            if len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail):
                return alias, name[len(head) : len(name) - len(tail)]
        return None, ""

    def _grants(self, rules: Iterable[str], target: Target) -> bool:
        if _fits(target.name, rules):
            return True
        if not _fits(target.model, rules):
            return False
        bare = self._find_anywhere(target.model)
        return bare is not None and bare.name == target.name

    def _find_anywhere(self, name: str) -> Target | None:
        """Where a name leads, also by what the providers' own lists say."""
        if (target := self._find(name)) is not None:
            return target
        listing = [provider for provider in self._providers.values() if name in self._discovered(provider)]
        longest = min(listing, key=lambda provider: self._discovered(provider).get(name, 0), default=None)
        return Target(longest, name) if longest is not None else None

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
        return Target(configured[0], name) if len(configured) == 1 else None

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
                if self._alias(name := f"{provider.name}/{model}")[0] is None:
                    yield name, Target(provider, model)

    def _listed_names(self) -> Iterable[str]:
        yield from (name for name in self._aliases if "*" not in name)
        for provider in self._providers.values():
            for model in self._models_of(provider):
                alias, _ = self._alias(model)
                if alias is not None:
                    yield model
                bare = self._find(model)
                same = bare is not None and bare.provider is provider and bare.model == model
                yield model if same and alias is None else f"{provider.name}/{model}"

    def _not_found(self, name: str) -> str:
        alias, stood_for = self._alias(name)
        if alias is not None:
            leads = " and ".join(f"'{each.model.replace('*', stood_for)}'" for each in alias.targets)
            return f"The alias '{name}' leads to {leads}, which no configured provider serves."
        discovered = itertools.islice(self._discovered_names(), _MOST_COMPARED)
        listed = itertools.chain(self._listed_names(), (each for each, _ in discovered))
        near = self._near_of_providers(name) or _alike(name, listed)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        prefix, slash, _ = name.partition("/")
        absent = f" The provider {prefix} is not configured here." if slash and prefix in ROWS else ""
        names = ", ".join(self._providers)
        return (
            f"There is no model '{name}'.{absent}{hint} Configured providers: {names}; "
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
_MAX_PLANS = 10_000


def _fits(name: str, rules: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, rule) for rule in rules)


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
