"""The gate's own judgement, for the Pythons and C libraries that this machine does not have."""

from __future__ import annotations

import ast
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import zipapp_gate

HERE = (sys.version_info[0], sys.version_info[1])
SUFFIXES = (EXTENSION_SUFFIXES[0],)


def test_this_python_may_enter() -> None:
    assert zipapp_gate.wrong_python((HERE,), SUFFIXES, "Linux", None) == ""


def test_a_newer_and_an_older_python_may_not() -> None:
    line = zipapp_gate.wrong_python(((3, 98), (3, 99)), SUFFIXES, "Linux", None)
    assert "CPython 3.98 to 3.99 on Linux" in line
    assert f"this is Python {HERE[0]}.{HERE[1]}." in line
    assert "python3.99" in line
    assert "\n" not in line


def test_a_python_of_another_platform_may_not() -> None:
    line = zipapp_gate.wrong_python((HERE,), (".cpython-399-riscv64-linux-musl.so",), "another platform", None)
    assert EXTENSION_SUFFIXES[0] in line
    assert "another platform" in line


def test_an_older_c_library_may_not() -> None:
    if not zipapp_gate.old_libc((99, 0), "a new system"):
        assert not sys.platform.startswith("linux"), "glibc tells its version, and it is older than 99"
        return
    assert "a new system, and this has glibc 2." in zipapp_gate.wrong_python((HERE,), SUFFIXES, "a new system", (99, 0))
    assert zipapp_gate.wrong_python((HERE,), SUFFIXES, "an old system", (2, 0)) == ""


def test_the_oldest_pythons_can_read_it() -> None:
    """What a checker can see of it; where this machine has such Pythons, the built file is run by them as well."""
    source = Path(zipapp_gate.__file__).read_text("utf-8")
    tree = ast.parse(source, feature_version=(3, 4))
    assert [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.NamedExpr)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:
        arguments = function.args
        assert arguments.kwonlyargs + arguments.posonlyargs == []
        assert [function.returns, *(argument.annotation for argument in arguments.args)].count(None) == len(
            arguments.args
        ) + 1
    assert source.isascii()
