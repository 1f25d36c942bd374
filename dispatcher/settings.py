"""Settings of one dispatcher process; built once in `dispatcher/main.py`, frozen, and passed in."""

from __future__ import annotations

import os
import secrets
import sys

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from contracts import settings_table
from contracts.settings import Settings


def _own_name() -> str:
    return f"dispatcher-{os.uname().nodename.split('.')[0]}-{os.getpid()}-{secrets.token_hex(2)}"


class WebhookSettings(Settings):
    """Settings of a dispatcher. Each field is an environment variable `DARKROOM_WEBHOOK_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_WEBHOOK_", frozen=True, extra="ignore")

    name: str = Field(
        default_factory=_own_name, description="name of this dispatcher; unique among all workers and dispatchers"
    )
    pauses_seconds: list[float] = Field(
        [5, 30, 120, 480, 1200, 1800],
        description="seconds before each further attempt; after the last attempt a message is abandoned",
    )
    longest_pause_seconds: float = Field(
        3600.0, ge=0, description="maximum pause that a receiver may ask for with Retry-After"
    )
    timeout_seconds: float = Field(15.0, gt=0, description="timeout of one attempt; then it counts as failed")
    concurrency: int = Field(200, ge=1, description="maximum concurrent attempts; further messages wait")
    site_concurrency: int = Field(
        4, ge=1, description="maximum concurrent attempts to one host and port; further messages wait"
    )
    poll_seconds: float = Field(
        1.0, gt=0, description="polling interval of empty queues; new messages are announced at once through Redis"
    )
    drain_seconds: float = Field(
        5.0,
        ge=0,
        description="maximum time after SIGTERM for attempts to finish; then their messages go back to the queue",
    )

    @property
    def lease_seconds(self) -> float:
        """Longer than any attempt: a lease that expires belonged to a dispatcher that died."""
        return self.timeout_seconds + 10


if __name__ == "__main__":
    sys.exit(settings_table.run(WebhookSettings))
