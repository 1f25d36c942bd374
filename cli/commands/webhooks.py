"""`darkroom webhooks`: shows or replaces the secret with which an owner's receivers verify webhooks."""

from __future__ import annotations

import argparse
import sys

from redis import Redis

from cli.client import ServiceError
from cli.redis_access import add_data_argument, open_redis
from contracts.auth.api_keys import ApiKeyStore
from contracts.outbound.signing import OVERLAP_SECONDS, Secrets
from contracts.settings import SharedSettings

#: The owner of all jobs of a service without keys.
_LOCAL = "local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("secret", help="print the secret that an owner's webhooks are signed with").set_defaults(
        run=_show
    )
    replace = actions.add_parser(
        "replace-secret", help="create a new secret; for a day, webhooks are also signed with the old one"
    )
    replace.set_defaults(run=_replace)
    for action in actions.choices.values():
        action.add_argument(
            "--owner",
            help="owner of the jobs, from `darkroom keys list` (default, while the service has no keys: local)",
        )
        add_data_argument(action)


def _show(arguments: argparse.Namespace) -> None:
    with open_redis(arguments.data) as connection:
        owner = _owner(connection, arguments.owner)
        print(Secrets(connection, SharedSettings()).current(owner)[0].write())


def _replace(arguments: argparse.Namespace) -> None:
    with open_redis(arguments.data) as connection:
        owner = _owner(connection, arguments.owner)
        print(Secrets(connection, SharedSettings()).replace(owner).write())
    hours = OVERLAP_SECONDS // 3600
    print(f"webhooks of {owner} are also signed with the old secret for {hours} hours", file=sys.stderr)


def _owner(connection: Redis, named: str | None) -> str:
    """The owner that is named; raises ServiceError for one that the service does not have."""
    owners = {key.owner for key in ApiKeyStore(connection).find_all()} or {_LOCAL}
    owner = _LOCAL if named is None and owners == {_LOCAL} else named
    if owner is None:
        raise ServiceError("each owner has a webhook secret; name one with --owner (`darkroom keys list`)")
    if owner not in owners | {_LOCAL}:
        raise ServiceError(f"no API key belongs to the owner {owner[:64]!r}; see `darkroom keys list`")
    return owner
