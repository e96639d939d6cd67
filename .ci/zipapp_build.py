"""Put the one-file program together: our wheel and the locked wheels of every Python, side by side, packed by shiv.

Wheels are unpacked, never installed: nothing of theirs runs, and nothing of this machine (scripts with its paths, byte
code, the time) gets in. What the wheels of two Pythons have in common must be the same to the byte; their extension
modules differ in name. shiv then makes the archive, which is written once more with our gate as its entrance and with
nothing left in it that could differ between two builds of one commit.

``.ci/build-zipapp`` runs this in an environment of its own, with the tools that ``.ci/build.lock`` names.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from fnmatch import fnmatch
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from zipapp_targets import PYTHONS, TARGETS, Target

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / ".ci" / "requirements.lock"
GATE = ROOT / ".ci" / "zipapp_gate.py"
ENTRY_POINT = "inferxgate.cli.main:main"
SHEBANG = "/usr/bin/env -S python3 -I -S"

LEFT_OUT: Mapping[str, str] = {
    ".c": "source of an extension module",
    ".h": "source of an extension module",
    ".pxd": "source of an extension module",
    ".pxi": "source of an extension module",
    ".pyx": "source of an extension module",
    ".hash": "note of an extension module's build",
    ".pyi": "types for checkers, which look at installed packages",
}
"""Endings of files that no running program reads, with what they are."""

MAY_DIFFER: Mapping[str, str] = {
    "*.dist-info/sboms/*": "the list of what went into one wheel, for people and scanners; no program reads it",
}
"""Files that may differ between the wheels of two Pythons (the newest is taken), each with why that is safe."""


class BuildError(Exception):
    """The build cannot go on; the message says why and what to do."""


@dataclass
class Tree:
    """What lies under site-packages: path to bytes, with the wheel that each came from."""

    files: dict[str, bytes] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    tags: dict[str, set[str]] = field(default_factory=dict)
    """dist-info folder to the tags of all wheels of that distribution."""

    def add_wheel(self, wheel: Path) -> None:
        """Unpack one wheel into the tree.

        Raises:
            BuildError: a file differs from the one that another wheel brought, or belongs where we have no place.
        """
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                place = _place(name, wheel.name)
                if place is not None:
                    self._add(place, archive.read(name), wheel.name)

    def _add(self, path: str, data: bytes, origin: str) -> None:
        folder, _, name = path.partition("/")
        if folder.endswith(".dist-info") and name == "WHEEL":
            self.tags.setdefault(folder, set()).update(re.findall(r"^Tag: (\S+)", data.decode(), re.MULTILINE))
            data = re.sub(rb"^Tag: .*\r?\n", b"", data, flags=re.MULTILINE)
        known = self.files.setdefault(path, data)
        if known != data:
            if not any(fnmatch(path, pattern) for pattern in MAY_DIFFER):
                raise BuildError(
                    f"{path} differs between {self.origins[path]} and {origin}, so one file cannot serve both Pythons;"
                    " if that is safe, name it in MAY_DIFFER with the reason"
                )
            self.files[path] = data
        self.origins[path] = origin

    def finish(self) -> None:
        """Write the records that describe what was unpacked again: the tags of all wheels, the hash of every file."""
        for folder, tags in self.tags.items():
            lines = "".join(f"Tag: {tag}\n" for tag in sorted(tags))
            self.files[f"{folder}/WHEEL"] = self.files[f"{folder}/WHEEL"].rstrip() + b"\n" + lines.encode()
        owners: dict[str, list[str]] = {folder: [] for folder in self.tags}
        distribution = {
            origin: path.partition("/")[0] for path, origin in self.origins.items() if path.endswith("/WHEEL")
        }
        by_name = {_distribution(wheel): folder for wheel, folder in distribution.items()}
        for path, origin in self.origins.items():
            owners[by_name[_distribution(origin)]].append(path)
        for folder, paths in owners.items():
            rows = [f"{path},sha256={_record_hash(self.files[path])},{len(self.files[path])}" for path in sorted(paths)]
            self.files[f"{folder}/RECORD"] = "\n".join([*rows, f"{folder}/RECORD,,", ""]).encode()


def _distribution(wheel: str) -> NormalizedName:
    return canonicalize_name(wheel.partition("-")[0])


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _place(name: str, wheel: str) -> str | None:
    """Where a wheel's file goes under site-packages; None for what is left out."""
    folder, _, rest = name.partition("/")
    if folder.endswith(".data"):
        scheme, _, rest = rest.partition("/")
        if scheme in {"scripts", "headers"}:
            return None
        if scheme not in {"purelib", "platlib"}:
            raise BuildError(f"{wheel} wants {name} outside site-packages, where one file has no place for it")
        name = rest
    if name.endswith("/") or (folder.endswith(".dist-info") and rest in {"RECORD", "RECORD.jws", "RECORD.p7s"}):
        return None
    if ".." in name.split("/") or name.startswith("/"):
        raise BuildError(f"{wheel} holds a file that leads out of site-packages: {name}")
    return None if Path(name).suffix in LEFT_OUT else name


