"""An upscaled image: an upscaler's network on each tile of it, one tile a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contracts.errors import CatalogueError
from contracts.jobs.receipt import Weights
from contracts.requests.plain.upscaling import UpscaleParameters
from contracts.weights.networks import UpscalerFacts, read_upscaler
from worker.checkpoints.networks import load_network
from worker.generation.outputs import JobResult
from worker.pool.fetcher import load_errors_as_job_failed
from worker.tasks.attempt import Attempt
from worker.tasks.network_images import SCRATCH_BYTES, VALUE_BYTES, Pixels, require_finite, to_input, to_pixels
from worker.tasks.plain_task import PlainTask, to_rgb_and_alpha
from worker.tasks.tiles import Tile, count_tiles, tiles_of

#: Sides of tiles in pixels, the best first. A CPU takes seconds for a large tile, and no job runs meanwhile.
_SIDES = {"cuda": (512, 256, 128, 64), "cpu": (128, 64)}
#: Pixels around a tile: beyond them, what an ESRGAN sees hardly matters.
_MAX_OVERLAP = 32


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
        overlap = _overlap_of(facts)
        sides = _SIDES[pool.device.type]
        plans = {f"tiles of {side} pixels": (side, planned_bytes(facts, image.size, side)) for side in sides}
        side = plans[task.reserve([(name, size) for name, (_, size) in plans.items()])][0]
        network = load_errors_as_job_failed(
            parameters.model, lambda: load_network(file, pool.device, (facts.architecture,))
        )
        task.timer.end_stage("load")

        pixels = np.asarray(image)
        canvas = np.empty((parameters.height, parameters.width, 3), np.uint8)
        task.steps(count_tiles(*image.size, side))
        for tile in tiles_of(*image.size, side, overlap):
            task.step(lambda tile=tile: _upscale_tile(network, facts, pixels, tile, canvas, pool.device))  # type: ignore[misc]
        task.timer.end_stage("upscale")

        result = Image.fromarray(canvas)
        if alpha is not None:
            result.putalpha(alpha.resize(result.size, Image.Resampling.LANCZOS))
        smaller = [] if side == sides[0] else [f"tiles of {side} pixels"]
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


def planned_bytes(facts: UpscalerFacts, size: tuple[int, int], side: int) -> int:
    """The most device memory that an upscaler takes with tiles of this side: weights, and what a tile makes."""
    longest = side + 2 * _overlap_of(facts) + facts.multiple - 1
    pixels = min(size[0] + facts.multiple, longest) * min(size[1] + facts.multiple, longest)
    return facts.values * VALUE_BYTES + pixels * facts.pixel_values * VALUE_BYTES + SCRATCH_BYTES


def upscale_pixels(
    network: torch.nn.Module, facts: UpscalerFacts, pixels: Pixels, side: int, device: torch.device
) -> Pixels:
    """Upscale an image (height, width, 3) of 0…255 in one go, in tiles of this side."""
    height, width = pixels.shape[:2]
    canvas = np.empty((height * facts.scale, width * facts.scale, 3), np.uint8)
    for tile in tiles_of(width, height, side, _overlap_of(facts)):
        _upscale_tile(network, facts, pixels, tile, canvas, device)
    return canvas


def _overlap_of(facts: UpscalerFacts) -> int:
    """Pixels around a tile, a multiple of what the network's input must be."""
    overlap = min(facts.radius, _MAX_OVERLAP)
    return -(-overlap // facts.multiple) * facts.multiple


def _upscale_tile(
    network: torch.nn.Module,
    facts: UpscalerFacts,
    pixels: Pixels,
    tile: Tile,
    canvas: Pixels,
    device: torch.device,
) -> None:
    """Write one tile of the result into its place on the canvas."""
    left, upper, right, lower = tile.taken
    given = to_input(pixels[upper:lower, left:right], device)
    more_x, more_y = -(right - left) % facts.multiple, -(lower - upper) % facts.multiple
    if more_x or more_y:
        given = torch.nn.functional.pad(given, (0, more_x, 0, more_y), mode="replicate")
    made = network(given)
    require_finite(made, "upscaler")
    scale = facts.scale
    begin_x, begin_y = (tile.kept[0] - left) * scale, (tile.kept[1] - upper) * scale
    end_x, end_y = (tile.kept[2] - left) * scale, (tile.kept[3] - upper) * scale
    x, y, to_x, to_y = (edge * scale for edge in tile.kept)
    canvas[y:to_y, x:to_x] = to_pixels(made[0, :, begin_y:end_y, begin_x:end_x])
