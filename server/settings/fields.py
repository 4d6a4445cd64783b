"""Every setting: its type, its default and what it is."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from server.core.durations import seconds_of

from .places import default_cache_dir, default_models_dir

FAULTS_VARIABLE = "INGLE_FAULTS"
DEFAULT_MODEL = "smollm2-135m-instruct"
SECRET_KEYS = frozenset({"api_key", "admin_key"})
"""Settings that nobody is shown."""

_ORIGIN_WORDS = ("localhost", "*", "null", "none")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*]+")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return value


def _split(value: object) -> object:
    """A list in one text: JSON, or parts with commas between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith(("[", "{")):
        return json.loads(value)
    return [part for part in (part.strip() for part in value.split(",")) if part]


def _split_pairs(value: object) -> object:
    """`alias=model, …`; a model's name may hold more of `=`."""
    parts = _split(value)
    if not isinstance(parts, list):
        return parts
    return dict(str(part).split("=", 1) for part in parts)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def sendable(key: str) -> bool:
    """Whether a header can carry it as a key."""
    return re.fullmatch(r"[!-~]+", key) is not None


def _check_key(key: SecretStr) -> SecretStr:
    if not sendable(key.get_secret_value()):
        raise ValueError("not a header value")
    return key


def _origin(text: str) -> str:
    if text not in _ORIGIN_WORDS and not _ORIGIN.fullmatch(text):
        raise ValueError("not an origin")
    return text


def _host(text: str) -> str:
    """A name or an address, without a port."""
    if text != "*" and not _HOST.fullmatch(text.removeprefix("*.")):
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
    return text


_Number = BeforeValidator(_not_bool)
_List = BeforeValidator(_split, json_schema_input_type=list[str] | str)
_Pairs = BeforeValidator(_split_pairs, json_schema_input_type=dict[str, str] | list[str] | str)
_Time = BeforeValidator(seconds_of, json_schema_input_type=float | str)
_Name = Annotated[str, Field(min_length=1)]
_Models = Annotated[tuple[_Name, ...], NoDecode, _List, Field(min_length=1)]
_Port = Annotated[int, _Number, Field(ge=1, le=65_535)]
_Context = Annotated[int, _Number, Field(ge=64, le=10_485_760)]
_Slots = Annotated[int, _Number, Field(ge=1, le=256)]
_Threads = Annotated[int, _Number, Field(ge=1, le=512)]
_GpuLayers = Annotated[int, _Number, Field(ge=-1, le=10_000)]
_Key = Annotated[SecretStr, AfterValidator(_check_key)]
_Keys = Annotated[tuple[_Key, ...], NoDecode, _List]
_Origin = Annotated[str, AfterValidator(_origin)]
_Origins = Annotated[tuple[_Origin, ...], NoDecode, _List]
_Host = Annotated[str, AfterValidator(_host)]
_Hosts = Annotated[tuple[_Host, ...], NoDecode, _List]
_Aliases = Annotated[dict[_Name, _Name], NoDecode, _Pairs]
_Path = Annotated[Path, AfterValidator(Path.expanduser)]
_Seconds = Annotated[float, _Number, Field(ge=0.5, le=3600, allow_inf_nan=False)]
_Milliseconds = Annotated[float, _Number, Field(ge=1, le=60_000, allow_inf_nan=False)]
_Queue = Annotated[int, _Number, Field(ge=0, le=65_536)]
_Tokens = Annotated[int, _Number, Field(ge=1, le=1_000_000_000)]
_Deadline = Annotated[float, _Number, Field(ge=0.1, le=86_400, allow_inf_nan=False)]
_BodySize = Annotated[int, _Number, Field(ge=1024, le=48 << 20)]
_Choices = Annotated[int, _Number, Field(ge=1, le=128)]
_Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
_Duration = Annotated[float, _Time]
_Replicas = Annotated[int, _Number, Field(ge=1, le=64)]
_LogFormat = Annotated[Literal["auto", "pretty", "json"], BeforeValidator(_lower)]