# ---------------------------------------------------------------- checks of the tree


def check_no_startup_files(paths: Iterable[str]) -> None:
    """Refuse what Python or shiv's bootstrap would run merely because it lies there.

    Raises:
        BuildError: there is a ``.pth`` file, or a module that Python imports at every start.
    """
    for path in sorted(paths):
        if path.endswith(".pth") or path.split("/")[0].split(".")[0] in {"sitecustomize", "usercustomize"}:
            raise BuildError(
                f"{path} would run at every start without being asked for; no wheel of ours may hold such a file"
            )


def check_extension_modules(paths: Iterable[str], target: Target) -> None:
    """Refuse an extension module that only some of the Pythons could load, or that is not of this platform.

    Raises:
        BuildError: naming the modules and the Pythons that lack them.
    """
    suffixes = {target.module_suffix.format(digits=python.replace(".", "")): python for python in PYTHONS}
    found: dict[str, set[str]] = {}
    for path in sorted(paths):
        folder = path.split("/")[0]
        if path.endswith(".so") and not folder.endswith(".libs") and not path.endswith(".abi3.so"):
            suffix = "." + path.rsplit("/", 1)[-1].partition(".")[2]
            if suffix not in suffixes:
                raise BuildError(f"{path} is no extension module of {', '.join(PYTHONS)} on {target.title}")
            found.setdefault(path.removesuffix(suffix), set()).add(suffixes[suffix])
    for stem, pythons in found.items():
        if missing := [python for python in PYTHONS if python not in pythons]:
            raise BuildError(f"{stem} has no module for CPython {', '.join(missing)}")


def check_requirements(files: Mapping[str, bytes], target: Target) -> None:
    """See that everything asked for is there, in a version that is allowed, on every Python, and nothing besides.

    Raises:
        BuildError: naming what is missing, too old or not needed, and who asks for it.
    """
    held = {}
    for path, data in files.items():
        if path.endswith(".dist-info/METADATA"):
            headers = HeaderParser().parsestr(data.decode())
            held[canonicalize_name(headers["Name"])] = headers
    asked: set[str] = set()
    for python in PYTHONS:
        todo = [(canonicalize_name("inferxgate"), "")]
        seen = set()
        while todo:
            name, extra = todo.pop()
            seen.add((name, extra))
            for wanted in requirements(held[name], target, python, extra):
                found = held.get(canonicalize_name(wanted.name))
                if found is None or not wanted.specifier.contains(found["Version"], prereleases=True):
                    version = f"the lock has {found['Version']}" if found else "the lock does not have it"
                    raise BuildError(f"{name} asks for {wanted} and {version}; write it again with .ci/zipapp_lock.py")
                pairs = {(canonicalize_name(wanted.name), one) for one in ("", *wanted.extras)}
                todo += sorted(pairs - seen)
        asked |= {name for name, _ in seen}
    if idle := sorted(set(held) - asked):
        raise BuildError(f"nothing asks for {', '.join(idle)}; write the lock again with .ci/zipapp_lock.py")


def requirements(headers: Message, target: Target, python: str, extra: str) -> Iterator[Requirement]:
    """What a distribution asks for on one platform and Python, for itself (an empty extra) or for one of its extras."""
    environment = {**target.marker_environment(python), "extra": extra}
    for text in headers.get_all("Requires-Dist", []):
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(environment):
            yield wanted


# ---------------------------------------------------------------- the steps


