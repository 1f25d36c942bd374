"""How much work waits, by model: for metrics, on which deployments scale. Pure."""

from __future__ import annotations

from contracts.forecast.deep_queue import weight_of
from contracts.forecast.snapshot import Snapshot


def waiting_seconds(snapshot: Snapshot) -> dict[str, float]:
    """Predicted seconds of one worker's time for the waiting jobs of each model.

    A model that no worker has loaded must be loaded once. Jobs that were not read are taken to be like the others.
    """
    found: dict[str, float] = {}
    for queue in snapshot.queues:
        if queue.jobs:
            seconds = queue.length * weight_of(snapshot, queue.tier) * queue.mean_seconds
            model = queue.jobs[0].model
            found[model] = found.get(model, 0.0) + seconds
    loaded = {model for worker in snapshot.workers for model in worker.warm}
    return {
        model: seconds + (0.0 if model in loaded else snapshot.measurements.load_seconds(model))
        for model, seconds in found.items()
    }
