"""The sections of the configuration: each setting declared once, with its type, its default and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, Strict

from inferxgate import config_checks as checks
from inferxgate.catalog.abilities import Thinking
from inferxgate.providers.registry import ROWS

DATABASE_SCHEME = "sqlite:///"

Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Tokens = Annotated[Whole, Field(ge=1, le=1_000_000_000)]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]
Dollars = Annotated[Number, Field(ge=0, le=1_000_000)]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class Section(BaseModel):
    """One table of the configuration. Unknown settings are errors, and no message repeats a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)
    """``defer_build``: of the validators, that of all sections together is the one that a start needs."""


class ServerSettings(Section):
    """Where the gateway listens and how it serves."""

    host: Annotated[str, AfterValidator(checks.host)] = Field(
        "127.0.0.1", description="Address to listen on. Anything but a loopback address can be reached by others."
    )
    port: Annotated[Whole, Field(ge=0, le=65_535)] = Field(3000, description="Port to listen on; 0 takes any free one.")
    workers: Annotated[Whole, Field(ge=1, le=256)] = Field(
        1, description="Processes that serve on the same port; about one for each core."
    )
    public_metrics: Flag = Field(default=False, description="Whether /metrics answers without a credential.")
    max_body_mb: Annotated[Whole, Field(ge=1, le=1024)] = Field(
        32, description="Largest request body, in MiB; a larger one is a 413."
    )
    keepalive_seconds: Annotated[Number, Field(ge=0, le=86_400)] = Field(
        15,
        description="Silence on a stream after which a comment line is sent, so that proxies keep it; 0 sends none.",
    )
    shutdown_seconds: Annotated[Number, Field(ge=0, le=86_400)] = Field(
        30, description="How long running requests may take to finish once the gateway is told to stop."
    )
    trusted_proxies: list[Annotated[str, AfterValidator(checks.network)]] = Field(
        [], description="Addresses or networks of proxies whose X-Forwarded-For counts.", examples=[["10.0.0.0/8"]]
    )
    cors_origins: list[Annotated[str, AfterValidator(checks.origin)]] = Field(
        [],
        description="Origins of web pages that may call the gateway; empty is none.",
        examples=[["https://app.example.com"]],
    )
    tls_cert: Path | None = Field(
        None,
        description="Certificate chain in PEM; with tls_key it turns on TLS.",
        examples=["/etc/inferxgate/cert.pem"],
    )
    tls_key: Path | None = Field(None, description="Private key in PEM.", examples=["/etc/inferxgate/key.pem"])
    log_level: Annotated[Literal["critical", "error", "warning", "info", "debug"], Lower] = Field(
        "info", description="Least severe messages to log."
    )
    log_format: Annotated[Literal["text", "json"], Lower] = Field(
        "text", description="Log lines for people, or one JSON object a line."
    )


class AuthSettings(Section):
    """Who may sign in."""

    registration: Annotated[Literal["open", "closed", "auto"], Lower] = Field(
        "auto",
        description="Who may register over HTTP. auto: callers on this machine, while it listens on loopback only.",
    )
    jwt_secret: Annotated[SecretStr, AfterValidator(checks.jwt_secret)] | None = Field(
        None,
        description="Secret that signs tokens, 32 bytes or more. Without it one is made and kept in the data folder.",
        examples=["${IX_JWT_SECRET}"],
    )
    jwt_expires_seconds: Annotated[Whole, Field(ge=1, le=315_360_000)] = Field(
        86_400, description="How long a token is good for."
    )
    keys_per_user: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(20, description="Keys that one user may own.")


class LimitSettings(Section):
    """Defaults of every key, and how budgets are kept."""

    requests_per_minute: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = Field(
        60, description="Completions in any 60 seconds for a key without a limit of its own; 0 is unlimited."
    )
    tokens_per_minute: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = Field(
        0, description="Tokens of prompts and answers in any 60 seconds for such a key; 0 is unlimited."
    )
    parallel_requests: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = Field(
        0, description="Completions that such a key may have under way at once; 0 is unlimited."
    )
    reserve_output_tokens: Tokens = Field(
        4096,
        description="Tokens of an answer to reserve against limits and budgets where neither the request nor the model"
        " says a maximum.",
    )
    allow_unpriced: Flag = Field(
        default=False,
        description="Whether a key with a budget may use a model without a price; what it uses there is not counted.",
    )
    budget_alerts: Annotated[list[Annotated[Number, Field(gt=0, le=1)]], AfterValidator(checks.ascending)] = Field(
        [0.5, 0.8, 0.95],
        description="Parts of a budget (1 is all of it) that are told in the log and in the metrics once spent;"
        " empty is none.",
    )

    @property
    def of_keys(self) -> dict[str, int]:
        """The defaults, by the names that a key's own limits have."""
        return {
            "rate_limit_rpm": self.requests_per_minute,
            "rate_limit_tpm": self.tokens_per_minute,
            "max_parallel_requests": self.parallel_requests,
        }


