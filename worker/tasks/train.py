"""A training: a LoRA, a textual inversion or a ControlNet for its owner's later requests."""

from __future__ import annotations

from typing import cast

from contracts.jobs.failures import FailureCode
from contracts.requests.training.parameters import TrainingParameters
from contracts.uploads.retention import Retention
from worker.generation.results.outputs import JobResult
from worker.tasks.attempt import Attempt
from worker.training.checkpoints import Checkpoints
from worker.training.job import TrainingJob, TrainingWatch
from worker.training.registration import TrainedRegistration


def train(attempt: Attempt) -> JobResult:
    """Train and register the result; returns and raises as `TrainingJob.run`."""
    flight = attempt.flight
    training = flight.job.parameters
    if attempt.connection is None or not isinstance(training, TrainingParameters):
        return JobResult.failed(FailureCode.INTERNAL, "this worker cannot register trained files")
    registration = TrainedRegistration(
        attempt.connection, attempt.storage, attempt.pool.catalogue, training, flight.job.owner
    )
    watch = cast("TrainingWatch", attempt.watch)
    retention = Retention(attempt.connection, attempt.storage, gone_seconds=0)
    return TrainingJob(
        flight,
        training,
        attempt.engine,
        attempt.pool,
        attempt.storage,
        watch,
        registration.register,
        Checkpoints(attempt.storage, retention, watch, flight.job.owner),
        attempt.worker_name,
        attempt.on_stage,
        attempt.may_show,
    ).run()
