"""Between the two passes of a job with `hires`: the first one's images, or their latents, become larger.

Knows no pipelines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contracts.catalogue.rows.networks import LATENT
from contracts.jobs.receipt import Weights
from contracts.requests.entry_parameters import HiresParameters
from contracts.requests.parameters import JobParameters
from contracts.weights.networks import UpscalerFacts, read_upscaler
from worker.checkpoints.networks import load_network
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.generation.stages import Progress
from worker.networks.upscaler import empty_canvas, tile_plans, tile_steps
from worker.pool.loading.fetcher import load_errors_as_job_failed
from worker.pool.pool import Pool


def wants_latents(job: JobParameters, stage: JobParameters) -> bool:
    """Whether a stage ends with latents, from which the second pass starts."""
    return job.hires is not None and job.hires.upscaler == LATENT and stage is job


def begin_second_pass(done: Progress, job: JobInFlight, engine: Engine, pool: Pool) -> None:
    """Enlarge what the first pass has made, for inputs of the second one's size, in turns of the job's coroutine.

    Raises:
        JobFailed: OUT_OF_MEMORY: the network has too little memory beside the jobs in flight;
            MODEL_LOAD_FAILED: it cannot be loaded; INTERNAL: it makes values that are not finite.
        NotPrepared: its file must be downloaded first.
    """
    parameters = job.generation
    if parameters is None or parameters.hires is None:
        raise ValueError("only a job with hires has a second pass")
    done.inputs, hires = None, parameters.hires
    if isinstance(done.starts, torch.Tensor):
        done.starts = _enlarge_latents(done.starts, parameters, hires)
        return
    if hires.network is not None:
        upscaler = _Upscaler(job, engine, pool, hires.network)
        done.starts, done.upscaler = upscaler.upscale(done.starts)
        job.usage.note_flops(None)  # upscalers are not in the table
    size = (hires.width, hires.height)
    done.starts = [image.resize(size, Image.Resampling.LANCZOS) for image in done.starts]


def _enlarge_latents(latents: torch.Tensor, job: JobParameters, hires: HiresParameters) -> torch.Tensor:
    """Scale latents (n, channels, height, width) to the size of the second pass, bilinearly."""
    rows, columns = latents.shape[-2:]
    size = (rows * hires.height // job.height, columns * hires.width // job.width)
    return torch.nn.functional.interpolate(latents, size=size, mode="bilinear")


class _Upscaler:
    """A network that enlarges the images of one job between its passes, a tile a turn."""

    def __init__(self, job: JobInFlight, engine: Engine, pool: Pool, id: str) -> None:
        self._job, self._engine, self._pool, self._id = job, engine, pool, id

    def upscale(self, images: Sequence[Image.Image]) -> tuple[list[Image.Image], Weights]:
        job, residency, device = self._job, self._engine.residency, self._pool.device
        file, weights, facts = load_errors_as_job_failed(self._id, self._find)
        sides = tile_plans(facts, images[0].size, device)
        job.coroutine.take_turn("load")
        side = residency.memory.reserve(job, sides)
        try:
            network = load_errors_as_job_failed(
                self._id, lambda: load_network(file, device, (facts.architecture,))
            )
            return [self._upscale_one(network, facts, image, side) for image in images], weights
        finally:
            residency.memory.keep(job, 0)

    def _upscale_one(
        self, network: torch.nn.Module, facts: UpscalerFacts, image: Image.Image, side: int
    ) -> Image.Image:
        pixels = np.asarray(image)
        canvas = empty_canvas(facts, pixels)
        for upscale_tile in tile_steps(network, facts, pixels, side, canvas, self._pool.device):
            self._job.coroutine.take_turn("upscale")
            upscale_tile()
        return Image.fromarray(canvas)

    def _find(self) -> tuple[Path, Weights, UpscalerFacts]:
        file, weights = self._pool.fetcher.network(f"upscaler:{self._id}")
        return file, weights, read_upscaler(file)
