"""Prices from a file: all of it checked before any of it is used, installed whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from inferxgate.canonical.usage import Usage
from inferxgate.catalog.catalog import Catalog
from inferxgate.catalog.price_list import (
    BadPriceFile,
    PriceList,
    install_price_list,
    packaged,
    parse_price_list,
    read_price_list,
)
from inferxgate.errors import StartError


def model(**others: Any) -> dict[str, Any]:
    return {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 1, "output_mtok": 2}, **others}


def file_of(*models: Any) -> bytes:
    return orjson.dumps([{"id": "openai", "name": "OpenAI", "extractors": [{"new": 1}], "models": models}])


def cost(data: bytes, name: str, usage: Usage) -> int | None:
    price = Catalog(price_list=parse_price_list(data)).price(f"openai/{name}", "openai", name)
    return price.cost_nanos(usage) if price else None


def test_prices_are_those_of_the_file() -> None:
    data = file_of(
        model(prices={"input_mtok": 0.07, "cache_read_mtok": None, "output_mtok": "1.25", "requests_kcount": 5}),
        model(
            id="long",
            match={"or": [{"starts_with": "lo"}, {"and": [{"contains": "x"}, {"ends_with": "y"}]}, {"regex": "^z+$"}]},
            prices=[
                {"prices": {"input_mtok": 9, "output_mtok": 9}},
                {
                    "constraint": {"start_date": "2020-01-01"},
                    "prices": {"input_mtok": {"base": 1, "tiers": [{"start": 100, "price": 2}]}, "output_mtok": 3},
                },
            ],
        ),
    )
    assert cost(data, "m", Usage(input_tokens=10, output_tokens=1)) == 10 * 70 + 1250 + 5_000_000
    assert cost(data, "long", Usage(input_tokens=100, output_tokens=1)) == 100 * 1000 + 3000
    assert cost(data, "xy", Usage(input_tokens=101, output_tokens=1)) == 101 * 2000 + 3000
    assert cost(data, "zz", Usage()) == 0
    assert cost(data, "gpt-4o", Usage()) is None, "the package's price would be another list's"


def test_the_version_tells_one_file_from_another() -> None:
    one, other = file_of(model()), file_of(model(prices={"input_mtok": 1, "output_mtok": 3}))
    versions = [parse_price_list(data).version for data in (one, other, one)]
    assert versions[0] == versions[2] != versions[1]
    price = Catalog(price_list=parse_price_list(one)).price("openai/m", "openai", "m")
    assert price is not None
    assert price.version == versions[0]


M = "provider 'openai', model 'm': "


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is not JSON: "),
        (b'[{"id": "openai"', "it is not JSON: "),
        (b'[{"id": NaN}]', "it is not JSON: "),
        (b"[]", "it is not a list of providers"),
        (b'{"providers": []}', "it is not a list of providers"),
        (b"[1]", "provider 1 has no id"),
        (b'[{"id": ""}]', "provider 1 has no id"),
        (b'[{"id": "a", "models": 1}]', "provider 'a': models and fallback_model_providers have to be lists"),
        (b'[{"id": "a", "fallback_model_providers": [1]}]', "provider 'a': models and fallback"),
        (b'[{"id": "a"}]', "it has no model with prices for input and output"),
        (b'[{"id": "a"}, {"id": "a"}]', "provider 'a' is there twice"),
        (file_of(model(), {}), "provider 'openai', model 2 has no id"),
        (file_of(model(match=None)), f"{M}match has to have one rule"),
        (file_of(model(match={"equals": "m", "contains": "m"})), f"{M}match has to have one rule"),
        (file_of(model(match={"like": "m"})), f"{M}match has the unknown rule 'like'"),
        (file_of(model(match={"or": [{"like": "m"}]})), f"{M}match has the unknown rule 'like'"),
        (file_of(model(match={"regex": "("})), f"{M}match has a regular expression that is none"),
        (file_of(model(match={"equals": 1})), f"{M}match.equals has to be text"),
        (file_of(model(match={"or": 1})), f"{M}match.or has to be a list of rules"),
        (file_of(model(context_window="big")), f"{M}context_window: "),
        (file_of(model(prices=None)), f"{M}prices are missing"),
        (file_of(model(prices=[])), f"{M}prices are missing"),
        (file_of(model(prices=[{"constraint": None}])), f"{M}prices are missing"),
        (
            file_of(model(prices=[{"constraint": {"from": 1}, "prices": {"input_mtok": 1}}])),
            f"{M}constraint: it has neither a start_date nor",
        ),
        (
            file_of(model(prices=[{"constraint": {"start_date": "soon"}, "prices": {"input_mtok": 1}}])),
            f"{M}constraint: it has a day or a time that is none",
        ),
        (
            file_of(model(prices=[{"constraint": {"start_time": "9:00"}, "prices": {"input_mtok": 1}}])),
            f"{M}constraint: it has neither a start_date nor",
        ),
        (file_of(model(deprecated="yes")), f"{M}deprecated: "),
        (file_of(model(prices={"input_mtok": -1})), f"{M}input_mtok has to be an amount of dollars"),
        (file_of(model(prices={"input_mtok": 1_000_001})), f"{M}input_mtok has to be an amount of dollars"),
        (file_of(model(prices={"input_mtok": True})), f"{M}input_mtok has to be an amount of dollars"),
        (file_of(model(prices={"input_mtok": "NaN"})), f"{M}input_mtok has to be an amount of dollars"),
        (file_of(model(prices={"input_mtok": "dear"})), f"{M}input_mtok has to be an amount of dollars"),
        (file_of(model(prices={"input_mtok": [1]})), f"{M}input_mtok has to be an amount of dollars"),
        (file_of(model(prices={"input_mtok": {"base": 1}})), f"{M}input_mtok has no tiers"),
        (file_of(model(prices={"input_mtok": {"base": 1, "tiers": [2]}})), f"{M}input_mtok has no tiers"),
        (
            file_of(model(prices={"input_mtok": {"base": 1, "tiers": [{"start": -5, "price": 1}]}})),
            f"{M}input_mtok has a tier that does not start",
        ),
        (
            file_of(model(prices={"input_mtok": {"base": 1, "tiers": [{"start": 5}]}})),
            f"{M}input_mtok has to be an amount",
        ),
        (file_of(model(prices={"input_mtok": 1})), "it has no model with prices for input and output"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(file_of(model()))
    with pytest.raises(BadPriceFile) as raised:
        install_price_list(path, data)
    assert str(raised.value).startswith(problem)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == file_of(model()), "what was there is as it was"
    assert [*tmp_path.iterdir()] == [path]


def listed(prices: PriceList) -> list[tuple[str, Any]]:
    return [(model.id, model.prices) for provider in prices.providers.values() for model in provider.models]


def test_an_installed_file_is_its_owners_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    for data in (file_of(model()), file_of(model(id="n"), model())):
        installed = install_price_list(path, data)
        assert path.read_bytes() == data
        again = read_price_list(path)
        assert again.version == installed.version
        assert listed(again) == listed(installed)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_without_a_file_the_packages_prices_hold(tmp_path: Path) -> None:
    assert read_price_list(tmp_path / "prices.json") is packaged()


@pytest.mark.parametrize("damage", [b"", b"[]", file_of(model())[:-1]])
def test_a_damaged_file_never_changes_prices_quietly(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(damage)
    with pytest.raises(StartError, match=r"prices\.json cannot be used: it .*--update-from FILE.*--reset"):
        read_price_list(path)


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot read the price file"):
        read_price_list(tmp_path)
