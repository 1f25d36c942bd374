"""One child process of `darkroom up`: started, watched, restarted when it dies, stopped in order."""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

_log = logging.getLogger(__name__)

#: prctl's PR_SET_PDEATHSIG (linux/prctl.h): a signal to the child when its parent is gone.
_PARENT_DEATH_SIGNAL = 1

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 10.0
#: A child that ran for this long was healthy: its next restart is quick again.
_HEALTHY_SECONDS = 30.0


def end_with_parent() -> None:
    """Runs in the child before its program: no process is left behind when `darkroom up` is killed."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


class Child:
    """A program that should run for as long as the service does."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], fds: Sequence[int] = ()
    ) -> None:
        """`fds` are passed on to the child (a listening socket survives its restarts)."""
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._fds = tuple(fds)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._restart_at = 0.0

    def start(self) -> None:
        """Start the program in a session of its own, so that a Ctrl-C reaches `darkroom up` alone."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            start_new_session=True,
            pass_fds=self._fds,
            preexec_fn=end_with_parent,
        )
        self._started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether the program runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the latest start."""
        return None if self._process is None else self._process.pid

    def revive(self) -> None:
        """Start the program again if it has died, after a pause that grows while it keeps dying."""
        if self._process is None or self.is_running:
            return
        now = time.monotonic()
        if not self._restart_at:
            if now - self._started_at > _HEALTHY_SECONDS:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            self._restart_at = now + self._pause_seconds
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, self._pause_seconds * 2)
            status = self._process.returncode
            _log.warning("%s ended with status %s; starting it again", self.name, status)
        if now >= self._restart_at:
            self._restart_at = 0.0
            self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the end; True when it has ended."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        self.wait(5)
