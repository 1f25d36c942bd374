"""`darkroom webhooks`: shows or replaces the secret with which receivers verify webhooks."""

from __future__ import annotations

import argparse
import sys

from cli.redis_access import add_data_argument, open_redis
from contracts.outbound.signing import OVERLAP_SECONDS, Secrets
from contracts.settings import SharedSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("secret", help="print the secret that webhooks are signed with").set_defaults(run=_show)
    replace = actions.add_parser(
        "replace-secret", help="create a new secret; for a day, webhooks are signed with both"
    )
    replace.set_defaults(run=_replace)
    for action in actions.choices.values():
        add_data_argument(action)


def _show(arguments: argparse.Namespace) -> None:
    with open_redis(arguments.data) as connection:
        print(Secrets(connection, SharedSettings()).current()[0].write())


def _replace(arguments: argparse.Namespace) -> None:
    with open_redis(arguments.data) as connection:
        print(Secrets(connection, SharedSettings()).replace().write())
    print(f"webhooks are also signed with the old secret for {OVERLAP_SECONDS // 3600} hours", file=sys.stderr)
