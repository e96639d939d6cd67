"""The declarations, and the settings in force, as lists: what ``config show``, ``config init`` and the README print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from inferxgate.config import Loaded, Settings, leaves
from inferxgate.config_sections import TargetSettings
from inferxgate.config_sources import Loc, dotted, entry_of, environment_name, plain, quoted
from inferxgate.providers.addresses import has_vendors_models
from inferxgate.providers.registry import ROWS
from inferxgate.values import dataclass

MASK = "****"
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting as it is declared."""

    loc: Loc
    """With ``NAME`` where the user chooses a name."""
    type: str
    """What it takes, in words."""
    help: str
    required: bool
    default: object
    """None where it has none, or where it means that nothing is set."""
    examples: tuple[object, ...]

    @property
    def name(self) -> str:
        return dotted(self.loc)

    @property
    def environment(self) -> str:
        return environment_name(self.loc)


@dataclass(frozen=True, slots=True)
class Table:
    """One section of the configuration file."""

    name: str
    help: str
    entry: str | None
    """A name to show where the user chooses the names, as in ``[providers.openai]``; None for other sections."""
    settings: tuple[Declaration, ...]

    @property
    def heading(self) -> str:
        return f"[{dotted((self.name,) if self.entry is None else (self.name, self.entry))}]"


def tables() -> Iterator[Table]:
    """Every section and setting there is, in the order of the declarations."""
    for name, section in Settings.model_fields.items():
        entry = entry_of(section.annotation)
        model = plain(section.annotation if entry is None else entry)
        loc: Loc = (name,) if entry is None else (name, "NAME")
        settings = tuple(_declaration((*loc, each), field) for each, field in model.model_fields.items())
        example = (section.examples or [None])[0]
        yield Table(name, section.description or "", None if entry is None else str(example), settings)


def _declaration(loc: Loc, field: FieldInfo) -> Declaration:
    required = field.is_required()
    default = None if required else field.default
    return Declaration(
        loc, _type_in_words(field.annotation), field.description or "", required, default, tuple(field.examples or ())
    )


def _type_in_words(annotation: Any) -> str:
    kind = plain(annotation)
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    if get_origin(kind) is list:
        item = plain(get_args(kind)[0])
        words_of = {float: "list of numbers", SecretStr: "list of secrets", TargetSettings: "list of text or tables"}
        return words_of.get(item, "list of text")
    if entry_of(kind) is not None:
        return "table of text"
    words: dict[object, str] = {
        bool: "true | false",
        int: "whole number",
        float: "number",
        Path: "path",
        SecretStr: "secret",
    }
    return words.get(kind, "text")


@dataclass(frozen=True, slots=True)
class InForce:
    """One setting as it is in force."""

    name: str
    value: object
    """As JSON has it, with secrets masked; None where nothing is set."""
    origin: str


def settings_in_force(loaded: Loaded) -> list[InForce]:
    """Every setting in force, fit to be shown to anyone."""
    return [
        InForce(dotted(loc), masked(_implied(loaded, loc) if value is None else value), loaded.origins[dotted(loc)])
        for loc, _, value in leaves(loaded.settings)
    ]


def _implied(loaded: Loaded, loc: Loc) -> object:
    """What a provider's unset setting comes to: its type is its name, its address and version the vendor's."""
    if loc[0] != "providers":
        return None
    section = loaded.settings.providers[loc[1]]
    kind = section.type or loc[1]
    row = ROWS[kind]
    implied: dict[str, object] = {"type": kind, "base_url": row.base_url, "api_version": row.api_version}
    if loc[2] == "vendor_models" and row.price_id is not None:
        return has_vendors_models(row, loc[1], section.base_url, said=None)
    return implied.get(loc[2])


def masked(value: object) -> object:
    """The value as JSON has it, without secrets: ``****`` in their place, also inside URLs."""
    match value:
        case TargetSettings():
            said = value.model_dump(exclude_unset=True)
            return masked(said if len(said) > 1 else value.model)
        case SecretStr():
            return MASK
        case Path():
            return str(value)
        case str():
            return _USERINFO.sub(f"{MASK}@", value)
        case list():
            return [masked(each) for each in value]
        case dict():
            return {name: masked(each) for name, each in value.items()}
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def as_toml(value: object) -> str:
    """A value of a setting as the file spells it."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case list():
            return f"[{', '.join(as_toml(each) for each in value)}]"
        case dict():
            pairs = ", ".join(f"{dotted((str(name),))} = {as_toml(each)}" for name, each in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return str(value)
