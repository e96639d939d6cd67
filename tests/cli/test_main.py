"""How every run ends: the version, the help, and each kind of failure as one line and a code."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from inferxgate import __version__
from inferxgate.cli.root import COMMANDS
from tests.support.process import program
from tests.support.terminal import CommandLine, only_line

CONTRACT_COMMANDS = ["serve", "keys", "users", "models", "stats", "chat", "config"]


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(cli: CommandLine, flag: str) -> None:
    assert cli.well(flag).out == f"inferxgate {__version__}\n"


def test_version_among_other_options(cli: CommandLine) -> None:
    assert cli.well("--config", "nowhere.toml", "--version").out == f"inferxgate {__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(cli: CommandLine, flag: str) -> None:
    done = cli.well(flag)
    assert re.findall(r"^  (\w+)  ", done.out, re.MULTILINE) == CONTRACT_COMMANDS
    assert done.err == ""


def test_the_commands_are_those_of_the_contract() -> None:
    assert list(COMMANDS) == CONTRACT_COMMANDS


def test_help_fits_a_terminal(cli: CommandLine) -> None:
    pages = [cli.well("--help"), *(cli.well(name, "--help") for name in COMMANDS)]
    assert max(len(line) for page in pages for line in page.out.splitlines()) <= 80


def test_every_command_explains_itself(cli: CommandLine) -> None:
    for name in COMMANDS:
        page = cli.well(name, "--help").out
        assert page.startswith(f"Usage: inferxgate {name} ")
        for command in re.findall(r"^  ([a-z]+)  +\S", page.partition("Commands:")[2], re.MULTILINE):
            below = cli.well(name, command, "--help").out
            assert below.startswith(f"Usage: inferxgate {name} {command} ")


def test_without_a_command_the_help_is_shown_as_wrong_usage(cli: CommandLine) -> None:
    for arguments in ([], ["keys"]):
        done = cli.run(*arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Usage: inferxgate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kyes"], "No such command 'kyes': did you mean 'keys'?"),
        (["fly"], "No such command 'fly': there are serve, keys, users, models, stats, chat, config"),
        (["--frob"], "No such option: --frob; see 'inferxgate --help'"),
        (["keys", "create", "--frob"], "No such option: --frob; see 'inferxgate keys create --help'"),
        (["keys", "frob"], "No such command 'frob': there are create, list, show, update, revoke, rotate"),
        (["keys", "show"], "Missing argument 'KEY'; see 'inferxgate keys show --help'"),
        (["keys", "show", "a", "b"], "Got unexpected extra argument(s) (b); see 'inferxgate keys show --help'"),
        (["keys", "lits"], "No such command 'lits': did you mean 'list'?"),
        (["keys", "create", "--modles", "x"], "No such option: --modles; did you mean --models?; see"),
        (["stats", "--by", "moon"], "--by: 'moon' is not one of"),
        (["users", "role", "ann", "god"], "ROLE: 'god' is not one of"),
        (["--show-completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(cli: CommandLine, arguments: list[str], message: str) -> None:
    assert message in cli.fails(*arguments, code=2)


def test_control_characters_in_a_failure_are_written_out(cli: CommandLine) -> None:
    assert "\\x1b[31m" in cli.fails("keys", "show", "\x1b[31mred\nline")


def test_a_bad_setting_is_one_line_and_code_1(cli: CommandLine) -> None:
    cli.config_path.write_text("[server]\nprot = 3000\n")
    line = cli.fails("keys", "list")
    assert "prot" in line
    assert str(cli.config_path) in line


def test_config_is_taken_before_and_behind_the_command(cli: CommandLine) -> None:
    bad = cli.folder / "bad.toml"
    bad.write_text("nonsense = true\n")
    for arguments in (["--config", str(bad), "keys", "list"], ["keys", "list", "--config", str(bad)]):
        assert str(bad) in cli.fails(*arguments)
    assert cli.well("--config", str(bad), "keys", "list", "--config", str(cli.config_path)).out == ""


def test_a_fault_of_ours_is_one_line_and_a_traceback_only_when_asked_for(cli: CommandLine) -> None:
    broken = cli.folder / "broken"
    (broken / "inferxgate" / "cli").mkdir(parents=True)
    script = broken / "run.py"
    script.write_text(
        "import sys\n"
        "from inferxgate.cli import main, root\n"
        "def fault(arguments):\n"
        "    raise RuntimeError('the flux is\\nout of phase')\n"
        "root.run_command = fault\n"
        "main.main()\n"
    )
    command = [sys.executable, str(script), "keys"]
    environment = {**cli.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert line == "internal error, RuntimeError: the flux is out of phase (INFERXGATE_DEBUG=1 shows where)"
    done = subprocess.run(
        command, env={**environment, "INFERXGATE_DEBUG": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1] == f"inferxgate: {line}"


def test_a_reader_that_leaves_is_no_failure_to_report(cli: CommandLine) -> None:
    process = cli.start("--help", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, b"")


def test_ctrl_c_ends_with_130(cli: CommandLine) -> None:
    with cli.on_terminal("users", "create", "ann@example.com") as terminal:
        terminal.expect("Password: ")
        terminal.press_until("\x03", "interrupted")
        assert terminal.end() == 130
        assert terminal.seen.endswith("inferxgate: interrupted\n")
        assert "Traceback" not in terminal.seen


@pytest.mark.parametrize("command", [["--version"], ["--help"], ["keys", "create"], ["config", "path"]])
def test_output_that_cannot_be_written_is_one_line(cli: CommandLine, command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = cli.start(*command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.decode().splitlines()[-1] == "inferxgate: No space left on device"
    assert b"Exception ignored" not in err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["keys create", "users create ann@example.com", "chat -m echo hi", "--version"])
def test_closed_streams_are_no_fault_of_ours(cli: CommandLine, command: str, closed: str) -> None:
    line = f"{' '.join(program())} {command} {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], env=cli.environment, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if "users" in command else 0)
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_locale_that_lacks_a_character_gets_a_question_mark(cli: CommandLine) -> None:
    done = cli.run("chat", "-m", "echo", "naïve 日本", environment={"PYTHONIOENCODING": "ascii"})
    assert (done.code, done.out) == (0, "na?ve ??\n")
