"""The page that a supervisor shares with its workers."""

from __future__ import annotations

import os

import pytest

from inferxgate.workers.news import LONGEST, NewsPage


def test_a_process_that_was_forked_before_reads_what_was_written_last() -> None:
    page = NewsPage()
    reads, writes = os.pipe()
    begins, begin = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(begins, 1)
        os.write(writes, page.read() or b"nothing")
        os._exit(0)
    page.write(b"old and long")
    page.write(b"new")
    os.write(begin, b"!")
    assert os.read(reads, 100) == b"new"
    os.waitpid(child, 0)
    for descriptor in (reads, writes, begins, begin):
        os.close(descriptor)


def test_there_is_nothing_at_first_and_nothing_that_is_half_written() -> None:
    page = NewsPage()
    assert page.read() is None
    page.write(b"first")
    page._page[8:10] = b"xx"
    assert page.read() is None
    page.write(b"second")
    assert page.read() == b"second"


def test_news_that_is_too_long_changes_nothing() -> None:
    page = NewsPage()
    page.write(b"first")
    with pytest.raises(ValueError, match="more than workers can be told"):
        page.write(b"x" * (LONGEST + 1))
    assert page.read() == b"first"
    page.write(b"x" * LONGEST)
    assert page.read() == b"x" * LONGEST
