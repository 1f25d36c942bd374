"""Prometheus metrics of the whole service, made from the totals and the queue stats in Redis.

Every API process shows the same values, since none of them is its own. Knows no HTTP.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from redis import Redis
from redis.exceptions import RedisError

from contracts.metrics import INFINITY, SUM, MetricSpec, Sample, read_totals
from contracts.processes.workers import WorkerReport, read_workers
from contracts.queue.stats import QueueStats, read_stats

log = logging.getLogger(__name__)

PREFIX = "darkroom_"
#: Exported with 0 too, so that an alert can tell 0 from a missing series.
_WORKER_STATES = ("starting", "idle", "busy", "paused", "draining")


class PrometheusCollector(Collector):
    """A collector that reads Redis at each scrape; without Redis it exports only that."""

    def __init__(self, connection: Redis) -> None:
        """`connection` decodes responses."""
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self._connection = connection

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families; everything is read before the first is yielded."""
        try:
            totals = list(read_totals(self._connection))
            stats, workers = read_stats(self._connection), read_workers(self._connection)
        except RedisError as error:
            log.warning("no metrics: Redis does not answer: %s", error)
            yield _gauge("redis_up", "Whether Redis answers", [([], 0)])
            return
        yield _gauge("redis_up", "Whether Redis answers", [([], 1)])
        yield from (_family(row, samples) for row, samples in totals)
        yield from gauges(stats, workers)

    def describe(self) -> Iterable[Metric]:
        """Return no families: registration must not need Redis."""
        return []


def gauges(stats: QueueStats, workers: list[WorkerReport]) -> Iterator[Metric]:
    """Yield what is read at each scrape: the queue's state and the workers'."""
    yield from _of_jobs(stats)
    yield from _of_workers(workers)


def _family(row: MetricSpec, samples: list[Sample]) -> Metric:
    if row.kind == "counter":
        counter = CounterMetricFamily(PREFIX + row.name, row.help, labels=row.labels)
        for sample in samples:
            counter.add_metric(sample.labels, sample.parts.get("", 0))
        return counter
    histogram = HistogramMetricFamily(PREFIX + row.name, row.help, labels=row.labels)
    for sample in samples:
        histogram.add_metric(sample.labels, _cumulate(row, sample), sample.parts.get(SUM, 0))
    return histogram


def _cumulate(row: MetricSpec, sample: Sample) -> list[tuple[str, float]]:
    """Make Prometheus' cumulative buckets from ours, which count values between two bounds."""
    buckets, below = [], 0.0
    for part, bound in [*((str(bound), str(float(bound))) for bound in row.bounds), (INFINITY, INFINITY)]:
        below += sample.parts.get(part, 0)
        buckets.append((bound, below))
    return buckets


def _of_jobs(stats: QueueStats) -> Iterator[Metric]:
    yield _gauge("jobs", "Jobs that have not expired, by state", stats.jobs.items(), ["state", "model", "task"])
    waiting = [(labels, depth.waiting) for labels, depth in stats.depths.items()]
    yield _gauge("queue_jobs", "Waiting jobs", waiting, ["model", "priority"])
    oldest = [(labels, depth.oldest_seconds) for labels, depth in stats.depths.items()]
    yield _gauge("queue_oldest_seconds", "Age of the oldest waiting job", oldest, ["model", "priority"])
    seconds = [((model,), seconds) for model, seconds in stats.seconds.items()]
    yield _gauge("queue_seconds", "Predicted worker time of the waiting jobs, in seconds", seconds, ["model"])
    yield _gauge("webhooks_pending", "Webhook messages waiting for delivery", [([], stats.messages)])


def _of_workers(workers: list[WorkerReport]) -> Iterator[Metric]:
    states = Counter({**dict.fromkeys(_WORKER_STATES, 0), **Counter(worker.state for worker in workers)})
    yield _gauge(
        "workers", "Live workers, by state", [([state], number) for state, number in states.items()], ["state"]
    )
    warm = Counter(model for worker in workers for model in worker.warm)
    yield _gauge(
        "warm_workers", "Workers that have a model loaded", [([id], n) for id, n in warm.items()], ["model"]
    )
    downloads = [(worker.id, one) for worker in workers for one in worker.preparing if one.bytes_total is not None]
    yield _gauge(
        "download_bytes",
        "Bytes of a worker's current downloads: done, and in total",
        [
            ([worker, one.name, kind], figure or 0)
            for worker, one in downloads
            for kind, figure in (("done", one.bytes_done), ("total", one.bytes_total))
        ],
        ["worker", "name", "kind"],
    )
    waiting = Counter((one.name, one.state) for worker in workers for one in worker.preparing)
    yield _gauge(
        "preparing",
        "Models, ControlNets and LoRAs that workers prepare, by state",
        [([name, state], number) for (name, state), number in waiting.items()],
        ["name", "state"],
    )
    for name, text, figures in (
        (
            "worker_budget_bytes",
            "Device memory that a worker may use",
            [(worker.id, worker.budget_bytes) for worker in workers],
        ),
        (
            "worker_resident_bytes",
            "Device memory used by a worker's models",
            [(worker.id, worker.resident_bytes) for worker in workers],
        ),
    ):
        known = [([id], figure) for id, figure in figures if figure is not None]
        yield _gauge(name, text, known, ["worker"])


def _gauge(
    name: str, text: str, samples: Iterable[tuple[Iterable[str], float]], labels: Iterable[str] = ()
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(PREFIX + name, text, labels=list(labels))
    for values, figure in samples:
        family.add_metric(list(values), figure)
    return family
