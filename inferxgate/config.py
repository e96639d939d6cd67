"""The settings: each declared once, with its help; the file, then the environment, then flags say what they are.

``config show``, ``config init`` and the README's table are made from these declarations. A setting whose effect this
version does not have is refused with a line that says so: nothing is accepted that would not be enforced.

Everything that is wrong is a ``StartError`` of one line: where it was set, which setting, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, Strict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from inferxgate import config_checks as checks
from inferxgate.catalog.abilities import Thinking
from inferxgate.config_mistakes import unknown_variable, worst_mistake
from inferxgate.config_sources import (
    BadSetting,
    ConfigFile,
    Loc,
    UnknownVariable,
    common,
    depth,
    dotted,
    entry_of,
    fields_of,
    insert,
    read_environment,
    read_file,
    resolve_file,
)
from inferxgate.errors import StartError
from inferxgate.providers.provider import Row
from inferxgate.providers.registry import ROWS

APPLICATION = "inferxgate"
DATABASE_SCHEME = "sqlite:///"

_T = TypeVar("_T")

Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Tokens = Annotated[Whole, Field(ge=1, le=1_000_000_000)]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]
Dollars = Annotated[Number, Field(ge=0, le=1_000_000)]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class Section(BaseModel):
    """One table of the configuration. Unknown settings are errors, and no message repeats a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


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


