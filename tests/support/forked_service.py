"""`darkroom up` whose parts are forked from it: each worker would import for eight seconds what is imported here.

They start with what `darkroom up` gives them, and are its children as usual. Its Redis is executed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import app.__main__  # noqa: F401  # these are what the parts import, the worker late
import cli.main
import dispatcher.main  # noqa: F401
import tests.support.before_forks  # noqa: F401
import worker.adapters.files
import worker.checkpoints.places
import worker.loop.consumer
import worker.loop.preparation.catalogue_news
import worker.main
import worker.pool.pool
import worker.safety.opening  # noqa: F401
from tests.support.forked_programs import fork_into

#: Module of a part -> that of its `main`.
_PARTS = {"app": "app.__main__", "dispatcher": "dispatcher.main", "worker": "worker.main"}


class ForkedPart(subprocess.Popen[bytes]):
    """A child process; `python -m` a part of the service is forked, and everything else executed."""

    def _execute_child(
        self,
        args: Sequence[str],
        executable: str | None,
        preexec_fn: Callable[[], object],
        close_fds: bool,
        pass_fds: tuple[int, ...],
        cwd: str | None,
        env: Mapping[str, str],
        *others: Any,
    ) -> None:
        if list(args[:2]) != [sys.executable, "-m"] or args[2] not in _PARTS:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others
            )
            return
        self.pid = fork_into(_PARTS[args[2]], (), env, preexec_fn, kept=pass_fds)
        self._child_created = True


def main() -> int:
    """Run a command line of `darkroom`."""
    subprocess.Popen = ForkedPart  # type: ignore[misc,assignment]
    return cli.main.main()
