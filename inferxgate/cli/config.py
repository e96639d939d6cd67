"""``inferxgate config``: what is in force and why, where the file is, whether it is right, and a first one."""

from __future__ import annotations

import os
import stat
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from inferxgate.cli.failures import CommandFailed, visible
from inferxgate.cli.options import Command, ConfigOption, JsonOption, load, new_app
from inferxgate.cli.output import note, on_terminal, print_fields, print_json, print_line, print_table
from inferxgate.config import Loaded, Settings, config_file, data_folder
from inferxgate.config_listing import Declaration, InForce, Table, as_toml, settings_in_force, tables
from inferxgate.config_mistakes import LATER_VARIABLES, missing_underscore
from inferxgate.config_sources import dotted, read_file
from inferxgate.config_warnings import pattern_warnings, provider_warnings, target_warnings
from inferxgate.errors import StartError
from inferxgate.providers.addresses import settled
from inferxgate.providers.registry import ROWS
from inferxgate.values import dataclass

app = new_app("Show, check and create the configuration.")

_PREFACE = """\
# The configuration of InferXgate. Every setting is here with its default: take away the '#' in front to change one.
#
# The environment wins over this file, and options of the command line win over both. A setting's environment name is
# INFERXGATE_<SECTION>__<NAME>, such as INFERXGATE_SERVER__PORT, or INFERXGATE_PROVIDERS__MY_VLLM__BASE_URL for
# [providers.my-vllm]: case does not matter, and _ stands for - too. Lists are written as JSON or with commas.
# 'inferxgate config show' tells what is in force, and where each came from.
#
# Any string may name an environment variable, "${NAME}", or a file that holds a secret, "${file:/run/secrets/name}".
"""
_WIDTH = 110
_ORIGIN_COLUMN = 48
"""Where ``config show`` says where a setting came from, unless its line is longer than this."""
_SECRET = frozenset({"api_key", "api_keys", "jwt_secret", "headers"})


