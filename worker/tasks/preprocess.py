"""A control image that a model makes of an ordinary one."""

from __future__ import annotations

from PIL import Image

from contracts.jobs.receipt import Weights
from contracts.requests.plain.preprocessing import PreprocessParameters
from worker.generation.results.outputs import JobResult
from worker.pool.loading.fetcher import load_errors_as_job_failed
from worker.preprocessors.maps import ControlMap, on_white
from worker.tasks.attempt import Attempt
from worker.tasks.plain_task import PlainTask


def preprocess(attempt: Attempt) -> JobResult:
    """Run one attempt; see `worker.tasks.runs.Run`."""
    task = _Preprocess(attempt)
    return task.plain.run(task.compute)


class _Preprocess:
    def __init__(self, attempt: Attempt) -> None:
        parameters = attempt.flight.job.parameters
        if not isinstance(parameters, PreprocessParameters):
            raise TypeError(f"{parameters.task} is not a control image")
        self.plain = PlainTask(attempt)
        self._attempt, self._parameters = attempt, parameters

    def compute(self) -> JobResult:
        parameters, task, device = self._parameters, self.plain, self._attempt.pool.device
        image = on_white(task.read_image(parameters.image), (parameters.width, parameters.height))
        prepared, weights = load_errors_as_job_failed(parameters.model, lambda: self._prepare(image))
        task.reserve([(prepared.plan, prepared.planned_bytes)])
        load_errors_as_job_failed(parameters.model, lambda: prepared.load(device))
        task.timer.end_stage("load")

        made: list[Image.Image] = []
        task.steps(1)
        task.step(lambda: made.append(prepared.make()))
        task.timer.end_stage("preprocess")
        return task.finish(parameters, made, weights, [])

    def _prepare(self, image: Image.Image) -> tuple[ControlMap, Weights]:
        """The control image of an image, and what a receipt says of the model that makes it."""
        kind, folder, weights = self._attempt.pool.fetcher.preprocessor(self._parameters.model)
        return ControlMap(folder, kind, image, self._parameters.preprocess_options), weights
