"""Hosts that speak OpenAI's chat completions: a row for each, with what it does differently and why.

To add one, add a row. Base URLs are those that the host documents for OpenAI's clients. What a row says of a host is
from the host's own client library where it has one (its types are generated from the host's interface), else from its
documentation; both read in November 2026. A host whose parameters are not known to be refused gets everything as it
came: what it does not take, it says itself.
"""

from __future__ import annotations

from inferxgate.dialects.quirks import Quirks
from inferxgate.providers.provider import Row, fixed_path, listed_at

_CHAT = fixed_path("/chat/completions")
_LIST = listed_at("/models")

GROQ = Row(
    type="groq",
    owner="groq",
    dialect="openai_chat",
    base_url="https://api.groq.com/openai/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("GROQ_API_KEY",),
    price_id="groq",
    slashed_names=True,
    quirks=Quirks(
        # Groq's page on OpenAI compatibility: each of these is a 400 where it is supplied, `n` where it is not 1.
        refuses=frozenset({"n", "logprobs", "top_logprobs"}),
        drops=frozenset({"logit_bias"}),
        # Nulls of what it does not know (`function_call`) are refused as well.
        nulls=False,
        # The same page refuses `messages[].name`, and the host any key that its library's types lack: clients that
        # return an answer's message as it came would fail on `refusal`, `annotations` or `reasoning_content`.
        message_keys={
            "system": frozenset({"role", "content"}),
            "developer": frozenset({"role", "content"}),
            "user": frozenset({"role", "content"}),
            "assistant": frozenset({"role", "content", "reasoning", "tool_calls", "function_call"}),
            "tool": frozenset({"role", "content", "tool_call_id"}),
        },
    ),
)

MISTRAL = Row(
    type="mistral",
    owner="mistral",
    dialect="openai_chat",
    base_url="https://api.mistral.ai/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("MISTRAL_API_KEY",),
    price_id="mistral",
    quirks=Quirks(
        # Usage is in the last event of every stream; `stream_options` was a 422 until late in 2025.
        stream_usage=False,
        renames={"seed": "random_seed", "max_completion_tokens": "max_tokens"},
        # A key that the interface does not have is a 422 (`extra_forbidden`); these are OpenAI's that it lacks.
        drops=frozenset(
            {
                "logit_bias",
                "moderation",
                "prompt_cache_options",
                "prompt_cache_retention",
                "safety_identifier",
                "store",
                "user",
                "verbosity",
            }
        ),
        # The library's `RequestedServiceTier`.
        only_values={"service_tier": frozenset({"auto", "standard_only"})},
        refuses=frozenset({"audio", "functions", "function_call", "modalities", "web_search_options"}),
        # The same holds within messages: these are all the keys that the library's types (mistralai 3.7) have.
        message_keys={
            "system": frozenset({"role", "content"}),
            "user": frozenset({"role", "content"}),
            "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
            "tool": frozenset({"role", "content", "tool_call_id", "name"}),
        },
        developer_role=False,
        # "Tool call id was ... but must be a-z, A-Z, 0-9, with a length of 9."
        short_tool_ids=True,
        # The library's `finish_reason`: stop, length, model_length, tool_calls, error.
        finish_reasons={"model_length": "length"},
        failed_reasons={"error": 500},
    ),
)

DEEPSEEK = Row(
    type="deepseek",
    owner="deepseek",
    dialect="openai_chat",
    base_url="https://api.deepseek.com",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("DEEPSEEK_API_KEY",),
    price_id="deepseek",
    quirks=Quirks(
        # Unknown fields are ignored without a word, and these two mean something.
        renames={"max_completion_tokens": "max_tokens"},
        refuses=frozenset({"n"}),
        # "unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`"
        developer_role=False,
        # Its reference on `finish_reason`: the request was interrupted for want of resources.
        failed_reasons={"insufficient_system_resource": 503},
    ),
)

XAI = Row(
    type="xai",
    owner="xai",
    dialect="openai_chat",
    base_url="https://api.x.ai/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("XAI_API_KEY",),
    price_id="x-ai",
)

OPENROUTER = Row(
    type="openrouter",
    owner="openrouter",
    dialect="openai_chat",
    base_url="https://openrouter.ai/api/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("OPENROUTER_API_KEY",),
    price_id="openrouter",
    slashed_names=True,
    quirks=Quirks(
        # Its list of normalised reasons has `error` for a model's host that failed on the way.
        failed_reasons={"error": 500},
    ),
)

