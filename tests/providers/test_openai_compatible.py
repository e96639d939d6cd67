"""The rows of hosts that speak OpenAI's dialect, and that another host is one more row."""

from __future__ import annotations

import json

import pytest

from inferxgate.accounts.callers import OPERATOR
from inferxgate.catalog.abilities import Abilities
from inferxgate.catalog.catalog import NO_COST, Catalog
from inferxgate.catalog.price_list import packaged
from inferxgate.dialects import openai_chat
from inferxgate.dialects.protocol import Call
from inferxgate.dialects.quirks import Quirks
from inferxgate.dialects.registry import DIALECTS
from inferxgate.gateway.exchange import Exchange
from inferxgate.gateway.routing import Router
from inferxgate.providers.openai_compatible import ROWS as HOSTS
from inferxgate.providers.provider import Provider, Row, fixed_path
from inferxgate.providers.registry import ALL_ROWS, ROWS

WHERE = {
    "groq": ("https://api.groq.com/openai/v1/chat/completions", "GROQ_API_KEY"),
    "mistral": ("https://api.mistral.ai/v1/chat/completions", "MISTRAL_API_KEY"),
    "deepseek": ("https://api.deepseek.com/chat/completions", "DEEPSEEK_API_KEY"),
    "xai": ("https://api.x.ai/v1/chat/completions", "XAI_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1/chat/completions", "OPENROUTER_API_KEY"),
    "together": ("https://api.together.xyz/v1/chat/completions", "TOGETHER_API_KEY"),
    "fireworks": ("https://api.fireworks.ai/inference/v1/chat/completions", "FIREWORKS_API_KEY"),
    "perplexity": ("https://api.perplexity.ai/chat/completions", "PERPLEXITY_API_KEY"),
    "cerebras": ("https://api.cerebras.ai/v1/chat/completions", "CEREBRAS_API_KEY"),
    "huggingface": ("https://router.huggingface.co/v1/chat/completions", "HF_TOKEN"),
    "ollama": ("http://127.0.0.1:11434/v1/chat/completions", None),
    "vllm": ("http://127.0.0.1:8000/v1/chat/completions", None),
    "llamacpp": ("http://127.0.0.1:8080/v1/chat/completions", None),
    "lmstudio": ("http://127.0.0.1:1234/v1/chat/completions", None),
}
CALL = Call("chat", b"{}", {"content-type": "application/json"})


def configured(row: Row, *, api_key: str | None = "key-1") -> Provider:
    return Provider(name=row.type, row=row, base_url=row.base_url or "", api_key=api_key, quirks=row.quirks)


def test_every_host_is_in_this_file() -> None:
    assert {row.type for row in HOSTS} == WHERE.keys()


@pytest.mark.parametrize("row", HOSTS, ids=lambda row: row.type)
def test_where_each_host_is_and_how_it_is_signed(row: Row) -> None:
    url, variable = WHERE[row.type]
    request = configured(row).request(CALL, model="any/model:x", stream=True)
    assert (request.method, request.url) == ("POST", url)
    assert request.headers["authorization"] == "Bearer key-1"
    assert request.headers["accept"] == "text/event-stream"
    assert row.key_variables == (() if variable is None else (variable,))
    assert "authorization" not in configured(row, api_key=None).request(CALL, model="m", stream=True).headers


@pytest.mark.parametrize("row", ALL_ROWS.values(), ids=lambda row: row.type)
def test_what_rows_say_is_there(row: Row) -> None:
    assert row.dialect in DIALECTS
    assert row.price_id in {None, NO_COST, *packaged().providers}
    assert not row.quirks.drops & row.quirks.refuses
    assert not row.quirks.renames.keys() & row.quirks.drops


def test_no_variable_names_two_providers() -> None:
    variables = [name for row in ROWS.values() for name in (*row.key_variables, *row.url_variables)]
    assert len(variables) == len(set(variables))


@pytest.mark.parametrize(
    ("host", "model"),
    [
        ("groq", "openai/gpt-oss-120b"),
        ("mistral", "mistral-small-latest"),
        ("deepseek", "deepseek-chat"),
        ("xai", "grok-4"),
        ("openrouter", "anthropic/claude-opus-4.7"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("fireworks", "accounts/fireworks/models/deepseek-v3p2"),
        ("perplexity", "sonar-pro"),
        ("cerebras", "gpt-oss-120b"),
    ],
)
def test_the_price_package_knows_the_host_and_its_models(host: str, model: str) -> None:
    assert Catalog().price(f"{host}/{model}", ROWS[host].price_id, model) is not None


NEW = Row(
    type="new-host",
    owner="new-host",
    dialect="openai_chat",
    base_url="https://new-host.example/v1",
    url=fixed_path("/chat/completions"),
    key_variables=("NEW_HOST_API_KEY",),
    quirks=Quirks(renames={"seed": "random_seed"}, finish_reasons={"finished": "stop"}),
)
"""All that a new host needs."""


def test_a_new_host_is_one_row() -> None:
    router = Router([configured(NEW)], {}, Catalog())
    body = {"model": "new-host/m", "messages": [{"role": "user", "content": "x"}], "seed": 1, "stream": True}
    [target] = router.plan("new-host/m").targets
    exchange = Exchange(openai_chat.parse_request(body), target, Abilities(), strict=False)
    request = exchange.http_request()
    assert request.url == "https://new-host.example/v1/chat/completions"
    assert json.loads(request.body) == {
        "model": "m",
        "messages": body["messages"],
        "random_seed": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    event = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"finished"}]}\n\n'
    [answer] = exchange.events(event)
    assert answer.raw == b'{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}'
    assert exchange.last_events() == []
    assert exchange.failure is None
    assert router.entry(OPERATOR, "new-host/m").owned_by == "new-host"
