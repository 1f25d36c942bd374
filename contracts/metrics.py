"""What is counted: one table of rows, and the tally that a process keeps of them in memory.

A tally costs a lock and a dictionary, so that it may be kept anywhere, also beside the painting.
`contracts.ledger` adds it to the service's totals in Redis, where the scripts in `contracts/scripts/` count what
they change themselves. Knows neither Prometheus nor Redis.
"""

from __future__ import annotations

import json
import secrets
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from redis import Redis

from contracts.redis import keys
from contracts.redis.connection import Scripts

#: Upper bounds, in seconds: from an HTTP answer to a picture of a large model on a slow device.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: in base units; Prometheus sees `darkroom_NAME`, and `_total` after it for a counter.
        labels: names, in the order in which samples keep their values.
        bounds: upper bounds of a histogram's buckets, each included; above the last one there is one more.
    """

    name: str
    kind: Literal["counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _rows(*rows: MetricSpec) -> Mapping[str, MetricSpec]:
    return {row.name: row for row in rows}


#: Everything that can be counted. Labels take few values: models from the catalogue, routes from the code.
ROWS = _rows(
    MetricSpec("jobs_accepted", "counter", "Jobs accepted into the queue", ("model", "task")),
    MetricSpec("jobs_ended", "counter", "Jobs ended, each once", ("status", "model", "task")),
    MetricSpec("job_failures", "counter", "Jobs failed, by the error's code", ("code",)),
    MetricSpec("leases_lost", "counter", "Leases that ran out because a worker fell silent", ("model",)),
    MetricSpec(
        "stage_seconds", "histogram", "Seconds that jobs spent in a stage", ("stage", "model", "task"), _SECONDS
    ),
    MetricSpec("batch_images", "histogram", "Images made in one pipeline call", ("model",), _IMAGES),
    MetricSpec("warm_hits", "counter", "Batches whose model was ready in device memory", ("model",)),
    MetricSpec("model_loads", "counter", "Models loaded from their files", ("model",)),
    MetricSpec("model_load_failures", "counter", "Models that could not be loaded", ("model",)),
    MetricSpec(
        "evictions", "counter", "Models that left device memory, to the host's or altogether", ("model", "to")
    ),
    MetricSpec("embedding_cache_hits", "counter", "Prompts whose embeddings were remembered", ("model",)),
    MetricSpec("embedding_cache_misses", "counter", "Prompts that had to be encoded", ("model",)),
    MetricSpec(
        "prompts_encoded_ahead", "counter", "Texts that T5 read on the CPU while another batch ran", ("model",)
    ),
    MetricSpec("prompts_found_ahead", "counter", "Texts that T5 had read before their batch came", ("model",)),
    MetricSpec(
        "out_of_memory_steps", "counter", "Steps down to a smaller placement for want of memory", ("model",)
    ),
    MetricSpec("adapter_loads", "counter", "LoRAs loaded from their files", ("model",)),
    MetricSpec("adapter_switches", "counter", "Batches that needed other LoRAs than the one before", ("model",)),
    MetricSpec("adapter_evictions", "counter", "LoRAs that made room for others", ("model",)),
    MetricSpec("webhook_deliveries", "counter", "Attempts to deliver a webhook", ("outcome",)),
    MetricSpec("http_requests", "counter", "HTTP requests answered", ("route", "method", "status")),
    MetricSpec(
        "http_request_seconds", "histogram", "Seconds until an answer began", ("route", "method"), _SECONDS
    ),
)

#: The part of a histogram's sample that is no bucket.
SUM = "sum"
INFINITY = "+Inf"


def sample_key(row: MetricSpec, part: str, labels: Mapping[str, str]) -> str:
    """The name of one figure, as the totals keep it: JSON of row, part and label values.

    Args:
        part: "" for a counter; for a histogram a bucket's upper bound, or `SUM`.

    Raises:
        ValueError: the labels are not the row's.
    """
    if labels.keys() != set(row.labels):
        raise ValueError(f"metric {row.name} has the labels {row.labels}, and was given {tuple(labels)}")
    return json.dumps([row.name, part, *(labels[label] for label in row.labels)], separators=(",", ":"))


class Counters:
    """What one process has counted since it was last drained. Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: defaultdict[str, float] = defaultdict(int)

    def count(self, name: str, amount: int = 1, /, **labels: str) -> None:
        """Add to a counter; raises ValueError for a name or a label that the table does not have."""
        key = sample_key(_row(name, "counter"), "", labels)
        with self._lock:
            self._figures[key] += amount

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add a value to a histogram; raises ValueError for a name or a label that the table does not have."""
        row = _row(name, "histogram")
        place = bisect_left(row.bounds, value)
        bucket = sample_key(row, str(row.bounds[place]) if place < len(row.bounds) else INFINITY, labels)
        total = sample_key(row, SUM, labels)
        with self._lock:
            self._figures[bucket] += 1
            self._figures[total] += value

    def drain(self) -> dict[str, float]:
        """What was added since the last call, by sample key; the caller answers for it from here on."""
        with self._lock:
            figures, self._figures = self._figures, defaultdict(int)
        return dict(figures)


def _row(name: str, kind: str) -> MetricSpec:
    row = ROWS.get(name)
    if row is None or row.kind != kind:
        raise ValueError(f"there is no {kind} {name!r} in contracts.metrics.ROWS")
    return row


class TotalsWriter:
    """Where one process' tally goes."""

    def __init__(self, connection: Redis, tally: Counters) -> None:
        """`connection` decodes responses."""
        self._tally = tally
        self._scripts = Scripts(connection)
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
                self._scripts.run("add_totals", process=self._id, number=self._page_number, amounts=self._page)
                self._page = {}


@dataclass(frozen=True)
class Sample:
    """The total of one row under one set of label values.

    Attributes:
        parts: "" -> a counter's figure; or bucket's upper bound -> observations in it, and `SUM`.
    """

    labels: tuple[str, ...]
    parts: Mapping[str, float]


def read_totals(connection: Redis) -> Iterator[tuple[MetricSpec, list[Sample]]]:
    """Every row with its samples, in the table's order; `connection` decodes responses, and may raise RedisError.

    What an older or newer release counted under a name of its own is passed over.
    """
    found: defaultdict[str, defaultdict[tuple[str, ...], dict[str, float]]]
    found = defaultdict(lambda: defaultdict(dict))
    for key, figure in cast("dict[str, str]", connection.hgetall(keys.TOTALS)).items():
        name, part, *labels = json.loads(key)
        # Lua writes some characters of a key in another way than Python.
        parts = found[name][tuple(labels)]
        parts[part] = parts.get(part, 0) + float(figure)
    for row in ROWS.values():
        fitting = {labels: parts for labels, parts in found[row.name].items() if len(labels) == len(row.labels)}
        yield row, [Sample(labels, parts) for labels, parts in sorted(fitting.items())]
