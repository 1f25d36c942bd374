"""Our programs as processes that start at once: forked from a copy of the tests' process that runs no tests.

The copy is made as soon as the tests are collected (`tests/conftest.py`): nearly all modules are imported then,
and no test has left anything in them. Each program is a process of its own with its `main`, environment, signals,
output and exit status. What Python does before `main` is not in it; tests of startup begin programs as everybody
does.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from cli.supervisor.process import end_with_parent

#: What a program imports late, or does at its start with all modules; imported by the copy before it forks it.
_BEFORE = {"app.__main__": ("tests.support.before_forks",), "dispatcher.main": ("httpcore",)}
_MESSAGE_BYTES = 2**18
#: prctl's PR_SET_NAME (linux/prctl.h).
_SET_NAME = 15
_RESET = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM)
_copies: list[socket.socket] = []


def fork() -> int:
    """Fork this process, as `os.fork` does.

    Python from 3.12 on warns where a process with threads is forked. Those here wait for messages or for work, and
    the fork needs none of them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def copy_process() -> None:
    """Copy this process, once, for programs to be forked from the copy. It ends with this process."""
    if _copies:
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arm = end_with_parent()
    if fork() == 0:
        try:
            arm()
            _serve(theirs)
        except BaseException:  # noqa: BLE001  # nothing above may run again in the copy
            traceback.print_exc()
        os._exit(1)
    theirs.close()
    _copies.append(ours)


class ForkedProgram:
    """A running program, with the part of `subprocess.Popen` that tests use.

    Attributes:
        stderr: what it writes there, unless that was given to it; read by `communicate` to the end.
    """

    def __init__(
        self,
        module: str,
        environment: Mapping[str, str],
        listener: socket.socket | None = None,
        *,
        words: Sequence[str] = (),
        stdout: int = 1,
        stderr: int | None = None,
    ) -> None:
        """Start it, in a session of its own.

        Args:
            module: its function `main` is the program.
            listener: a socket that it inherits, as the number in DARKROOM_API_FD.
            words: its command line.
            stdout, stderr: open files; None for a pipe.
        """
        copy_process()
        self._status, status = Pipe(duplex=False)
        reader, writer = os.pipe() if stderr is None else (os.open(os.devnull, os.O_RDONLY), stderr)
        files = [status.fileno(), stdout, writer, *([] if listener is None else [listener.fileno()])]
        message = json.dumps([module, list(words), dict(environment), str(Path.cwd())]).encode()
        socket.send_fds(_copies[0], [message], files)
        status.close()
        if stderr is None:
            os.close(writer)
        self.stderr = os.fdopen(reader, encoding="utf-8", errors="replace")
        if stderr is not None:
            self.stderr.close()
        self.pid: int = self._status.recv()
        self._code: int | None = None
        self._log: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        if self._code is None and self._status.poll():
            self._code = self._status.recv()
        return self._code

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended; raises TimeoutExpired."""
        if self._code is None:
            self._status.poll(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
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


def _serve(requests: socket.socket) -> NoReturn:
    """Fork a program for each request, and tell the one who asked how it ended, until there can be no more."""
    os.setsid()
    _leave_open(requests.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit._clear()
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, Connection] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report_ended(running)
        if requests in ready:
            message, files, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 4)
            if not message:
                os._exit(0)
            status = Connection(files[0], readable=False)
            pid = _fork_program(message, files)
            for file in files[1:]:
                os.close(file)
            running[pid] = status
            status.send(pid)


def _report_ended(running: dict[int, Connection]) -> None:
    while running:
        pid, code = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with running.pop(pid) as status, suppress(BrokenPipeError):
            status.send(os.waitstatus_to_exitcode(code))


def _fork_program(message: bytes, files: Sequence[int]) -> int:
    module, words, environment, folder = json.loads(message)
    for name in (*_BEFORE.get(module, ()), module):
        importlib.import_module(name)

    def begin() -> None:
        os.chdir(folder)
        os.dup2(files[1], 1)
        os.dup2(files[2], 2)
        if files[3:]:
            environment["DARKROOM_API_FD"] = str(files[3])

    return fork_into(module, words, environment, begin, kept=files[3:])


def fork_into(
    module: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    begin: Callable[[], object],
    kept: Iterable[int] = (),
) -> int:
    """Fork a program that ends with this process; returns its id.

    Args:
        begin: done first in the new process.
        kept: files that it inherits beside its standard ones.
    """
    arm = end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with _signals_blocked():
        pid = fork()
        if pid == 0:
            _forget_signals()
    if pid:
        return pid
    try:
        os.setsid()
        arm()
        begin()
        _leave_open(*kept)
        _forget_tests()
        # The name that /proc shows of it, instead of its command line.
        ctypes.CDLL(None).prctl(_SET_NAME, module.partition(".")[0].encode())
        sys.argv = [module, *words]
        os.environ.clear()
        os.environ.update(environment)
        code = _run(module)
        threading._shutdown()  # type: ignore[attr-defined]
        util._exit_function()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # as above
        traceback.print_exc()
        code = 1
    os._exit(code)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget_signals() -> None:
    """Signals are those of a new program, from the first one on."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)


def _leave_open(*kept: int) -> None:
    """Put /dev/null in place of all open files but these and the standard ones.

    Not closed: objects that still have their numbers would close what gets these next.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in (nothing, *kept):
            os.dup2(nothing, number, inheritable=False)


def _forget_tests() -> None:
    """Standard streams, warnings and logs are those of a new process."""
    faulthandler.disable()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    logging.getLogger().handlers.clear()


def _run(module: str) -> int:
    """Run its `main`, and return the exit status that Python would give it."""
    try:
        code: object = importlib.import_module(module).main()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  # the program's last word, as Python says it
        traceback.print_exc()
        code = 1
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1