class ModelOptions(BaseModel):
    """What one model has of its own, in a table `[model."NAME"]`; None is as all others have it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ctx: _Context | None = None
    slots: _Slots | None = None
    threads: _Threads | None = None
    gpu_layers: _GpuLayers | None = None
    preload: bool | None = None
    keep_alive: _Duration | None = None
    pin: bool = False
    replicas: _Replicas = 1


class Settings(BaseSettings):
    """The effective settings. Built directly it reads nothing but its arguments.

    Each description completes «NAME is …» in error messages.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    models: _Models = Field(
        default=(DEFAULT_MODEL,),
        description="the models to serve: catalogue names, paths to .gguf files, hf:ORG/REPO:QUANT",
    )
    model: dict[_Name, ModelOptions] = Field(
        default={},
        description="a table for each model with options of its own (`models` says what to serve):"
        " ctx, slots, threads, gpu_layers, preload, keep_alive, pin, replicas",
    )
    memory_mb: Annotated[int, _Number, Field(ge=64, le=1 << 24)] | None = Field(
        default=None,
        description="MiB of memory that all models together may take, 64 to 16777216; by default"
        " what is free when the server starts",
    )
    preload: bool = Field(
        default=True,
        description="true or false: whether the models that fit together are loaded at the start,"
        " not when they are first asked for",
    )
    keep_alive: _Duration = Field(
        default=math.inf,
        description="how long a model stays in memory that nobody asks for: seconds, 10m, 1h30m,"
        " or -1 for as long as memory allows",
    )
    swap_seconds: Annotated[float, _Number, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=20.0,
        description="how long a model may have to wait for memory that others are using, 0 to"
        " 86400 s; then nobody new is let in to them",
    )
    host: _Name = Field(default="127.0.0.1", description="the address to listen on")
    port: _Port = Field(default=8000, description="the TCP port to listen on, 1 to 65535")
    ctx: _Context | None = Field(
        default=None, description="the context of one slot in tokens, 64 to 10485760"
    )
    slots: _Slots | None = Field(
        default=None, description="how many sequences run at once, 1 to 256"
    )
    threads: _Threads | None = Field(
        default=None, description="how many CPU threads compute, 1 to 512"
    )
    gpu_layers: _GpuLayers = Field(
        default=-1, description="how many layers the GPU holds, 0 to 10000, or -1 for all"
    )
    api_key: _Keys = Field(
        default=(), description="the keys clients must send, visible ASCII without spaces"
    )
    api_key_file: _Path | None = Field(
        default=None, description="a file of such keys, one a line, with # comments"
    )
    admin_key: _Key | None = Field(
        default=None,
        description="the key of the server's administration, which only this machine may reach if"
        " there is none",
    )
    cors_origins: _Origins = Field(
        default=("localhost",),
        description="the web origins whose pages may use the API: scheme://host[:port],"
        " localhost (with any port), * (all) or none",
    )
    insecure: bool = Field(
        default=False,
        description="true or false: whether to listen on the network without a key",
    )
    allowed_hosts: _Hosts = Field(
        default=(),
        description="the names to answer under besides localhost, no port: chat.example,"
        " *.example or * (all); none given means all, unless only this machine is listened to",
    )
    aliases: _Aliases = Field(
        default={}, description="other names of the models, alias=model with commas between"
    )
    accept_any_model: bool = Field(
        default=False,
        description="true or false: whether a request for an unknown model gets the first one"
        " that does what is asked",
    )
    strict_params: bool = Field(
        default=False,
        description="true or false: whether unknown request fields are refused, not ignored",
    )
    models_dir: _Path = Field(
        default_factory=default_models_dir, description="the directory of the model files"
    )
    target_step_ms: _Milliseconds = Field(
        default=200.0,
        description="the gap between tokens to keep to while prompts are read, 1 to 60000 ms",
    )
    watchdog_seconds: _Seconds = Field(
        default=60.0,
        description="after how long without progress an engine is started again, 0.5 to 3600 s;"
        " steps known to take longer may",
    )
    drain_seconds: Annotated[float, _Number, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        default=30.0,
        description="how long running and waiting requests may take to end once the server is"
        " told to stop, 0 to 86400 s",
    )
    prefix_cache_mb: Annotated[
        int,
        _Number,
        Field(
            ge=0,
            le=1 << 20,
            description="MiB of memory per model for prefixes that slots lose, 0 (none) or more; "
            "at most half of what is free once the model is loaded",
        ),
    ] = 1024
    disk_cache_mb: Annotated[int, _Number, Field(ge=0, le=1 << 24)] = Field(
        default=0,
        description="MiB of disk for prefixes of all models, which then outlive a restart, 0 (none)"
        " to 16777216",
    )
    cache_dir: _Path = Field(
        default_factory=default_cache_dir, description="the directory of those prefixes"
    )
    max_waiting: _Queue = Field(
        default=256,
        description="how many requests may wait beyond those that the slots run, 0 to 65536",
    )
    max_waiting_tokens: _Tokens | None = Field(
        default=None,
        description="how many tokens of prompts may wait to be read, 1 to 1000000000; by default"
        " four times what all slots hold",
    )
    queue_seconds: _Deadline | None = Field(
        default=None,
        description="how long a request may wait for a slot, 0.1 to 86400 s, or as long as it"
        " likes",
    )
    request_seconds: _Deadline | None = Field(
        default=None,
        description="how long a request may take in all, 0.1 to 86400 s, or as long as it likes",
    )
    key_max_requests: Annotated[int, _Number, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="how many requests of one key may be inside at once, 1 to 65536, or any number",
    )
    key_tokens_per_minute: _Tokens | None = Field(
        default=None,
        description="how many tokens a minute one key may have, read and generated, 1 to"
        " 1000000000, or any number",
    )
    max_body_bytes: _BodySize = Field(
        default=4 << 20, description="the largest request body in bytes, 1024 to 50331648"
    )
    max_choices: _Choices = Field(default=16, description="the largest n of a request, 1 to 128")
    tool_leniency: bool = Field(
        default=True,
        description="whether a call without the model's tags counts as one, true or false",
    )
    fault_injection: bool = Field(
        default=False,
        description="true or false: whether the variable INGLE_FAULTS may make engines fail, for"
        " tests",
    )
    log_level: _Level = Field(default="info", description="one of debug, info, warning and error")
    log_format: _LogFormat = Field(
        default="auto",
        description="one of pretty, json and auto (pretty on a terminal, else JSON lines)",
    )
    log_prompts: bool = Field(
        default=False, description="true or false: whether log lines may hold what users write"
    )

    @property
    def served(self) -> tuple[str, ...]:
        """The models to serve: where none are named, those that have a table."""
        named = "models" in self.model_fields_set
        return self.models if named or not self.model else tuple(self.model)

    def options_of(self, word: str, name: str) -> ModelOptions:
        """Of the model that `word` of `models` means, and that clients call `name`."""
        return self.model.get(word) or self.model.get(name) or ModelOptions()

    @property
    def has_keys(self) -> bool:
        return bool(self.api_key) or self.api_key_file is not None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)
