"""`darkroom keys`: creates, lists and revokes API keys in a running service's Redis."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from cli.redis_access import add_data_argument, open_redis
from contracts.auth.api_keys import ApiKeyStore, DailyFigure, Key, Scope
from contracts.requests.schema import CHOSEN_PRIORITIES, Priority
from contracts.settings import KeySettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="create a key and print it; it cannot be shown again")
    defaults = KeySettings.model_fields
    create.add_argument("name", help="a label for people, for example the app that uses the key")
    create.add_argument("--owner", help="keys with the same owner share jobs and uploads (default: a new owner)")
    create.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        help="what the key may do; may be repeated (default: generate)",
    )
    create.add_argument(
        "--calls-per-minute",
        type=int,
        metavar="N",
        help="maximum POST calls per minute; more get 429; 0: no limit "
        f"(default: DARKROOM_KEYS_CALLS_PER_MINUTE, or {defaults['calls_per_minute'].default})",
    )
    create.add_argument(
        "--max-jobs",
        type=int,
        metavar="N",
        help="maximum jobs queued and running at once; more get 429; 0: no limit "
        f"(default: DARKROOM_KEYS_MAX_JOBS, or {defaults['max_jobs'].default})",
    )
    create.add_argument(
        "--per-day",
        action="append",
        type=_per_day,
        metavar="FIGURE=N",
        help=f"maximum use by its jobs in a day (UTC), of {', '.join(get_args(DailyFigure))}; more "
        "get 429; may be repeated",
    )
    create.add_argument(
        "--highest-priority",
        choices=[tier.value for tier in CHOSEN_PRIORITIES],
        default=Priority.NORMAL.value,
        help="highest priority that its jobs may ask for (default: %(default)s)",
    )
    create.set_defaults(run=_create)
    actions.add_parser("list", help="list all keys, including revoked ones").set_defaults(run=_list)
    revoke = actions.add_parser("revoke", help="revoke a key; its jobs and images stay")
    revoke.add_argument("id", help="key id from `darkroom keys list`")
    revoke.set_defaults(run=_revoke)
    for action in actions.choices.values():
        add_data_argument(action)


def _per_day(text: str) -> tuple[str, int]:
    figure, _, limit = text.partition("=")
    if figure not in get_args(DailyFigure) or not limit.isdecimal() or not 0 < int(limit) < 2**53:
        allowed = ", ".join(get_args(DailyFigure))
        raise argparse.ArgumentTypeError(
            f"must be QUANTITY=N with N above 0 and a quantity of {allowed}; got {text}"
        )
    return figure, int(limit)


def _create(arguments: argparse.Namespace) -> None:
    defaults = KeySettings()
    limits = {name: getattr(arguments, name) for name in KeySettings.model_fields}
    limits = {name: getattr(defaults, name) if limit is None else limit for name, limit in limits.items()}
    with _open(arguments.data) as keys:
        key, token = keys.create(
            arguments.name,
            arguments.owner,
            scopes=arguments.scope or [Scope.GENERATE],
            highest_priority=arguments.highest_priority,
            per_day=dict(arguments.per_day or ()),
            **{name: limit or None for name, limit in limits.items()},
        )
    print(token)
    print(f"created key {key.id} for owner {key.owner}; save it now, it cannot be shown again", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> None:
    with _open(arguments.data) as keys:
        found = keys.find_all()
    limits = ("CALLS/MIN", "MAX JOBS", "PRIORITY", "PER DAY")
    head = ("ID", "NAME", "OWNER", "SCOPES", *limits, "CREATED", "USED", "REVOKED")
    rows = [head, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(key: Key) -> tuple[str, ...]:
    limits = (str(limit or "-") for limit in (key.calls_per_minute, key.max_jobs))
    times = (_time(seconds) for seconds in (key.created_at, key.last_used_at, key.revoked_at))
    daily = ",".join(f"{figure}={limit}" for figure, limit in key.per_day.items()) or "-"
    scopes = ",".join(sorted(key.scopes))
    return (key.id, key.name, key.owner, scopes, *limits, key.highest_priority, daily, *times)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _revoke(arguments: argparse.Namespace) -> None:
    with _open(arguments.data) as keys:
        keys.revoke(arguments.id)


@contextmanager
def _open(data: Path) -> Iterator[ApiKeyStore]:
    with open_redis(data) as connection:
        yield ApiKeyStore(connection)
