"""`darkroom hub`: lists the commits of hub repositories that a running service uses, and updates them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cli.client import ServiceError
from cli.redis_access import add_data_argument, open_redis
from contracts.hub.source import parse_source
from contracts.hub_revisions import Revisions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list repositories, revisions and the commits that all workers use")
    listing.set_defaults(run=_list)
    update = actions.add_parser(
        "update", help="look up the current commit of a branch or tag; workers use it after a restart"
    )
    update.add_argument("repository", metavar="ORG/NAME[@REVISION]", help="without a revision: `main`")
    update.set_defaults(run=_update)
    for action in actions.choices.values():
        add_data_argument(action)


def _list(arguments: argparse.Namespace) -> None:
    with _open(arguments.data) as revisions:
        commits = revisions.commits()
    width = max(map(len, commits), default=0)
    for name, commit in sorted(commits.items()):
        print(f"{name:{width}}  {commit}")


def _update(arguments: argparse.Namespace) -> None:
    repository, _, revision = arguments.repository.partition("@")
    source = parse_source(repository)
    if source is None or source.file is not None or source.revision is not None:
        raise ServiceError(f"must be ORG/NAME or ORG/NAME@REVISION, got {arguments.repository!r}")
    with _open(arguments.data) as revisions:
        name = f"{repository}@{revision or 'main'}"
        before, commit = (
            revisions.commits().get(name),
            revisions.update(replace(source, revision=revision or None)),
        )
    if commit == before:
        print(f"{name} is {commit}, as before")
    else:
        print(f"{name} is {commit} now (was {before or 'not used yet'}); restart the workers to use it")


@contextmanager
def _open(data: Path) -> Iterator[Revisions]:
    with open_redis(data) as connection:
        yield Revisions(connection)
