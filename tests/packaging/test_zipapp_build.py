"""What the build of the one-file program refuses, seen by giving it just that."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import zipapp_build
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from zipapp_build import BuildError, Tree
from zipapp_targets import PYTHONS, TARGETS

LINUX = TARGETS["linux-x86_64"]
ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = (ROOT / ".ci" / "build.lock", ROOT / ".ci" / "requirements.lock")


def wheel(folder: Path, name: str, files: Mapping[str, str], *, tag: str = "py3-none-any", requires: str = "") -> Path:
    """A small wheel; ``requires`` is the line of one requirement."""
    path = folder / f"{name}-1.0-{tag}.whl"
    info = f"{name}-1.0.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            archive.writestr(place, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", f"of this wheel alone: {tag}\n")
    return path


def tree(*wheels: Path) -> Tree:
    made = Tree()
    for path in wheels:
        made.add_wheel(path)
    return made


# ---------------------------------------------------------------- wheels of several Pythons become one tree


def test_extension_modules_of_several_pythons_stand_side_by_side(tmp_path: Path) -> None:
    both = {"fast/__init__.py": "", "fast/part.pyx": "left out"}
    older = wheel(tmp_path, "fast", {**both, "fast/part.cpython-311-x86_64-linux-gnu.so": "a"}, tag="cp311-cp311-x")
    newer = wheel(tmp_path, "fast", {**both, "fast/part.cpython-312-x86_64-linux-gnu.so": "b"}, tag="cp312-cp312-x")
    made = tree(older, newer)
    made.finish()
    assert sorted(made.files) == [
        "fast-1.0.dist-info/METADATA",
        "fast-1.0.dist-info/RECORD",
        "fast-1.0.dist-info/WHEEL",
        "fast/__init__.py",
        "fast/part.cpython-311-x86_64-linux-gnu.so",
        "fast/part.cpython-312-x86_64-linux-gnu.so",
    ]
    described = made.files["fast-1.0.dist-info/WHEEL"].decode()
    assert described.endswith("Tag: cp311-cp311-x\nTag: cp312-cp312-x\n")
    record = made.files["fast-1.0.dist-info/RECORD"].decode().splitlines()
    assert record[-1] == "fast-1.0.dist-info/RECORD,,"
    assert {row.split(",")[0] for row in record} == set(made.files)


def test_a_file_that_differs_between_pythons_stops_the_build(tmp_path: Path) -> None:
    older = wheel(tmp_path, "pure", {"pure/__init__.py": "a = 1"}, tag="cp311-cp311-x")
    newer = wheel(tmp_path, "pure", {"pure/__init__.py": "a = 2"}, tag="cp312-cp312-x")
    with pytest.raises(BuildError, match=r"pure/__init__\.py differs between pure-1\.0-cp311.* and pure-1\.0-cp312"):
        tree(older, newer)


def test_data_folders_of_a_wheel_go_where_an_installer_puts_them(tmp_path: Path) -> None:
    files = {"a-1.0.data/purelib/a.py": "", "a-1.0.data/platlib/b.py": "", "a-1.0.data/scripts/run": "#!python"}
    made = tree(wheel(tmp_path, "a", files))
    assert {name for name in made.files if "dist-info" not in name} == {"a.py", "b.py"}


@pytest.mark.parametrize("place", ["a-1.0.data/data/etc/a.conf", "../a.py", "/a.py"])
def test_a_file_outside_of_site_packages_stops_the_build(tmp_path: Path, place: str) -> None:
    with pytest.raises(BuildError, match="site-packages"):
        tree(wheel(tmp_path, "a", {place: ""}))


# ---------------------------------------------------------------- what may not be in it


@pytest.mark.parametrize(
    "place",
    ["evil.pth", "evil_init/evil.pth", "sitecustomize.py", "usercustomize/__init__.py", "e-1.0.data/purelib/evil.pth"],
)
def test_a_file_that_runs_at_every_start_stops_the_build(tmp_path: Path, place: str) -> None:
    made = tree(wheel(tmp_path, "e", {"e.py": "", place: "import os"}))
    with pytest.raises(BuildError, match="would run at every start"):
        zipapp_build.check_no_startup_files(made.files)


def test_a_module_that_one_python_lacks_stops_the_build() -> None:
    names = [f"fast/part.cpython-{python.replace('.', '')}-x86_64-linux-gnu.so" for python in PYTHONS]
    names += ["free/part.abi3.so", "fast.libs/libsomething.so", "pure.py"]
    zipapp_build.check_extension_modules(names, LINUX)
    with pytest.raises(BuildError, match=rf"fast/part has no module for CPython {PYTHONS[-1]}"):
        zipapp_build.check_extension_modules([name for name in names if "-314-" not in name], LINUX)


def test_a_module_of_another_platform_stops_the_build() -> None:
    with pytest.raises(BuildError, match="is no extension module of"):
        zipapp_build.check_extension_modules(["fast/part.cpython-311-darwin.so"], LINUX)


@pytest.mark.parametrize(
    ("requires", "problem"),
    [
        ("other", None),
        ("other>=1; python_version < '3.12'", None),
        ("missing; sys_platform == 'win32'", "nothing asks for other"),
        ("other>=2", r"inferxgate asks for other>=2 and the lock has 1\.0"),
        ("missing", "inferxgate asks for missing and the lock does not have it"),
        ("missing; python_version >= '3.14'", "the lock does not have it"),
    ],
)
def test_every_requirement_is_held_and_nothing_else(tmp_path: Path, requires: str, problem: str | None) -> None:
    made = tree(wheel(tmp_path, "inferxgate", {}, requires=requires), wheel(tmp_path, "other", {}))
    if problem is None:
        zipapp_build.check_requirements(made.files, LINUX)
    else:
        with pytest.raises(BuildError, match=problem):
            zipapp_build.check_requirements(made.files, LINUX)


# ---------------------------------------------------------------- the same bytes


OURS = {
    "inferxgate/__init__.py": "",
    "inferxgate/cli/__init__.py": "",
    "inferxgate/cli/main.py": "import sys\n\ndef main():\n    print(sys.argv[1:], sys.flags.isolated)\n",
}


def packed(tmp_path: Path, number: int, files: Mapping[str, str]) -> Path:
    """One file made of a little program, in a folder of its own."""
    work = tmp_path / str(number)
    work.mkdir()
    output = work / "small.pyz"
    zipapp_build.pack(tree(wheel(work, "inferxgate", files)), output, work, LINUX, 1_700_000_000)
    return output


def test_two_builds_are_the_same_to_the_byte(tmp_path: Path) -> None:
    """Whatever the user's mask for new files and the order in which the wheel names its own are."""
    first = packed(tmp_path, 1, OURS)
    before = os.umask(0o077)
    try:
        second = packed(tmp_path, 2, dict(reversed(OURS.items())))
    finally:
        os.umask(before)
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"#!/usr/bin/env -S python3 -I -S\n")
    assert os.access(first, os.X_OK)


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="it is built for Linux on x86_64")
def test_what_was_built_runs_alone(tmp_path: Path) -> None:
    path = packed(tmp_path, 1, OURS)
    environment = {"INFERXGATE_CACHE_DIR": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, str(path), "a", "b"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("['a', 'b'] 1\n", "")


def test_a_startup_file_leaves_nothing_built(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"evil\.pth would run at every start"):
        packed(tmp_path, 1, {**OURS, "evil.pth": "import os"})
    assert list(tmp_path.rglob("*.pyz")) == []


# ---------------------------------------------------------------- the locks


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_versions_and_hashes_and_no_host(lock: Path) -> None:
    lines = [line for line in lock.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    for line in lines:
        if line.startswith(" "):
            kind, _, digest = line.strip(" \\").partition(":")
            assert kind == "--hash=sha256"
            assert len(bytes.fromhex(digest)) == 32
        else:
            assert Requirement(line.strip(" \\")).url is None
            assert "==" in line


def test_the_lock_has_what_pyproject_asks_for() -> None:
    """A dependency that was added or raised needs the lock to be written again: ``.ci/zipapp_lock.py``."""
    held = {}
    for line in LOCKS[1].read_text("utf-8").splitlines():
        if "==" in line:
            pin = Requirement(line.strip(" \\"))
            held[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for wanted in map(Requirement, project["dependencies"]):
        version = held.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted} is not in the lock; write it again with .ci/zipapp_lock.py"
        assert wanted.specifier.contains(version), f"the lock has {wanted.name} {version}, pyproject asks for {wanted}"


def test_the_build_and_the_project_mean_the_same_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if "Python :: 3." in line]
    assert tuple(named) == tuple(PYTHONS)
    assert project["requires-python"] == f">={PYTHONS[0]}"
