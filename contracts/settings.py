"""Settings that several processes share: Redis, storage, catalogue, queue, outgoing connections, logs.

Built once in each `main.py`, frozen, and passed in; nothing reads the environment at import. `settings_table.py`
prints any settings class as a table.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal, Self, get_origin

from pydantic import (
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from contracts.byte_sizes import read_size
from contracts.errors import SettingsError
from contracts.redis_url import read_url
from contracts.variables import NamedFiles, OldNames, UnreadableFile

#: The small checkpoints that this repository ships.
BUILT_IN_CATALOGUE = Path(__file__).resolve().parent.parent / "models" / "catalogue.toml"


def _read_list(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError('must be a list with commas, or as JSON: ["a", "b"]') from None


class Settings(BaseSettings):
    """Fields read from the environment; an empty variable is unset; `<NAME>_FILE` names a file with the value."""

    # Lists are read below, from files as well, with an error that names the variable.
    model_config = SettingsConfigDict(env_ignore_empty=True, enable_decoding=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: object, info: ValidationInfo) -> object:
        """Read `20GiB` where bytes are counted, and lists as JSON or with commas; the rest is for pydantic."""
        if isinstance(value, UnreadableFile):
            raise ValueError(value.reason)
        if not isinstance(value, str) or info.field_name is None:
            return value
        if info.field_name.endswith("_bytes"):
            return read_size(value) if re.search("[A-Za-z]", value) else value
        return _read_list(value) if get_origin(cls.model_fields[info.field_name].annotation) is list else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, then the environment, then files that it names, then old names."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, NamedFiles(settings_cls), OldNames(settings_cls)


class SharedSettings(Settings):
    """Settings of every process; each field is an environment variable `DARKROOM_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="URL of Redis or Valkey: redis://, rediss:// (TLS), unix://, or redis+sentinel:// and "
        "rediss+sentinel:// (…://USER:PASSWORD@HOST:PORT,HOST:PORT/PRIMARY/DB); set maxmemory, and "
        "maxmemory-policy to noeviction: the API warns at startup if they are not set",
    )
    redis_wait_replicas: int = Field(
        0,
        ge=0,
        description="replicas that must confirm a job before the API answers 202; 503 if they do not in time",
    )
    redis_wait_seconds: float = Field(
        1.0, gt=0, le=30, description="maximum time to wait for these replicas, at most 30 s"
    )
    data: Path = Field(
        Path("data"), description="folder of the local storage, and of Redis where `darkroom up` starts one"
    )
    storage_url: str = Field(
        "",
        description="bucket used instead of the local folder: s3://bucket/prefix, gs:// or az://",
    )
    catalogue: Path = Field(
        BUILT_IN_CATALOGUE, description="TOML file that lists the models, LoRAs and ControlNets"
    )
    result_ttl_seconds: int = Field(86_400, ge=60, description="time a finished job and its images are kept")
    link_ttl_seconds: int = Field(3600, ge=1, description="minimum time a signed link to an image is valid")
    link_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="secret that signs links; if unset, one is generated and kept in the storage",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="secret from which each owner's webhook secret is derived, whsec_…; if unset, each owner's is "
        "generated and kept in Redis",
    )
    webhook_previous_secret: SecretStr | None = Field(
        None, description="the previous secret; while it is set, webhooks are signed with both"
    )
    credentials: Literal["off", "on"] = Field(
        "off",
        description="on: every image is signed with Content Credentials (C2PA), which say that a model made it "
        "and hold its receipt; needs darkroom[credentials] in the workers",
    )
    credentials_key: SecretStr | None = Field(
        None,
        description="private key that signs them, PEM without a password; if unset, a development key is made and "
        "kept in the storage",
    )
    credentials_certificates: str | None = Field(
        None, description="its certificate, then those of its issuers, PEM; required with a key"
    )
    credentials_signer: str = Field(
        "",
        description="signer to use instead of a key: a command that reads bytes and writes their "
        "signature (DER or raw), or entry:NAME, an entry point darkroom.credentials_signers "
        "of an installed package",
    )
    credentials_api_keys: list[str] = Field(
        default_factory=list,
        description="ids of the API keys whose images are signed (`darkroom keys list`); empty: all images are",
    )
    credentials_prompts: Literal["text", "hash"] = Field(
        "text", description="whether the signed receipt has prompts or only their SHA-256"
    )
    receipts: Literal["plain", "signed"] = Field(
        "plain",
        description="signed: the receipt in every image file is signed (Ed25519), with hashes of the image and "
        "of the latents after each step; needs darkroom[credentials] in the workers",
    )
    receipts_key: SecretStr | None = Field(
        None,
        description="private key that signs them: Ed25519, PEM without a password; if unset, one is made and kept "
        "in the storage",
    )
    tracing: Literal["off", "on"] = Field(
        "off",
        description="on: requests, jobs and webhooks are traced with OpenTelemetry, and spans sent over OTLP to "
        "where OTEL_EXPORTER_OTLP_ENDPOINT says (http://localhost:4318); needs darkroom[tracing]",
    )
    gone_seconds: int = Field(
        86_400, ge=1, description="time after expiry during which a job answers 410, not 404"
    )
    hang_seconds: float = Field(
        60.0,
        gt=0,
        description="maximum time that a process may hang (native code holds the interpreter, or its event "
        "loop or heartbeat is stuck); then it exits, and its supervisor restarts it",
    )

    @model_validator(mode="after")
    def _key_and_certificates_go_together(self) -> Self:
        given = (self.credentials_key is not None) + bool(self.credentials_signer)
        if given != (self.credentials_certificates is not None):
            raise ValueError(
                "DARKROOM_CREDENTIALS_CERTIFICATES goes together with either DARKROOM_CREDENTIALS_KEY or "
                "DARKROOM_CREDENTIALS_SIGNER: set both"
            )
        return self

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str) -> str:
        try:
            read_url(url)
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return url


class QueueSettings(Settings):
    """Settings of the queue; must be the same for all processes of a service."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_QUEUE_", frozen=True, extra="ignore")

    lease_seconds: float = Field(
        15.0, gt=0, description="a worker without a heartbeat for this long loses its jobs, which are queued again"
    )
    max_attempts: int = Field(
        3, ge=1, description="maximum attempts; a job whose workers died this often fails with worker_lost"
    )
    overdue_seconds: float = Field(20.0, ge=0, description="waiting time after which a job may evict a warm model")
    lower_tier_share: float = Field(
        0.1,
        gt=0,
        le=0.3,
        description="fraction of the time that a lower priority gets while a higher one always has jobs",
    )
    scan_limit: int = Field(
        64,
        ge=1,
        description="maximum queues of owners with equal accounts whose oldest jobs a claim compares",
    )


class KeySettings(Settings):
    """Limits of new API keys where `darkroom keys create` names none; keys that exist stay as they are."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_KEYS_", frozen=True, extra="ignore")

    calls_per_minute: int = Field(
        120, ge=0, le=10_000, description="maximum calls a minute that create something; more get 429; 0: no limit"
    )
    max_jobs: int = Field(
        100, ge=0, le=1_000, description="maximum jobs waiting and running at once; more get 429; 0: no limit"
    )


class OutboundSettings(Settings):
    """Addresses that clients may make the service connect to; must be the same for API and dispatcher."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_OUTBOUND_", frozen=True, extra="ignore")

    networks: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description='private networks that webhooks and image URLs may be on, as JSON: ["10.0.0.0/8"]',
    )
    http: bool = Field(False, description="allow http:// to public addresses too")
    resolve_seconds: float = Field(5.0, gt=0, description="timeout for resolving a host name")


class LogSettings(Settings):
    """Settings of the log, which every process writes to stderr."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_LOG_", frozen=True, extra="ignore")

    format: Literal["auto", "json", "text"] = Field(
        "auto", description="json, text, or auto (text on a terminal, json otherwise)"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="minimum level: debug, info, warning or error"
    )
    prompts: bool = Field(False, description="log prompts too; they are clients' private texts")


def explain(error: ValidationError) -> str:
    """Say in one line which environment variables have unusable values, and why."""
    prefixes = {kind.__name__: kind.model_config["env_prefix"] for kind in Settings.__subclasses__()}
    lines = []
    for item in error.errors():
        name = "_".join(map(str, item["loc"])).upper()
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{prefixes.get(error.title, '')}{name}: {message}" if name else message)
    return "; ".join(lines)
