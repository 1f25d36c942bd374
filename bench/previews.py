"""What a preview costs, as a share of a denoising step: `python -m bench.previews`.

Pairs of the same job without previews and with ten, on the shapes models, images encoded and told to nobody; then
the parts of one preview at the latent sizes of real models, where a step takes a hundred times as long.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.nobody import Nobody
from bench.report import options, report
from bench.table import print_table, spread
from contracts.catalogue.catalogue import read_catalogue
from contracts.queue.events import Preview
from contracts.requests.resolution import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage.local import LocalStorage
from worker.generation.generate import Job, generate
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings
from worker.sampling.previews import DenoisedEstimate, PreviewEmitter, PreviewRequest, Projection
from worker.sampling.schedulers import make_scheduler

STEPS, PREVIEWS = 12, 10


def denoise_seconds(pool: Pool, storage: LocalStorage, model: str, side: int, previews: int) -> float:
    """Seconds of all steps of one job."""
    request = Txt2ImgRequest(
        prompt="a red circle", model=model, seed=1, width=side, height=side, num_inference_steps=STEPS,
        previews=previews,
    )  # fmt: skip
    job = Job("bench", resolve(request, check(request, pool.catalogue), {}), 0.0)
    (result,) = generate([job], pool, storage, Nobody())
    if result.error is not None:
        raise RuntimeError(result.error.message)
    return result.receipt.timings["denoise"]


def share_of_a_step(pool: Pool, storage: LocalStorage, model: str, side: int) -> float:
    """One preview's cost over one step's, from a pair of runs."""
    plain, shown = (denoise_seconds(pool, storage, model, side, count) for count in (0, PREVIEWS))
    return (shown - plain) / PREVIEWS / (plain / STEPS)


def milliseconds_of_parts(side: int, channels: int) -> tuple[float, float]:
    """One preview of a `side` × `side` image: on the painting thread, and on the other."""
    latents = torch.randn(1, channels, side // 8, side // 8)
    estimate = DenoisedEstimate(make_scheduler("euler", {"_class_name": "EulerDiscreteScheduler"}), "diffusion")
    projection = Projection(torch.randn(channels, 3) / 4, torch.full((3,), 0.5))
    shown: list[Preview] = []
    requests = [PreviewRequest("bench", 1, range(1))]
    emitter = PreviewEmitter(
        requests, estimate, projection, lambda same: same, (side, side), lambda _, preview: shown.append(preview)
    )
    here = _milliseconds(lambda: emitter._projection.apply(latents))
    colours = projection.apply(latents)
    there = _milliseconds(lambda: emitter._emit_all(requests, 1, 2, colours))
    emitter.close()
    return here, there


def _milliseconds(call: Callable[[], object], times: int = 50) -> float:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append((time.perf_counter() - started) * 1000)
    return statistics.median(found)


def main() -> None:
    """Measure and print both tables."""
    parser = options(__doc__, runs=5)
    arguments = parser.parse_args()
    silence_known_warnings()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    with report("previews"):
        pool = Pool(read_catalogue(BUILT_IN_CATALOGUE), device="cpu")
        rows = []
        with tempfile.TemporaryDirectory() as data:
            storage = LocalStorage(Path(data))
            for model in pool.catalogue.models:
                for side in (64, 128):
                    share_of_a_step(pool, storage, model.id, side)
                    shares = [share_of_a_step(pool, storage, model.id, side) for _ in range(arguments.runs)]
                    rows.append([model.id, f"{side} × {side}", spread(shares, 2)])
        print_table(["model", "image", "one preview ÷ one step"], rows)
        print(f"\nmedian (range) of {arguments.runs} pairs, {PREVIEWS} previews in {STEPS} steps each\n")
        parts = [
            (
                f"{side} × {side}, {channels} channels",
                *(f"{part:.2f}" for part in milliseconds_of_parts(side, channels)),
            )
            for side, channels in ((1024, 4), (1024, 16), (2048, 16))
        ]
        print_table(["image, latents", "ms on the painting thread", "ms on the other"], parts)


if __name__ == "__main__":
    main()