class StorageSettings(Section):
    """Where users, keys and usage are kept."""

    database_url: Annotated[str, AfterValidator(checks.database_url)] = Field(
        f"{DATABASE_SCHEME}inferxgate.db", description="SQLite file, relative to the data folder."
    )
    keep_days: Annotated[Whole, Field(ge=0, le=36_500)] = Field(
        90, description="Age at which single usage records are deleted; 0 keeps them. Sums and spend stay."
    )
    keep_rollup_days: Annotated[Whole, Field(ge=0, le=36_500)] = Field(
        400, description="Age at which sums by the hour are deleted; 0 keeps them. Sums by the day stay."
    )
    max_mb: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = Field(
        10_240,
        description="Largest size of the database file, in MiB, beyond which the oldest usage records are deleted"
        " however young, but for those of the last hour; 0 is unlimited.",
    )


class ParamSettings(Section):
    """What happens to parameters that a model does not take."""

    unsupported: Annotated[Literal["drop", "strict"], Lower] = Field(
        "drop",
        description="Tuning parameters that the target does not take: left out and named in a header, or a 400."
        " Parameters with meaning are always a 400.",
    )


class MediaSettings(Section):
    """Images and PDFs that requests name by their URLs."""

    fetch_urls: Flag = Field(
        default=False,
        description="Whether to fetch https URLs for providers that take only the data itself: from public addresses"
        " only, directly and never through a proxy. Off, such a request is a 400 that says how to send the data.",
    )


class ReasoningSettings(Section):
    """What models thought before they called a tool, kept for clients that do not send it back."""

    keep_hours: Annotated[Number, Field(ge=0, le=720)] = Field(24, description="How long it is kept; 0 keeps nothing.")
    max_mb: Annotated[int, Field(ge=1, le=4096)] = Field(64, description="How much is kept, in MiB; the oldest goes.")


class RoutingSettings(Section):
    """What is done where a provider fails, and how much may be under way at once."""

    retries: Annotated[Whole, Field(ge=0, le=10)] = Field(
        2,
        description="How often one request is tried again at targets that have failed it already. Targets that were not"
        " tried yet come first and do not count.",
    )
    retry_within_seconds: Annotated[Number, Field(ge=0, le=86_400)] = Field(
        60, description="Age at which a request is no longer tried again at a target that has failed it."
    )
    max_wait_seconds: Annotated[Number, Field(ge=0, le=3600)] = Field(
        30,
        description="Longest that one request waits in all, for a Retry-After or for a target to recover, where no"
        " other target can be asked.",
    )
    window_seconds: Annotated[Number, Field(ge=1, le=3600)] = Field(
        30, description="Time over which the failures of a target are counted."
    )
    min_failures: Annotated[Whole, Field(ge=1, le=1_000_000)] = Field(
        5, description="Failures in that time below which a target stays in use."
    )
    failure_ratio: Annotated[Number, Field(gt=0, le=1)] = Field(
        0.5, description="Part of the requests in that time from which on a target that fails them is left alone."
    )
    cooldown_seconds: Annotated[Number, Field(gt=0, le=3600)] = Field(
        5, description="How long it is then left alone, before one request tries it again; twice as long each time."
    )
    max_cooldown_seconds: Annotated[Number, Field(gt=0, le=86_400)] = Field(
        120, description="The longest that comes to."
    )
    set_aside_seconds: Annotated[Number, Field(gt=0, le=86_400)] = Field(
        600, description="How long a credential that the provider refused is not used, where there is another one."
    )
    max_parallel_requests: Annotated[Whole, Field(ge=0, le=1_000_000)] = Field(
        0, description="Completions that may be under way at once in the whole gateway; 0 is unlimited."
    )
    max_queued_requests: Annotated[Whole, Field(ge=0, le=1_000_000)] = Field(
        1000, description="Completions that may wait for a place below such a bound, in each worker."
    )
    queue_seconds: Annotated[Number, Field(ge=0, le=3600)] = Field(
        10, description="Longest that one waits for it, before it is a 503."
    )


class ChatSettings(Section):
    """Defaults of 'inferxgate chat'."""

    model: Annotated[str, AfterValidator(checks.model_name)] | None = Field(
        None, description="Model to ask where -m names none; without it echo answers.", examples=["gpt-5-mini"]
    )


