"""Writes what was used on each past day to the storage, as JSONL, before Redis forgets it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta

from redis import Redis

from contracts.queue.usage.counts import KEPT_DAYS, read_usage, today
from contracts.storage import Storage

#: Folder of the storage; no route reads below it.
FOLDER = "usage/"


def write_usage_files(connection: Redis, storage: Storage) -> None:
    """Write the files of past days that are missing: `usage/2026-11-21.jsonl`. Days without jobs have none.

    A day's figures are final: jobs that end later count for the day of their end. Several processes may do this at
    once, since they write the same bytes.

    Raises:
        Unavailable: Redis or the storage does not answer.
    """
    now = today(connection)
    written = set(storage.find(FOLDER))
    days = [now - timedelta(days=age) for age in range(1, KEPT_DAYS)]
    missing = {day for day in days if f"{FOLDER}{day}.jsonl" not in written}
    if not missing:
        return
    lines: dict[str, list[str]] = {}
    for row in read_usage(connection, min(missing), max(missing)):
        if row.day in missing:
            line = json.dumps({**asdict(row), "day": row.day.isoformat()})
            lines.setdefault(f"{FOLDER}{row.day}.jsonl", []).append(line)
    for key, rows in lines.items():
        storage.write(key, "".join(f"{row}\n" for row in rows).encode())
