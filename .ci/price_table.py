"""Write inferxgate/catalog/prices.jsonl: the prices of the genai-prices package, as the gateway reads them.

Run it from the development environment, on purpose and not in a build, whenever pyproject.toml takes another version of
the package: ``.venv/bin/python .ci/price_table.py``. A test holds the table against the package. What is written is the
package's own published form with less in it, so that a file of newer prices says the same in the same words; each
provider has a line of its own, which is read only when somebody asks for that provider.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import types
from genai_prices.data import providers

TABLE = Path(__file__).resolve().parent.parent / "inferxgate" / "catalog" / "prices.jsonl"


def table() -> bytes:
    """The whole file."""
    return b"".join(_line(each) for each in _objects())


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _objects() -> Iterator[object]:
    listed = [{"id": each.id, "others": each.fallback_model_providers or []} for each in providers]
    yield {"version": f"genai-prices {version('genai-prices')}", "providers": listed}
    for provider in providers:
        yield [_model(model) for model in provider.models]


def _model(model: types.ModelInfo) -> dict[str, Any]:
    said = {"context_window": model.context_window, "deprecated": model.deprecated or None}
    known = {name: value for name, value in said.items() if value is not None}
    return {"id": model.id, "match": _rule(model.match), **known, "prices": _prices(model)}


def _rule(rule: object) -> dict[str, Any]:
    [(name, value)] = vars(rule).items()
    return {name.rstrip("_"): [_rule(each) for each in value] if isinstance(value, list) else value}


def _prices(model: types.ModelInfo) -> object:
    if isinstance(model.prices, types.ModelPrice):
        return _amounts(model.prices)
    if not model.prices:
        raise ValueError(f"{model.id} has no prices: leave it out, as the gateway takes the first one to be there")
    return [_condition(each) | {"prices": _amounts(each.prices)} for each in model.prices]


def _condition(price: types.ConditionalPrice) -> dict[str, Any]:
    if price.constraint is None:
        return {}
    return {"constraint": {name: value.isoformat() for name, value in vars(price.constraint).items()}}


def _amounts(prices: types.ModelPrice) -> dict[str, Any]:
    return {name: _amount(value) for name, value in vars(prices).items() if value is not None}


def _amount(value: Decimal | types.TieredPrices) -> object:
    if isinstance(value, types.TieredPrices):
        tiers = [{"start": tier.start, "price": str(tier.price)} for tier in value.tiers]
        return {"base": str(value.base), "tiers": tiers}
    return str(value)


if __name__ == "__main__":
    TABLE.write_bytes(table())