@app.command(cls=Command)
def show(*, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show every setting in force and where it came from; secrets are masked."""
    loaded = load(config)
    settings = settings_in_force(loaded)
    if json:
        by_name = {each.name: {"value": each.value, "origin": each.origin} for each in settings}
        print_json({"path": _text(loaded.path), "data_dir": str(loaded.data_dir), "settings": by_name})
        return
    note(f"Configuration file: {loaded.path or f'none ({config_file(config)} is not there)'}")
    note(f"Data folder: {loaded.data_dir}")
    if on_terminal():
        _print_statements(settings)
    else:
        print_table(["Setting", "Value", "From"], [[each.name, _cell(each.value), each.origin] for each in settings])


def _print_statements(settings: Sequence[InForce]) -> None:
    """A line a setting, as the file spells it: a terminal that is too narrow breaks none that could be copied whole."""
    above = None
    for each in settings:
        table = each.name.rpartition(".")[0]
        if above not in (None, table):
            print_line()
        above = table
        if each.value is None:
            print_line(f"# {each.name} is not set")
        else:
            statement = visible(f"{each.name} = {as_toml(each.value)}")
            print_line(f"{statement:<{_ORIGIN_COLUMN}}  # {visible(each.origin)}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else as_toml(value)


@app.command(cls=Command)
def path(*, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Print where the configuration file is, or would be, and where the data is."""
    file, folder = config_file(config), data_folder()
    exists = os.path.lexists(file)
    if json:
        print_json({"path": str(file), "exists": exists, "data_dir": str(folder)})
    elif on_terminal():
        print_fields([("Configuration file:", str(file)), ("Data folder:", str(folder))])
    else:
        print_line(str(file))
        note(f"Data folder: {folder}")
    if not exists:
        note("There is no such file yet; 'inferxgate config init' writes one.")


@app.command(cls=Command)
def check(*, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check the configuration; the exit code is 1 where it is wrong."""
    loaded = load(config)
    _open_certificates(loaded)
    warnings = [*_warnings(loaded), *_unused_variables(os.environ)]
    if json:
        providers = [asdict(each) for each in _providers(loaded)]
        print_json({"ok": True, "path": _text(loaded.path), "providers": providers, "warnings": warnings})
    else:
        print_line(f"OK: {loaded.path or 'no configuration file, the defaults hold'}")
        for each in _providers(loaded):
            print_line(f"Provider {each.name}: {each.base_url}, {_credential(each)}")
    for warning in warnings:
        note(f"Warning: {warning}")


@dataclass(frozen=True, slots=True)
class _Found:
    """One configured provider."""

    name: str
    type: str
    base_url: str
    api_key_from: str | None
    """``file``, ``environment NAME``; None where it has none."""
    api_keys: int
    """How many credentials it has."""


def _providers(loaded: Loaded) -> Iterator[_Found]:
    for name, section in loaded.settings.providers.items():
        row = ROWS[section.type or name]
        setting = "api_keys" if section.api_keys else "api_key"
        keys = len(section.api_keys) or int(section.api_key is not None)
        origin = loaded.origins[dotted(("providers", name, setting))] if keys else None
        yield _Found(name, row.type, settled(row, section.base_url), origin, keys)


def _credential(found: _Found) -> str:
    if found.api_key_from is None:
        return "no api_key"
    several = f"{found.api_keys} api_keys" if found.api_keys > 1 else "api_key"
    return f"{several} from {found.api_key_from.removeprefix('environment ')}"


def _open_certificates(loaded: Loaded) -> None:
    """Open what ``serve`` would: that the files are there is not yet that they hold what they should."""
    # Imported here: the other commands do without these libraries.
    from inferxgate.server.listening import tls_context
    from inferxgate.upstream.environment import own_trust

    server = loaded.settings.server
    tls_context(server.tls_cert, server.tls_key)
    for name, provider in loaded.settings.providers.items():
        if provider.ca_file is not None:
            try:
                own_trust(str(provider.ca_file))
            except StartError as error:
                raise StartError(f"providers.{name}: {error}") from None


def _warnings(loaded: Loaded) -> Iterator[str]:
    """What is allowed, and yet seldom meant."""
    # Imported here: the other commands do without these libraries.
    from urllib.request import getproxies_environment

    from inferxgate.server.addresses import is_loopback

    server = loaded.settings.server
    if not is_loopback(server.host):
        without = "" if server.tls_cert else ", without TLS"
        yield f"server.host is {server.host}: other machines can reach the gateway{without}"
        if loaded.settings.auth.registration == "open":
            yield "auth.registration is open: whoever can reach the gateway can make an account"
        if server.public_metrics:
            yield "server.public_metrics is on: whoever can reach the gateway can read /metrics"
    if "*" in server.cors_origins:
        yield "server.cors_origins has *: pages of any web site may call the gateway"
    if not loaded.settings.providers:
        yield "no provider is configured: only echo answers (OPENAI_API_KEY and its like, or a section, adds one)"
    if loaded.settings.media.fetch_urls and getproxies_environment().keys() & {"https", "all"}:
        yield "media.fetch_urls is on: URLs are fetched directly, and not through the proxy that the environment names"
    yield from provider_warnings(loaded, os.environ)
    for name, provider in loaded.settings.providers.items():
        url = urlsplit(provider.base_url or "")
        if url.scheme == "http" and (provider.api_key or provider.api_keys) and not is_loopback(url.hostname or ""):
            yield f"providers.{name}.base_url is http: its api_key crosses the network in the clear"
    yield from target_warnings(loaded.settings)
    yield from pattern_warnings(loaded.settings)
    yield from _loose_secrets(loaded)


def _unused_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables of the environment that nothing reads, and that look as if something should."""
    later = [name for name in LATER_VARIABLES if environ.get(name)]
    if later:
        yield f"not used, since this version has no such provider yet: {', '.join(later)}"
    for name in sorted(environ):
        meant = missing_underscore(name, Settings)
        if meant and environ[name]:
            yield f"{name} is not read: a setting's name has two underscores, as in {meant}"


def _loose_secrets(loaded: Loaded) -> Iterator[str]:
    """Whether others on this machine may read secrets out of the file itself."""
    if loaded.path is None or not loaded.path.is_file():
        return
    others = stat.S_IMODE(loaded.path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    if others and any(_literal_secrets(read_file(loaded.path).values)):
        yield f"{loaded.path} holds secrets and others may read it; 'chmod 600' keeps it to yourself"


def _literal_secrets(values: object, name: str = "") -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _literal_secrets(value, name if name == "headers" else key)
    elif isinstance(values, list):
        for value in values:
            yield from _literal_secrets(value, name)
    elif name in _SECRET and isinstance(values, str) and "${" not in values:
        yield name


@app.command(cls=Command)
def init(
    *,
    config: ConfigOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a configuration file that explains every setting and changes none."""
    file = config_file(config)
    if not force and os.path.lexists(file):
        raise CommandFailed(f"{file} is there already; --force writes over it")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(Path(os.path.realpath(file)), template(), over=force)
    if json:
        print_json({"path": str(file)})
    else:
        print_line(str(file))
    note("Edit it, then see 'inferxgate config check'.")


def _write(file: Path, text: str, *, over: bool) -> None:
    """Write a file of mode 0600. One that it writes over is replaced whole or not at all."""
    try:
        if over:
            descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        else:
            name = str(file)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandFailed(f"{file} is there already; --force writes over it") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        if over:
            os.replace(name, file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def template() -> str:
    """The file that ``config init`` writes, made from the declarations."""
    return "\n".join([_PREFACE, *(_table(table) for table in tables())])


def _table(table: Table) -> str:
    # A section whose entries the user names is an example, and so is all of it a comment.
    heading = table.heading if table.entry is None else f"#{table.heading}"
    lines = [*_prose(table.help), heading, *(line for setting in table.settings for line in _setting(setting))]
    return "\n".join([*lines, ""])


def _setting(setting: Declaration) -> list[str]:
    example = setting.examples[0] if setting.examples else None
    value, text = setting.default, setting.help
    if value is None:
        value = "" if example is None else example
    elif example is not None:
        text += f" For example: {as_toml(example)}"
    return [*_prose(text), f"#{setting.loc[-1]} = {as_toml(value)}"]


def _prose(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
