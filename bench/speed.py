"""What `speed: fast` saves and what it changes: `python -m bench.speed`.

Each family's shapes model generates the same prompts and seeds twice, exact and fast, through the worker's own
code. Runs of the denoiser are counted, seconds are those of denoising alone, differences are of the pixels in
steps of 1/255, and a judge says how many images show the colour, the shape and the background of their prompts.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image

from bench.report import keep_arithmetic, options, print_table, report, spread
from bench.trials import generate_images
from contracts.catalogue.catalogue import ModelSpec, read_catalogue
from contracts.requests.fields import Speed
from contracts.requests.schema import Txt2ImgRequest
from contracts.settings import BUILT_IN_CATALOGUE
from models.judge import judge
from models.training.data.drawing import COLOURS, SHAPES
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

#: colour, shape, background
Scene = tuple[str, str, str]


@dataclass(frozen=True)
class Run:
    """One speed's images of all scenes.

    Attributes:
        seconds: of denoising, for one image, group by group.
        predicted: runs of the denoiser that were saved, of each image.
    """

    images: list[Image.Image]
    seconds: list[float]
    predicted: int


def choose_scenes(count: int) -> list[Scene]:
    """The same ones every time."""
    rng = random.Random("speed")
    pairs = [rng.sample(COLOURS, 2) for _ in range(count)]
    return [(colour, rng.choice(SHAPES), background) for colour, background in pairs]


def run(pool: Pool, spec: ModelSpec, scenes: Sequence[Scene], speed: Speed, batch: int) -> Run:
    """Generate all scenes, `batch` jobs together."""
    images, seconds, predicted = [], [], 0
    for first in range(0, len(scenes), batch):
        requests = [
            Txt2ImgRequest(
                model=spec.id, prompt=f"a {colour} {shape} on a {background} background", seed=number,
                batchable=True, speed=speed,
            )
            for number, (colour, shape, background) in enumerate(scenes[first : first + batch], first)
        ]  # fmt: skip
        results = generate_images(pool, requests)
        images += [image for result in results for image in result.images]
        predicted = results[-1].receipt.predicted_calls
        seconds.append(statistics.mean(result.denoise_seconds for result in results))
    return Run(images, seconds, predicted)


def right(run: Run, scenes: Sequence[Scene]) -> str:
    """Share of images that show what their prompts ask for."""
    verdicts = [judge(image) for image in run.images]
    shown = [(verdict.colour, verdict.shape, verdict.background) for verdict in verdicts]
    return f"{statistics.mean(one == other for one, other in zip(shown, scenes, strict=True)):.0%}"


def row(pool: Pool, spec: ModelSpec, scenes: Sequence[Scene], batch: int) -> list[object]:
    """One model's figures."""
    run(pool, spec, scenes[:batch], "exact", batch)  # loads the model
    exact, fast = (run(pool, spec, scenes, speed, batch) for speed in ("exact", "fast"))
    differences = [
        float(numpy.abs(numpy.asarray(one, numpy.int16) - numpy.asarray(other, numpy.int16)).mean())
        for one, other in zip(exact.images, fast.images, strict=True)
    ]
    steps = int(str(spec.default("num_inference_steps")))
    return [
        spec.id,
        f"{steps - fast.predicted} of {steps}",
        spread([one / other for one, other in zip(fast.seconds, exact.seconds, strict=True)], 2),
        f"{statistics.median(differences):.1f}",
        f"{max(differences):.1f}",
        right(exact, scenes),
        right(fast, scenes),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=24, help="of each model and speed (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="jobs together (%(default)s)")
    arguments = parser.parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    pool, scenes = Pool(catalogue, device="cpu"), choose_scenes(arguments.images)
    head = "model | denoiser runs | denoising ÷ exact | difference, median | largest | exact right | fast right"
    with report("speed"):
        print_table(head, [row(pool, model, scenes, arguments.batch) for model in catalogue.models])
        print(f"\n{arguments.images} images of each model and speed; seconds: median (range) of pairs of groups")


if __name__ == "__main__":
    main()
