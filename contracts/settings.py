"""Settings that both sides need to find each other: Redis, storage, catalogue, and the queue's bounds.

Built once in each `main.py`, frozen, and passed in; nothing reads the environment at import. `describe` lists any
settings class for people.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from contracts.errors import SettingsError

#: The small checkpoints that this repository ships.
BUILT_IN_CATALOGUE = Path(__file__).resolve().parent.parent / "models" / "catalogue.toml"


class _Files(PydanticBaseSettingsSource):
    """`DARKROOM_REDIS_URL_FILE=/run/secrets/redis_url` stands for the text of that file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The text of the file that the environment names for a field, if any."""
        del field
        variable = f"{self.config.get('env_prefix', '')}{field_name}_FILE".upper()
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{variable} {path}: {error}") from None

    def __call__(self) -> dict[str, Any]:
        """All fields that files give."""
        found = {
            name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()
        }
        return {name: text for name, text in found.items() if text is not None}


class Settings(BaseSettings):
    """Fields from the environment, where an empty variable is none; `<NAME>_FILE` names a file with the value."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then files that it names."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _Files(settings_cls)


class SharedSettings(Settings):
    """Where things are. Each field is an environment variable `DARKROOM_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Redis or Valkey: redis://, rediss:// or unix://"
    )
    data: Path = Field(Path("data"), description="folder of the local storage (and of an own Redis)")
    storage_url: str = Field(
        "", description="s3://bucket/prefix, gs:// or az:// in place of the local folder; credentials as AWS_… say"
    )
    catalogue: Path = Field(BUILT_IN_CATALOGUE, description="TOML file that lists models, LoRAs and ControlNets")
    result_ttl_seconds: int = Field(86_400, ge=60, description="how long a finished job and its images are kept")
    link_ttl_seconds: int = Field(3600, ge=1, description="how long, at least, a link to an image needs no key")
    link_secret: SecretStr | None = Field(
        None, min_length=32, description="what links are signed with; made once in Redis where none is given"
    )
    webhook_secret: SecretStr | None = Field(
        None, description="whsec_…, what webhooks are signed with; made once in Redis where none is given"
    )
    gone_seconds: int = Field(86_400, ge=1, description="how long an expired job is remembered, and answers 410")


class QueueSettings(Settings):
    """The queue's bounds in time and number; the same on every process of one service."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_QUEUE_", frozen=True, extra="ignore")

    lease_seconds: float = Field(15.0, gt=0, description="a worker silent for this long has lost its jobs")
    max_attempts: int = Field(3, ge=1, description="how often a job may cost a worker its life")
    overdue_seconds: float = Field(20.0, ge=0, description="age at which a job may displace a warm model")
    scan_limit: int = Field(64, ge=1, description="how many waiting jobs a claim looks at for companions")


class OutboundSettings(Settings):
    """Where the service may connect to on a client's word; the same on the API and the dispatcher."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_OUTBOUND_", frozen=True, extra="ignore")

    networks: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description='private networks that webhooks and pictures may be on, as JSON: ["10.0.0.0/8"]',
    )
    http: bool = Field(False, description="http:// is allowed to public addresses too")
    resolve_seconds: float = Field(5.0, gt=0, description="a name must have been looked up by then")


class LogSettings(Settings):
    """What every process writes down, on stderr."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_LOG_", frozen=True, extra="ignore")

    format: Literal["auto", "json", "text"] = Field(
        "auto", description="json, text, or auto: text on a terminal, else json"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error: the least that is written"
    )
    prompts: bool = Field(False, description="write prompts down too; they are the clients' own words")


def explain(error: ValidationError) -> str:
    """One line on settings that cannot be, by the names of their environment variables."""
    prefixes = {kind.__name__: kind.model_config["env_prefix"] for kind in Settings.__subclasses__()}
    lines = []
    for item in error.errors():
        name = "_".join(map(str, item["loc"])).upper()
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{prefixes.get(error.title, '')}{name}: {message}" if name else message)
    return "; ".join(lines)


def _name(annotation: object) -> str:
    return str(getattr(annotation, "__name__", annotation))


def describe(*classes: type[BaseSettings]) -> str:
    """A table of environment variables with types, defaults and meanings."""
    lines = []
    for settings in classes:
        prefix = settings.model_config.get("env_prefix", "")
        for name, field in settings.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
                continue
            kind = (
                str(field.annotation).rpartition(".")[2]
                if "|" in str(field.annotation)
                else _name(field.annotation)
            )
            default = field.get_default(call_default_factory=True, validated_data={})
            lines.append(f"{prefix + name.upper():38} {kind:10} {default!s:26} {field.description or ''}".rstrip())
    return "\n".join(lines)
