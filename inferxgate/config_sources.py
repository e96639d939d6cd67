"""Where settings are written down: the TOML file, and the environment.

Each source is read into a tree of plain values, tables as dicts, in the shape of the file; which setting has which type
is asked of the declarations, never repeated here. Text is turned into a number or a list only where text is all there
can be: in the environment, and where a string of the file was a reference.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from inferxgate.errors import StartError
from inferxgate.values import dataclass

Loc = tuple[str, ...]
"""The way to a setting: ``("providers", "my-vllm", "base_url")``."""

PREFIX = "INFERXGATE_"
_SEPARATOR = "__"
_FILE_BYTES = 4 * 2**20
_SECRET_BYTES = 64 * 2**10
_STATEMENT_LINES = 2000
_REFERENCE = re.compile(r"\$(\$\{)|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class BadSetting(Exception):
    """One setting that cannot be used. The message goes on from the setting's name: ``must be a whole number``."""

    def __init__(self, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.loc = loc


def dotted(loc: Iterable[str]) -> str:
    """The setting's name as TOML writes it: ``pricing."my-vllm/*".input``."""
    return ".".join(part if _BARE.fullmatch(part) else quoted(part) for part in loc)


def quoted(text: str) -> str:
    """A string of TOML, in which everything that does not print is written out."""
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in '\\"':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def plain(annotation: Any) -> Any:
    """An annotation without ``Annotated`` and without ``| None``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
        return plain(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


def fields_of(annotation: Any) -> Mapping[str, Any] | None:
    """The declared settings of a table by name; None where it has none, or names of the user's own."""
    kind = plain(annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return None


def entry_of(annotation: Any) -> Any:
    """What each entry of a table with names of the user's own is; None for anything else."""
    kind = plain(annotation)
    return get_args(kind)[1] if get_origin(kind) is dict else None


def child_of(annotation: Any, name: str) -> Any:
    """What is declared under a name; None where nothing is."""
    fields = fields_of(annotation)
    return entry_of(annotation) if fields is None else fields.get(name)


def from_text(text: str, annotation: Any) -> object:
    """The value that a text stands for. A text that does not fit stays text, for the validation to refuse."""
    kind = plain(annotation)
    lowered = text.strip().lower()
    if kind is bool:
        return _TRUTHS.get(lowered, text)
    if kind is int or kind is float:
        try:
            return kind(lowered) if re.fullmatch(r"[-+]?[0-9.e+-]{1,40}", lowered) else text
        except ValueError:
            return text
    if get_origin(kind) is list and not lowered.startswith("["):
        items = (item.strip() for item in text.split(","))
        return [from_text(item, get_args(kind)[0]) for item in items if item]
    if get_origin(kind) in (list, dict):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return Path(os.path.expanduser(text)) if kind is Path else text


def insert(tree: dict[str, Any], loc: Loc, value: object) -> None:
    """Put a value into a tree, with the tables on the way to it."""
    for part in loc[:-1]:
        tree = tree.setdefault(part, {})
    tree[loc[-1]] = value


def overlay(tree: dict[str, Any], stronger: Mapping[str, Any]) -> None:
    """Lay one tree of settings over another: table by table, and everything else as a whole.

    What only the stronger one has comes last, for in some tables the order counts. ``stronger`` stays as it is.
    """
    for name, value in stronger.items():
        if not isinstance(value, dict):
            tree[name] = value
            continue
        below = tree.get(name)
        if not isinstance(below, dict):
            below = tree[name] = {}
        overlay(below, value)


def depth(tree: object, loc: Iterable[str]) -> int:
    """How many parts of the way to a setting the tree has; a value that is no table counts for all below it."""
    count = 0
    for part in loc:
        if not isinstance(tree, dict):
            count += 1
        elif part in tree:
            tree = tree[part]
            count += 1
        else:
            break
    return count


def common(one: Loc, other: Loc) -> int:
    """How many parts two names begin with alike."""
    return next(
        (count for count, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


# The file


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One configuration file, read and parsed, with the references still in it."""

    path: Path
    text: str
    values: dict[str, Any]

    def line_of(self, loc: Loc) -> int | None:
        """The line on which a setting is set, or else the one that opens the nearest table around it."""
        best, line = 0, None
        for number, table, values in _statements(self.text):
            tree: dict[str, Any] = {}
            insert(tree, ("", *table), values)
            here = depth(tree[""], loc) if values else common(table, loc)
            if here > best:
                best, line = here, number
        return line


def _statements(text: str) -> Iterator[tuple[int, Loc, dict[str, Any]]]:
    """Each statement of a well-formed document: its first line, the table it is in, and its values (none: a heading).

    A statement ends with the first line at which it parses by itself; that way the parser, and not we, decides what a
    quoted key or a string over several lines is.
    """
    table: Loc = ()
    lines = [f"{line}\n" for line in text.split("\n")]  # splitlines() knows more line ends than TOML does
    first = 0
    while first < len(lines):
        for last in range(first + 1, min(len(lines), first + _STATEMENT_LINES) + 1):
            chunk = "".join(lines[first:last])
            try:
                values = tomllib.loads(chunk)
            except ValueError:
                continue
            if chunk.lstrip().startswith("["):
                table = tuple(_heading(values))
                values = {}
                yield first + 1, table, values
            elif values:
                yield first + 1, table, values
            first = last
            break
        else:
            return


def _heading(values: object) -> Iterator[str]:
    while values:
        if isinstance(values, list):
            values = values[0]
        elif isinstance(values, dict):
            name, values = next(iter(values.items()))
            yield name


def read_file(path: Path) -> ConfigFile:
    """Read and parse a configuration file. Raises ``StartError`` with the file, and the line where it is known."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES + 1)
    except IsADirectoryError:
        raise StartError(f"{path} is a directory, not a configuration file") from None
    except FileNotFoundError:
        raise StartError(f"There is no configuration file {path}; 'inferxgate config init' writes one") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartError(f"Cannot read the configuration file {path}: {reason}") from None
    if len(data) > _FILE_BYTES:
        raise StartError(f"{path} is larger than {_FILE_BYTES} bytes, and so no configuration file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise StartError(f"{path}, line {line}: not UTF-8, as TOML has to be") from None
    try:
        return ConfigFile(path, text, tomllib.loads(text))
    except RecursionError:
        raise StartError(f"{path}: nested too deeply") from None
    except ValueError as error:
        raise StartError(_syntax_error(path, text, str(error))) from None


def _syntax_error(path: Path, text: str, message: str) -> str:
    at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    if at is None:
        return f"{path}: not TOML: {message}"
    line = at.group(1) or text.rstrip("\n").count("\n") + 1
    return f"{path}, line {line}: not TOML: {message[: at.start()]}"


def resolve_file(
    file: ConfigFile, shape: Any, environ: Mapping[str, str], *, skip: Callable[[Loc], bool]
) -> dict[str, Any]:
    """The file's values with their references replaced and its relative paths made absolute.

    ``skip`` tells which settings another source decides: a reference in those need not lead anywhere.
    Raises ``BadSetting`` for a reference to what is not there.
    """
    resolver = _Resolver(environ, file.path.absolute().parent, skip)
    return {name: resolver.resolve((name,), value, child_of(shape, name)) for name, value in file.values.items()}


@dataclass(frozen=True, slots=True)
class _Resolver:
    environ: Mapping[str, str]
    folder: Path
    """What relative paths start from."""
    skip: Callable[[Loc], bool]

    def resolve(self, loc: Loc, value: object, annotation: Any) -> object:
        if isinstance(value, dict):
            return {name: self.resolve((*loc, name), each, child_of(annotation, name)) for name, each in value.items()}
        if self.skip(loc):
            return value
        if isinstance(value, list):
            item = next(iter(get_args(plain(annotation))), None)
            return [self._item(loc, each, item) for each in value]
        return self._text(loc, value, annotation) if isinstance(value, str) else value

    def _item(self, loc: Loc, value: object, annotation: Any) -> object:
        if isinstance(value, dict):
            return self.resolve(loc, value, annotation)
        return self._text(loc, value, annotation) if isinstance(value, str) else value

    def _text(self, loc: Loc, text: str, annotation: Any) -> object:
        replaced = _REFERENCE.sub(lambda found: self._reference(loc, found), text)
        if plain(annotation) is Path:
            return self.folder / os.path.expanduser(replaced)
        return from_text(replaced, annotation) if "${" in text else replaced

    def _reference(self, loc: Loc, found: re.Match[str]) -> str:
        escaped, name, closed = found.groups()
        if escaped:
            return "${"
        if not closed:
            raise BadSetting(loc, "has a '${' without its '}' (a literal '${' is written '$${')")
        if name.startswith("file:"):
            return self._secret(loc, name.removeprefix("file:"))
        if not _VARIABLE.fullmatch(name):
            raise BadSetting(loc, f"has '${{{name}}}', which names neither a variable nor a file (${{file:/path}})")
        if name not in self.environ:
            raise BadSetting(loc, f"needs the environment variable {name}, which is not set")
        return self.environ[name]

    def _secret(self, loc: Loc, name: str) -> str:
        path = self.folder / os.path.expanduser(name)
        try:
            with path.open("rb") as file:
                data = file.read(_SECRET_BYTES + 1)
            if len(data) > _SECRET_BYTES:
                raise BadSetting(loc, f"needs the file {path}, which is larger than {_SECRET_BYTES} bytes")
            return data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise BadSetting(loc, f"needs the file {path}, which is not UTF-8") from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise BadSetting(loc, f"needs the file {path}, which cannot be read: {reason}") from None


# The environment


def environment_name(loc: Iterable[str]) -> str:
    """The environment's name of a setting: ``INFERXGATE_SERVER__PORT``."""
    return PREFIX + _SEPARATOR.join(part.upper().replace("-", "_") for part in loc)


def read_environment(
    environ: Mapping[str, str], shape: Any, present: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[Loc, str]]:
    """The settings that the environment sets, as a tree, and the name of the variable behind each.

    Case does not matter in a name. In tables with names of the user's own, ``MY_VLLM`` is the entry of ``present`` that
    differs from it in nothing but case, ``-`` and ``_``; where there is none, it is a new entry ``my-vllm``. An empty
    variable counts as not set. Raises ``UnknownVariable`` for a name with a double underscore that means nothing, and
    ``StartError`` for one that means two things.
    """
    values: dict[str, Any] = {}
    names: dict[Loc, str] = {}
    for name in sorted(environ, key=str.upper):
        text = environ[name]
        if not name.upper().startswith(PREFIX) or _SEPARATOR not in name or not text:
            continue
        loc, annotation = _meaning(name, shape, present)
        taken = next(
            (known for known in names if loc == known or (loc[:-1] == known and depth(values, loc) == len(loc))), None
        )
        if taken is not None:
            raise StartError(f"The environment variables {names[taken]} and {name} both set {dotted(loc)}")
        insert(values, loc, from_text(text, annotation))
        names[loc] = name
    return values, names


class UnknownVariable(Exception):
    """An environment variable that is spelt like a setting and is none."""

    def __init__(self, name: str, known: Loc) -> None:
        super().__init__(name)
        self.name = name
        self.known = known
        """How far the name could be followed."""


def _meaning(name: str, shape: Any, present: object) -> tuple[Loc, Any]:
    """The setting that a variable names, and its type."""
    loc: Loc = ()
    parts = name[len(PREFIX) :].split(_SEPARATOR)
    while parts:
        part = _part(name, parts[0], shape, present)
        child = None if part is None else child_of(shape, part)
        if part is None or child is None:
            break
        loc, shape, parts = (*loc, part), child, parts[1:]
        present = present.get(part) if isinstance(present, Mapping) else None
    is_table = fields_of(shape) is not None or fields_of(entry_of(shape)) is not None
    if parts or is_table:
        raise UnknownVariable(name, loc)
    return loc, shape


def _part(name: str, part: str, shape: Any, present: object) -> str | None:
    """The name, as the file spells it, that a part of a variable's name stands for."""
    fields = fields_of(shape)
    if fields is not None:
        return next((field for field in fields if _same(field, part)), None)
    found = [entry for entry in present if _same(entry, part)] if isinstance(present, Mapping) else []
    if len(found) > 1:
        raise StartError(f"The environment variable {name} could mean {' or '.join(map(repr, found))}")
    return found[0] if found else part.lower().replace("_", "-") or None


def _same(one: str, other: str) -> bool:
    return one.casefold().replace("-", "_") == other.casefold().replace("-", "_")


def known_locs(shape: Any, present: Mapping[str, Any], loc: Loc = ()) -> Iterator[Loc]:
    """Every setting that can be named: those declared, and those of the entries that ``present`` has."""
    fields = fields_of(shape)
    entry = entry_of(shape)
    if fields is None and fields_of(entry) is None:
        yield loc
        return
    for name, child in (dict.fromkeys(present, entry) if fields is None else fields).items():
        below = present.get(name)
        yield from known_locs(child, below if isinstance(below, Mapping) else {}, (*loc, name))
