"""All dialects that a provider may speak, by name."""

from collections.abc import Mapping

from inferxgate.dialects import anthropic_messages, gemini, openai_chat
from inferxgate.dialects.protocol import Dialect

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (openai_chat.DIALECT, anthropic_messages.DIALECT, gemini.DIALECT)
}