def run(*command: str, **environment: str) -> None:
    print("+", shlex.join(command), flush=True)
    subprocess.run(command, check=True, env={**os.environ, **environment})


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def source_date_epoch() -> int:
    """Seconds since 1970 of the commit that is built, which stand for the time of everything in the file."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given) if given else int(git("log", "-1", "--format=%ct", "HEAD"))


def our_wheel(work: Path, epoch: int) -> Path:
    """Build our own wheel from a copy of what git knows, so that nothing else that lies about gets in."""
    source, out = work / "source", work / "wheel"
    known = git(
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        "inferxgate",
        "pyproject.toml",
        "*.md",
        "LICENSE",
    )
    for name in filter(None, known.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
            (source / name).chmod(0o644)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-qq", "--wheel-dir", str(out)]
    run(sys.executable, "-m", "pip", "wheel", *options, str(source), SOURCE_DATE_EPOCH=str(epoch))
    (wheel,) = out.iterdir()
    return wheel


def download(work: Path, target: Target) -> list[Path]:
    """The locked wheels for every Python; pip refuses any whose hash the lock does not name."""
    wheels: dict[str, Path] = {}
    for python in PYTHONS:
        folder = work / "wheels" / python
        options = ["-qq", "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"]
        options += [f"--python-version={python}", *(f"--platform={tag}" for tag in target.wheel_platforms)]
        run(sys.executable, "-m", "pip", "download", *options, "-r", str(LOCK), "-d", str(folder))
        wheels.update((wheel.name, wheel) for wheel in sorted(folder.iterdir()))
    return [wheels[name] for name in sorted(wheels)]


def write_tree(tree: Tree, folder: Path) -> None:
    for name, data in tree.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644)


def entrance(target: Target, build_id: str) -> bytes:
    """The archive's ``__main__.py``: it hands our gate what this file was built for."""
    pythons = tuple(tuple(int(part) for part in python.split(".")) for python in PYTHONS)
    suffixes = tuple(target.module_suffix.format(digits=python.replace(".", "")) for python in PYTHONS)
    call = f"_gate.main({pythons!r}, {suffixes!r}, {target.title!r}, {target.glibc!r}, {build_id!r})"
    return f"# -*- coding: utf-8 -*-\nimport _gate\n\n{call}\n".encode()


def finish(packed: Path, output: Path, target: Target, epoch: int) -> None:
    """Write shiv's archive again: with our gate, in one order, and with fixed times, modes and compression."""
    stamp = time.gmtime(max(epoch, 315532800))[:6]  # a zip file knows no time before 1980
    with zipfile.ZipFile(packed) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    build_id = json.loads(files["environment.json"])["build_id"]
    files["__main__.py"] = entrance(target, build_id)
    files["_gate.py"] = GATE.read_bytes()
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(output.name + ".part")
    with unfinished.open("wb") as out:
        out.write(f"#!{SHEBANG}\n".encode())
        with zipfile.ZipFile(out, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, date_time=stamp)
                entry.create_system = 3  # Unix, wherever it is built, so that the modes are read
                entry.external_attr = 0o100644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, files[name], compresslevel=9)
    unfinished.chmod(0o755)
    unfinished.replace(output)


def shiv(folder: Path, packed: Path, epoch: int) -> None:
    options = [
        "--site-packages",
        str(folder),
        "--entry-point",
        ENTRY_POINT,
        "--reproducible",
        "--uncompressed",
        "--output-file",
        str(packed),
    ]
    run(sys.executable, "-m", "shiv", *options, SOURCE_DATE_EPOCH=str(epoch))


def build(target: Target, output: Path, work: Path) -> None:
    """Build the file for one platform.

    Raises:
        BuildError: something would make the file wrong; it says what.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    output.unlink(missing_ok=True)  # what lies there after a failure would look like this build's
    epoch = source_date_epoch()
    tree = Tree()
    for wheel in [our_wheel(work, epoch), *download(work, target)]:
        tree.add_wheel(wheel)
    pack(tree, output, work, target, epoch)
    unpacked = sum(len(data) for data in tree.files.values())
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, unpacks {len(tree.files)} files to {unpacked / 1e6:.1f} MB")
    print(f"sha256 {digest}")


def pack(tree: Tree, output: Path, work: Path, target: Target, epoch: int) -> None:
    """Check the tree and make the one file of it.

    Raises:
        BuildError: something would make the file wrong; it says what, and nothing has been written.
    """
    check_no_startup_files(tree.files)
    check_extension_modules(tree.files, target)
    check_requirements(tree.files, target)
    tree.finish()
    write_tree(tree, work / "tree")
    shiv(work / "tree", work / "packed.pyz", epoch)
    finish(work / "packed.pyz", output, target, epoch)


def main() -> None:
    parser = argparse.ArgumentParser(prog=".ci/build-zipapp", description="Build the one-file program inferxgate.pyz.")
    parser.add_argument("--platform", choices=sorted(TARGETS), default="linux-x86_64", help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "dist" / "inferxgate.pyz", help="default: dist/inferxgate.pyz"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "zipapp", help="a folder to work in; emptied first"
    )
    chosen = parser.parse_args()
    try:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
        if version != f">={PYTHONS[0]}":
            raise BuildError(
                f"pyproject.toml says requires-python {version} and the build's oldest Python is {PYTHONS[0]}"
            )
        build(TARGETS[chosen.platform], chosen.output.absolute(), chosen.work.absolute())
    except BuildError as error:
        sys.exit(f"build-zipapp: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"build-zipapp: {shlex.join(error.cmd)} failed with {error.returncode}")


if __name__ == "__main__":
    main()
