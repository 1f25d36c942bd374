"""`darkroom webhooks`: the secret that receivers verify messages with, shown or replaced."""

from __future__ import annotations

import argparse
import sys

from cli.redis_access import add_data_argument, open_redis
from contracts.outbound.signing import OVERLAP_SECONDS, Secrets
from contracts.settings import SharedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's own commands."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("secret", help="print the secret that webhooks are signed with").set_defaults(run=_show)
    replace = actions.add_parser("replace-secret", help="make another; the old one signs beside it for a day")
    replace.set_defaults(run=_replace)
    for action in actions.choices.values():
        add_data_argument(action)


def _show(arguments: argparse.Namespace) -> None:
    with open_redis(arguments.data) as connection:
        print(Secrets(connection, SharedSettings()).current()[0].write())


def _replace(arguments: argparse.Namespace) -> None:
    with open_redis(arguments.data) as connection:
        print(Secrets(connection, SharedSettings()).replace().write())
    print(f"the secret before it is good for {OVERLAP_SECONDS // 3600} hours more", file=sys.stderr)
