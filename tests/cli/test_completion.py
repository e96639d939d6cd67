"""The completion scripts: kept current, and tried in the shells that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup, TyperOption

from inferxgate.cli.completion import completion_script
from inferxgate.cli.root import root_command
from tests.support.terminal import CommandLine, Terminal

FOLDER = Path(__file__).resolve().parents[2] / "completions"
FILES = {"bash": "inferxgate.bash", "zsh": "_inferxgate", "fish": "inferxgate.fish"}
LINES = [
    ("inferxgate ke", "keys"),
    ("inferxgate keys cr", "create"),
    ("inferxgate --config x keys cr", "create"),
    ("inferxgate keys create --na", "--name"),
    ("inferxgate keys create --name keys --exp", "--expires"),
    ("inferxgate stats --by mo", "model"),
    ("inferxgate stats --by=mo", "--by=model"),
    ("inferxgate chat -m models --no", "--no-stream"),
    ("inferxgate config che", "check"),
    ("inferxgate --show-completion fi", "fish"),
    ("inferxgate serve --config conf", "config.toml"),
]
"""What is typed, and what the tab key makes of its last word."""


def shell_or_skip(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed here, so its completion is not tried")
    return path


@pytest.mark.parametrize(("shell", "name"), FILES.items())
def test_the_files_are_current(shell: str, name: str) -> None:
    written = (FOLDER / name).read_text("utf-8")
    assert written == completion_script(shell, root_command()), (
        f"the command line has changed: run 'inferxgate --show-completion {shell} > completions/{name}'"
    )


@pytest.mark.parametrize("shell", FILES)
def test_the_program_prints_them(cli: CommandLine, shell: str) -> None:
    assert cli.well("--show-completion", shell).out == completion_script(shell, root_command())


def places() -> Iterator[tuple[str, set[str]]]:
    """Every command line that names a command, and what may follow, by another walk than the generator's."""
    root = root_command()
    todo = [("inferxgate", root, typer.Context(root, **root.context_settings))]
    while todo:
        line, command, context = todo.pop()
        options = {
            name
            for each in command.get_params(context)
            for name in (*each.opts, *each.secondary_opts)
            if isinstance(each, TyperOption) and not each.hidden
        }
        names = command.list_commands(context) if isinstance(command, TyperGroup) else []
        yield line, options | set(names)
        for name in names:
            assert isinstance(command, TyperGroup)
            child = command.get_command(context, name)
            assert child is not None
            todo.append((f"{line} {name}", child, typer.Context(child, parent=context, **child.context_settings)))


def test_bash_offers_everything_everywhere() -> None:
    bash = shell_or_skip("bash")
    lines = dict(places())
    assert len(lines) > 25
    script = f'source "{FOLDER / FILES["bash"]}"\n' + "".join(
        f'COMP_WORDS=({line} ""); COMP_CWORD={len(line.split())}; _inferxgate; echo "${{COMPREPLY[*]}}"\n'
        for line in lines
    )
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    offered = [set(answer.split()) for answer in done.stdout.splitlines()]
    assert dict(zip(lines, offered, strict=True)) == lines


def test_fish_offers_everything_everywhere() -> None:
    fish = shell_or_skip("fish")
    for line, words in places():
        script = f'source "{FOLDER / FILES["fish"]}"; complete -C "{line} "; complete -C "{line} -"'
        done = subprocess.run([fish, "--no-config", "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert {answer.split("\t")[0] for answer in done.stdout.splitlines()} == words, line


@pytest.mark.parametrize(("typed", "completed"), LINES)
def test_fish_completes(tmp_path: Path, typed: str, completed: str) -> None:
    fish = shell_or_skip("fish")
    (tmp_path / "config.toml").touch()
    script = f'source "{FOLDER / FILES["fish"]}"; complete -C "{typed}"'
    done = subprocess.run([fish, "--no-config", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert [answer.split("\t")[0] for answer in done.stdout.splitlines()] == [completed]


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """An interactive shell that has the script and, in place of the program, a function that shows its arguments."""
    path = shell_or_skip(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "config.toml").touch()
    command = {
        "bash": [path, "--norc", "--noprofile", "-i"],
        "zsh": [path, "-f", "-i"],
    }[request.param]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "dumb", "PS1": "", "ZDOTDIR": str(folder)}
    with Terminal(command, environment, columns=200) as terminal:
        if request.param == "zsh":
            terminal.press("autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste\n")
        terminal.press(f"cd '{folder}'; source '{FOLDER / FILES[request.param]}'\n")
        terminal.press("inferxgate() { printf '[%s]' \"$@\"; echo; }; printf 'rea%s\\n' dy\n")
        terminal.expect("ready")
        yield terminal


@pytest.mark.parametrize(("typed", "completed"), LINES)
def test_the_tab_key_completes(shell: Terminal, typed: str, completed: str) -> None:
    *before, _ = typed.split()[1:]
    shell.press(f"{typed}\t\n")
    shell.expect("".join(f"[{word}]" for word in [*before, completed]) + "\n")


def test_zsh_loads_it_from_its_path(tmp_path: Path) -> None:
    zsh = shell_or_skip("zsh")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "PS1": "",
        "ZDOTDIR": str(tmp_path),
    }
    with Terminal([zsh, "-f", "-i"], environment, columns=200) as terminal:
        terminal.press(f"fpath=('{FOLDER}' $fpath); autoload -Uz compinit; compinit -u -D\n")
        terminal.press("inferxgate() { printf '[%s]' \"$@\"; echo; }; printf 'rea%s\\n' dy\n")
        terminal.expect("ready")
        terminal.press("inferxgate ke\t\n")
        terminal.expect("[keys]\n")
        terminal.press("inferxgate ke\t cr\t\n")
        terminal.expect("[keys][create]\n")
