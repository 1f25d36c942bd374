"""Metrics: the table of all metrics, the counters of one process, and the service's totals in Redis.

A process counts in memory, which costs a lock and a dictionary, and adds its counters to the totals from time to
time. The Lua scripts count what they change themselves. Knows no Prometheus.
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

#: Upper bounds in seconds, from an HTTP response to an image of a large model on a slow device.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class MetricSpec:
    """One row of the table of metrics.

    Attributes:
        name: in base units; exported as `darkroom_NAME`, with `_total` appended for a counter.
        labels: names, in the order in which samples keep their values.
        bounds: inclusive upper bounds of a histogram's buckets; there is one more bucket above the last.
    """

    name: str
    kind: Literal["counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _rows(*rows: MetricSpec) -> Mapping[str, MetricSpec]:
    return {row.name: row for row in rows}


#: All metrics. Labels take few values: models from the catalogue, routes from the code.
ROWS = _rows(
    MetricSpec("jobs_accepted", "counter", "Jobs accepted into the queue", ("model", "task")),
    MetricSpec("jobs_ended", "counter", "Jobs ended", ("status", "model", "task")),
    MetricSpec("images", "counter", "Images completed", ("model",)),
    MetricSpec("pixels", "counter", "Pixels of completed images", ("model",)),
    MetricSpec("image_steps", "counter", "Denoising steps of completed images", ("model",)),
    MetricSpec("device_seconds", "counter", "Worker time of all attempts, failed ones included", ("model",)),
    MetricSpec(
        "energy_joules", "counter", "Energy of devices by source: measured, estimated", ("model", "source")
    ),
    MetricSpec("job_failures", "counter", "Failed jobs by error code", ("code",)),
    MetricSpec(
        "leases_lost", "counter", "Leases that expired because a worker stopped sending heartbeats", ("model",)
    ),
    MetricSpec("stage_seconds", "histogram", "Time jobs spent in a stage", ("stage", "model", "task"), _SECONDS),
    MetricSpec("call_rows", "histogram", "Rows of each call of the denoiser", ("model",), _ROWS),
    MetricSpec("warm_hits", "counter", "Pipeline calls whose model was already in device memory", ("model",)),
    MetricSpec("model_loads", "counter", "Models loaded from their files", ("model",)),
    MetricSpec("model_load_failures", "counter", "Model loads that failed", ("model",)),
    MetricSpec("downloaded_bytes", "counter", "Bytes downloaded from a hub", ("name",)),
    MetricSpec(
        "preparations",
        "counter",
        "Models, ControlNets and LoRAs prepared for use, by outcome: ready, delayed, failed, cancelled",
        ("name", "outcome"),
    ),
    MetricSpec(
        "evictions", "counter", "Models evicted from device memory, to host memory or dropped", ("model", "to")
    ),
    MetricSpec("embedding_cache_hits", "counter", "Prompts found in the embedding cache", ("model",)),
    MetricSpec("embedding_cache_misses", "counter", "Prompts not found in the embedding cache", ("model",)),
    MetricSpec(
        "prompts_encoded_ahead",
        "counter",
        "Prompts that T5 encoded on the CPU while other jobs were denoised",
        ("model",),
    ),
    MetricSpec(
        "prompts_found_ahead", "counter", "Prompts that had been encoded ahead when their job started", ("model",)
    ),
    MetricSpec(
        "out_of_memory_steps",
        "counter",
        "Fallbacks to a smaller memory plan after running out of memory",
        ("model",),
    ),
    MetricSpec(
        "allocator_retries", "counter", "Allocations that were retried after emptying CUDA's cache", ("model",)
    ),
    MetricSpec("device_failures", "counter", "Workers that ended because their GPU failed"),
    MetricSpec("adapter_loads", "counter", "LoRAs loaded from their files", ("model",)),
    MetricSpec(
        "adapter_switches",
        "counter",
        "Pipeline calls that needed different LoRAs from the previous one",
        ("model",),
    ),
    MetricSpec("adapter_evictions", "counter", "LoRAs evicted from the cache", ("model",)),
    MetricSpec("webhook_deliveries", "counter", "Webhook delivery attempts by outcome", ("outcome",)),
    MetricSpec("http_requests", "counter", "HTTP requests answered", ("route", "method", "status")),
    MetricSpec(
        "http_request_seconds", "histogram", "Time until the response started", ("route", "method"), _SECONDS
    ),
)

#: The part of a histogram's sample that is not a bucket: the sum of all values.
SUM = "sum"
INFINITY = "+Inf"


def sample_key(row: MetricSpec, part: str, labels: Mapping[str, str]) -> str:
    """Make the name of one number in the totals: JSON of metric, part and label values.

    Args:
        part: "" for a counter; for a histogram a bucket's upper bound, or `SUM`.

    Raises:
        ValueError: the labels are not the metric's.
    """
    if labels.keys() != set(row.labels):
        raise ValueError(f"metric {row.name} has the labels {row.labels}, got {tuple(labels)}")
    return json.dumps([row.name, part, *(labels[label] for label in row.labels)], separators=(",", ":"))


class Counters:
    """Counts of one process since the last drain; safe for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: defaultdict[str, float] = defaultdict(int)

    def count(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter; raises ValueError for a name or label that is not in the table."""
        key = sample_key(_row(name, "counter"), "", labels)
        with self._lock:
            self._values[key] += amount

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add a value to a histogram; raises ValueError for a name or label that is not in the table."""
        row = _row(name, "histogram")
        position = bisect_left(row.bounds, value)
        bucket = sample_key(row, str(row.bounds[position]) if position < len(row.bounds) else INFINITY, labels)
        total = sample_key(row, SUM, labels)
        with self._lock:
            self._values[bucket] += 1
            self._values[total] += value

    def drain(self) -> dict[str, float]:
        """Take what was added since the last call, by sample key."""
        with self._lock:
            values, self._values = self._values, defaultdict(int)
        return dict(values)


def _row(name: str, kind: str) -> MetricSpec:
    row = ROWS.get(name)
    if row is None or row.kind != kind:
        raise ValueError(f"unknown {kind} {name!r}: add it to contracts.metrics.ROWS")
    return row


class TotalsWriter:
    """Writer of one process' counters to the service's totals in Redis."""

    def __init__(self, connection: Redis, counters: Counters) -> None:
        """`connection` decodes responses."""
        self._counters = counters
        self._scripts = Scripts(connection)
        self._lock = threading.Lock()
        self._id = secrets.token_hex(8)
        self._pending: dict[str, float] = {}
        self._flush_number = 0

    def flush(self) -> None:
        """Add what was counted since the last call to the totals, exactly once.

        Raises:
            RedisError: it may or may not have been added; the next call sends the same numbered flush again, and
                the script ignores one that it has seen.
        """
        with self._lock:
            if not self._pending:
                self._pending, self._flush_number = self._counters.drain(), self._flush_number + 1
            if self._pending:
                self._scripts.run("add_totals", process=self._id, number=self._flush_number, amounts=self._pending)
                self._pending = {}


@dataclass(frozen=True)
class Sample:
    """The total of one metric under one set of label values.

    Attributes:
        parts: "" -> a counter's value; or a bucket's upper bound -> observations in it, and `SUM`.
    """

    labels: tuple[str, ...]
    parts: Mapping[str, float]


def read_totals(connection: Redis) -> Iterator[tuple[MetricSpec, list[Sample]]]:
    """Read every metric with its samples, in the table's order; `connection` decodes responses.

    Unknown metrics and labels, which an older or newer release has counted, are ignored.

    Raises:
        RedisError: Redis does not answer.
    """
    found: defaultdict[str, defaultdict[tuple[str, ...], dict[str, float]]]
    found = defaultdict(lambda: defaultdict(dict))
    for key, value in cast("dict[str, str]", connection.hgetall(keys.TOTALS)).items():
        name, part, *labels = json.loads(key)
        # Lua and Python encode some characters of a key differently.
        parts = found[name][tuple(labels)]
        parts[part] = parts.get(part, 0) + float(value)
    for row in ROWS.values():
        matching = {labels: parts for labels, parts in found[row.name].items() if len(labels) == len(row.labels)}
        yield row, [Sample(labels, parts) for labels, parts in sorted(matching.items())]
