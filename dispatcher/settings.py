"""Settings of webhooks, frozen; built once in `dispatcher/main.py`."""

from __future__ import annotations

import os
import secrets

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from contracts.settings import Settings, describe


def _own_name() -> str:
    return f"dispatcher-{os.uname().nodename.split('.')[0]}-{os.getpid()}-{secrets.token_hex(2)}"


class WebhookSettings(Settings):
    """Each field is an environment variable `DARKROOM_WEBHOOK_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_WEBHOOK_", frozen=True, extra="ignore")

    name: str = Field(default_factory=_own_name, description="of the dispatcher, unique among RQ's workers")
    pauses_seconds: list[float] = Field(
        [5, 30, 120, 480, 1200, 1800],
        description="before the second attempt, the third, …; after the last one a message is given up",
    )
    longest_pause_seconds: float = Field(3600.0, ge=0, description="a receiver's Retry-After is heeded up to this")
    timeout_seconds: float = Field(15.0, gt=0, description="an attempt must have its answer by then")
    concurrency: int = Field(200, ge=1, description="attempts under way at once")
    site_concurrency: int = Field(4, ge=1, description="attempts under way at once to one host and port")
    poll_seconds: float = Field(0.1, gt=0, description="pause between two looks at empty queues")
    drain_seconds: float = Field(5.0, ge=0, description="after SIGTERM, how long attempts under way may take")

    @property
    def lease_seconds(self) -> float:
        """Longer than any attempt: a message held for so long was held by a dispatcher that died."""
        return self.timeout_seconds + 10


if __name__ == "__main__":
    print(describe(WebhookSettings))  # noqa: T201
