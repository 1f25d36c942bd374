"""`python -m app` and `python -m dispatcher` that start at once: forked from a process that has imported them.

Each is a process of its own with the program's `main`, environment, signals and standard error. What Python does
before `main` is not in it; `darkroom up` and the tests of startup begin programs as everybody does.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext

_PROGRAMS = ("app.__main__", "dispatcher.main", "tests.support.forked_programs", "tests.support.before_forks")
_preloaded: list[tuple[str, ...]] = []


def fork_server(*modules: str) -> ForkServerContext:
    """The context whose new processes are forked from one that has imported these modules, and no others.

    Python has one such server a process: one with other modules is stopped, once its processes have ended.
    """
    context = get_context("forkserver")
    if _preloaded[-1:] != [modules]:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
        context.set_forkserver_preload(list(modules))
        _preloaded.append(modules)
    return context


class ForkedProgram:
    """A running program, with the part of `subprocess.Popen` that tests use.

    Attributes:
        stderr: what it writes there; read by `communicate` to the end.
    """

    def __init__(self, module: str, environment: Mapping[str, str], listener: socket.socket | None = None) -> None:
        """Start it.

        Args:
            module: its function `main` is the program.
            listener: a socket that it inherits, as the number in DARKROOM_API_FD.
        """
        context = fork_server(*_PROGRAMS)
        reader, writer = context.Pipe(duplex=False)
        # Not a daemon: such a process may not have children, and the API has decoders.
        self._process = context.Process(target=_run, args=(module, dict(environment), writer, listener))
        self._process.start()
        writer.close()
        self.stderr = os.fdopen(os.dup(reader.fileno()), encoding="utf-8", errors="replace")
        reader.close()
        self._log: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended; raises TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Everything on standard error, once it has ended; raises TimeoutExpired."""
        if self._reading.ident is None:
            self._reading.start()
        self._reading.join(timeout)
        self.wait(timeout)
        return None, "".join(self._log)

    def _read(self) -> None:
        with self.stderr:
            self._log.append(self.stderr.read())


def _run(module: str, environment: Mapping[str, str], stderr: Connection, listener: socket.socket | None) -> None:
    """Be the program; in the new process."""
    os.dup2(stderr.fileno(), sys.stderr.fileno())
    stderr.close()
    os.environ.clear()
    os.environ.update(environment)
    if listener is not None:
        os.environ["DARKROOM_API_FD"] = str(listener.detach())
    sys.exit(importlib.import_module(module).main())
