"""An upscaled image: an upscaler's network on each tile of it, one tile a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from contracts.errors import CatalogueError
from contracts.jobs.receipt import Weights
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.weights.networks import UpscalerFacts, read_upscaler
from worker.checkpoints.networks import load_network
from worker.generation.results.outputs import JobResult
from worker.networks.tiles import count_tiles
from worker.networks.upscaler import empty_canvas, tile_plans, tile_steps
from worker.pool.loading.fetcher import load_errors_as_job_failed
from worker.tasks.attempt import Attempt
from worker.tasks.plain_task import PlainTask, to_rgb_and_alpha


def upscale(attempt: Attempt) -> JobResult:
    """Run one attempt; see `worker.tasks.runs.Run`."""
    task = _Upscale(attempt)
    return task.plain.run(task.compute)


class _Upscale:
    def __init__(self, attempt: Attempt) -> None:
        parameters = attempt.flight.job.parameters
        if not isinstance(parameters, UpscaleParameters):
            raise TypeError(f"{parameters.task} is not an upscaled image")
        self.plain = PlainTask(attempt)
        self._attempt, self._parameters = attempt, parameters

    def compute(self) -> JobResult:
        parameters, task, pool = self._parameters, self.plain, self._attempt.pool
        file, weights, facts = load_errors_as_job_failed(parameters.model, self._find)
        image, alpha = to_rgb_and_alpha(task.read_image(parameters.image))
        plans = tile_plans(facts, image.size, pool.device)
        names = {f"tiles of {side} pixels": side for side in plans}
        name = task.reserve([(name, plans[side]) for name, side in names.items()])
        network = load_errors_as_job_failed(
            parameters.model, lambda: load_network(file, pool.device, (facts.architecture,))
        )
        task.timer.end_stage("load")

        pixels = np.asarray(image)
        canvas = empty_canvas(facts, pixels)
        task.steps(count_tiles(*image.size, names[name]))
        for upscale_tile in tile_steps(network, facts, pixels, names[name], canvas, pool.device):
            task.step(upscale_tile)
        task.timer.end_stage("upscale")

        result = Image.fromarray(canvas)
        if alpha is not None:
            result.putalpha(alpha.resize(result.size, Image.Resampling.LANCZOS))
        smaller = [] if name == next(iter(names)) else [name]
        return task.finish(parameters, [result], weights, smaller)

    def _find(self) -> tuple[Path, Weights, UpscalerFacts]:
        """The upscaler's file, and what it holds."""
        file, weights = self._attempt.pool.fetcher.network(f"upscaler:{self._parameters.model}")
        facts = read_upscaler(file)
        if facts.scale != self._parameters.scale:
            raise CatalogueError(
                f"its scale is {facts.scale}, and the job was accepted for {self._parameters.scale}"
            )
        return file, weights, facts
