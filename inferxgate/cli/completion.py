"""Completion scripts for bash, zsh and fish, written out from the command line's own definition.

They hold every command and option as text, so that a press of the tab key starts no Python. What they cannot know, such
as the names of keys, they do not offer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup, TyperOption

from inferxgate.values import dataclass

if TYPE_CHECKING:
    # Typer carries its own click and exports no name for these types.
    from typer._click import Command, Context

PROGRAM = "inferxgate"


@dataclass(frozen=True, slots=True)
class Option:
    """One option and what may follow it."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    """The values that it takes, where they are few."""
    takes_file: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A point in the command line: the program, a group of commands, or a command."""

    path: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    """Name and help of each command that may come next."""
    options: tuple[Option, ...]

    @property
    def key(self) -> str:
        """The path as one word, for the scripts to compare."""
        return "/".join(self.path)

    @property
    def words(self) -> str:
        """What may come next, as one string."""
        names = [name for name, _ in self.commands]
        return " ".join([*names, *(name for option in self.options for name in option.names)])


def completion_script(shell: str, root: Command) -> str:
    """The script that makes ``shell`` complete our command line."""
    return _WRITERS[shell](list(_places(root, _context(root, None, PROGRAM), ())))


def _context(command: Command, parent: Context | None, name: str) -> Context:
    return typer.Context(command, parent=parent, info_name=name, **command.context_settings)


def _places(command: Command, context: Context, path: tuple[str, ...]) -> Iterator[Place]:
    children = {}
    if isinstance(command, TyperGroup):
        found = {name: command.get_command(context, name) for name in command.list_commands(context)}
        children = {name: child for name, child in found.items() if child is not None and not child.hidden}
    yield Place(
        path=path,
        commands=tuple((name, child.get_short_help_str(limit=200)) for name, child in children.items()),
        options=tuple(
            _option(parameter)
            for parameter in command.get_params(context)
            if isinstance(parameter, TyperOption) and not parameter.hidden
        ),
    )
    for name, child in children.items():
        yield from _places(child, _context(child, context, name), (*path, name))


def _option(option: TyperOption) -> Option:
    kind = option.type_descriptor
    return Option(
        names=tuple(sorted([*option.opts, *option.secondary_opts])),  # those of --help come in no order
        help=" ".join((option.help or "").split()),
        takes_value=not option.is_flag and not option.count,
        choices=tuple(str(choice) for choice in kind.choices or ()),
        takes_file=kind.is_path or kind.is_file,
    )


def _names(places: list[Place], wanted: Callable[[Option], bool]) -> list[str]:
    """The options of any place that are wanted, by name. An option must be of one kind wherever it occurs."""
    options = [option for place in places for option in place.options]
    names = {name for option in options if wanted(option) for name in option.names}
    mixed = names & {name for option in options if not wanted(option) for name in option.names}
    if mixed:
        raise ValueError(f"{', '.join(sorted(mixed))} takes a value in one command and not in another")
    return sorted(names)


def _quoted(text: str) -> str:
    """In single quotes, as bash, zsh and fish all read them."""
    return "'" + text.replace("'", r"'\''") + "'"


# bash


def _bash(places: list[Place]) -> str:
    steps = [
        f"            {place.key}:{name}) path={f'{place.key}/{name}'.lstrip('/')} ;;"
        for place in places
        for name, _ in place.commands
    ]
    choices = [
        f"        {place.key}:{name}) words={_quoted(' '.join(option.choices))} ;;"
        for place in places
        for option in place.options
        if option.choices
        for name in option.names
    ]
    words = [f"        {_quoted(place.key)}) words={_quoted(place.words)} ;;" for place in places]
    return _BASH % {
        "with_value": " | ".join(_names(places, lambda option: option.takes_value)),
        "with_file": " | ".join(_names(places, lambda option: option.takes_file)),
        "steps": "\n".join(steps),
        "choices": "\n".join(choices),
        "words": "\n".join(words),
    }


