"""The registry of dialects: every one that is written can be named by a row, by the name of its module."""

from __future__ import annotations

import importlib
import pkgutil

from inferxgate import dialects
from inferxgate.dialects.protocol import Dialect
from inferxgate.dialects.registry import DIALECTS


def test_every_dialect_is_found_by_the_name_of_its_module() -> None:
    modules = (
        importlib.import_module(f"{dialects.__name__}.{found.name}")
        for found in pkgutil.iter_modules(dialects.__path__)
    )
    written = {
        module.__name__.rpartition(".")[2]: module.DIALECT
        for module in modules
        if isinstance(vars(module).get("DIALECT"), Dialect)
    }
    assert len(written) >= 3
    assert written == DIALECTS
    assert [dialect.name for dialect in DIALECTS.values()] == list(DIALECTS)
