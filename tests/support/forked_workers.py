"""Processes of pytest-xdist that start at once: forked from one that has imported all tests.

Each would otherwise import them by itself, for twenty seconds of processor time. As a program this is both that
one (`serve`), and what pytest-xdist starts in place of Python (`join`), which hands its pipes to a fork.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _pytest.config import Config

_PIPES = (0, 1, 2)


def start_server(paths: list[str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start the process that imports the tests in these files and folders.

    Returns:
        The process, which the caller ends, and what pytest-xdist is to start for each of its own.
    """
    from cli.supervisor.process import end_with_parent

    name = f"darkroom-tests-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-m", "tests.support.forked_workers", "serve", str(number), *paths]
        process = subprocess.Popen(command, pass_fds=[number], preexec_fn=end_with_parent())
    return process, f"popen//python={shlex.join([sys.executable, '-IS', __file__, 'join', name])}"


def end_server(process: subprocess.Popen[bytes]) -> None:
    """End the process that `start_server` has started."""
    process.kill()
    process.wait()


def _serve(number: int, paths: list[str]) -> None:
    """Import the tests, then fork a process for each that joins."""
    from tests.support.forked_programs import fork

    with socket.socket(fileno=number) as listener:
        with _silent():
            _import_tests(paths)
        while True:
            connection, _ = listener.accept()
            _, pipes, _, _ = socket.recv_fds(connection, 1, len(_PIPES))
            if fork() == 0:
                break
            for file in (connection.detach(), *pipes):
                os.close(file)
            _reap()
    with connection:
        for pipe, standard in zip(pipes, _PIPES, strict=True):
            os.dup2(pipe, standard)
            os.close(pipe)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        # What execnet, which connects pytest-xdist with it, has Python run.
        exec("import sys;exec(eval(sys.stdin.readline()))", {"__name__": "__main__"})


def _reap() -> None:
    """Take note of the forks that have ended."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            pass


@contextmanager
def _silent() -> Iterator[None]:
    """What libraries say while they are imported is not shown, as in tests."""
    shown, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nothing)


def _import_tests(paths: list[str]) -> None:
    import gc
    import importlib
    import warnings

    from _pytest.config import _prepareconfig

    gc.disable()
    # With its settings, pytest rewrites the assertions of what is imported from now on.
    without = ("xdist", "cacheprovider", "faulthandler")
    config = _prepareconfig(["-s", *(word for name in without for word in ("-p", f"no:{name}")), *paths])
    elsewhere, root = {*config.getini("norecursedirs")}, Path.cwd()
    files: list[Path] = []
    for path in (Path(name.partition("::")[0]).resolve() for name in paths):
        found = sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
        files += [file for file in found if elsewhere.isdisjoint(file.relative_to(path).parts)]
    _rewrite_meanwhile(reversed(files), config)
    for file in files:
        # Collecting imports what fails here again, and says why.
        with warnings.catch_warnings(action="ignore"), suppress(Exception):
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))
    if "app.main" in sys.modules:
        _describe_routes()
    gc.freeze()
    gc.enable()


def _rewrite_meanwhile(files: Iterable[Path], config: Config) -> None:
    """Rewrite the assertions of test files that have changed, in another process, which ends by itself.

    In a new clone that takes twelve seconds of processor time. Importing the tests begins at the other end of the
    files, and finds many of them done; what it reaches first, pytest rewrites as usual.
    """
    from _pytest.assertion import rewrite

    from tests.support.forked_programs import fork

    if sys.dont_write_bytecode or fork():
        return
    try:
        state = config.stash[rewrite.assertstate_key]
        for file in files:
            folder = rewrite.get_cache_dir(file)
            stored = folder / f"{file.stem}{rewrite.PYC_TAIL}"
            if rewrite._read_pyc(file, stored) is None and rewrite.try_makedirs(folder):
                source_hash, code = rewrite._rewrite_test(file, config)
                rewrite._write_pyc(state, code, source_hash, stored)
    finally:
        os._exit(0)


def _describe_routes() -> None:
    """What each process would do again: FastAPI analyses the routes and describes them, for two seconds."""
    import tests.support.before_forks  # noqa: F401
    from app.main import _describe

    _describe(with_page=True)


def _join(name: str) -> None:
    """Hand the standard files to a fork, and end with it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(f"\0{name}")
        socket.send_fds(connection, [b"!"], _PIPES)
        for file in (0, 1):
            os.close(file)
        connection.recv(1)


if __name__ == "__main__":
    _role, _address, *_paths = sys.argv[1:]
    if _role == "join":
        _join(_address)
    else:
        _serve(int(_address), _paths)
