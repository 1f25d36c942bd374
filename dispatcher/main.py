"""One dispatcher process: reads the settings, builds the parts, runs the loop until a signal ends it."""

from __future__ import annotations

import logging
import os

from contracts import logs
from contracts.auth.signed_links import LinkSigner
from contracts.metrics import Counters, TotalsWriter
from contracts.outbound.outbox import Outbox
from contracts.outbound.signing import Secrets
from contracts.processes.start_errors import start_errors_in_one_line
from contracts.processes.watchdog import Watchdog
from contracts.redis.access import check_access
from contracts.redis.connection import connect
from contracts.settings import LogSettings, OutboundSettings, SharedSettings
from contracts.tracing.opening import open_tracing
from contracts.tracing.tracing import Tracing
from contracts.variables import warn_about_unknown_variables
from dispatcher.dispatcher import Dispatcher
from dispatcher.http_client import Poster
from dispatcher.settings import WebhookSettings

_TIMEOUT_SECONDS = 5.0


def main() -> None:
    """Run a dispatcher; raises SystemExit where it cannot start."""
    # httpx logs the URL of each request, which may contain a secret of the receiver.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with start_errors_in_one_line("darkroom dispatcher"):
        logs.configure(LogSettings())
        warn_about_unknown_variables(os.environ)
        shared = SharedSettings()
        watchdog = Watchdog(shared.hang_seconds)
        check_access(shared.redis_url)
        settings = WebhookSettings()
        tracing = open_tracing(shared, "darkroom-dispatcher", settings.name)
        dispatcher = _build(shared, OutboundSettings(), settings, tracing)
        watchdog.watch_event_loop(dispatcher.event_loop)
        dispatcher.start()
        tracing.close()


def _build(
    shared: SharedSettings, outbound: OutboundSettings, settings: WebhookSettings, tracing: Tracing
) -> Dispatcher:
    # A script that ran and whose answer was lost must not run again, so no retries: its lease expires.
    connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=0)
    rq_connection = connect(shared.redis_url, timeout_seconds=_TIMEOUT_SECONDS, retries=1, decode=False)
    counters = Counters()
    return Dispatcher(
        rq_connection,
        Outbox(connection, settings.name, settings.lease_seconds),
        Poster(outbound, settings.timeout_seconds),
        Secrets(connection, shared),
        LinkSigner(connection, shared, storage=None),
        TotalsWriter(connection, counters),
        counters,
        settings,
        tracing,
    )
