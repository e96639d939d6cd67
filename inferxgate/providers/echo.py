"""The built-in provider that answers with the last user message: no key, no network, no cost.

Its URL scheme picks the in-memory engine of ``upstream``; limits, metering and streaming see nothing special in it.
"""

from inferxgate.providers.provider import Provider, Row

ROW = Row(
    type="echo",
    owner="inferxgate",
    dialect="openai_chat",
    base_url="echo://local",
    paths={"chat": "/chat/completions"},
    price_id="none",
    models=("echo",),
)

ECHO = Provider(name="echo", row=ROW, base_url=ROW.base_url, models=ROW.models, price_id=ROW.price_id)
