"""`python -m app`: runs the HTTP side with the settings of the environment."""

from __future__ import annotations

import logging
import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from app.main import create_app
from app.settings import ApiSettings
from contracts import logs
from contracts.auth.api_keys import ApiKeyStore
from contracts.errors import DarkroomError, Unavailable
from contracts.redis.connection import connect
from contracts.settings import LogSettings, explain

log = logging.getLogger(__name__)

#: Requests that are under way at SIGTERM may take this long.
_SHUTDOWN_SECONDS = 10
#: At the start, Redis has so long to say whether there are keys.
_KEYS_SECONDS = 2.0


def main() -> None:
    """Run until SIGTERM or SIGINT; one line and an exit code where it cannot start."""
    try:
        logs.configure(LogSettings())
        settings, sockets = listen(ApiSettings())
        app = create_app(settings)
    except DarkroomError as error:
        sys.exit(f"darkroom api: {error}")
    except ValidationError as error:
        sys.exit(f"darkroom api: {explain(error)}")
    refuse_strangers(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,  # `app.answers` writes our own
        log_config=None,
        # What is tested runs, whatever else is installed beside it.
        loop="asyncio",
        http="h11",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and passes Ctrl-C on
        _Server(config, app).run(sockets)


class _Server(uvicorn.Server):
    """uvicorn, that lets nobody wait for a job once it has to go."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Those who wait get their answer now; another process answers for their jobs."""
        self._app.state.services.notifier.close()
        await super().shutdown(sockets)


def listen(settings: ApiSettings) -> tuple[ApiSettings, list[socket.socket] | None]:
    """The listening socket that the parent opened, if it did, and settings that say where it listens.

    uvicorn's own `fd` takes every socket for a Unix one, which costs TCP_NODELAY.
    """
    if settings.fd is None:
        return settings, None
    listener = socket.socket(fileno=settings.fd)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        settings = settings.model_copy(update={"host": listener.getsockname()[0]})
    return settings, [listener]


def refuse_strangers(settings: ApiSettings) -> None:
    """Exit where everybody could use the service. Later on, `Door` lets nobody in there without a key."""
    if settings.serves_everybody:
        return
    with connect(settings.shared.redis_url, timeout_seconds=_KEYS_SECONDS, retries=1) as connection:
        try:
            if ApiKeyStore(connection).exist():
                return
        except Unavailable:
            log.warning("Redis does not answer, so nobody knows of keys; nobody is served until it does")
            return
    sys.exit(
        f"darkroom api: there are no keys, so everybody who reaches {settings.host} could use the service; "
        "make one with `darkroom keys create`, listen on 127.0.0.1, or set DARKROOM_API_ALLOW_ANONYMOUS=true"
    )


if __name__ == "__main__":
    main()
