"""One dispatcher process: settings, connections, and the loop until a signal ends it."""

from __future__ import annotations

import logging
import sys

from pydantic import ValidationError

from contracts import logs
from contracts.auth.signed_links import LinkSigner
from contracts.errors import SettingsError
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import Outbox
from contracts.outbound.signing import Secrets
from contracts.redis.connection import connect
from contracts.settings import LogSettings, OutboundSettings, SharedSettings, explain
from dispatcher.dispatcher import Dispatcher
from dispatcher.http_client import Poster
from dispatcher.settings import WebhookSettings

_TIMEOUT_SECONDS = 5.0


def main() -> int:
    """Run a dispatcher; returns the exit status."""
    # httpx tells each request with its address, which may hold a secret of the receiver's.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        logs.configure(LogSettings())
        dispatcher = _build(SharedSettings(), OutboundSettings(), WebhookSettings())
    except SettingsError as error:
        print("darkroom dispatcher:", error, file=sys.stderr)  # noqa: T201
        return 1
    except ValidationError as error:
        print("darkroom dispatcher:", explain(error), file=sys.stderr)  # noqa: T201
        return 1
    dispatcher.start()
    return 0


def _build(shared: SharedSettings, outbound: OutboundSettings, own: WebhookSettings) -> Dispatcher:
    # An answer that was lost leaves a lease that runs out; a script must not run twice: no retries.
    connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
    rq_connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1, decode=False)
    tally = Counters()
    return Dispatcher(
        rq_connection,
        Outbox(connection, own.name, own.lease_seconds),
        Poster(outbound, own.timeout_seconds),
        Secrets(connection, shared),
        LinkSigner(connection, shared),
        TotalsWriter(connection, tally),
        tally,
        own,
    )
