"""`darkroom`: reads the command line and runs the command. Every error is one line and a non-zero exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from cli.client import ServiceError
from cli.commands import (
    admin,
    check,
    convert,
    erase,
    generate,
    hub,
    jobs,
    keys,
    loras,
    models,
    plan,
    preprocess,
    settings,
    train,
    up,
    upscale,
    verify,
    webhooks,
)
from cli.env_file import load_env_file
from cli.supervisor.redis_server import RedisNotFound
from cli.supervisor.start_report import darkroom_version
from contracts.errors import DarkroomError
from contracts.settings import explain

#: Name, module, and what the command does, in the order of `darkroom --help`.
_COMMANDS = (
    ("up", up, "run the whole service on this machine"),
    ("check", check, "report what `up` would refuse, without starting anything"),
    ("generate", generate, "generate an image through the API"),
    ("train", train, "train a LoRA on images through the API"),
    ("preprocess", preprocess, "make a control image from a photo"),
    ("upscale", upscale, "enlarge an image"),
    ("erase", erase, "erase something from an image"),
    ("jobs", jobs, "list, show, cancel, fetch and watch jobs"),
    ("keys", keys, "create, list and revoke API keys"),
    ("admin", admin, "the jobs, queues, workers and keys of all owners (scope admin)"),
    ("plan", plan, "show the memory plan of a model within a budget"),
    ("webhooks", webhooks, "show or replace the secret that signs webhooks"),
    ("verify", verify, "check how an image was made, by its signature"),
    ("loras", loras, "add, list and remove LoRAs"),
    ("convert", convert, "convert a hypernetwork (.pt) to safetensors"),
    ("hub", hub, "list and update the commits of hub repositories"),
    ("models", models, "list, add, remove and fetch models and adapters"),
    ("settings", settings, "list all settings (environment variables) with values, sources and meanings"),
)
#: Name, package, and what is run.
_PARTS = (
    ("api", "app", "only the API"),
    ("worker", "worker", "one worker"),
    ("dispatcher", "dispatcher", "the webhook dispatcher"),
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others, and name the command that they are about."""

    def __init__(self, *words: Any, options: Callable[[Parser], object] | None = None, **named: Any) -> None:
        """`options` adds the command's own, once the line names it: those of a request take 0.2 s to read."""
        super().__init__(*words, **named)
        self._options = options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; what a command does not take is its own error, and not that of the command line as a whole."""
        if self._options is not None:
            options, self._options = self._options, None
            options(self)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

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
        print(f"darkroom: {_in_words(error)}", file=sys.stderr)
        return 1
    except ValidationError as error:
        print(f"darkroom: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _in_words(error: Exception) -> str:
    """An error for a person: the system's own about a file begin with the file, not with a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = Parser(prog="darkroom", description="Image generation as a service.")
    parser.add_argument("--version", action="version", version=f"darkroom {darkroom_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, help_text in _COMMANDS:
        commands.add_parser(name, help=help_text, options=command.add_arguments)
    for part, package, what in _PARTS:
        started = commands.add_parser(part, help=f"run {what}; settings come from the environment")
        started.set_defaults(run=lambda _, package=package: _become(package))
    return parser


def _become(package: str) -> None:
    """Replace this process with one part of the service: signals reach it, and nothing of it is imported here."""
    os.execv(sys.executable, [sys.executable, "-m", package])  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