class ProviderSettings(Section):
    """One provider. A section with the name of a type ([providers.openai]) needs no type."""

    type: str | None = Field(
        None,
        description=f"What it is, by default what its section is called: {', '.join(ROWS)}.",
        examples=["openai"],
    )
    api_key: Annotated[SecretStr, AfterValidator(checks.api_key)] | None = Field(
        None,
        description="Credential. A section that is called like its type takes the provider's own variable"
        " (OPENAI_API_KEY, ...) where it has none.",
        examples=["${OPENAI_API_KEY}"],
    )
    api_keys: Annotated[list[Annotated[SecretStr, AfterValidator(checks.api_key)]], AfterValidator(checks.api_keys)] = (
        Field(
            [],
            description="Several credentials in place of api_key: the first is used, and the next where the provider"
            " limits or refuses it.",
            examples=[["${OPENAI_KEY_1}", "${OPENAI_KEY_2}"]],
        )
    )
    auth: Annotated[Literal["key", "bearer"], Lower] = Field(
        "key",
        description="What the credential is: the provider's own kind of key, or a token to be sent as a bearer token.",
    )
    base_url: Annotated[str, AfterValidator(checks.base_url)] | None = Field(
        None,
        description="Address, as the provider's own SDK spells it; by default the vendor's.",
        examples=["https://api.openai.com/v1"],
    )
    api_version: Annotated[str, AfterValidator(checks.api_version)] | None = Field(
        None,
        description="Version of the API, where a type has versions: a date, or v1 for the newer form of the URL."
        f" By default {', '.join(f'{row.api_version} ({row.type})' for row in ROWS.values() if row.api_version)}.",
        examples=["2024-10-21"],
    )
    timeout_seconds: Seconds = Field(
        600, description="Longest that a whole answer may take; streams have no such bound."
    )
    connect_timeout_seconds: Seconds = Field(10, description="Longest that connecting may take.")
    first_byte_timeout_seconds: Seconds = Field(600, description="Longest wait for the first byte of an answer.")
    idle_timeout_seconds: Seconds = Field(300, description="Longest silence inside a stream.")
    max_parallel_requests: Annotated[Whole, Field(ge=0, le=1_000_000)] = Field(
        0, description="Requests that may be under way to it at once; 0 is unlimited."
    )
    headers: Annotated[dict[str, SecretStr], AfterValidator(checks.headers)] = Field(
        {}, description="Further headers to send with every request.", examples=[{"OpenAI-Organization": "org-1"}]
    )
    vendor_models: Flag | None = Field(
        None,
        description="Whether its models are those of the type's vendor, at the vendor's prices. By default they are at"
        " the vendor's hosts and behind a proxy before them, and are not at other servers that speak OpenAI's API.",
        examples=[True],
    )
    models: list[Annotated[str, AfterValidator(checks.model_name)]] = Field(
        [], description="Models to list for it, beside those that are known.", examples=[["llama-3.3-70b"]]
    )
    discover: Flag = Field(
        default=False,
        description="Whether the models that it lists itself are listed too, as provider/model. It is asked in the"
        " background and never while the gateway starts; 'inferxgate models refresh' asks at once.",
    )
    deployments: Annotated[dict[str, str], AfterValidator(checks.deployments)] = Field(
        {},
        description="Names of your own, and the vendor's model behind each: for prices, limits and abilities.",
        examples=[{"my-gpt": "gpt-4o"}],
    )
    stream_usage: Flag = Field(
        default=True,
        description="Whether to ask for token counts in streams; turn it off for hosts that refuse stream_options.",
    )
    ca_file: Path | None = Field(
        None,
        description="Certificates to trust in place of the system's, in PEM.",
        examples=["/etc/ssl/internal-ca.pem"],
    )
    proxy: Annotated[str, AfterValidator(checks.proxy)] | None = Field(
        None,
        description="HTTP proxy to go through, in place of HTTPS_PROXY.",
        examples=["http://proxy.internal:3128"],
        repr=False,
    )


class TargetSettings(Section):
    """One of the models that an alias stands for."""

    model: Annotated[str, AfterValidator(checks.model_name)]
    """The one setting that it must have; alone, it can be written as a string in the table's place."""
    weight: Annotated[Whole, Field(ge=1, le=1_000_000)] = 1
    timeout_seconds: Seconds | None = None
    connect_timeout_seconds: Seconds | None = None
    first_byte_timeout_seconds: Seconds | None = None
    idle_timeout_seconds: Seconds | None = None
    params: Annotated[dict[str, Any], AfterValidator(checks.params)] = {}


