"""Settings of the HTTP side, frozen. Where Redis, the storage and the catalogue are is in the shared ones."""

from __future__ import annotations

import ipaddress

from pydantic import AnyHttpUrl, Field
from pydantic_settings import SettingsConfigDict

from contracts.settings import LogSettings, OutboundSettings, QueueSettings, Settings, SharedSettings, describe

_MIB = 2**20


class ApiSettings(Settings):
    """What one API process needs to know. Each field is an environment variable `DARKROOM_API_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_API_", frozen=True, extra="ignore")

    shared: SharedSettings = Field(default_factory=SharedSettings)
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    fd: int | None = Field(None, ge=0, description="an open listening socket, in place of host and port")
    allow_anonymous: bool = Field(
        False, description="answer everybody on an address that others reach, for as long as there are no keys"
    )
    open_metrics: bool = Field(
        False, description="answer /metrics without a key of scope admin, although there are keys"
    )
    public_url: AnyHttpUrl | None = Field(
        None, description="how clients reach the service, for links; else as the request names it"
    )
    redirect_images: bool = Field(
        False, description="answer links to images with a redirect to the bucket's own signed links; see deploy/"
    )
    max_body_bytes: int = Field(64 * _MIB, ge=1024, description="largest request body")
    max_image_bytes: int = Field(32 * _MIB, ge=1024, description="largest picture, as a file")
    max_image_pixels: int = Field(50_000_000, ge=4096, description="largest picture, width × height")
    max_lora_bytes: int = Field(1024 * _MIB, ge=1024, description="largest LoRA, as a file")
    lora_timeout_seconds: float = Field(600.0, gt=0, description="a LoRA must have come in by then")
    upload_timeout_seconds: float = Field(60.0, gt=0, description="a body must have come in by then")
    upload_ttl_seconds: int = Field(86_400, ge=60, description="how long an upload can be named")

    fetch_images: bool = Field(False, description="requests may name pictures by https:// URLs")
    fetch_timeout_seconds: float = Field(10.0, gt=0, description="a picture must have been fetched by then")
    fetch_concurrency: int = Field(8, ge=1, le=32, description="pictures that are fetched at once; more get 503")

    max_waiting: int = Field(10_000, ge=1, description="so many jobs may wait in all; more are refused with 429")
    idempotency_lease_seconds: float = Field(
        15.0, gt=0, description="a call with an Idempotency-Key that is not accepted by then may be sent again"
    )
    hold_seconds: float = Field(
        600.0, gt=0, description="a call of another service's dialect is held so long for its job to end"
    )
    heartbeat_seconds: float = Field(15.0, gt=0, description="pause between signs of life in a stream of events")
    stall_seconds: float = Field(30.0, gt=0, description="a reader of events that takes nothing for so long goes")
    post_seconds: float = Field(5.0, gt=0, description="pause between two additions to the figures in /metrics")
    sweep_seconds: float = Field(10.0, gt=0, description="pause between two looks for what has expired")

    @property
    def serves_everybody(self) -> bool:
        """Whether callers without a key are let in for as long as there are no keys."""
        return self.allow_anonymous or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    print(describe(SharedSettings, LogSettings, QueueSettings, OutboundSettings, ApiSettings))  # noqa: T201
