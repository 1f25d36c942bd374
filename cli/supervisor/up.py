"""`darkroom up`: the whole service on one machine. Redis starts first and stops last; between them run the API,
the workers and the webhook dispatcher.

A child that dies, or lives and no longer beats, is started again. One Ctrl-C (or SIGTERM) stops everything in
order: running jobs finish first. A second one, or closing the terminal, makes the workers return their jobs to the
queue instead.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cli.supervisor.announcement import Announcement
from cli.supervisor.beats import BeatReceiver
from cli.supervisor.gpus import choose_gpus, worker_environments
from cli.supervisor.process import Child
from cli.supervisor.redis_server import MEMORY_BYTES, RedisServer
from cli.supervisor.start_check import check_catalogue, check_variables
from cli.supervisor.start_report import StartReport, describe_catalogue, describe_data
from contracts.processes.background import BackgroundThread
from contracts.processes.permissions import keep_private
from contracts.processes.watchdog import NOTIFY_SOCKET
from contracts.redis.access import without_secrets
from contracts.settings import SharedSettings

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
#: Beats that were missed in a longer round of supervision (Redis was restarted, say) do not count.
_LONG_ROUND_SECONDS = 2.0
#: How long the children may take to stop: the workers' own drain period, and some time on top.
_STOP_SECONDS = 150.0
#: The same once the workers were told to return their jobs, which they do after the step that runs.
_HURRIED_STOP_SECONDS = 30.0


class Service:
    """A running service: Redis, one API process, N workers and one dispatcher, as children of this process."""

    def __init__(
        self,
        host: str,
        port: int,
        data: Path,
        workers: int,
        fsync: str,
        redis_bytes: int = MEMORY_BYTES,
        gpus: str | None = None,
    ) -> None:
        """Open the listening socket; `port` 0 picks a free one. `data` holds images, uploads and Redis' file.

        `gpus`: a worker for each of these cards, as `choose_gpus` reads them, in place of `workers`.

        Raises:
            RuntimeError: the address is in use, a variable is misspelt, the catalogue is invalid, or what its rows
                name is missing.
        """
        self._data = data.resolve()
        check_variables(os.environ)
        self._gpus = [] if gpus is None else choose_gpus(gpus, os.environ)
        self._catalogue = check_catalogue()
        self._listener = _listen(host, port)
        own_redis = not os.environ.get("DARKROOM_REDIS_URL")
        self._redis = RedisServer(self._data / "redis", fsync, redis_bytes) if own_redis else None
        self._host, self._port = self._listener.getsockname()[:2]
        self._worker_count = len(self._gpus) or workers
        self._api: Child | None = None
        self._workers: list[Child] = []
        self._dispatcher: Child | None = None
        self._beats = BeatReceiver()
        self._announcing = BackgroundThread("announcement")
        # A child ends itself after this time, and says where it hangs; one that cannot is killed a little later.
        self._hang_seconds = SharedSettings().hang_seconds * 1.5 + 2.0
        self._stop_signals = 0

    @property
    def url(self) -> str:
        """The URL of the API."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def run(self) -> None:
        """Start all parts, restart those that die, and stop them in order on a signal.

        Raises:
            RuntimeError: the default model cannot be had from its hub, so that the service would be of no use.
            SystemExit: a part cannot start with these settings; it has said why.
        """
        with self._signals_counted():
            try:
                self._start()
                self._supervise()
            finally:
                self._stop()

    def _start(self) -> None:
        keep_private(self._data, from_group=True)
        environment = dict(os.environ, DARKROOM_DATA=str(self._data), **{NOTIFY_SOCKET: self._beats.address})
        if self._redis is not None:
            self._redis.start()
            environment["DARKROOM_REDIS_URL"] = self._redis.url
        self._tell_what_was_found()
        api = dict(environment, DARKROOM_API_HOST=str(self._host), DARKROOM_API_FD=str(self._listener.fileno()))
        self._api = self._child("api", "app", api, fds=[self._listener.fileno()])
        self._workers = [
            self._child(f"worker {number}", "worker", own)
            for number, own in enumerate(worker_environments(environment, self._worker_count, self._gpus), 1)
        ]
        self._dispatcher = self._child("dispatcher", "dispatcher", environment)
        for child in self._children():
            child.start()

    def _tell_what_was_found(self) -> None:
        catalogue = describe_catalogue(SharedSettings().catalogue, self._catalogue)
        facts = {
            "catalogue": catalogue,
            "data": describe_data(self._data),
            "redis": "started here" if self._redis else without_secrets(SharedSettings().redis_url),
            "workers": self._describe_workers(),
        }
        if not ipaddress.ip_address(self._host).is_loopback:
            of = "" if self._redis is None else f" --data {self._data}"
            facts["keys"] = f"needed by callers of {self.url}; to create one: darkroom keys create NAME{of}"
        report = StartReport()
        report.begin()
        report.tell({label: [line] for label, line in facts.items()})

    def _describe_workers(self) -> str:
        if not self._worker_count:
            return "none; jobs wait until one is started"
        return f"{self._worker_count}{_on(self._gpus)}, loading torch, which takes a few seconds"

    def _child(self, name: str, module: str, environment: Mapping[str, str], fds: Sequence[int] = ()) -> Child:
        return Child(name, [sys.executable, "-m", module], environment, fds, self._hang_seconds)

    def _children(self) -> list[Child]:
        return [child for child in (self._api, *self._workers, self._dispatcher) if child is not None]

    def _supervise(self) -> None:
        redis_url = SharedSettings().redis_url if self._redis is None else self._redis.url
        announcement = Announcement(self.url, redis_url, self._catalogue, self._worker_count)
        # In a thread: a hung API that lets this wait must not keep the supervisor from ending it.
        self._announcing.submit(lambda: announcement.run(lambda: self._announcing.closing))
        round_at = time.monotonic()
        while not self._stop_signals and announcement.refusal is None:
            round_seconds, round_at = time.monotonic() - round_at, time.monotonic()
            self._end_hung_children(round_seconds)
            if self._redis is not None:
                self._redis.revive()
            for child in self._children():
                if child.refuses_to_start:
                    sys.exit(1)
                child.revive()
            time.sleep(_POLL_SECONDS)
        self._announcing.close(0)
        if announcement.refusal is not None:
            raise RuntimeError(announcement.refusal)

    def _end_hung_children(self, round_seconds: float) -> None:
        beating = self._beats.receive()
        for child in self._children():
            if child.pid in beating:
                child.beat()
            if round_seconds > _LONG_ROUND_SECONDS:
                child.excuse(round_seconds)
            child.kill_if_hung()

    def _stop(self) -> None:
        """Stop the API and the workers, then the dispatcher, when no more webhooks can come, then Redis."""
        if self._stop_signals:
            _log.info("stopping: running jobs finish first; Ctrl-C again returns them to the queue")
        if self._api is not None:
            self._api.signal(signal.SIGTERM)
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        self._listener.close()
        deadline, hurried, told = time.monotonic() + _STOP_SECONDS, False, False
        while any(child.is_running for child in self._children()) and time.monotonic() < deadline:
            if self._dispatcher is not None and not told:
                told = not any(worker.is_running for worker in self._workers)
                if told:
                    self._dispatcher.signal(signal.SIGTERM)
            if self._stop_signals > 1 and not hurried:
                hurried = True
                deadline = min(deadline, time.monotonic() + _HURRIED_STOP_SECONDS)
            if hurried:
                # In each round: two signals are one for a process that had no processor time between them.
                for worker in self._workers:
                    worker.signal(signal.SIGTERM)
            if self._redis is not None:
                self._redis.revive()  # a worker with a result waits until Redis has stored it
            time.sleep(_POLL_SECONDS)
        for child in self._children():
            child.kill()
        if self._redis is not None:
            self._redis.stop()
        self._beats.close()
        if self._stop_signals:
            _log.info("stopped")

    @contextmanager
    def _signals_counted(self) -> Iterator[None]:
        def count(number: int, frame: object) -> None:
            del frame
            self._stop_signals += 2 if number == signal.SIGHUP else 1

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` does
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, count) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _on(gpus: Sequence[str]) -> str:
    return f", one for each GPU: {', '.join(gpus)}" if gpus else ""


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), reuse_port=False, backlog=1024)
    except OSError as error:
        raise RuntimeError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --port"
        ) from None