class AliasSettings(Section):
    """A name of your own for one or more models. With a * in it, it stands for all names that fit, and the * of its
    targets for what the * stood for."""

    targets: Annotated[
        list[Annotated[TargetSettings, BeforeValidator(checks.target)]],
        Field(min_length=1),
        AfterValidator(checks.unlike_targets),
    ] = Field(
        description="The models it stands for, as provider/model, in order of preference. A table in a model's place"
        " ({ model = ... }) says more: weight, timeout_seconds, connect_timeout_seconds, first_byte_timeout_seconds,"
        " idle_timeout_seconds, and params to be set in the request.",
        examples=[["anthropic/claude-sonnet-4-5", "openai/gpt-5"]],
    )
    strategy: Annotated[Literal["ordered", "weighted", "least_busy", "lowest_latency", "cheapest"], Lower] = Field(
        "ordered",
        description="Which target is asked first; the others follow where it fails. weighted: by chance, by their"
        " weights; least_busy: the fewest requests under way; lowest_latency: the shortest time to the first token"
        " lately; cheapest: the lowest price of this very request.",
    )
    fallback_on: list[Literal["context_length", "content_filter"]] = Field(
        [],
        description="Answers that go on to the next target too, although no provider failed: context_length (the"
        " prompt is too long for this one), content_filter (this one refused the content).",
        examples=[["context_length"]],
    )


class PriceSettings(Section):
    """Dollars for a million tokens. With input and output it takes the place of the price list's; without, what is said
    is laid over it."""

    input: Dollars | None = Field(None, description="Prompt tokens; needs output beside it.", examples=[0.2])
    output: Dollars | None = Field(None, description="Answer tokens; needs input beside it.", examples=[0.6])
    cache_read: Dollars | None = Field(
        None, description="Prompt tokens read from a cache; by default as input.", examples=[0.02]
    )
    cache_write: Dollars | None = Field(
        None, description="Prompt tokens written to a cache for five minutes; by default as input.", examples=[0.25]
    )
    cache_write_1h: Dollars | None = Field(
        None, description="Prompt tokens written to a cache for an hour; by default as cache_write.", examples=[0.4]
    )
    audio_input: Dollars | None = Field(None, description="Audio in the prompt; by default as input.", examples=[1.0])
    image_input: Dollars | None = Field(None, description="Images in the prompt; by default as input.", examples=[0.3])
    reasoning: Dollars | None = Field(
        None, description="Thought before the answer; by default as output.", examples=[0.6]
    )
    audio_output: Dollars | None = Field(None, description="Audio in the answer; by default as output.", examples=[2.0])
    image_output: Dollars | None = Field(
        None, description="Images in the answer; by default as output.", examples=[30.0]
    )
    request: Dollars | None = Field(
        None, description="Dollars for each request that is answered, on top of its tokens.", examples=[0.005]
    )
    discount: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        None, description="Part of the whole price that is taken off: 0.15 is 15 percent.", examples=[0.15]
    )


class FactSettings(Section):
    """What a model takes and gives, where it is not what the gateway takes it to be."""

    context_window: Tokens | None = Field(
        None, description="Tokens that prompt and answer may have together, for lists.", examples=[200_000]
    )
    max_output_tokens: Tokens | None = Field(
        None,
        description="Most tokens of an answer; asked for where the provider demands a number and the client has none.",
        examples=[64_000],
    )
    sampling: Flag | None = Field(None, description="Whether it takes temperature, top_p and top_k.", examples=[False])
    temperature_with_top_p: Flag | None = Field(
        None, description="Whether it takes temperature and top_p in one request.", examples=[False]
    )
    prefill: Flag | None = Field(
        None, description="Whether the last message may be the beginning of the answer.", examples=[False]
    )
    thinking: Annotated[Thinking, Lower] | None = Field(
        None,
        description="How thinking is asked for: by a budget of tokens, by effort (adaptive), either, or by level.",
        examples=["adaptive"],
    )
    thinking_off: Flag | None = Field(None, description="Whether it can be told not to think.", examples=[False])
    forced_tools: Flag | None = Field(None, description="Whether it can be made to call a tool.", examples=[False])
    json_schema: Flag | None = Field(
        None, description="Whether it takes a JSON Schema for its answer.", examples=[False]
    )
    json_with_tools: Flag | None = Field(
        None, description="Whether it takes tools and an answer in JSON at once.", examples=[False]
    )
    image_output: Flag | None = Field(None, description="Whether it can answer with images.", examples=[True])
