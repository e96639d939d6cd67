"""Files that change under a running program's eyes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from inferxgate.config_watch import Watch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("one")
    return path


def test_what_does_not_change_has_not_changed(path: Path, tmp_path: Path) -> None:
    watch = Watch(path, tmp_path / "none")
    assert [watch.has_changed() for _ in range(3)] == [False, False, False]


def replace(path: Path) -> None:
    """As editors do it."""
    before = path.stat()
    new = path.with_suffix(".new")
    new.write_text("two")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(path)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def grow(path: Path) -> None:
    before = path.stat()
    path.write_text("longer")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [replace, touch, grow, Path.unlink])
def test_a_change_counts_when_the_file_stands_still_and_until_it_is_dealt_with(
    path: Path, change: Callable[[Path], None]
) -> None:
    watch = Watch(path)
    change(path)
    assert [watch.has_changed() for _ in range(3)] == [False, True, True]
    watch.dealt_with()
    assert not watch.has_changed()


def test_a_file_that_keeps_changing_is_left_alone_until_it_stands_still(path: Path) -> None:
    watch = Watch(path)
    for _ in range(4):
        touch(path)
        assert not watch.has_changed()
    assert watch.has_changed()


def test_a_change_that_is_taken_back_is_none(path: Path) -> None:
    watch = Watch(path)
    before = path.stat()
    touch(path)
    assert not watch.has_changed()
    os.utime(path, ns=(0, before.st_mtime_ns))
    assert [watch.has_changed() for _ in range(2)] == [False, False]


def test_a_file_that_comes_later_is_a_change(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text("")
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    """As volumes with configurations are brought up to date."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(name)
    (tmp_path / "current").symlink_to("old")
    watch = Watch(tmp_path / "current" / "config.toml")
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(tmp_path / "current")
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_further_files_are_watched_from_when_they_are_named(path: Path, tmp_path: Path) -> None:
    watch, other = Watch(path), tmp_path / "other"
    other.write_text("")
    watch.also(other)
    assert [watch.has_changed() for _ in range(2)] == [False, False]
    touch(other)
    assert [watch.has_changed() for _ in range(2)] == [False, True]
