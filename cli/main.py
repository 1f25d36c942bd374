"""`darkroom`: reads the command line and runs the command. Every error is one line and a non-zero exit status."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from cli import admin, check, generate, hub, jobs, keys, loras, models, plan, verify, webhooks
from cli.client import ServiceError
from cli.env_file import load_env_file
from cli.redis_access import default_data
from cli.supervisor.redis_server import MEMORY_BYTES, RedisNotFound
from cli.supervisor.start_report import darkroom_version
from cli.supervisor.up import Service
from contracts import logs
from contracts.errors import DarkroomError
from contracts.hub.environment import describe_environment
from contracts.settings import LogSettings, explain


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` lists the commands and options\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit status."""
    try:
        dotenv = load_env_file()
        arguments = build_parser().parse_args(words)
        arguments.dotenv = dotenv
        arguments.run(arguments)
    except BrokenPipeError:  # what reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DarkroomError, ServiceError, RedisNotFound, OSError, RuntimeError) as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 1
    except ValidationError as error:
        print(f"darkroom: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands and their options."""
    parser = Parser(prog="darkroom", description="Image generation as a service.")
    parser.add_argument("--version", action="version", version=f"darkroom {darkroom_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run the whole service on this machine")
    up.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    up.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (%(default)s)")
    up.add_argument(
        "--data", type=Path, default=default_data(), help="folder for images, uploads and the queue (%(default)s)"
    )
    workers = up.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=int, default=1, help="worker processes (%(default)s)")
    workers.add_argument(
        "--gpus",
        metavar="all|0,2",
        help="a worker for each of these GPUs, with a plan of its own; MIG slices count",
    )
    up.add_argument(
        "--fsync",
        choices=["everysec", "always"],
        default="everysec",
        help="when the Redis started here syncs its file: `always` survives any crash but is slower (%(default)s)",
    )
    up.add_argument(
        "--redis-memory",
        type=plan.parse_bytes,
        default=MEMORY_BYTES,
        metavar="SIZE",
        help="memory for the data of the Redis started here, for example 2GiB; while it is full, new jobs get 503 "
        "(1GiB)",
    )
    up.set_defaults(run=_run_up)

    check.add_arguments(commands.add_parser("check", help="say what `up` would refuse, without starting anything"))

    job = commands.add_parser("generate", help="generate an image through the API")
    generate.add_arguments(job)
    job.set_defaults(run=generate.generate)

    jobs.add_arguments(commands.add_parser("jobs", help="list, show, cancel, fetch and watch jobs"))
    keys.add_arguments(commands.add_parser("keys", help="create, list and revoke API keys"))

    admin.add_arguments(
        commands.add_parser("admin", help="the jobs, queues, workers and keys of all owners (scope admin)")
    )

    plan.add_arguments(commands.add_parser("plan", help="show the memory plan of a model within a budget"))
    webhooks.add_arguments(commands.add_parser("webhooks", help="show or replace the secret that signs webhooks"))

    verify.add_arguments(commands.add_parser("verify", help="check how an image was made, by its signature"))
    loras.add_arguments(commands.add_parser("loras", help="add, list and remove LoRAs"))
    hub.add_arguments(commands.add_parser("hub", help="list and update the commits of hub repositories"))

    models.add_arguments(commands.add_parser("models", help="list, add, remove and fetch models and adapters"))

    settings = commands.add_parser(
        "settings", help="list all settings (environment variables): values, where they come from, meanings"
    )
    settings.add_argument("--set", action="store_true", help="only settings that differ from their defaults")
    settings.set_defaults(run=_run_settings)

    for part, module, help_text in (
        ("api", "app", "run only the API; settings come from the environment"),
        ("worker", "worker", "run one worker; settings come from the environment"),
        ("dispatcher", "dispatcher", "run the webhook dispatcher; settings come from the environment"),
    ):
        command = commands.add_parser(part, help=help_text)
        command.set_defaults(run=lambda _, module=module: _become(module))
    return parser


def _run_up(arguments: argparse.Namespace) -> None:
    logs.configure(LogSettings())
    Service(
        arguments.host,
        arguments.port,
        arguments.data,
        arguments.workers,
        arguments.fsync,
        arguments.redis_memory,
        arguments.gpus,
    ).run()


def _run_settings(arguments: argparse.Namespace) -> None:
    words = ["--set"] if arguments.set else []
    words += [f"--dotenv={name}" for name in sorted(arguments.dotenv)]
    for module in ("app", "worker", "dispatcher"):
        # A container image may hold only one side.
        if find_spec(module) is not None:
            command = [sys.executable, "-m", f"{module}.settings", *words]
            table = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout
            print(table, end="", flush=True)
    print(f"The hub, by the variables of huggingface_hub\n{describe_environment()}")


def _become(module: str) -> None:
    """Replace this process with one part of the service: signals reach it, and nothing of it is imported here."""
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
