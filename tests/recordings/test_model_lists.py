"""Recorded lists of models are read whole."""

from __future__ import annotations

import json

import pytest

from inferxgate.dialects.registry import DIALECTS
from inferxgate.providers.registry import ROWS
from tests.support.recordings import MISSING, Recording, find

LISTS = [
    each
    for each in find(lambda each: each.api == "models" and each.status == 200 and each.provider in ROWS)
    if each.load()["request"]["method"] == "GET" and each.load()["request"]["url"].endswith("/models")
]


@pytest.mark.skipif(not LISTS, reason=MISSING)
@pytest.mark.parametrize("recording", LISTS, ids=lambda each: each.provider)
def test_a_recorded_list_is_read(recording: Recording) -> None:
    body = recording.load()["response"]["body"]
    page = DIALECTS[ROWS[recording.provider].dialect].parse_models(json.dumps(body).encode())
    for_chat = [model["id"] for model in body["data"] if "text" in model.get("output_modalities", ["text"])]
    assert [*page.names] == for_chat
    assert page.after is None
    assert page.names
