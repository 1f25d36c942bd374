"""A training: a LoRA for its owner's later requests."""

from __future__ import annotations

from typing import cast

from contracts.errors import FailureCode
from contracts.requests.training.parameters import TrainingParameters
from worker.generation.outputs import JobResult
from worker.tasks.attempt import Attempt
from worker.training.job import LoraTraining, TrainingWatch
from worker.training.registration import LoraRegistration


def train(attempt: Attempt) -> JobResult:
    """Train a LoRA and register it; returns and raises as `LoraTraining.run`."""
    flight = attempt.flight
    training = flight.job.parameters
    if attempt.connection is None or not isinstance(training, TrainingParameters):
        return JobResult.failed(FailureCode.INTERNAL, "this worker has no place to register LoRAs")
    registration = LoraRegistration(
        attempt.connection, attempt.storage, attempt.pool.catalogue, training.model, flight.job.owner
    )
    return LoraTraining(
        flight,
        training,
        attempt.engine,
        attempt.pool,
        attempt.storage,
        cast("TrainingWatch", attempt.watch),
        registration.register,
        attempt.worker_name,
        attempt.on_stage,
        attempt.may_show,
    ).run()
