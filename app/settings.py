"""Settings of the HTTP API, frozen. Where Redis, the storage and the catalogue are is in the shared settings."""

from __future__ import annotations

import ipaddress
import re
import sys

from pydantic import AnyHttpUrl, Field, field_validator
from pydantic_settings import SettingsConfigDict

from contracts import settings_table
from contracts.settings import (
    KeySettings,
    LogSettings,
    OutboundSettings,
    QueueSettings,
    Settings,
    SharedSettings,
)

_MIB = 2**20
#: What a browser sends as `Origin`: in lower case, without a path.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class ApiSettings(Settings):
    """Settings of one API process. Each field is an environment variable `DARKROOM_API_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_API_", frozen=True, extra="ignore")

    shared: SharedSettings = Field(default_factory=SharedSettings)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0: any free port")
    fd: int | None = Field(
        None, ge=0, description="file descriptor of an open listening socket, instead of host and port"
    )
    allow_anonymous: bool = Field(
        False, description="serve everybody on an address that others can reach while there are no API keys"
    )
    require_keys: bool = Field(
        False, description="refuse calls without an API key, on loopback too, even if there are no keys (401)"
    )
    published: str = Field(
        "",
        description="address at which a container's port is published, such as 127.0.0.1:8000; it "
        "decides instead of host whether the service can be used without keys",
    )
    open_metrics: bool = Field(False, description="answer /metrics without an API key of scope admin")
    public_url: AnyHttpUrl | None = Field(
        None,
        description="base URL of links in responses; its path is the prefix below which a proxy serves the API; "
        "default: the address that the request used, without a prefix",
    )
    page: bool = Field(
        True, description="on: browsers get Darkroom's own page at /; off: / is 404, as for clients of the API"
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="further hosts by which a service without API keys may be addressed, besides localhost and "
        'the host of public_url, as JSON: ["darkroom.lan"]; others get 421',
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description='origins whose web pages may use the API (CORS), as JSON: ["https://studio.example.com"]; '
        '["*"]: all, with API keys only; browsers keep the pages of others from reading responses',
    )
    redirect_images: bool = Field(
        False, description="redirect image downloads to links that the bucket signs; see deploy/"
    )
    max_connections: int = Field(
        1000,
        ge=8,
        description="maximum number of connections; beyond it idle ones are closed, or else new ones get 503",
    )
    header_timeout_seconds: float = Field(
        10.0, gt=0, description="timeout of receiving a request's header; then 408 and the connection is closed"
    )
    max_body_bytes: int = Field(64 * _MIB, ge=1024, description="maximum size of a request body; more gets 413")
    max_bodies_bytes: int = Field(
        256 * _MIB,
        ge=1024,
        description="memory for all request bodies in progress; one owner gets at most half of it; more get 503",
    )
    max_spooled_bytes: int = Field(
        4096 * _MIB,
        ge=1024,
        description="disk space for all files of weights in progress; one owner gets at most half of it; more "
        "get 503",
    )
    max_image_bytes: int = Field(
        32 * _MIB, ge=1024, description="maximum size of an image file, as sent and as stored; more gets 413"
    )
    max_image_side: int = Field(
        16_384, ge=64, description="maximum width and maximum height of an image in pixels; more gets 413"
    )
    max_image_pixels: int = Field(
        50_000_000, ge=4096, description="maximum width × height of an image; more gets 413"
    )
    max_upscaled_pixels: int = Field(
        64_000_000, ge=4096, description="maximum width × height of an upscaled image; more gets 422"
    )
    max_decoded_image_bytes: int = Field(
        256 * _MIB, ge=4096, description="maximum width × height × bits per pixel / 8 of an image; more gets 413"
    )
    decoder_processes: int = Field(
        2,
        ge=1,
        le=32,
        description="processes that decode images; one more decodes those of over 4 megapixels, and one makes "
        "control images",
    )
    decoder_queue: int = Field(
        8,
        ge=1,
        le=16,
        description="maximum images waiting for these processes, and for each of the others; then 503",
    )
    decoder_timeout_seconds: float = Field(
        30.0, gt=0, description="timeout of decoding one image, without waiting; then 413"
    )
    max_lora_bytes: int = Field(
        1024 * _MIB,
        ge=1024,
        description="maximum size of the file of a LoRA, an IP-Adapter or a textual inversion; more gets 413",
    )
    max_controlnet_bytes: int = Field(
        3072 * _MIB, ge=1024, description="maximum size of a ControlNet's file; more gets 413"
    )
    lora_timeout_seconds: float = Field(
        600.0, gt=0, description="timeout of receiving such a file, or one of requests (/v1/files); then 408"
    )
    max_training_bytes: int = Field(
        256 * _MIB, ge=1024, description="maximum size of a zip file of images to train on; more gets 413"
    )
    max_training_seconds: float = Field(
        86_400.0, gt=0, description="maximum worker time of a training; then it fails with duration_exceeded"
    )
    max_jsonl_bytes: int = Field(
        200 * _MIB, ge=1024, description="maximum size of a file of requests (/v1/files); more gets 413"
    )
    max_jsonl_lines: int = Field(
        50_000, ge=1, description="maximum lines of a file of requests; a batch (/v1/batches) of more fails"
    )
    upload_timeout_seconds: float = Field(
        60.0, gt=0, description="timeout of receiving any other request body; then 408"
    )
    upload_ttl_seconds: int = Field(86_400, ge=60, description="time until an uploaded image expires")

    fetch_images: bool = Field(False, description="fetch images that requests name by https:// URLs")
    fetch_timeout_seconds: float = Field(10.0, gt=0, description="timeout of fetching one image; then 422")
    fetch_concurrency: int = Field(
        8, ge=1, le=32, description="maximum number of images fetched at the same time; more get 503"
    )

    prompt_check: str = Field(
        "off",
        description="check that refuses prompts with 422: off; words; or the name of an entry point "
        "darkroom.prompt_checks",
    )
    prompt_check_words: list[str] = Field([], description='words that are refused, as JSON: ["star", "a phrase"]')
    prompt_check_threshold: float = Field(0.5, gt=0, le=1, description="minimum score of a refused prompt, 0 to 1")
    max_waiting: int = Field(10_000, ge=1, description="maximum number of waiting jobs; more get 429")
    max_waiting_per_owner: int = Field(
        1_000, ge=1, description="maximum number of waiting jobs of one owner; more get 429"
    )
    max_job_seconds: float = Field(
        600.0,
        gt=0,
        description="maximum time that a job is predicted to take, by the pace of earlier jobs; more get 422; "
        "a job that has run for twice as long fails with duration_exceeded",
    )
    anonymous_calls_per_minute: int = Field(
        600,
        ge=0,
        description="while there are no API keys: maximum calls a minute that change something; more get 429; "
        "0: no limit",
    )
    anonymous_max_jobs: int = Field(
        500,
        ge=0,
        description="while there are no API keys: maximum jobs waiting and running at once; more get 429; "
        "0: no limit",
    )
    lists_per_minute: int = Field(
        3000,
        ge=0,
        description="maximum calls a minute of one API key that list jobs, models, LoRAs and the like, at one API "
        "process, up to a tenth of them at once; more get 429; 0: no limit. Reading one job, its events and its "
        "images is never limited",
    )
    idempotency_lease_seconds: float = Field(
        15.0,
        gt=0,
        description="time after which a call whose process died may be repeated with its Idempotency-Key",
    )
    hold_seconds: float = Field(
        600.0, gt=0, description="timeout of a call that waits for its job (/v1/images/…, /hf/…); then 504"
    )
    disconnect_grace_seconds: float = Field(
        10.0,
        gt=0,
        description="time in which a client must reconnect to a job with cancel_on_disconnect after the last one "
        "has disconnected; then the job is cancelled",
    )
    heartbeat_seconds: float = Field(15.0, gt=0, description="interval between heartbeats in an event stream")
    stall_seconds: float = Field(
        30.0,
        gt=0,
        description="time after which a connection is closed whose client accepts no data, or less than 1 KiB/s",
    )
    flush_seconds: float = Field(
        5.0, gt=0, description="interval at which this process adds its counts to the totals in Redis"
    )
    max_owner_bytes: int = Field(
        20 * 1024 * _MIB,
        ge=0,
        description="maximum bytes of one owner's uploads, LoRAs and results, those of waiting jobs included; "
        "more get 507; 0: no limit",
    )
    max_owner_record_bytes: int = Field(
        384 * _MIB,
        ge=0,
        description="maximum bytes of Redis' memory for the records of one owner's jobs, ended ones included "
        "until they expire; more get 507; 0: no limit",
    )
    reserve_bytes: int = Field(
        512 * _MIB,
        ge=0,
        description="free space that uploads and new jobs leave in a local storage for results; with less, 507",
    )
    orphan_seconds: float = Field(
        86_400.0,
        ge=60,
        description="age at which a stored file without a record, left by a loss of Redis' data, is removed",
    )
    sweep_seconds: float = Field(10.0, gt=0, description="interval between sweeps of expired jobs and inputs")

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                raise ValueError(
                    f"{origin!r} is not an origin; write scheme, host and port only: https://example.com"
                )
        return origins

    @property
    def max_weights_bytes(self) -> int:
        """Of the largest file of weights that may be uploaded."""
        return max(self.max_lora_bytes, self.max_controlnet_bytes)

    @property
    def public_base(self) -> str | None:
        """The public URL without a slash at its end; None where requests name the service."""
        return None if self.public_url is None else str(self.public_url).rstrip("/")

    @property
    def serves_everybody(self) -> bool:
        """Whether requests without an API key are served as long as there have never been keys."""
        if self.require_keys:
            return False
        # In a container, `host` is all addresses; who can reach it depends on where its port is published.
        reachable = self.published.rpartition(":")[0].strip("[]") if self.published else self.host
        return self.allow_anonymous or is_loopback(reachable)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(
        settings_table.run(SharedSettings, LogSettings, QueueSettings, OutboundSettings, KeySettings, ApiSettings)
    )
