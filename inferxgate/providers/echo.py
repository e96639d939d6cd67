"""The built-in provider that answers with the last user message: no key, no network, no cost.

Its URL scheme picks the in-memory engine of ``upstream``; limits, metering and streaming see nothing special in it.
"""

from inferxgate.providers.provider import Provider, Row, fixed_path

ROW = Row(
    type="echo",
    owner="inferxgate",
    dialect="openai_chat",
    base_url="echo://local",
    url=fixed_path("/chat/completions"),
    price_id="none",
    models=("echo",),
)

ECHO = Provider(name="echo", row=ROW, base_url="echo://local", models=ROW.models, price_id=ROW.price_id)
