"""Where the service is and which API key to use, and subcommands that call it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from cli.client import Client


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the service is and which API key to use."""
    parser.add_argument(
        "--server",
        default=os.environ.get("DARKROOM_SERVER", "http://127.0.0.1:8000"),
        help="URL of the service, or DARKROOM_SERVER (%(default)s)",
    )
    parser.add_argument(
        "--key",
        default=os.environ.get("DARKROOM_API_KEY"),
        help="API key; DARKROOM_API_KEY keeps it out of the process list",
    )


def add_client_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace, Client], None],
    help_text: str,
) -> argparse.ArgumentParser:
    """Add a subcommand that runs with a client of the service; returns its parser, for further options."""

    def run_with_client(arguments: argparse.Namespace) -> None:
        with Client(arguments.server, key=arguments.key) as client:
            run(arguments, client)

    parser = commands.add_parser(name, help=help_text)
    add_service_arguments(parser)
    parser.set_defaults(run=run_with_client)
    return parser
