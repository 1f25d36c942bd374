"""An image from which something is erased: an eraser's network on the part around the mask, some layers a step.

Outside the mask the image stays exactly as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from contracts.jobs.receipt import Weights
from contracts.memory.sizes.networks import ERASER_MULTIPLE, eraser_bytes
from contracts.requests.plain.erasing import EraseParameters
from contracts.weights.networks import EraserFacts, read_eraser
from worker.checkpoints.networks import LaMa, load_network
from worker.generation.inputs import decode_mask
from worker.generation.results.outputs import JobResult
from worker.networks.images import Pixels, require_finite, to_input, to_pixels
from worker.pool.loading.fetcher import load_errors_as_job_failed
from worker.tasks.attempt import Attempt
from worker.tasks.plain_task import PlainTask, to_rgb_and_alpha

#: The most pixels that the network is given, the best first; a larger part is scaled down for it.
_PIXELS = (1536**2, 1024**2, 768**2, 512**2, 256**2)
#: Surroundings of the mask that the network sees: pixels at least, and share of the mask's longer side.
_MIN_MARGIN, _MARGIN_SHARE = 64, 0.75
_WHITE = 128

Box = tuple[int, int, int, int]


def erase(attempt: Attempt) -> JobResult:
    """Run one attempt; see `worker.tasks.runs.Run`."""
    task = _Erase(attempt)
    return task.plain.run(task.compute)


class _Erase:
    def __init__(self, attempt: Attempt) -> None:
        parameters = attempt.flight.job.parameters
        if not isinstance(parameters, EraseParameters):
            raise TypeError(f"{parameters.task} erases nothing")
        self.plain = PlainTask(attempt)
        self._attempt, self._parameters = attempt, parameters

    def compute(self) -> JobResult:
        parameters, task, pool = self._parameters, self.plain, self._attempt.pool
        file, weights, facts = load_errors_as_job_failed(parameters.model, self._find)
        image, alpha = to_rgb_and_alpha(task.read_image(parameters.image))
        mask = np.asarray(decode_mask(task.read_bytes(parameters.mask_image), image.size)) >= _WHITE
        box = surroundings(mask)
        area = (box[2] - box[0]) * (box[3] - box[1])
        largest = next((most for most in reversed(_PIXELS) if most >= area), _PIXELS[0])
        plans = {_plan_name(area, most): most for most in _PIXELS if most <= largest}
        name = task.reserve([(name, eraser_bytes(facts, min(area, most))) for name, most in plans.items()])
        max_pixels = plans[name]
        network = load_errors_as_job_failed(
            parameters.model, lambda: load_network(file, pool.device, (facts.architecture,))
        )
        task.timer.end_stage("load")

        pixels = np.asarray(image).copy()
        steps = erase_steps(cast("LaMa", network), pixels, mask, box, max_pixels, pool.device)
        task.steps(len(steps))
        for step in steps:
            task.step(step)
        task.timer.end_stage("erase")

        result = Image.fromarray(pixels)
        if alpha is not None:
            result.putalpha(alpha)
        return task.finish(parameters, [result], weights, [] if max_pixels >= area else [name])

    def _find(self) -> tuple[Path, Weights, EraserFacts]:
        """The eraser's file, and what it holds."""
        file, weights = self._attempt.pool.fetcher.network(f"eraser:{self._parameters.model}")
        return file, weights, read_eraser(file)


def surroundings(mask: npt.NDArray[np.bool_]) -> Box:
    """The part of an image around its mask (height, width): left, upper, right and lower edge."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, min(ERASER_MULTIPLE, int(mask.shape[1])), min(ERASER_MULTIPLE, int(mask.shape[0]))
    left, upper, right, lower = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    margin = max(_MIN_MARGIN, math.ceil(_MARGIN_SHARE * max(right - left, lower - upper)))
    return (
        max(0, left - margin),
        max(0, upper - margin),
        min(int(mask.shape[1]), right + margin),
        min(int(mask.shape[0]), lower + margin),
    )


def erase_steps(
    network: LaMa,
    pixels: Pixels,
    mask: npt.NDArray[np.bool_],
    box: Box,
    max_pixels: int,
    device: torch.device,
) -> list[Callable[[], None]]:
    """What writes a network's result into the masked pixels of an image (height, width, 3) of 0…255, step by step.

    Args:
        box: the part of the image that it is given; scaled down where that has more than `max_pixels`.

    Raises:
        JobFailed: its output is not finite; by the last step.
    """
    left, upper, right, lower = box
    part, hole = pixels[upper:lower, left:right], mask[upper:lower, left:right]
    states: list[torch.Tensor] = []

    def begin() -> None:
        given, holes = _network_input(part, hole, max_pixels, device)
        states.append(torch.cat([given * (1 - holes), holes], 1))

    def advance(layers: torch.nn.Module) -> None:
        states.append(layers(states.pop()))

    def finish() -> None:
        made = states.pop()
        require_finite(made, "eraser")
        height, width = _shrunk(part, max_pixels)
        made = made[..., :height, :width]
        if (height, width) != part.shape[:2]:
            made = torch.nn.functional.interpolate(made, part.shape[:2], mode="bicubic", antialias=False)
        part[hole] = to_pixels(made[0])[hole]

    return [begin, *(partial(advance, layers) for layers in network.parts), finish]


def _shrunk(part: Pixels, max_pixels: int) -> tuple[int, int]:
    """Height and width at which a part of an image is given to the network."""
    height, width = part.shape[:2]
    shrink = math.sqrt(max_pixels / (height * width))
    if shrink >= 1:
        return height, width
    return max(ERASER_MULTIPLE, int(height * shrink)), max(ERASER_MULTIPLE, int(width * shrink))


def _network_input(
    part: Pixels, hole: npt.NDArray[np.bool_], max_pixels: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """A part of an image and its mask, (1, 3 and 1, height, width) of 0…1, with sides that suit the network."""
    given = to_input(part, device)
    holes = torch.from_numpy(hole.copy()).to(device)[None, None].float()
    height, width = size = _shrunk(part, max_pixels)
    if size != part.shape[:2]:
        given = torch.nn.functional.interpolate(given, size, mode="area")
        holes = torch.nn.functional.adaptive_max_pool2d(holes, size)
    more = (0, -width % ERASER_MULTIPLE, 0, -height % ERASER_MULTIPLE)
    # LaMa reflects three pixels at its edges, and its middle has an eighth of the sides.
    more = (0, max(more[1], 4 * ERASER_MULTIPLE - width), 0, max(more[3], 4 * ERASER_MULTIPLE - height))
    if any(more):
        given, holes = (torch.nn.functional.pad(one, more, mode="replicate") for one in (given, holes))
    return given, holes


def _plan_name(area: int, most: int) -> str:
    return "in one piece" if most >= area else f"scaled down to {most} pixels around the mask"
