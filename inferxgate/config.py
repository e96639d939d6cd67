"""The settings: each declared once, with its help; the file, then the environment, then flags say what they are.

``config show``, ``config init`` and the README's table are made from these declarations. A setting whose effect this
version does not have is refused with a line that says so: nothing is accepted that would not be enforced.

Everything that is wrong is a ``StartError`` of one line: where it was set, which setting, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from inferxgate import config_checks as checks
from inferxgate.config_mistakes import unknown_variable, worst_mistake
from inferxgate.config_sections import (
    DATABASE_SCHEME,
    AliasSettings,
    AuthSettings,
    ChatSettings,
    FactSettings,
    LimitSettings,
    MediaSettings,
    ParamSettings,
    PriceSettings,
    ProviderSettings,
    ReasoningSettings,
    RoutingSettings,
    ServerSettings,
    StorageSettings,
)
from inferxgate.config_sources import (
    BadSetting,
    ConfigFile,
    Loc,
    UnknownVariable,
    common,
    depth,
    dotted,
    entry_of,
    fields_of,
    insert,
    overlay,
    read_environment,
    read_file,
    resolve_file,
)
from inferxgate.errors import StartError
from inferxgate.providers.provider import Row
from inferxgate.providers.registry import ROWS
from inferxgate.values import dataclass

APPLICATION = "inferxgate"

_T = TypeVar("_T")


class Settings(BaseModel):
    """Every setting. ``load_settings`` reads them; ``Settings(server=...)`` takes only what it is given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: ServerSettings = Field(ServerSettings.model_construct(), description="The HTTP server.")
    auth: AuthSettings = Field(AuthSettings.model_construct(), description="Users and tokens.")
    limits: LimitSettings = Field(
        LimitSettings.model_construct(), description="Limits of keys that have none of their own, and budgets."
    )
    storage: StorageSettings = Field(StorageSettings.model_construct(), description="The database.")
    params: ParamSettings = Field(ParamSettings.model_construct(), description="Parameters that a model does not take.")
    media: MediaSettings = Field(
        MediaSettings.model_construct(), description="Images and PDFs that requests name by their URLs."
    )
    reasoning: ReasoningSettings = Field(
        ReasoningSettings.model_construct(), description="Thought between the turns of a tool loop."
    )
    routing: RoutingSettings = Field(
        RoutingSettings.model_construct(), description="Tries, fall-backs, health and load."
    )
    chat: ChatSettings = Field(ChatSettings.model_construct(), description="Defaults of 'inferxgate chat'.")
    providers: dict[str, ProviderSettings] = Field(
        {}, description="Who serves models. 'echo' is built in.", examples=["openai"]
    )
    models: dict[str, AliasSettings] = Field(
        {},
        description="Aliases: names of your own for one or more models. One with a * in it stands for all that fit.",
        examples=["smart"],
    )
    pricing: dict[str, PriceSettings] = Field(
        {},
        description="Prices by provider/model; * stands for anything, the first that fits holds.",
        examples=["openai/*"],
    )
    catalog: dict[str, FactSettings] = Field(
        {}, description="Facts by provider/model; * stands for anything.", examples=["my-vllm/*"]
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and where they are from."""

    settings: Settings
    path: Path | None
    """The file that was read; None where there is none."""
    data_dir: Path
    """Absolute. Whoever needs the folder makes it, with mode 0700."""
    origins: Mapping[str, str]
    """By the setting's dotted name: ``default``, ``file``, ``environment NAME`` or ``flag``."""


def config_file(config_path: Path | None, *, environ: Mapping[str, str] = os.environ) -> Path:
    """The place of the configuration file: the flag, ``INFERXGATE_CONFIG``, or the platform's folder."""
    return _chosen_file(config_path, environ) or _platform_folder("config") / "config.toml"


def _chosen_file(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = environ.get("INFERXGATE_CONFIG")
    return config_path or (Path(os.path.expanduser(named)) if named else None)


def data_folder(*, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: ``INFERXGATE_DATA_DIR``, or the platform's. It need not exist. Raises ``StartError``."""
    named = environ.get("INFERXGATE_DATA_DIR")
    folder = Path(os.path.expanduser(named)).absolute() if named else _platform_folder("data")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise StartError(f"The data folder {folder} is not a folder; INFERXGATE_DATA_DIR names another")
    return folder


def _platform_folder(kind: Literal["config", "data"]) -> Path:
    find = platformdirs.user_config_path if kind == "config" else platformdirs.user_data_path
    folder = find(APPLICATION, appauthor=False)
    if not folder.is_absolute():
        name = "INFERXGATE_CONFIG" if kind == "config" else "INFERXGATE_DATA_DIR"
        raise StartError(f"This user has no home folder; name the place of the {kind} in {name}")
    return folder


def database_path(settings: Settings, data_dir: Path) -> Path:
    """The SQLite file that ``storage.database_url`` names."""
    return data_dir / settings.storage.database_url.removeprefix(DATABASE_SCHEME)


def load_settings(
    *, config_path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> Loaded:
    """Read file and environment, lay ``flags`` (by dotted name; None is not given) over them, and check everything.

    Raises ``StartError``: one line that names the place, the setting, and what to do.
    """
    chosen = _chosen_file(config_path, environ)
    path = chosen or config_file(None, environ=environ)
    file = read_file(path) if chosen or os.path.lexists(path) else None
    reading = _Reading.read(file, flags, environ)
    settings = reading.settings()
    return Loaded(settings, file.path if file else None, data_folder(environ=environ), reading.origins(settings))


def leaves(settings: BaseModel, loc: Loc = ()) -> Iterator[tuple[Loc, FieldInfo, object]]:
    """Every setting in force: where it stands, its declaration and its value. Headers are settings one by one."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        here = (*loc, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, here)
        elif not isinstance(value, dict) or (not value and fields_of(entry_of(field.annotation)) is None):
            yield here, field, value
        else:
            for key, entry in value.items():
                if isinstance(entry, BaseModel):
                    yield from leaves(entry, (*here, key))
                else:
                    yield (*here, key), field, entry


@dataclass(frozen=True, slots=True)
class _Reading:
    """What each source says: to lay them over each other, and to name the place of a mistake."""

    environ: Mapping[str, str]
    file: ConfigFile | None
    flags: dict[str, Any]
    environment: dict[str, Any]
    names: Mapping[Loc, str]
    """The variable behind each setting of ``environment``."""
    vendors: dict[str, Any]
    """What the providers' own variables say: weaker than the file, so that a section's own key stays its key."""
    vendor_names: Mapping[Loc, str]

    @classmethod
    def read(cls, file: ConfigFile | None, flags: Mapping[str, object], environ: Mapping[str, str]) -> _Reading:
        given: dict[str, Any] = {}
        for name, value in flags.items():
            if value is not None:
                insert(given, tuple(name.split(".")), value)
        vendors, vendor_names = _vendor_settings(environ)
        present = {**vendors, **(file.values if file else {})}
        own = present.get("providers")
        if isinstance(own, dict):
            present["providers"] = {**vendors.get("providers", {}), **own}
        try:
            environment, names = read_environment(environ, Settings, present)
        except UnknownVariable as unknown:
            raise StartError(unknown_variable(unknown, Settings, present)) from None
        named = {name for tree in (given, environment, file.values if file else {}) for name in _providers_of(tree)}
        _forget_halves(vendors, named)
        for loc in _forget_outdone_keys(vendors, (given, environment, file.values if file else {})):
            vendor_names.pop(loc, None)
        return cls(environ, file, given, environment, names, vendors, vendor_names)

    def settings(self) -> Settings:
        """All sources over each other, checked. Raises ``StartError``."""
        try:
            settings = self._merged()
            _check_together(settings)
        except BadSetting as problem:
            raise StartError(f"{self._named(problem.loc)} {problem}") from None
        return settings

    def _merged(self) -> Settings:
        values = resolve_file(self.file, Settings, self.environ, skip=self._outdone) if self.file else {}
        merged: dict[str, Any] = {}
        for layer in (self.vendors, values, self.environment, self.flags):
            overlay(merged, layer)
        try:
            return Settings(**merged)
        except ValidationError as error:
            raise worst_mistake(error, Settings) from None

    def _outdone(self, loc: Loc) -> bool:
        """Whether a stronger source than the file has this setting."""
        return len(loc) in (depth(self.flags, loc), depth(self.environment, loc))

    def _named(self, loc: Loc) -> str:
        """The setting, after where it, or else what is nearest to it, was set; the strongest source among equals."""
        name = dotted(loc)
        file = self.file.values if self.file else {}
        depths = [depth(tree, loc) for tree in (self.flags, self.environment, file, self.vendors)]
        match depths.index(max(depths)) if any(depths) else None:
            case 0:
                return f"--{loc[-1].replace('_', '-')}"
            case 1:
                return f"environment variable {_nearest(self.names, loc)}: {name}"
            case 2 if self.file:
                line = self.file.line_of(loc)
                return f"{self.file.path}, line {line}: {name}" if line else f"{self.file.path}: {name}"
            case 3:
                return f"environment variable {_nearest(self.vendor_names, loc)}: {name}"
            case _:
                return name

    def origins(self, settings: Settings) -> dict[str, str]:
        """Where each setting in force is from."""
        return {dotted(loc): self._origin(loc) for loc, _, _ in leaves(settings)}

    def _origin(self, loc: Loc) -> str:
        if depth(self.flags, loc) == len(loc):
            return "flag"
        if depth(self.environment, loc) == len(loc):
            return f"environment {_nearest(self.names, loc)}"
        if self.file and depth(self.file.values, loc) == len(loc):
            return "file"
        return f"environment {self.vendor_names[loc]}" if loc in self.vendor_names else "default"


def _nearest(names: Mapping[Loc, str], loc: Loc) -> str:
    """The variable that set a setting, or else the one whose setting shares the most of its name."""
    return names[max(names, key=lambda known: common(known, loc))]


def _vendor_settings(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[Loc, str]]:
    values: dict[str, Any] = {}
    names: dict[Loc, str] = {}
    for row in ROWS.values():
        for setting, variables in (
            ("api_key", row.key_variables),
            ("base_url", row.url_variables),
            ("api_version", row.version_variables),
        ):
            name = next((name for name in variables if environ.get(name)), None)
            if name is not None:
                loc = ("providers", row.type, setting)
                insert(values, loc, environ[name])
                names[loc] = name
    return values, names


def _providers_of(tree: Mapping[str, Any]) -> Iterable[str]:
    providers = tree.get("providers")
    return providers if isinstance(providers, dict) else ()


def _forget_halves(vendors: dict[str, Any], named: Container[str]) -> None:
    """Take out the providers of which the environment has only a part, unless something else names them too.

    A key without an address, or a version alone, may be in the environment for another program's sake: that makes no
    provider, and must not stop the start either.
    """
    providers = vendors.get("providers", {})
    for name in [*providers]:
        there = ROWS[name].base_url is not None or "base_url" in providers[name]
        if name not in named and not (there and providers[name].keys() & {"api_key", "base_url"}):
            del providers[name]


def _forget_outdone_keys(vendors: dict[str, Any], stronger: Iterable[Mapping[str, Any]]) -> Iterator[Loc]:
    """Take out the credential of a vendor's own variable where a section has a list of its own; yields its place."""
    for tree in stronger:
        for name in _providers_of(tree):
            section = tree["providers"][name]
            if isinstance(section, dict) and section.get("api_keys"):
                vendors.get("providers", {}).get(name, {}).pop("api_key", None)
                yield ("providers", name, "api_key")


# What one setting alone cannot tell


def _check_together(settings: Settings) -> None:
    """Raise ``BadSetting`` for what is wrong between settings, with the names of entries, and with files."""
    server = settings.server
    if server.tls_cert and not server.tls_key:
        raise BadSetting(("server", "tls_cert"), "needs server.tls_key beside it")
    if server.tls_key and not server.tls_cert:
        raise BadSetting(("server", "tls_key"), "needs server.tls_cert beside it")
    for name, provider in settings.providers.items():
        _check(("providers", name), checks.provider_name, name)
        _check(("providers", name, "type")[: 3 if provider.type else 2], checks.provider_type, provider.type or name)
        _check_against_row(("providers", name), provider, ROWS[provider.type or name])
    for pattern, price in settings.pricing.items():
        _check_price(("pricing", pattern), price)
    for name, alias in settings.models.items():
        targets = [target.model for target in alias.targets]
        _check(("models", name), partial(checks.alias, targets=targets), name)
    for section in ("pricing", "catalog"):
        for name in getattr(settings, section):
            _check((section, name), checks.model_name, name)
    for loc, _, value in leaves(settings):
        if isinstance(value, Path):
            _check(loc, checks.file, value)


def _check_against_row(loc: Loc, provider: ProviderSettings, row: Row) -> None:
    if provider.base_url is None and row.base_url is None:
        raise BadSetting(loc, f"needs a base_url: {row.type} has no address that is the same for all")
    if provider.base_url is not None and row.check_base_url is not None:
        _check((*loc, "base_url"), row.check_base_url, provider.base_url)
    if provider.api_key is not None and provider.api_keys:
        raise BadSetting((*loc, "api_keys"), "must not stand beside api_key: it takes its place")
    if provider.vendor_models and row.price_id is None:
        raise BadSetting((*loc, "vendor_models"), f"is no setting of {row.type}, which has no price list of its own")
    if provider.discover and row.list_url is None:
        names = "deployments" if row.own_names else "models"
        raise BadSetting((*loc, "discover"), f"is no setting of {row.type}: name its {names}, which cannot be listed")
    if provider.api_version is not None and row.api_version is None:
        raise BadSetting((*loc, "api_version"), f"is no setting of {row.type}, which has no versions to choose from")


def _check_price(loc: Loc, price: PriceSettings) -> None:
    if (price.input is None) != (price.output is None):
        missing = "input" if price.input is None else "output"
        raise BadSetting((*loc, missing), "is missing: a price has both input and output, or is laid over a known one")
    if not price.model_dump(exclude_none=True):
        raise BadSetting(loc, "says nothing: set input and output, or what differs from the known price, or a discount")


def _check(loc: Loc, check: Callable[[_T], object], value: _T) -> None:
    try:
        check(value)
    except ValueError as error:
        raise BadSetting(loc, str(error)) from None
