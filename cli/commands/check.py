"""`darkroom check`: says what `darkroom up` would refuse, without starting anything.

With `--deep` each model whose files are here is loaded, and makes an image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec

from cli.supervisor.redis_server import find_server
from cli.supervisor.start_check import check_catalogue, check_variables
from cli.supervisor.start_report import describe_catalogue
from contracts.redis.access import check_access, without_secrets
from contracts.settings import LogSettings, SharedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--deep",
        action="store_true",
        help="load each model whose files are on this machine, and make an image with it",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Check everything, and print a line for each thing that is right.

    Raises:
        RuntimeError, DarkroomError, RedisNotFound: what is wrong, in one line.
        SystemExit: a part of the service has said what is wrong.
    """
    check_variables(os.environ)
    LogSettings()
    shared = SharedSettings()
    print(f"catalogue  {describe_catalogue(shared.catalogue, check_catalogue())}", flush=True)
    print(f"redis      {_redis(shared)}", flush=True)
    for module in ("app", "dispatcher"):
        _run(f"{module}.settings", "--check")
    _run("worker.check", *(["--deep"] if arguments.deep else []))
    print("everything is ready: darkroom up")


def _redis(shared: SharedSettings) -> str:
    if not os.environ.get("DARKROOM_REDIS_URL"):
        return f"to be started here, {find_server().name}"
    name = without_secrets(shared.redis_url)
    return name if check_access(shared.redis_url) else f"{name} does not answer now; the service would wait for it"


def _run(module: str, *words: str) -> None:
    """Run a part's own check, where that part is installed: a container image may hold only one side."""
    if find_spec(module.partition(".")[0]) is not None:
        done = subprocess.run([sys.executable, "-m", module, *words], check=False)
        if done.returncode:
            sys.exit(done.returncode)
