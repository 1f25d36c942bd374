"""What was used on past days: written to the storage once, by day, key and model."""

from __future__ import annotations

import json
from datetime import date, timedelta

from contracts.queue.client import JobQueue
from contracts.queue.usage.counts import read_usage, today
from contracts.queue.usage.files import write_usage_files
from contracts.redis import keys
from contracts.storage.local import LocalStorage


def use(queue: JobQueue, day: date, **figures: float) -> None:
    """Count as the scripts do; two underscores stand for a space."""
    key = f"{keys.USAGE}{(day - date(1970, 1, 1)).days}"
    for name, value in figures.items():
        queue.connection.hincrbyfloat(key, name.replace("__", " "), value)


def test_past_days_are_written_once_and_today_is_not(queue: JobQueue, storage: LocalStorage) -> None:
    now = today(queue.connection)
    yesterday, earlier = now - timedelta(days=1), now - timedelta(days=40)
    use(queue, now, a__jobs__sdxl=1)
    use(queue, yesterday, b__jobs__sdxl=3, a__jobs__sdxl=1, a__jobs__flux=2, a__device_seconds__flux=1.5)
    use(queue, earlier, a__jobs=7)  # as an earlier release counted

    write_usage_files(queue.connection, storage)

    assert storage.find("usage/") == [f"usage/{earlier}.jsonl", f"usage/{yesterday}.jsonl"]
    rows = [json.loads(line) for line in storage.read(f"usage/{yesterday}.jsonl").decode().splitlines()]
    assert [(row["day"], row["api_key"], row["model"], row["jobs"], row["device_seconds"]) for row in rows] == [
        (str(yesterday), "a", "flux", 2, 1.5),
        (str(yesterday), "a", "sdxl", 1, 0.0),
        (str(yesterday), "b", "sdxl", 3, 0.0),
    ]
    (row,) = read_usage(queue.connection, earlier, earlier)
    assert (row.api_key, row.model, row.jobs) == ("a", "", 7)
    # What has been written is not written again, although Redis forgets it.
    storage.write(f"usage/{earlier}.jsonl", b"mine")
    queue.connection.flushall()
    write_usage_files(queue.connection, storage)
    assert storage.read(f"usage/{earlier}.jsonl") == b"mine"
    assert len(storage.find("usage/")) == 2