TOGETHER = Row(
    type="together",
    owner="together",
    dialect="openai_chat",
    base_url="https://api.together.xyz/v1",
    hosts=("api.together.ai",),  # its documentation's newer name for the same
    url=_CHAT,
    list_url=_LIST,
    key_variables=("TOGETHER_API_KEY",),
    price_id="together",
    slashed_names=True,
    quirks=Quirks(
        # Its library (together 3.1) has no `max_completion_tokens`.
        renames={"max_completion_tokens": "max_tokens"},
        # `eos`: the model ended its answer by itself (same source).
        finish_reasons={"eos": "stop"},
    ),
)

FIREWORKS = Row(
    type="fireworks",
    owner="fireworks",
    dialect="openai_chat",
    base_url="https://api.fireworks.ai/inference/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("FIREWORKS_API_KEY",),
    price_id="fireworks",
    slashed_names=True,
)

PERPLEXITY = Row(
    type="perplexity",
    owner="perplexity",
    dialect="openai_chat",
    base_url="https://api.perplexity.ai",
    url=_CHAT,
    # No list_url: its library has no call for a list of models.
    key_variables=("PERPLEXITY_API_KEY",),
    price_id="perplexity",
    slashed_names=True,
    quirks=Quirks(
        # Its library (perplexityai 0.46) has no `max_completion_tokens`, and four roles.
        renames={"max_completion_tokens": "max_tokens"},
        developer_role=False,
    ),
)

CEREBRAS = Row(
    type="cerebras",
    owner="cerebras",
    dialect="openai_chat",
    base_url="https://api.cerebras.ai/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("CEREBRAS_API_KEY",),
    price_id="cerebras",
)

HUGGINGFACE = Row(
    type="huggingface",
    owner="huggingface",
    dialect="openai_chat",
    base_url="https://router.huggingface.co/v1",
    url=_CHAT,
    list_url=_LIST,
    key_variables=("HF_TOKEN",),
    slashed_names=True,
    # No price id: what a model costs depends on the host that the router picks.
    quirks=Quirks(
        # Text Generation Inference, which many of the models behind the router run on, has reasons of its own.
        finish_reasons={"eos_token": "stop", "stop_sequence": "stop"},
    ),
)

# Servers that people run themselves. They need no key, their prices are the operator's affair ([pricing]), and they
# are there only where the configuration has a section for them.

OLLAMA = Row(
    type="ollama",
    owner="ollama",
    dialect="openai_chat",
    base_url="http://127.0.0.1:11434/v1",
    url=_CHAT,
    list_url=_LIST,
    quirks=Quirks(
        # Its page on OpenAI compatibility has `max_tokens` only and lists `n` among what is not supported; unknown
        # fields are ignored without a word.
        renames={"max_completion_tokens": "max_tokens"},
        refuses=frozenset({"n"}),
    ),
)

VLLM = Row(
    type="vllm",
    owner="vllm",
    dialect="openai_chat",
    base_url="http://127.0.0.1:8000/v1",
    url=_CHAT,
    list_url=_LIST,
    quirks=Quirks(
        # Some versions answer 400 to a null for a field that they declare without one.
        nulls=False,
        # `abort`: the server gave the request up; `error`: the engine did (vLLM's FinishReason).
        failed_reasons={"abort": 500, "error": 500},
    ),
)

LLAMACPP = Row(
    type="llamacpp",
    owner="llamacpp",
    dialect="openai_chat",
    base_url="http://127.0.0.1:8080/v1",
    url=_CHAT,
    list_url=_LIST,
)

LMSTUDIO = Row(
    type="lmstudio",
    owner="lmstudio",
    dialect="openai_chat",
    base_url="http://127.0.0.1:1234/v1",
    url=_CHAT,
    list_url=_LIST,
)

ROWS = (
    GROQ,
    MISTRAL,
    DEEPSEEK,
    XAI,
    OPENROUTER,
    TOGETHER,
    FIREWORKS,
    PERPLEXITY,
    CEREBRAS,
    HUGGINGFACE,
    OLLAMA,
    VLLM,
    LLAMACPP,
    LMSTUDIO,
)
