"""OpenAI, and every host that is configured with ``type = "openai"`` because it speaks the same.

Sources: the ``openai`` Python package 3.54 (base URL, ``OPENAI_API_KEY``, ``OPENAI_BASE_URL``, bearer credential).
"""

from inferxgate.providers.provider import Row, fixed_path, listed_at

ROW = Row(
    type="openai",
    owner="openai",
    dialect="openai_chat",
    base_url="https://api.openai.com/v1",
    url=fixed_path("/chat/completions"),
    list_url=listed_at("/models"),
    key_variables=("OPENAI_API_KEY",),
    url_variables=("OPENAI_BASE_URL",),
    price_id="openai",
    spoken_by_others=True,
)
