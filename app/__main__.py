"""`python -m app`: runs the HTTP API with settings from the environment."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from app.connections import Connection, ConnectionLimits
from app.main import create_app
from app.settings import ApiSettings
from contracts import logs
from contracts.auth.api_keys import ApiKeyStore
from contracts.errors import Unavailable
from contracts.processes.allocator import return_large_blocks
from contracts.processes.permissions import keep_private
from contracts.processes.start_errors import start_errors_in_one_line
from contracts.processes.watchdog import Watchdog
from contracts.redis.access import check_access, find_memory_risks
from contracts.redis.connection import connect
from contracts.settings import LogSettings
from contracts.tracing.opening import open_tracing
from contracts.variables import warn_about_unknown_variables

log = logging.getLogger(__name__)

#: Timeout of requests in progress at SIGTERM.
_SHUTDOWN_SECONDS = 10
#: Open files besides clients' connections: those to Redis and the storage, spooled bodies, images.
_OTHER_FILES = 512
#: Timeout of asking Redis at startup whether there are API keys.
_KEYS_SECONDS = 2.0


def main() -> None:
    """Run until SIGTERM or SIGINT; exit with one line of text where the API cannot start."""
    return_large_blocks()
    with start_errors_in_one_line("darkroom api"):
        logs.configure(LogSettings())
        warn_about_unknown_variables(os.environ)
        settings, sockets = listen(ApiSettings())
        watchdog = Watchdog(settings.shared.hang_seconds)
        if check_access(settings.shared.redis_url):
            for risk in find_memory_risks(settings.shared.redis_url):
                log.warning(risk)
        keep_private(settings.shared.data, from_group=False)
        tracing = open_tracing(settings.shared, "darkroom-api")
        app = create_app(settings, tracing)
    refuse_anonymous_access(settings)
    limits = ConnectionLimits(settings.max_connections, settings.header_timeout_seconds, settings.stall_seconds)
    allow_open_files(settings.max_connections)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,  # `AccessLogMiddleware` writes ours
        log_config=None,
        # The tested implementations, whatever else is installed.
        loop="asyncio",
        http=Connection.with_limits(limits),
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    with suppress(KeyboardInterrupt):  # uvicorn has shut down, and raises Ctrl-C again
        _Server(config, app, watchdog).run(sockets)
    tracing.close()


class _Server(uvicorn.Server):
    """A uvicorn server that ends clients' waits for jobs when it shuts down, and whose event loop is watched."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, watchdog: Watchdog) -> None:
        super().__init__(config)
        self._app = app
        self._watchdog = watchdog

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; from then on, the process ends if its event loop hangs."""
        await super().startup(sockets)
        # Modules, models and routes stay in memory. Otherwise each full collection, more of which come with more
        # requests, walks through them, and all requests wait for 0.1 s.
        gc.collect()
        gc.freeze()
        self._watchdog.watch_event_loop(asyncio.get_running_loop())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer waiting clients now; other API processes can tell them about their jobs later."""
        self._app.state.services.notifier.close()
        await super().shutdown(sockets)


def listen(settings: ApiSettings) -> tuple[ApiSettings, list[socket.socket] | None]:
    """The listening socket that the parent process opened, if any, and settings with its address.

    uvicorn's own option `fd` treats every socket as a Unix socket, and so leaves out TCP_NODELAY.
    """
    if settings.fd is None:
        return settings, None
    listener = socket.socket(fileno=settings.fd)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        settings = settings.model_copy(update={"host": listener.getsockname()[0]})
    return settings, [listener]


def allow_open_files(connections: int) -> None:
    """Raise the process's limit on open files, often 1024, to what this many connections and their work need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning(
            "%d open files are allowed, and %d connections need %d; raise `ulimit -n`", hard, connections, needed
        )
        needed = hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def refuse_anonymous_access(settings: ApiSettings) -> None:
    """Exit if the service would unintentionally serve everyone; otherwise `Authenticator` requires a key."""
    if settings.serves_everybody or settings.require_keys:
        return
    with connect(settings.shared.redis_url, timeout_seconds=_KEYS_SECONDS, retries=1) as connection:
        try:
            if ApiKeyStore(connection).exist():
                return
        except Unavailable:
            log.warning("Redis does not answer, so API keys cannot be checked; requests are refused until it does")
            return
    address = settings.published or settings.host
    print(  # noqa: T201
        f"darkroom api: there are no API keys, so anyone who can reach {address} could use the service; "
        "create a key with `darkroom keys create`, listen on 127.0.0.1, or set DARKROOM_API_ALLOW_ANONYMOUS=true",
        file=sys.stderr,
    )
    # `darkroom up` starts it again until there is a key; other failures of a start end the service.
    sys.exit(os.EX_TEMPFAIL)


if __name__ == "__main__":
    main()
