"""One child process of `darkroom up`: started, watched, restarted when it dies or hangs, stopped on request."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from contracts.processes.watchdog import START_SECONDS

_log = logging.getLogger(__name__)

#: prctl's PR_SET_PDEATHSIG (linux/prctl.h): the kernel signals the child when its parent dies.
_PARENT_DEATH_SIGNAL = 1

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 10.0
#: A child that ran this long counts as healthy: its next restart is immediate again.
_HEALTHY_SECONDS = 30.0
#: Exit status of a program that cannot start with these settings; it has said why.
_REFUSED = 1


def end_with_parent() -> Callable[[], None]:
    """Return what a child does before exec so that the kernel kills it when this process dies.

    When `darkroom up` is killed, the whole service crashes, and recovers as from a power cut. A child that had
    time to stop would use it to wait for a Redis that is gone, beside the children of the next `darkroom up`.
    """
    parent = os.getpid()

    def arm() -> None:
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return arm


class Child:
    """A program that is kept running while the service runs."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        fds: Sequence[int] = (),
        hang_seconds: float = math.inf,
    ) -> None:
        """Describe the program.

        Args:
            fds: inherited by it (a listening socket survives its restarts).
            hang_seconds: maximum time between two beats that are reported by `beat`; then it is killed.
        """
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._fds = tuple(fds)
        self._hang_seconds = hang_seconds
        self._hung_at = math.inf
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._restart_at = 0.0
        self._has_beaten = False

    def start(self) -> None:
        """Start the program in its own session, so that Ctrl-C reaches only `darkroom up`."""
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            start_new_session=True,
            pass_fds=self._fds,
            preexec_fn=end_with_parent(),
        )
        self._started_at = time.monotonic()
        self._hung_at = self._started_at + max(START_SECONDS, self._hang_seconds)

    @property
    def is_running(self) -> bool:
        """Whether the program is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the latest start."""
        return None if self._process is None else self._process.pid

    @property
    def refuses_to_start(self) -> bool:
        """Whether it ended with an error before it ever ran: it would do so again, with the same settings.

        One that was still starting when its watchdog ended it may just have been slow.
        """
        ended = self._process is not None and self._process.poll() == _REFUSED
        return ended and not self._has_beaten and time.monotonic() - self._started_at < START_SECONDS

    def beat(self) -> None:
        """The program runs: give it another `hang_seconds` to say so again."""
        self._has_beaten = True
        self._hung_at = time.monotonic() + self._hang_seconds

    def excuse(self, seconds: float) -> None:
        """Do not count this time: nobody could have received a beat."""
        self._hung_at += seconds

    def kill_if_hung(self) -> None:
        """Kill the program if its beats have stopped, whatever it is doing; `revive` starts it again."""
        if self.is_running and time.monotonic() > self._hung_at:
            _log.error("%s sends no heartbeat although its process is alive; killing it", self.name)
            self.kill()

    def revive(self) -> None:
        """Restart the program if it has died, after a pause that grows while it keeps dying."""
        if self._process is None or self.is_running:
            return
        now = time.monotonic()
        if not self._restart_at:
            if now - self._started_at > _HEALTHY_SECONDS:
                self._pause_seconds = _FIRST_PAUSE_SECONDS
            self._restart_at = now + self._pause_seconds
            self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, self._pause_seconds * 2)
            status = self._process.returncode
            if status != os.EX_TEMPFAIL:  # it has said what it waits for
                _log.warning("%s exited with status %s; restarting it", self.name, status)
        if now >= self._restart_at:
            self._restart_at = 0.0
            self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the program is running."""
        if self._process is not None and self.is_running:
            self._process.send_signal(number)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the program to exit; True once it has."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the program."""
        self.signal(signal.SIGKILL)
        self.wait(5)
