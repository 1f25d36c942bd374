"""What runs a job, by the class of its parameters. Knows no queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contracts.requests.parameters import JobParameters
from contracts.requests.plain.erasing import EraseParameters
from contracts.requests.plain.preprocessing import PreprocessParameters
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.requests.training.parameters import TrainingParameters
from worker.generation.generate import JobGeneration
from worker.generation.results.outputs import JobResult
from worker.tasks.attempt import Attempt
from worker.tasks.erase import erase
from worker.tasks.preprocess import preprocess
from worker.tasks.train import train
from worker.tasks.upscale import upscale

#: Runs one attempt at a job and returns a `generated` or `failed` result; raises as `JobGeneration.run`.
Run = Callable[[Attempt], JobResult]


def _generate(attempt: Attempt) -> JobResult:
    return JobGeneration(
        attempt.flight,
        attempt.engine,
        attempt.pool,
        attempt.storage,
        attempt.watch,
        attempt.worker_name,
        attempt.on_stage,
        hashes_steps=attempt.hashes_steps,
        may_show=attempt.may_show,
    ).run()


_RUNS: Mapping[type, Run] = {
    JobParameters: _generate,
    UpscaleParameters: upscale,
    EraseParameters: erase,
    PreprocessParameters: preprocess,
    TrainingParameters: train,
}


def run_task(attempt: Attempt) -> JobResult:
    """Run a job, whatever its task."""
    return _RUNS[type(attempt.flight.job.parameters)](attempt)