_BASH = """\
# Completion of inferxgate for bash. Written by: inferxgate --show-completion bash
# To use it: source this file from ~/.bashrc, or put it into /etc/bash_completion.d

_inferxgate() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path='' words='' index=1 item
    COMPREPLY=()

    # bash takes --name=value apart at the sign
    if [[ $word == = ]]; then
        word=''
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi

    # Which command the words so far name
    while ((index < COMP_CWORD)); do
        item=${COMP_WORDS[index]}
        ((index++))
        case $item in
            %(with_value)s)
                [[ ${COMP_WORDS[index]} == = ]] && ((index++))
                ((index++))
                continue
                ;;
        esac
        case $path:$item in
%(steps)s
        esac
    done

    case $path in
%(words)s
    esac
    case $before in
        %(with_file)s)
            # bash 3 has no compopt, and then offers nothing
            compopt -o default 2>/dev/null
            return
            ;;
        %(with_value)s) words='' ;;
    esac
    case $path:$before in
%(choices)s
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}

complete -F _inferxgate inferxgate
"""


# zsh


def _zsh(places: list[Place]) -> str:
    return _ZSH % {"functions": "\n\n".join(_zsh_function(place) for place in places)}


def _zsh_function(place: Place) -> str:
    arguments = [_zsh_option(option) for option in place.options]
    if place.commands:
        arguments += ["'1: :->command'", "'*:: :->rest'"]
    lines = [f"{_zsh_name(place.path)}() {{"]
    if place.commands:
        lines += ["    local state line", "    typeset -A opt_args"]
    lines.append("    _arguments -C -S \\")
    lines.append(" \\\n".join(f"        {argument}" for argument in arguments))
    if place.commands:
        lines += ["    case $state in", "        command)", "            local -a commands=("]
        lines += [f"                {_quoted(f'{name}:{about}')}" for name, about in place.commands]
        lines += ["            )", "            _describe command commands", "            ;;"]
        lines += ["        rest)", "            case $words[1] in"]
        lines += [f"                {name}) {_zsh_name((*place.path, name))} ;;" for name, _ in place.commands]
        lines += ["            esac", "            ;;", "    esac"]
    return "\n".join([*lines, "}"])


def _zsh_name(path: tuple[str, ...]) -> str:
    return "_".join(["_inferxgate", *path])


def _zsh_option(option: Option) -> str:
    value = ""
    if option.choices:
        value = f":value:({' '.join(option.choices)})"
    elif option.takes_file:
        value = ":file:_files"
    elif option.takes_value:
        value = ":value: "
    about = "[" + re.sub(r"([\\\[\]:])", r"\\\1", option.help) + "]"
    if len(option.names) == 1:
        equals = "=" if option.takes_value else ""
        return _quoted(f"{option.names[0]}{equals}{about}{value}")
    together = " ".join(option.names)
    names = ",".join(f"{name}{'=' if option.takes_value and name.startswith('--') else ''}" for name in option.names)
    return f"{_quoted(f'({together})')}{{{names}}}{_quoted(f'{about}{value}')}"


_ZSH = """\
#compdef inferxgate
# Completion of inferxgate for zsh. Written by: inferxgate --show-completion zsh
# To use it: put it as _inferxgate into a folder of $fpath, or source it after compinit

%(functions)s

if [[ $funcstack[1] == _inferxgate ]]; then
    _inferxgate "$@"
else
    compdef _inferxgate inferxgate
fi
"""


# fish


def _fish(places: list[Place]) -> str:
    steps = [_quoted(f"{place.key}:{name}") for place in places for name, _ in place.commands]
    return _FISH % {
        "values": " ".join(_names(places, lambda option: option.takes_value)),
        "steps": " ".join(steps),
        "lines": "\n".join(line for place in places for line in _fish_place(place)),
    }


def _fish_place(place: Place) -> Iterator[str]:
    where = f"complete -c inferxgate -n '__inferxgate_at \"{place.key}\"'"
    for name, about in place.commands:
        yield f"{where} -a {name} -d {_quoted(about)}"
    for option in place.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        value = ""
        if option.choices:
            value = f" -x -a {_quoted(' '.join(option.choices))}"
        elif option.takes_file:
            value = " -r -F"
        elif option.takes_value:
            value = " -x"
        yield f"{where} {names}{value} -d {_quoted(option.help)}"


_FISH = """\
# Completion of inferxgate for fish. Written by: inferxgate --show-completion fish
# To use it: put it into ~/.config/fish/completions

# Whether the words so far name this command
function __inferxgate_at
    set -l place ''
    set -l value no
    for word in (commandline -opc)[2..-1]
        if test $value = yes
            set value no
        else if contains -- $word %(values)s
            set value yes
        else if contains -- "$place:$word" %(steps)s
            set place (string trim -l -c / -- "$place/$word")
        end
    end
    test "$place" = "$argv[1]"
end

complete -c inferxgate -f
%(lines)s
"""

_WRITERS: dict[str, Callable[[list[Place]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
