"""The file with what providers list: kept, shared, and never in the way."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inferxgate.providers.provider import Provider
from inferxgate.providers.registry import ROWS
from inferxgate.workers.model_lists import MAX_NAMES, ModelLists

URL = "https://host.example/v1"
HOST = Provider("host", ROWS["openai"], URL, discover=True)
OTHER = Provider("other", ROWS["openai"], URL, discover=True)
AMONG = ("host", "other")


def at(folder: Path) -> Path:
    return folder / "models.json"


def put(lists: ModelLists, name: str, *models: str, now_s: int, base_url: str = URL) -> None:
    lists.put({name: (base_url, models)}, among=AMONG, now_s=now_s)


def test_what_is_put_is_seen_by_whoever_looks(tmp_path: Path) -> None:
    lists, others = ModelLists(at(tmp_path)), ModelLists(at(tmp_path))
    others.look()
    assert others.models(HOST) == {}
    put(lists, "host", "b", "a", now_s=10)
    assert lists.models(HOST) == {"b": 1, "a": 1}
    assert others.models(HOST) == {}, "it reads nothing before it looks"
    others.look()
    assert others.models(HOST) == {"b": 1, "a": 1}
    assert at(tmp_path).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["models.json"]


@pytest.mark.parametrize("times", [(10, 20, 30, 40), (10, 10, 10, 10), (40, 30, 20, 10)])
def test_a_name_keeps_its_round_as_long_as_it_is_listed_whatever_the_clock_says(
    tmp_path: Path, times: tuple[int, int, int, int]
) -> None:
    lists = ModelLists(at(tmp_path))
    put(lists, "host", "a", "b", now_s=times[0])
    put(lists, "host", "a", "c", now_s=times[1])
    assert lists.models(HOST) == {"a": 1, "c": 2}
    put(lists, "other", "a", now_s=times[2])
    assert lists.models(OTHER) == {"a": 3}
    put(lists, "host", "a", "b", now_s=times[3])
    assert lists.models(HOST) == {"a": 1, "b": 4}
    known = lists.of(HOST)
    assert known is not None
    assert known.fetched_at_s == times[3]


def test_another_address_has_another_list(tmp_path: Path) -> None:
    lists = ModelLists(at(tmp_path))
    put(lists, "host", "a", now_s=10, base_url="https://elsewhere.example")
    assert lists.models(HOST) == {}
    put(lists, "host", "a", now_s=20)
    assert lists.models(HOST) == {"a": 2}, "that it was listed elsewhere says nothing"


def test_a_provider_that_is_not_to_be_discovered_lists_nothing(tmp_path: Path) -> None:
    lists = ModelLists(at(tmp_path))
    put(lists, "host", "a", now_s=10)
    assert lists.models(Provider("host", ROWS["openai"], URL)) == {}


def test_the_lists_of_others_stay_and_those_of_the_departed_go(tmp_path: Path) -> None:
    mine, another = ModelLists(at(tmp_path)), ModelLists(at(tmp_path))
    put(mine, "host", "a", now_s=10)
    put(another, "other", "b", now_s=20)
    put(mine, "host", "c", now_s=30)
    assert (mine.models(HOST), mine.models(OTHER)) == ({"c": 3}, {"b": 2})
    mine.put({"host": (URL, ["c"])}, among=("host",), now_s=40)
    assert mine.models(OTHER) == {}


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    names = [f"host-{number}" for number in range(12)]

    def write(name: str) -> None:
        ModelLists(at(tmp_path)).put({name: (URL, [name])}, among=names, now_s=1)

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(write, names))
    assert json.loads(at(tmp_path).read_bytes())["providers"].keys() == set(names)


def test_a_file_that_is_removed_lists_nothing(tmp_path: Path) -> None:
    lists = ModelLists(at(tmp_path))
    put(lists, "host", "a", now_s=10)
    at(tmp_path).unlink()
    lists.look()
    assert lists.models(HOST) == {}


GOOD = {"base_url": URL, "fetched_at": 1, "models": {"a": 1}}


def written(**wrong: Any) -> bytes:
    return json.dumps({"version": 1, "providers": {"host": GOOD | wrong}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        b"<html>",
        written()[:-5],
        b"[]",
        b"null",
        json.dumps({"version": 2, "providers": {}}).encode(),
        json.dumps({"version": 1, "providers": []}).encode(),
        json.dumps({"version": 1, "providers": {"host": None}}).encode(),
        written(base_url=None),
        written(fetched_at="now"),
        written(models=["a"]),
        written(models={"a": None}),
        written(models={"a": 0}),
        written(models={"a": True}),
        written(models={"a": 1.5}),
        written(models={"a\x1b[31m": 1}),
        written(models={"a" * 201: 1}),
        written(models={str(number): 1 for number in range(MAX_NAMES + 1)}),
    ],
)
def test_a_damaged_or_foreign_file_is_ignored_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    at(tmp_path).write_bytes(written())
    lists = ModelLists(at(tmp_path))
    lists.look()
    assert lists.models(HOST) == {"a": 1}
    with caplog.at_level(logging.WARNING):
        at(tmp_path).write_bytes(data)
        lists.look()
        lists.look()
    assert lists.models(HOST) == {}
    [record] = caplog.records
    assert str(at(tmp_path)) in record.getMessage()
    assert "models refresh" in record.getMessage()
    put(lists, "host", "b", now_s=5)
    assert lists.models(HOST) == {"b": 1}, "the next answer takes its place"


@pytest.mark.parametrize("kind", ["folder", "link to itself"])
def test_what_cannot_be_read_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    if kind == "folder":
        at(tmp_path).mkdir()
    else:
        at(tmp_path).symlink_to(at(tmp_path))
    lists = ModelLists(at(tmp_path))
    lists.look()
    lists.look()
    assert lists.models(HOST) == {}
    assert len(caplog.records) == 1
    assert "cannot be read" in caplog.records[0].getMessage()


def test_a_pipe_in_its_place_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(at(tmp_path))
    lists = ModelLists(at(tmp_path))
    lists.look()
    assert lists.models(HOST) == {}
    assert "is ignored" in caplog.text
