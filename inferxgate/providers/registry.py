"""All types of provider, by the name that the configuration uses."""

from collections.abc import Mapping

from inferxgate.providers import echo, openai
from inferxgate.providers.provider import Row

ROWS: Mapping[str, Row] = {row.type: row for row in (openai.ROW,)}
"""Types that a ``[providers.NAME]`` section may have. ``echo`` is built in and needs no section."""

ALL_ROWS: Mapping[str, Row] = {**ROWS, echo.ROW.type: echo.ROW}
