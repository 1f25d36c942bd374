"""The dispatcher as a process that may deliver to this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from contracts.outbound.signing import Secret
from tests.support.forked_programs import ForkedProgram

SECRET = Secret(b"a secret of the tests, 32 bytes.").write()
#: of the owner of all jobs while there are no keys
LOCAL_SECRET = Secret.read(SECRET).derive("local").write()
LOCAL = '["127.0.0.0/8"]'
PAUSES_SECONDS = [0.05, 0.05, 0.05, 0.05, 0.05]

#: `submit_with_webhook(url, "completed", **fields)`: the accepted job that reports these events to the URL.
SubmitWithWebhook = Callable[..., dict[str, Any]]


@contextmanager
def dispatcher_process(redis_url: str, **settings: str) -> Iterator[ForkedProgram]:
    """A dispatcher process with short pauses; keywords are further `DARKROOM_…` settings."""
    environment = os.environ | {
        "DARKROOM_REDIS_URL": redis_url,
        "DARKROOM_OUTBOUND_NETWORKS": LOCAL,
        "DARKROOM_WEBHOOK_SECRET": SECRET,
        "DARKROOM_WEBHOOK_PAUSES_SECONDS": str(PAUSES_SECONDS),
        "DARKROOM_WEBHOOK_POLL_SECONDS": "0.02",
        **settings,
    }
    process = ForkedProgram("dispatcher.main", environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)
