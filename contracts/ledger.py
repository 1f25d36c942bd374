"""The service's totals in Redis, one hash `darkroom:totals` for all processes; they outlive whoever counted.

A process posts what its tally has gathered, from a thread that nobody waits for. Knows no HTTP and no Prometheus.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from redis import Redis

from contracts import scripts
from contracts.metrics import ROWS, Row, Tally

_TOTALS = "darkroom:totals"


class Ledger:
    """Where one process' tally goes."""

    def __init__(self, connection: Redis, tally: Tally) -> None:
        """`connection` decodes responses."""
        self._tally = tally
        self._post = scripts.load(connection, "post")
        self._lock = threading.Lock()
        self._id = secrets.token_hex(8)
        self._page: dict[str, float] = {}
        self._page_number = 0

    def post(self) -> None:
        """Add to the totals what was counted since the last call, exactly once.

        Raises:
            RedisError: it may or may not have been added; the next call says the same page again, and Redis knows
                whether it has it.
        """
        with self._lock:
            if not self._page:
                self._page, self._page_number = self._tally.drain(), self._page_number + 1
            if self._page:
                page = {"ledger": self._id, "page": self._page_number, "figures": self._page}
                self._post(args=[json.dumps(page)])
                self._page = {}


@dataclass(frozen=True)
class Sample:
    """The total of one row under one set of label values.

    Attributes:
        parts: "" -> a counter's figure; or bucket's upper bound -> observations in it, and `SUM`.
    """

    labels: tuple[str, ...]
    parts: Mapping[str, float]


def read_totals(connection: Redis) -> Iterator[tuple[Row, list[Sample]]]:
    """Every row with its samples, in the table's order; `connection` decodes responses, and may raise RedisError.

    What an older or newer release counted under a name of its own is passed over.
    """
    found: defaultdict[str, defaultdict[tuple[str, ...], dict[str, float]]]
    found = defaultdict(lambda: defaultdict(dict))
    for key, figure in cast("dict[str, str]", connection.hgetall(_TOTALS)).items():
        name, part, *labels = json.loads(key)
        # Lua writes some characters of a key in another way than Python.
        parts = found[name][tuple(labels)]
        parts[part] = parts.get(part, 0) + float(figure)
    for row in ROWS.values():
        fitting = {labels: parts for labels, parts in found[row.name].items() if len(labels) == len(row.labels)}
        yield row, [Sample(labels, parts) for labels, parts in sorted(fitting.items())]