class AliasSettings(Section):
    """Another name for a model."""

    targets: Annotated[
        list[Annotated[str, AfterValidator(checks.model_name)]], Field(min_length=1), AfterValidator(checks.one_target)
    ] = Field(
        description="The model it stands for, as provider/model. This version takes one.", examples=[["openai/gpt-5"]]
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


class Layer(PydanticBaseSettingsSource):
    """One source whose values have been read: flags, environment, file, or the providers' own variables."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(Settings)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


_layers: ContextVar[tuple[Layer, ...]] = ContextVar("layers", default=())
"""What ``load_settings`` has read, the strongest first; settings made by hand have none."""


class Settings(BaseSettings):
    """Every setting. ``load_settings`` reads them; ``Settings(server=...)`` takes only what it is given."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: ServerSettings = Field(ServerSettings(), description="The HTTP server.")
    auth: AuthSettings = Field(AuthSettings(), description="Users and tokens.")
    limits: LimitSettings = Field(
        LimitSettings(), description="Limits of keys that have none of their own, and budgets."
    )
    storage: StorageSettings = Field(StorageSettings(), description="The database.")
    params: ParamSettings = Field(ParamSettings(), description="Parameters that a model does not take.")
    media: MediaSettings = Field(MediaSettings(), description="Images and PDFs that requests name by their URLs.")
    reasoning: ReasoningSettings = Field(ReasoningSettings(), description="Thought between the turns of a tool loop.")
    chat: ChatSettings = Field(ChatSettings(), description="Defaults of 'inferxgate chat'.")
    providers: dict[str, ProviderSettings] = Field(
        {}, description="Who serves models. 'echo' is built in.", examples=["openai"]
    )
    models: dict[str, AliasSettings] = Field({}, description="Aliases: other names for models.", examples=["smart"])
    pricing: dict[str, PriceSettings] = Field(
        {},
        description="Prices by provider/model; * stands for anything, the first that fits holds.",
        examples=["openai/*"],
    )
    catalog: dict[str, FactSettings] = Field(
        {}, description="Facts by provider/model; * stands for anything.", examples=["my-vllm/*"]
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Our own layers in place of the stock ones, which know neither references, origins nor near matches."""
        return (init_settings, *_layers.get())


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and where they are from."""

    settings: Settings
    path: Path | None
    """The file that was read; None where there is none."""
    data_dir: Path
    """Absolute. Whoever needs the folder makes it, with mode 0700."""
    origins: Mapping[str, str]
    """By the setting's dotted name: ``default``, ``file``, ``environment NAME`` or ``flag``."""


def config_file(config_path: Path | None, *, environ: Mapping[str, str] = os.environ) -> Path:
    """The place of the configuration file: the flag, ``INFERXGATE_CONFIG``, or the platform's folder."""
    return _chosen_file(config_path, environ) or _platform_folder("config") / "config.toml"


def _chosen_file(config_path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = environ.get("INFERXGATE_CONFIG")
    return config_path or (Path(os.path.expanduser(named)) if named else None)


def data_folder(*, environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: ``INFERXGATE_DATA_DIR``, or the platform's. It need not exist. Raises ``StartError``."""
    named = environ.get("INFERXGATE_DATA_DIR")
    folder = Path(os.path.expanduser(named)).absolute() if named else _platform_folder("data")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise StartError(f"The data folder {folder} is not a folder; INFERXGATE_DATA_DIR names another")
    return folder


def _platform_folder(kind: Literal["config", "data"]) -> Path:
    find = platformdirs.user_config_path if kind == "config" else platformdirs.user_data_path
    folder = find(APPLICATION, appauthor=False)
    if not folder.is_absolute():
        name = "INFERXGATE_CONFIG" if kind == "config" else "INFERXGATE_DATA_DIR"
        raise StartError(f"This user has no home folder; name the place of the {kind} in {name}")
    return folder


def database_path(settings: Settings, data_dir: Path) -> Path:
    """The SQLite file that ``storage.database_url`` names."""
    return data_dir / settings.storage.database_url.removeprefix(DATABASE_SCHEME)


def load_settings(
    *, config_path: Path | None, flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> Loaded:
    """Read file and environment, lay ``flags`` (by dotted name; None is not given) over them, and check everything.

    Raises ``StartError``: one line that names the place, the setting, and what to do.
    """
    chosen = _chosen_file(config_path, environ)
    path = chosen or config_file(None, environ=environ)
    file = read_file(path) if chosen or os.path.lexists(path) else None
    reading = _Reading.read(file, flags, environ)
    settings = reading.settings()
    return Loaded(settings, file.path if file else None, data_folder(environ=environ), reading.origins(settings))


def leaves(settings: BaseModel, loc: Loc = ()) -> Iterator[tuple[Loc, FieldInfo, object]]:
    """Every setting in force: where it stands, its declaration and its value. Headers are settings one by one."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        here = (*loc, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, here)
        elif not isinstance(value, dict) or (not value and fields_of(entry_of(field.annotation)) is None):
            yield here, field, value
        else:
            for key, entry in value.items():
                if isinstance(entry, BaseModel):
                    yield from leaves(entry, (*here, key))
                else:
                    yield (*here, key), field, entry


@dataclass(frozen=True, slots=True)
class _Reading:
    """What each source says: to lay them over each other, and to name the place of a mistake."""

    environ: Mapping[str, str]
    file: ConfigFile | None
    flags: dict[str, Any]
    environment: dict[str, Any]
    names: Mapping[Loc, str]
    """The variable behind each setting of ``environment``."""
    vendors: dict[str, Any]
    """What the providers' own variables say: weaker than the file, so that a section's own key stays its key."""
    vendor_names: Mapping[Loc, str]

    @classmethod
    def read(cls, file: ConfigFile | None, flags: Mapping[str, object], environ: Mapping[str, str]) -> _Reading:
        given: dict[str, Any] = {}
        for name, value in flags.items():
            if value is not None:
                insert(given, tuple(name.split(".")), value)
        vendors, vendor_names = _vendor_settings(environ)
        present = {**vendors, **(file.values if file else {})}
        own = present.get("providers")
        if isinstance(own, dict):
            present["providers"] = {**vendors.get("providers", {}), **own}
        try:
            environment, names = read_environment(environ, Settings, present)
        except UnknownVariable as unknown:
            raise StartError(unknown_variable(unknown, Settings, present)) from None
        named = {name for tree in (given, environment, file.values if file else {}) for name in _providers_of(tree)}
        _forget_halves(vendors, named)
        return cls(environ, file, given, environment, names, vendors, vendor_names)

    def settings(self) -> Settings:
        """All sources over each other, checked. Raises ``StartError``."""
        try:
            settings = self._merged()
            _check_together(settings)
        except BadSetting as problem:
            raise StartError(f"{self._named(problem.loc)} {problem}") from None
        return settings

    def _merged(self) -> Settings:
        values = resolve_file(self.file, Settings, self.environ, skip=self._outdone) if self.file else {}
        token = _layers.set(tuple(Layer(tree) for tree in (self.flags, self.environment, values, self.vendors)))
        try:
            return Settings()
        except ValidationError as error:
            raise worst_mistake(error, Settings) from None
        finally:
            _layers.reset(token)

    def _outdone(self, loc: Loc) -> bool:
        """Whether a stronger source than the file has this setting."""
        return len(loc) in (depth(self.flags, loc), depth(self.environment, loc))

    def _named(self, loc: Loc) -> str:
        """The setting, after where it, or else what is nearest to it, was set; the strongest source among equals."""
        name = dotted(loc)
        file = self.file.values if self.file else {}
        depths = [depth(tree, loc) for tree in (self.flags, self.environment, file, self.vendors)]
        match depths.index(max(depths)) if any(depths) else None:
            case 0:
                return f"--{loc[-1].replace('_', '-')}"
            case 1:
                return f"environment variable {_nearest(self.names, loc)}: {name}"
            case 2 if self.file:
                line = self.file.line_of(loc)
                return f"{self.file.path}, line {line}: {name}" if line else f"{self.file.path}: {name}"
            case 3:
                return f"environment variable {_nearest(self.vendor_names, loc)}: {name}"
            case _:
                return name

    def origins(self, settings: Settings) -> dict[str, str]:
        """Where each setting in force is from."""
        return {dotted(loc): self._origin(loc) for loc, _, _ in leaves(settings)}

    def _origin(self, loc: Loc) -> str:
        if depth(self.flags, loc) == len(loc):
            return "flag"
        if depth(self.environment, loc) == len(loc):
            return f"environment {_nearest(self.names, loc)}"
        if self.file and depth(self.file.values, loc) == len(loc):
            return "file"
        return f"environment {self.vendor_names[loc]}" if loc in self.vendor_names else "default"


def _nearest(names: Mapping[Loc, str], loc: Loc) -> str:
    """The variable that set a setting, or else the one whose setting shares the most of its name."""
    return names[max(names, key=lambda known: common(known, loc))]


def _vendor_settings(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[Loc, str]]:
    values: dict[str, Any] = {}
    names: dict[Loc, str] = {}
    for row in ROWS.values():
        for setting, variables in (
            ("api_key", row.key_variables),
            ("base_url", row.url_variables),
            ("api_version", row.version_variables),
        ):
            name = next((name for name in variables if environ.get(name)), None)
            if name is not None:
                loc = ("providers", row.type, setting)
                insert(values, loc, environ[name])
                names[loc] = name
    return values, names


def _providers_of(tree: Mapping[str, Any]) -> Iterable[str]:
    providers = tree.get("providers")
    return providers if isinstance(providers, dict) else ()


def _forget_halves(vendors: dict[str, Any], named: Container[str]) -> None:
    """Take out the providers of which the environment has only a part, unless something else names them too.

    A key without an address, or a version alone, may be in the environment for another program's sake: that makes no
    provider, and must not stop the start either.
    """
    providers = vendors.get("providers", {})
    for name in [*providers]:
        there = ROWS[name].base_url is not None or "base_url" in providers[name]
        if name not in named and not (there and providers[name].keys() & {"api_key", "base_url"}):
            del providers[name]


# What one setting alone cannot tell


def _check_together(settings: Settings) -> None:
    """Raise ``BadSetting`` for what is wrong between settings, with the names of entries, and with files."""
    server = settings.server
    if server.tls_cert and not server.tls_key:
        raise BadSetting(("server", "tls_cert"), "needs server.tls_key beside it")
    if server.tls_key and not server.tls_cert:
        raise BadSetting(("server", "tls_key"), "needs server.tls_cert beside it")
    for name, provider in settings.providers.items():
        _check(("providers", name), checks.provider_name, name)
        _check(("providers", name, "type")[: 3 if provider.type else 2], checks.provider_type, provider.type or name)
        _check_against_row(("providers", name), provider, ROWS[provider.type or name])
    for pattern, price in settings.pricing.items():
        _check_price(("pricing", pattern), price)
    for section in ("models", "pricing", "catalog"):
        for name in getattr(settings, section):
            _check((section, name), checks.model_name, name)
    for loc, _, value in leaves(settings):
        if isinstance(value, Path):
            _check(loc, checks.file, value)


def _check_against_row(loc: Loc, provider: ProviderSettings, row: Row) -> None:
    if provider.base_url is None and row.base_url is None:
        raise BadSetting(loc, f"needs a base_url: {row.type} has no address that is the same for all")
    if provider.base_url is not None and row.check_base_url is not None:
        _check((*loc, "base_url"), row.check_base_url, provider.base_url)
    if provider.vendor_models and row.price_id is None:
        raise BadSetting((*loc, "vendor_models"), f"is no setting of {row.type}, which has no price list of its own")
    if provider.discover and row.list_url is None:
        names = "deployments" if row.own_names else "models"
        raise BadSetting((*loc, "discover"), f"is no setting of {row.type}: name its {names}, which cannot be listed")
    if provider.api_version is not None and row.api_version is None:
        raise BadSetting((*loc, "api_version"), f"is no setting of {row.type}, which has no versions to choose from")


def _check_price(loc: Loc, price: PriceSettings) -> None:
    if (price.input is None) != (price.output is None):
        missing = "input" if price.input is None else "output"
        raise BadSetting((*loc, missing), "is missing: a price has both input and output, or is laid over a known one")
    if not price.model_dump(exclude_none=True):
        raise BadSetting(loc, "says nothing: set input and output, or what differs from the known price, or a discount")


def _check(loc: Loc, check: Callable[[_T], object], value: _T) -> None:
    try:
        check(value)
    except ValueError as error:
        raise BadSetting(loc, str(error)) from None
