"""What each provider makes of each feature, asked of the code itself; the README's table is held by this test.

When the table has changed, ``python -m tests.test_features`` prints it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inferxgate.catalog.models import abilities_of
from inferxgate.dialects.openai_chat import parse_request
from inferxgate.dialects.protocol import BuildTarget
from inferxgate.dialects.registry import DIALECTS
from inferxgate.errors import GatewayError
from inferxgate.providers.registry import ROWS

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- features: begin -->\n", "<!-- features: end -->\n"

TARGETS = {
    "openai": ("openai", "gpt-5"),
    "claude-sonnet-4-5": ("anthropic", "claude-sonnet-4-5"),
    "claude-opus-4-8": ("anthropic", "claude-opus-4-8"),
    "gemini-2.5-flash": ("gemini", "gemini-2.5-flash"),
    "gemini-3-pro": ("gemini", "gemini-3-pro-preview"),
    "groq": ("groq", "openai/gpt-oss-120b"),
    "mistral": ("mistral", "mistral-large-latest"),
}
"""Columns: the type of the provider, and the model that is asked."""

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PNG = "data:image/png;base64,iVBORw0KGgo="


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


FEATURES: dict[str, dict[str, Any]] = {
    "system messages": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
    "image as data URL": said({"type": "image_url", "image_url": {"url": PNG}}),
    "image by https URL": said({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
    "PDF as data URL": said({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}}),
    "audio input": said({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    "tools": {"tools": [TOOL]},
    "tool_choice required": {"tools": [TOOL], "tool_choice": "required"},
    "tool_choice by name": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "parallel_tool_calls false": {"tools": [TOOL], "parallel_tool_calls": False},
    "tool results": {
        "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "r"},
        ],
        "tools": [TOOL],
    },
    "response_format json_schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    },
    "response_format json_object": {"response_format": {"type": "json_object"}},
    "response_format json_schema, with tools": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        "tools": [TOOL],
    },
    "max_tokens": {"max_tokens": 10},
    "stop": {"stop": ["x"]},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "reasoning_effort": {"reasoning_effort": "low"},
    "n above 1": {"n": 2},
    "seed": {"seed": 1},
    "presence_penalty": {"presence_penalty": 0.5},
    "logit_bias": {"logit_bias": {"1": 1}},
    "logprobs": {"logprobs": True},
    "user": {"user": "ann"},
    "metadata": {"metadata": {"a": "b"}},
    "service_tier": {"service_tier": "auto"},
}

EMULATION = b"inferxgate_json_answer"
"""The tool by which an answer in JSON is asked for where a model has no such mode."""


def verdict(kind: str, model: str, fields: dict[str, Any]) -> str:
    """native, emulated, dropped or refused."""
    request = parse_request({"model": model, "messages": [{"role": "user", "content": "u"}], **fields})
    row = ROWS[kind]
    target = BuildTarget(kind, model, abilities_of(kind, model), row.quirks)
    try:
        call = DIALECTS[row.dialect].build_request(request, target)
    except GatewayError as error:
        return "refused" if error.status == 400 and error.param else f"wrong: {error}"
    if EMULATION in call.body:
        return "emulated"
    return "dropped" if call.dropped else "native"


def table() -> str:
    """The table as Markdown."""
    lines = ["| | " + " | ".join(TARGETS) + " |", "|---|" + "---|" * len(TARGETS)]
    for feature, fields in FEATURES.items():
        cells = [verdict(kind, model, fields) for kind, model in TARGETS.values()]
        lines.append(f"| {feature} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + others()


def others() -> str:
    """What becomes of the features at each provider that has no column, a paragraph for those that are alike.

    They speak the client's dialect: what is not refused or dropped for them goes through, and they are the judge of it.
    """
    alike: dict[str, list[str]] = {}
    for kind, row in ROWS.items():
        if row.dialect == "openai_chat" and kind not in TARGETS:
            verdicts = {feature: verdict(kind, "some-model", fields) for feature, fields in FEATURES.items()}
            odd = [f"{feature} is {how}" for feature, how in verdicts.items() if how != "native"]
            alike.setdefault(", ".join(odd), []).append(f"`{kind}`")
    return "".join(
        f"\n{', '.join(kinds)}: {f'{odd}; all else' if odd else 'everything'} goes through as it came.\n"
        for odd, kinds in alike.items()
    )


def test_the_readmes_table_is_what_the_code_does() -> None:
    text = README.read_text()
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown == table(), "the table in the README is stale: python -m tests.test_features prints the new one"


if __name__ == "__main__":
    print(table(), end="")
