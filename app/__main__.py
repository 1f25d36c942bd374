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
from app.settings import ApiSettings, is_loopback
from contracts.errors import DarkroomError

#: Requests that are under way at SIGTERM may take this long.
_SHUTDOWN_SECONDS = 10


def main() -> None:
    """Run until SIGTERM or SIGINT; one line and an exit code where it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = ApiSettings()
        app = create_app(settings)
    except DarkroomError as error:
        sys.exit(f"darkroom api: {error}")
    except ValidationError as error:
        sys.exit("darkroom api: " + "; ".join(_explain(item["loc"], item["msg"]) for item in error.errors()))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    sockets = None if settings.fd is None else [adopt(settings.fd, settings.allow_anonymous)]
    with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and passes Ctrl-C on
        _Server(config, app).run(sockets)


class _Server(uvicorn.Server):
    """uvicorn, that lets nobody wait for a job once it has to go."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Those who wait get their answer now; another process answers for their jobs."""
        self._app.state.services.bells.leave()
        await super().shutdown(sockets)


def adopt(fd: int, allow_anonymous: bool) -> socket.socket:
    """The listening socket that the parent opened; exits where it listens for others than this machine.

    uvicorn's own `fd` takes every socket for a Unix one, which costs TCP_NODELAY.
    """
    listener = socket.socket(fileno=fd)
    is_internet = listener.family in (socket.AF_INET, socket.AF_INET6)
    if is_internet and not allow_anonymous and not is_loopback(listener.getsockname()[0]):
        sys.exit(
            f"darkroom api: there are no keys, and socket {fd} listens on {listener.getsockname()[0]}; "
            "set DARKROOM_API_ALLOW_ANONYMOUS=true to serve everybody there"
        )
    return listener


def _explain(path: tuple[int | str, ...], message: str) -> str:
    name = "_".join(map(str, path)).upper()
    message = message.removeprefix("Value error, ")
    return f"DARKROOM_API_{name}: {message}" if name else message


if __name__ == "__main__":
    main()
