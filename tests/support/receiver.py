"""A receiver of webhooks, or a server of images: real HTTP on 127.0.0.1, answering as a test has planned."""

from __future__ import annotations

import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Received:
    """One request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What to answer.

    Attributes:
        waits: for `Receiver.release`, before a word is said.
        pause_seconds: between each of the body's bytes.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    waits: bool = False
    pause_seconds: float = 0.0


class Receiver:
    """Answers each path by its plan, the last reply again and again; without a plan with 200.

    Attributes:
        cut_off: paths whose clients left before they had the whole body.
    """

    def __init__(self, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.plans: dict[str, list[Reply]] = {}
        self.received: list[Received] = []
        self.cut_off: list[str] = []
        self.released = threading.Event()
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._news = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections may be used again

            def do_POST(self) -> None:
                receiver._answer(self)

            def do_GET(self) -> None:
                receiver._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that go are what these tests are about."""

        self.server = Server((host, 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "http" if context is None else "https"
        self.port = self.server.server_address[1]
        self.url = f"{self.scheme}://{host}:{self.port}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("content-length", 0))
        body = request.rfile.read(length)
        with self._news:
            path = request.path.partition("?")[0]
            plan, turn = self.plans.get(path, [Reply()]), self._counts[path]
            self._counts[path] += 1
            headers = {name.lower(): value for name, value in request.headers.items()}
            self.received.append(Received(request.path, headers, body))
            self._news.notify_all()
        reply = plan[min(turn, len(plan) - 1)]
        if reply.waits:
            self.released.wait(60)
        request.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        step = 1 if reply.pause_seconds else 65_536
        try:
            for start in range(0, len(reply.body), step):
                request.wfile.write(reply.body[start : start + step])
                request.wfile.flush()
                time.sleep(reply.pause_seconds)
        except OSError:
            self.cut_off.append(request.path)
            raise

    def at(self, path: str) -> list[Received]:
        """What came to a path."""
        return [one for one in self.received if one.path.partition("?")[0] == path]

    def wait_for(self, path: str, count: int = 1, timeout_seconds: float = 30) -> list[Received]:
        """What came to a path, once there is so much of it."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.at(path)) >= count, timeout_seconds), self.received
        return self.at(path)


@contextmanager
def receiving(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver that is there while the block runs."""
    receiver = Receiver(context, host)
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()
