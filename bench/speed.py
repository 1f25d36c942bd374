"""What `speed: fast` saves and what it changes: `python -m bench.speed`.

Each family's shapes model paints the same prompts and seeds twice, exact and fast, through the worker's own code.
Runs of the denoiser are counted, seconds are those of the denoising alone, differences are of the pixels in steps
of 1/255, and a judge says how many images show the colour, the shape and the ground that were asked for.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image

from bench.nobody import Nobody
from bench.report import keep_arithmetic, options, report
from bench.table import print_table, spread
from contracts.catalogue.catalogue import ModelSpec, read_catalogue
from contracts.requests.fields import Speed
from contracts.requests.resolution import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from contracts.settings import BUILT_IN_CATALOGUE
from models.judge import judge
from models.training.drawing import COLOURS, SHAPES
from worker.generation.generate import Job, generate
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

#: colour, shape, ground
Scene = tuple[str, str, str]


@dataclass(frozen=True)
class Run:
    """One speed's images of all scenes.

    Attributes:
        seconds: of denoising, for one image, batch by batch.
        predicted: runs of the denoiser that were saved, of each image.
    """

    pictures: list[Image.Image]
    seconds: list[float]
    predicted: int


def draw_scenes(count: int) -> list[Scene]:
    """The same ones every time."""
    rng = random.Random("speed")
    found = []
    for _ in range(count):
        colour, ground = rng.sample(COLOURS, 2)
        found.append((colour, rng.choice(SHAPES), ground))
    return found


def run(pool: Pool, spec: ModelSpec, scenes: Sequence[Scene], speed: Speed, batch: int) -> Run:
    """Paint all scenes, `batch` a pipeline call."""
    pictures, seconds, predicted = [], [], 0
    for first in range(0, len(scenes), batch):
        requests = [
            Txt2ImgRequest(
                model=spec.id, prompt=f"a {colour} {shape} on a {ground} background", seed=number,
                batchable=True, speed=speed,
            )
            for number, (colour, shape, ground) in enumerate(scenes[first : first + batch], first)
        ]  # fmt: skip
        parameters = [resolve(request, check(request, pool.catalogue), {}) for request in requests]
        jobs = [Job(f"{one.seed}", one, 0.0) for one in parameters]
        for result in generate(jobs, pool, _NO_STORAGE, Nobody()):
            if result.error is not None:
                raise RuntimeError(result.error.message)
            pictures += result.images
            predicted = result.receipt.predicted_calls
        seconds.append(result.receipt.timings["denoise"] / len(jobs))
    return Run(pictures, seconds, predicted)


#: A txt2img job reads nothing.
_NO_STORAGE: Any = None


def right(run: Run, scenes: Sequence[Scene]) -> float:
    """Share of images that show what was asked for."""
    verdicts = [judge(picture) for picture in run.pictures]
    shown = [(verdict.colour, verdict.shape, verdict.background) for verdict in verdicts]
    return statistics.mean(one == other for one, other in zip(shown, scenes, strict=True))


def row(pool: Pool, spec: ModelSpec, scenes: Sequence[Scene], batch: int) -> list[object]:
    """One model's figures."""
    run(pool, spec, scenes[:batch], "exact", batch)  # the model is loaded
    exact, fast = (run(pool, spec, scenes, speed, batch) for speed in ("exact", "fast"))
    pairs = zip(exact.pictures, fast.pictures, strict=True)
    differences = [
        numpy.abs(numpy.asarray(one, numpy.int16) - numpy.asarray(two, numpy.int16)) for one, two in pairs
    ]
    steps = int(str(spec.default("num_inference_steps")))
    return [
        spec.id,
        f"{steps - fast.predicted} of {steps}",
        spread([one / other for one, other in zip(fast.seconds, exact.seconds, strict=True)], 2),
        f"{statistics.median(float(one.mean()) for one in differences):.1f}",
        f"{max(float(one.mean()) for one in differences):.1f}",
        f"{right(exact, scenes):.0%}",
        f"{right(fast, scenes):.0%}",
    ]


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=24, help="of each model and speed (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images of one call (%(default)s)")
    arguments = parser.parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    pool, scenes = Pool(catalogue, device="cpu"), draw_scenes(arguments.images)
    head = [
        "model",
        "denoiser runs",
        "denoising ÷ exact",
        "difference, median",
        "largest",
        "exact right",
        "fast right",
    ]
    with report("speed"):
        print_table(head, [row(pool, model, scenes, arguments.batch) for model in catalogue.models])
        print(f"\n{arguments.images} images of each model and speed; seconds: median (range) of pairs of calls")


if __name__ == "__main__":
    main()
