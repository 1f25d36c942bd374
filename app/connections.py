"""HTTP/1.1 connections with deadlines and a limit on their number, strict about where a request ends.

uvicorn's own protocol waits without limit for the end of a header and for a client that does not read its answer,
and accepts any number of connections. How long a body may take is the routes' business. Knows no route.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_log = logging.getLogger(__name__)

#: A client that takes fewer bytes of its answer per second is taken for one that does not read it.
_MIN_BYTES_PER_SECOND = 1024
#: Each chunk of a body costs the parser as much time as kilobytes of data, so chunks must not be tiny on average.
_FREE_CHUNKS, _MIN_CHUNK_BYTES = 1000, 64
_RETRY_AFTER_SECONDS = 2
_END_OF_HEADER = re.compile(rb"\n\r?\n")
#: Line endings without a carriage return, and values that go on in a second line.
_AMBIGUOUS_LINES = re.compile(rb"(?<!\r)\n|\n[ \t]")


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of one API process.

    Attributes:
        connections: at one time; beyond that the one that has waited longest for a request is closed, or, where
            all have one, the new one refused.
        header_seconds: from the first byte of a request to the end of its header; of a connection's first request,
            from the beginning of the connection.
        stall_seconds: time in which a client must take 1 KiB/s of an answer that waits to be sent.
    """

    connections: int
    header_seconds: float
    stall_seconds: float


class _Parser(h11.Connection):
    """h11's parser, which refuses bodies that are cut into tiny chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self._chunks = self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._bytes < (self._chunks - _FREE_CHUNKS) * _MIN_CHUNK_BYTES:
                raise h11.RemoteProtocolError(
                    "the body is sent in chunks of less than 64 bytes on average; send larger chunks, or a "
                    "Content-Length"
                )
        return event


class Connection(H11Protocol):
    """One client's connection; `with_limits` makes the class that a server uses."""

    limits: ClassVar[ConnectionLimits]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Parser()
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._idle_since = time.monotonic()

    @classmethod
    def with_limits(cls, limits: ConnectionLimits) -> type[Connection]:
        """The class of connections with these limits, as uvicorn's option `http`."""
        return type("LimitedConnection", (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first header; or refuse the connection, or close another, where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections and not self._close_oldest_idle():
            self._close_with(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the service has reached its maximum number of connections; try again shortly",
            )
            return
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._cancel_header_timer()
        self._stop_watching_writes()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; the first byte of a header starts its time limit."""
        if self.transport.is_closing():
            return
        if self._awaits_request() and self._header_timer is None:
            self._expect_header()
        super().data_received(data)

    def handle_events(self) -> None:
        """Handle what has been parsed, unless it is the header of an ambiguous request."""
        if self.conn.their_state is h11.IDLE and _is_ambiguous(self.conn.trailing_data[0]):
            self.send_400_response("Invalid HTTP request received.")
            return
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._cancel_header_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request; or close, where the body of this one is still arriving."""
        self._idle_since = time.monotonic()
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()  # nobody would wait for the rest of the body
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_writes()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection without a further request, also if its client has not read all answers."""
        super().timeout_keep_alive_handler()
        self._watch_writes()

    def pause_writing(self) -> None:
        """Wait for the client to take what has been sent, for a limited time."""
        super().pause_writing()
        self._watch_writes()

    def resume_writing(self) -> None:
        """Send on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_watching_writes()

    def _awaits_request(self) -> bool:
        return self.conn.their_state is h11.IDLE and not self.transport.is_closing()

    def _close_oldest_idle(self) -> bool:
        """Close the connection that has waited longest for a request; False where all others have one."""
        idle = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        idle = [other for other in idle if other._awaits_request()]
        if not idle:
            return False
        oldest = min(idle, key=lambda other: other._idle_since)
        oldest.transport.abort()
        self.connections.discard(oldest)  # at once: it is told only after other new connections have counted
        return True

    def _expect_header(self) -> None:
        self._header_timer = self.loop.call_later(self.limits.header_seconds, self._header_is_late)

    def _header_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            seconds = self.limits.header_seconds
            self._close_with(HTTPStatus.REQUEST_TIMEOUT, f"the header did not arrive within {seconds:g} s")
        else:
            self.transport.abort()  # a connection that never sent anything

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close_with(self, status: HTTPStatus, detail: str) -> None:
        """Answer outside of any request, and close."""
        code = status.phrase.lower().replace(" ", "_")
        problem: dict[str, Any] = {
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
            "code": code,
            "errors": [],
        }
        body = json.dumps({"type": f"urn:darkroom:problem:{code}", **problem}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {_RETRY_AFTER_SECONDS}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._watch_writes()

    def _watch_writes(self) -> None:
        """Abort the connection unless the client takes what waits to be sent."""
        self._stop_watching_writes()
        waiting = self.transport.get_write_buffer_size()
        if waiting:
            self._write_timer = self.loop.call_later(self.limits.stall_seconds, self._check_writes, waiting)

    def _check_writes(self, waiting_before: int) -> None:
        taken = waiting_before - self.transport.get_write_buffer_size()
        seconds = self.limits.stall_seconds
        if taken < seconds * _MIN_BYTES_PER_SECOND:
            _log.info("closed a connection: its client accepted %d bytes of its answer in %g s", taken, seconds)
            self.transport.abort()
        else:
            self._watch_writes()

    def _stop_watching_writes(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _is_ambiguous(received: bytes) -> bool:
    """Whether a complete header leaves open, between two readers of it, where the request ends (RFC 9112, 11.2).

    That is so with bare line feeds and folded lines, with two lengths, and with a length or HTTP/1.0 beside a
    transfer encoding. h11 refuses further forms itself, and accepts these.
    """
    end = _END_OF_HEADER.search(received)
    if end is None:
        return False
    header = received[: end.end()]
    if _AMBIGUOUS_LINES.search(header):
        return True
    first, *fields = header.rstrip(b"\r\n").split(b"\r\n")
    lengths = [
        value
        for name, _, value in (field.partition(b":") for field in fields)
        if name.lower() == b"content-length"
    ]
    has_encoding = any(field[:18].lower() == b"transfer-encoding:" for field in fields)
    if has_encoding:
        return bool(lengths) or first.endswith(b"HTTP/1.0")
    return len(lengths) > 1 or any(b"," in value for value in lengths)
