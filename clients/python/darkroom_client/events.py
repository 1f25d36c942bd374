"""What happens to a job, and how a stream of server-sent events is read. Calls nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ENDS = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job.

    Attributes:
        kind: `queued`, `preparing`, `started`, `progress`, `preview`, and finally `completed`, `failed` or
            `cancelled`. A kind that is not listed comes from a newer service.
        data: what the service says of it, such as `step` and `steps`; a preview has its image in `url`.
        id: position in the stream; empty for what polling found.
    """

    kind: str
    data: Mapping[str, Any]
    id: str = ""

    @property
    def fraction(self) -> float | None:
        """Share of the job's work that is done, 0 to 1; None where the event does not say."""
        value = self.data.get("fraction")
        return float(value) if isinstance(value, int | float) else None


def read_events(lines: Iterable[str]) -> Iterator[Event | None]:
    """Yield the events of a stream (WHATWG HTML, 9.2.6); None for a comment, which a silent service sends."""
    kind, id = "", ""
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(kind, json.loads("\n".join(data)), id)
            kind, data = "", []
        elif not name:
            yield None
        elif name == "event":
            kind = value
        elif name == "id":
            id = value
        elif name == "data":
            data.append(value)


def event_of_job(job: Mapping[str, Any]) -> Event:
    """What polling finds, as an event: the job's status is its kind, unless it is running."""
    kind = "progress" if job["status"] == "running" else str(job["status"])
    return Event(kind, {"status": job["status"], **(job.get("progress") or {})})
