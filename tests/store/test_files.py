"""Where the store lives: private from the first moment, and nothing that is there is ever replaced."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferxgate.errors import StartError, StoreUnavailable
from inferxgate.store import files
from inferxgate.store.sqlite import SQLiteStore
from tests.support.stores import EVER, new_record, new_user

NOBODY = 65534

OPENS_AS_NOBODY = f"""
import os, sys
from pathlib import Path
from inferxgate.errors import StartError
from inferxgate.store.sqlite import SQLiteStore

if os.geteuid() == 0:  # whom no mode bits stop
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
try:
    SQLiteStore.open(Path(sys.argv[1])).close()
except StartError as error:
    print(error)
else:
    print("opened")
"""


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o177, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    assert tmp_path.is_dir(), "what the test itself stands on is made before"
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach; a test's own folder is closed to others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for entry in (folder, *folder.rglob("*")):
        entry.chmod(0o700)
    shutil.rmtree(folder)


def open_as_nobody(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OPENS_AS_NOBODY, str(path)], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def test_only_the_owner_can_read_it_whatever_the_umask_says(umask: int, path: Path) -> None:
    store = SQLiteStore.open(path)
    store.add_user(new_user(), first_is_admin=True)
    assert mode_of(path.parent) == 0o700
    assert {entry.name: mode_of(entry) for entry in path.parent.iterdir()} == {
        "inferxgate.db": 0o600,
        "inferxgate.db-wal": 0o600,
        "inferxgate.db-shm": 0o600,
    }
    store.close()


def test_a_store_that_others_could_read_is_closed_to_them(path: Path) -> None:
    first = SQLiteStore.open(path)
    first.add_user(new_user(), first_is_admin=True)
    for entry in path.parent.iterdir():
        entry.chmod(0o666)
    second = SQLiteStore.open(path)
    assert {mode_of(entry) for entry in path.parent.iterdir()} == {0o600}
    second.close()
    first.close()


def test_a_folder_that_was_there_keeps_its_mode(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o750)
    SQLiteStore.open(path).close()
    assert mode_of(path.parent) == 0o750


@pytest.mark.parametrize("name", ["with space.db", "a?b#c%20d.db", "ü.db", "quote'\".db", ":memory:", "-wal"])
def test_the_name_may_be_any(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    store = SQLiteStore.open(path)
    user = store.add_user(new_user(), first_is_admin=False)
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    store = SQLiteStore.open(path)
    assert store.users() == [user]
    store.close()


def test_a_relative_name_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore.open(Path("inferxgate.db"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        store.users()
    monkeypatch.chdir(tmp_path)
    assert store.users() == []
    store.close()


def test_a_link_leads_to_the_store(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real.db")
    store = SQLiteStore.open(tmp_path / "real.db")
    through_link = SQLiteStore.open(link)
    user = store.add_user(new_user(), first_is_admin=False)
    assert through_link.users() == [user]
    through_link.close()
    store.close()


def refused(path: Path) -> str:
    with pytest.raises(StartError) as error:
        SQLiteStore.open(path)
    line = str(error.value)
    assert "\n" not in line
    assert str(path.parent.parent) in line
    return line


def test_a_folder_in_its_place_is_left_alone(path: Path) -> None:
    path.mkdir(parents=True)
    assert "is a folder; move it away or name another place with storage.database_url" in refused(path)


def test_a_pipe_in_its_place_is_not_waited_for(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)
    assert "is not a file; move it away" in refused(path)


def test_a_file_in_place_of_the_folder_is_left_alone(path: Path) -> None:
    path.parent.write_text("mine")
    assert "is not a folder; move it away" in refused(path)
    assert path.parent.read_text() == "mine"


def test_a_file_in_place_of_the_folders_parent_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    line = refused(tmp_path / "file" / "data" / "inferxgate.db")
    assert line.startswith(f"{tmp_path / 'file'} is not a folder; move it away")


def test_a_dangling_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "missing.db")
    assert "cannot use the database" in refused(tmp_path / "link.db")


@pytest.mark.parametrize(
    "content",
    [b"x", b"my diary\n" * 1_000, b"\x00" * 8_192, b"SQLite format 3\x00" + b"\xff" * 4_080, b"SQLite format 3\x00"],
    ids=["one byte", "text", "zeros", "nonsense behind the header", "only the header"],
)
def test_what_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert "restore it from a backup, or move it away to begin with an empty one" in refused(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_cut_database_is_left_alone(path: Path) -> None:
    store = SQLiteStore.open(path)
    store.add_usage([new_record() for _ in range(500)], ())
    store.close()
    content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    assert "is damaged" in refused(path)
    assert path.read_bytes() == content


def test_damage_that_only_shows_later_is_named_then(path: Path) -> None:
    store = SQLiteStore.open(path)
    store.add_usage([new_record() for _ in range(2_000)], ())
    store.close()
    with sqlite3.connect(path) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'usage'").fetchone()[0]
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * page_size)
    store = SQLiteStore.open(path)
    with pytest.raises(StoreUnavailable, match="the file is damaged; restore it from a backup"):
        store.recent_usage(EVER, limit=1)
    with pytest.raises(StoreUnavailable, match="the file is damaged"):
        store.add_usage([new_record()], ())
    assert store.users() == [], "what is whole can still be read"
    store.close()


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.parent.mkdir()
    path.touch(mode=0o644)
    SQLiteStore.open(path).close()
    assert mode_of(path) == 0o600


def test_changes_whose_database_is_missing_are_left_alone(path: Path) -> None:
    store = SQLiteStore.open(path)
    store.add_user(new_user(), first_is_admin=True)
    path.rename(path.with_name("moved.db"))
    assert "is missing, but changes to it wait in inferxgate.db-wal; put the database back" in refused(path)
    assert not path.exists()
    path.with_name("moved.db").rename(path)
    assert len(store.users()) == 1
    store.close()


def test_a_folder_that_cannot_be_written_is_named(public: Path) -> None:
    folder = public / "data"
    folder.mkdir()
    folder.chmod(0o555)
    said = open_as_nobody(folder / "inferxgate.db")
    assert said == (
        f"the folder {folder} cannot be written; make it writable for this user or name another place with"
        " storage.database_url or INFERXGATE_DATA_DIR\n"
    )
    said = open_as_nobody(folder / "deeper" / "inferxgate.db")
    assert said.startswith(f"cannot make the folder {folder / 'deeper'}: Permission denied; make it yourself or")


def test_a_store_in_a_folder_that_cannot_be_written_is_not_touched(public: Path) -> None:
    path = public / "data" / "inferxgate.db"
    SQLiteStore.open(path).close()
    path.chmod(0o666)
    path.parent.chmod(0o555)
    before = path.read_bytes()
    assert open_as_nobody(path).startswith(f"the folder {path.parent} cannot be written; make it writable")
    assert path.read_bytes() == before


def test_a_store_that_cannot_be_written_is_named(public: Path) -> None:
    path = public / "data" / "inferxgate.db"
    SQLiteStore.open(path).close()
    path.parent.chmod(0o777)
    path.chmod(0o444)
    assert open_as_nobody(path).startswith(f"the database {path} cannot be written; make it writable")


def test_a_folder_that_cannot_be_entered_is_named(public: Path) -> None:
    path = public / "data" / "inferxgate.db"
    SQLiteStore.open(path).close()
    path.parent.chmod(0o000 if os.geteuid() else 0o700)
    said = open_as_nobody(path)
    assert said.startswith(f"cannot use the database {path}: Permission denied; mend that or name another place")


def test_of_many_who_want_a_folder_one_has_it_at_a_time(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from inferxgate.store.files import locked_folder

folder = Path(sys.argv[1])
for _ in range(50):
    with locked_folder(folder):
        counter = folder / "counter"
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    (tmp_path / "counter").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "150"


def test_the_lock_on_a_folder_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from inferxgate.store.files import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with files.locked_folder(tmp_path):
        pass
