"""The one-file program, run as people run it: by each Python of this machine, whatever lies around it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from inferxgate import __version__
from tests.packaging import pythons
from tests.packaging.conftest import Program
from tests.support.process import GatewayProcess

each_python = pytest.mark.parametrize("python", pythons.supported())
a_python = pythons.supported()[0]

VERSION = f"inferxgate {__version__}\n"

EXTENSION_MODULES = (
    "bcrypt._bcrypt",
    "httptools.parser.parser",
    "orjson.orjson",
    "pydantic_core._pydantic_core",
    "uvloop.loop",
)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line in which it says why it does not start."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("inferxgate: ")
    return done.stderr


# ---------------------------------------------------------------- which Python


@each_python
def test_it_runs_on_a_python_it_is_for(program: Program, python: str) -> None:
    done = program.run("--version", python=python)
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")


@each_python
def test_every_extension_module_loads(program: Program, python: str) -> None:
    program.run("--version", python=python)
    (packages,) = program.cache.glob("*/site-packages")
    loading = f"import sys; sys.path.append({str(packages)!r}); import " + ", ".join(EXTENSION_MODULES)
    done = subprocess.run([python, "-I", "-S", "-c", loading], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_holds_extension_modules_for_every_python(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    for module in EXTENSION_MODULES:
        stem = "site-packages/" + module.replace(".", "/")
        found = [name for name in names if name.startswith(stem + ".") and name.endswith(".so")]
        abi3 = [stem + ".abi3.so"]
        assert found == abi3 or len(found) == 4, found


def test_it_starts_by_its_first_line(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3").symlink_to(a_python)
    path = f"{folder}{os.pathsep}{program.environment['PATH']}"
    done = program.run("--version", more={"PATH": path})
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")


@pytest.mark.parametrize(
    "python",
    pythons.others() or [pytest.param("", marks=pytest.mark.skip(reason="this machine has no Python it is not for"))],
)
def test_another_python_is_told_what_it_needs(fresh: Program, python: str) -> None:
    line = refused(fresh.run("keys", "create", python=python))
    assert "CPython 3.11 to 3.14" in line
    assert not fresh.cache.exists()


def test_the_interpreters_own_options_are_kept(program: Program) -> None:
    done = subprocess.run(
        [a_python, "-X", "importtime", str(program.path), "--version"],
        env=dict(program.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == VERSION
    assert "inferxgate.cli.main" in done.stderr


# ---------------------------------------------------------------- what it does


@each_python
def test_a_key_and_a_chat_from_the_one_file(program: Program, python: str) -> None:
    key = program.run("keys", "create", "--name", "first", python=python)
    assert (key.returncode, key.stderr.count("Traceback")) == (0, 0), key.stderr
    assert key.stdout.startswith("ix-api-key-")
    assert key.stdout.count("\n") == 1
    answer = program.run("chat", "--model", "echo", "hello from one file", python=python)
    assert (answer.returncode, answer.stdout) == (0, "hello from one file\n"), answer.stderr


@each_python
def test_a_gateway_from_the_one_file(
    program: Program, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERXGATE_TEST_BIN", f"{python} {program.path}")
    with GatewayProcess(tmp_path, environment={"INFERXGATE_CACHE_DIR": str(program.cache)}) as gateway:
        headers = {"Authorization": f"Bearer {gateway.create_key()}"}
        asked = {"model": "echo", "messages": [{"role": "user", "content": "first words"}]}
        url = gateway.base_url + "/chat/completions"
        whole = httpx.post(url, headers=headers, json=asked)
        streamed = httpx.post(url, headers=headers, json={**asked, "stream": True})
        assert gateway.stop() == 0, gateway.log
    assert whole.json()["choices"][0]["message"]["content"] == "first words"
    assert streamed.text.endswith("data: [DONE]\n\n")


# ---------------------------------------------------------------- where it lies and where it unpacks


def test_it_runs_from_a_read_only_folder(fresh: Program, without_rights: Sequence[str], tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = Path(shutil.copy(fresh.path, folder))
    path.chmod(0o555)
    folder.chmod(0o555)
    program = dataclasses.replace(fresh, path=path, before=without_rights)
    done = program.run("--version", python=a_python, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")
    assert program.run("keys", "create", python=a_python, cwd=folder).returncode == 0
    assert os.listdir(folder) == [path.name]


def test_the_cache_may_be_read_only_once_it_is_filled(fresh: Program, without_rights: Sequence[str]) -> None:
    assert fresh.run("--version", python=a_python).returncode == 0
    for folder in [fresh.cache, *(path for path in fresh.cache.rglob("*") if path.is_dir())]:
        folder.chmod(0o555)
    done = dataclasses.replace(fresh, before=without_rights).run("--version", python=a_python)
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")
    for folder in [fresh.cache, *(path for path in fresh.cache.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)


def test_several_at_once_on_the_first_start(fresh: Program) -> None:
    processes = [fresh.start("--version", python=a_python) for _ in range(4)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=120)
        assert (process.returncode, stdout, stderr) == (0, VERSION, "")


def test_the_cache_is_closed_to_others(fresh: Program) -> None:
    before = os.umask(0)
    try:
        assert fresh.run("--version", python=a_python).returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(fresh.cache.stat().st_mode) == 0o700
    writable = [path for path in fresh.cache.glob("*/site-packages/**/*") if path.stat().st_mode & 0o022]
    assert [path for path in writable if "__pycache__" not in path.parts] == []


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("INFERXGATE_CACHE_DIR", "chosen"),
        ("SHIV_ROOT", "chosen"),
        ("XDG_CACHE_HOME", "chosen/inferxgate"),
        ("HOME", "chosen/.cache/inferxgate"),
    ],
)
def test_where_the_cache_is(fresh: Program, tmp_path: Path, name: str, folder: str) -> None:
    environment = {key: value for key, value in fresh.environment.items() if key != "INFERXGATE_CACHE_DIR"}
    program = dataclasses.replace(fresh, environment={**environment, name: str(tmp_path / "chosen")})
    assert program.run("--version", python=a_python).stdout == VERSION
    assert list((tmp_path / folder).glob("inferxgate.pyz_*/site-packages"))


def test_a_cache_that_cannot_be_made_is_one_line(fresh: Program, without_rights: Sequence[str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o555)
    program = dataclasses.replace(fresh, before=without_rights)
    line = refused(program.run("--version", python=a_python, more={"INFERXGATE_CACHE_DIR": str(closed / "cache")}))
    assert str(closed / "cache") in line
    assert "INFERXGATE_CACHE_DIR" in line
    line = refused(program.run("--version", python=a_python, more={"INFERXGATE_CACHE_DIR": str(closed)}))
    assert "cannot be written" in line


def test_a_file_in_the_place_of_the_cache_is_one_line(fresh: Program) -> None:
    fresh.cache.touch()
    assert "INFERXGATE_CACHE_DIR" in refused(fresh.run("--version", python=a_python))


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o722])
def test_a_cache_that_others_can_write_is_refused(fresh: Program, mode: int) -> None:
    fresh.cache.mkdir()
    fresh.cache.chmod(mode)
    assert "others can write" in refused(fresh.run("--version", python=a_python))
    assert not list(fresh.cache.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_somebody_else_is_refused(fresh: Program) -> None:
    fresh.cache.mkdir(0o700)
    os.chown(fresh.cache, 65534, 65534)
    assert "belongs to somebody else" in refused(fresh.run("--version", python=a_python))


def test_a_start_that_was_cut_off_is_made_good(fresh: Program) -> None:
    """What a killed start leaves is a folder with another name, whose files may be half written."""
    assert fresh.run("--version", python=a_python).returncode == 0
    (unpacked,) = fresh.cache.glob("inferxgate.pyz_*")
    left = unpacked.with_name(unpacked.name + ".tmp")
    unpacked.rename(left)
    main = left / "site-packages" / "inferxgate" / "cli" / "main.py"
    main.write_text(main.read_text()[:100])
    shutil.rmtree(left / "site-packages" / "rich")
    done = fresh.run("--version", python=a_python)
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, "")
    assert fresh.run("--help", python=a_python).returncode == 0


def test_a_damaged_file_is_one_line(fresh: Program, tmp_path: Path) -> None:
    with zipfile.ZipFile(fresh.path) as archive:
        entry = archive.getinfo("site-packages/pydantic/main.py")
    data = bytearray(fresh.path.read_bytes())
    for offset in range(entry.header_offset + 200, entry.header_offset + 300):
        data[offset] ^= 0xFF
    path = tmp_path / "damaged.pyz"
    path.write_bytes(data)
    assert "damaged" in refused(dataclasses.replace(fresh, path=path).run("--version", python=a_python))


# ---------------------------------------------------------------- what the host has

POISON = "import sys\nsys.stdout.write('poison\\n')\n"


def poison(folder: Path) -> None:
    """Modules that shadow ours, the standard library's and those of our packages, and that would be noticed."""
    for name in ("typer", "rich", "orjson", "json", "inferxgate", "_gate", "_bootstrap"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(POISON)


@each_python
@pytest.mark.parametrize("by_first_line", [True, False])
def test_the_hosts_python_path_is_ignored(
    program: Program, tmp_path: Path, python: str, *, by_first_line: bool
) -> None:
    host, folder = tmp_path / "host", tmp_path / "bin"
    poison(host)
    folder.mkdir()
    (folder / "python3").symlink_to(python)
    path = f"{folder}{os.pathsep}{program.environment['PATH']}"
    more = {"PYTHONPATH": str(host), "PYTHONSTARTUP": str(host / "json" / "__init__.py"), "PATH": path}
    done = program.run("--help", python="" if by_first_line else python, cwd=host, more=more)
    assert done.returncode == 0, done.stderr
    assert "poison" not in done.stdout
    assert "serve" in done.stdout


def test_a_sitecustomize_of_the_host_changes_nothing(program: Program, tmp_path: Path) -> None:
    """Python runs it before any code of ours where the file is not started by its first line; it must not last."""
    host = tmp_path / "host"
    poison(host)
    planted = (
        "import sys, types\nsys.path.insert(0, {!r})\nsys.modules['inferxgate'] = types.ModuleType('inferxgate')\n"
    )
    (host / "sitecustomize.py").write_text(planted.format(str(host)))
    done = program.run("--help", python=a_python, more={"PYTHONPATH": str(host)})
    assert done.returncode == 0, done.stderr
    assert "poison" not in done.stdout


@pytest.mark.parametrize("where", ["virtual environment", "user"])
def test_the_hosts_site_packages_are_ignored(program: Program, tmp_path: Path, where: str) -> None:
    python, more = a_python, {}
    if where == "user":
        more = {"PYTHONUSERBASE": str(tmp_path / "base")}
        asked = [python, "-c", "import site; print(site.getusersitepackages())"]
        answer = subprocess.run(asked, env={**program.environment, **more}, capture_output=True, text=True, check=True)
        packages = Path(answer.stdout.strip())
    else:
        subprocess.run([python, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
        python = str(tmp_path / "venv" / "bin" / "python")
        (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    poison(packages)
    (packages / "poison.pth").write_text("import sys; sys.path.insert(0, sys.path[-1])\n")
    done = program.run("--help", python=python, more=more)
    assert done.returncode == 0, done.stderr
    assert "poison" not in done.stdout


@pytest.mark.parametrize("name", ["SHIV_ENTRY_POINT", "SHIV_MODULE", "SHIV_CONSOLE_SCRIPT", "SHIV_INTERPRETER"])
def test_what_is_set_for_another_shiv_program_changes_nothing(program: Program, name: str) -> None:
    assert program.run("--version", python=a_python, more={name: "this:that"}).stdout == VERSION


# ---------------------------------------------------------------- what is in it


def test_it_holds_nothing_that_runs_unasked(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith(".pth")] == []
    assert [name for name in names if Path(name).stem in {"sitecustomize", "usercustomize"}] == []


def test_nothing_in_it_tells_where_or_when_it_was_built(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        entries = archive.infolist()
        texts = {
            name: archive.read(name) for name in archive.namelist() if name.endswith((".json", "RECORD", "_gate.py"))
        }
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert len({entry.date_time for entry in entries}) == 1
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert [entry.filename for entry in entries if entry.filename.endswith(".pyc")] == []
    assert [name for name, data in texts.items() if os.fsencode(built.parent) in data] == []
