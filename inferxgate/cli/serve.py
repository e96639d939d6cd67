"""``inferxgate serve``: run the gateway, and say on standard error what a person needs to know next."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from inferxgate import __version__
from inferxgate.cli import options
from inferxgate.cli.options import Command, ConfigOption
from inferxgate.cli.output import note, warn

if TYPE_CHECKING:
    from inferxgate.config import Loaded
    from inferxgate.runtime import Runtime

app = options.new_app("Run the gateway.")
log = logging.getLogger("inferxgate.serve")

LogLevel = Literal["critical", "error", "warning", "info", "debug"]
LogFormat = Literal["text", "json"]


@app.command(cls=Command)
def serve(
    *,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="ADDRESS", help="Address to listen on; else server.host (127.0.0.1)."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="NUMBER", help="Port to listen on, 0 for a free one; else server.port (3000)."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="NUMBER", help="Processes that serve on the port; else server.workers (1)."),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            help="Least severe messages to log: critical, error, warning, info or debug.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option("--log-format", metavar="FORMAT", help="text for people, or json, one object a line."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; what runs then may finish.

    What no option says is as the environment or the configuration file has it. The file is read again when it
    changes, and at SIGHUP; no request is lost to that.
    """
    flags = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "server.log_level": log_level,
        "server.log_format": log_format,
    }
    source = options.source(config, flags)
    loaded = source.read()
    # Imported once the settings are right: a mistake in them is told at once, before the server's libraries load.
    from inferxgate.server.run import run

    run(loaded, source, on_ready=lambda url, runtime: _announce(loaded, config, url, runtime))


class _Line(NamedTuple):
    text: str
    warning: bool = False


def _announce(loaded: Loaded, config: Path | None, url: str, runtime: Runtime) -> None:
    as_json = loaded.settings.server.log_format == "json"
    for text, warning in _lines(loaded, config, url, runtime):
        if as_json:  # whoever reads the log as JSON must not stumble over a line that is none
            log.log(logging.WARNING if warning else logging.INFO, "%s", text)
        elif warning:
            warn(text)
        else:
            note(text)


def _lines(loaded: Loaded, config: Path | None, url: str, runtime: Runtime) -> Iterator[_Line]:
    from inferxgate.config_warnings import provider_warnings, target_warnings

    yield _Line(f"InferXgate {__version__} listens on {url}")
    yield _Line(f"For OpenAI's SDKs, base_url is {url}/v1")
    providers = ", ".join(f"{each.name} ({each.base_url})" for each in runtime.router.providers)
    yield _Line(f"Providers: {providers}")
    yield _Line(f"Configuration: {loaded.path or 'no file; defaults and the environment'}")
    yield _Line(f"Data: {loaded.data_dir}")
    yield from (_Line(text, warning=True) for text in _exposure(loaded))
    seldom_meant = (*provider_warnings(loaded, os.environ), *target_warnings(loaded.settings))
    yield from (_Line(f"WARNING: {text}", warning=True) for text in seldom_meant)
    if not runtime.store.keys():
        yield _Line(f"There is no key yet. To make one, in another shell: {_command('keys create', config)}")


def _exposure(loaded: Loaded) -> Iterator[str]:
    from inferxgate.server.addresses import is_loopback

    server = loaded.settings.server
    if is_loopback(server.host):
        return
    yield f"WARNING: {server.host} is not a loopback address: other machines can reach this gateway."
    if server.tls_cert is None:
        yield "WARNING: there is no TLS (server.tls_cert): keys and answers cross the network in the clear."


def _command(words: str, config: Path | None) -> str:
    """A command that reaches the same data and settings as this process, to be copied as it stands."""
    names = ("INFERXGATE_DATA_DIR", "INFERXGATE_CONFIG")
    environment = [f"{name}={shlex.quote(os.environ[name])}" for name in names if os.environ.get(name)]
    option = ["--config", shlex.quote(str(config))] if config is not None else []
    return " ".join([*environment, _program(), words, *option])


def _program() -> str:
    """How this very program is called."""
    called = sys.argv[0]
    name = os.path.basename(called)
    if name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m inferxgate"
    found = shutil.which(name)
    if found is not None and os.path.exists(called) and os.path.samefile(found, called):
        return name
    if os.sep in called and os.access(called, os.X_OK):
        return shlex.quote(called)
    return f"{shlex.quote(sys.executable)} {shlex.quote(called)}"
