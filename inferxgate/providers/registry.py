"""All types of provider, by the name that the configuration uses."""

from collections.abc import Mapping

from inferxgate.providers import anthropic, azure, echo, gemini, openai, openai_compatible
from inferxgate.providers.provider import Row

ROWS: Mapping[str, Row] = {
    row.type: row for row in (openai.ROW, anthropic.ROW, gemini.ROW, azure.ROW, *openai_compatible.ROWS)
}
"""Types that a ``[providers.NAME]`` section may have. ``echo`` is built in and needs no section."""

ALL_ROWS: Mapping[str, Row] = {**ROWS, echo.ROW.type: echo.ROW}
