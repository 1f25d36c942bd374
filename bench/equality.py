"""How far a batched image is from the same image made alone: `python -m bench.equality`.

Each family's shapes model, the same prompts and seeds, alone and in batches of 2, 4 and 8, through the worker's
own code. The figure is the largest difference of any channel of any pixel, in steps of 1/255.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray

from bench.mixes import mixed_prompts
from bench.nobody import Nobody
from bench.report import keep_arithmetic, options, report
from bench.table import print_table
from contracts.catalogue.catalogue import read_catalogue
from contracts.requests.resolution import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage.local import LocalStorage
from worker.generation.generate import Job, generate
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

Pixels = NDArray[numpy.int16]
IMAGES = 8
_BATCHES = (1, 2, 4, 8)


def paint(pool: Pool, storage: LocalStorage, model: str, batch: int) -> list[Pixels]:
    """All images of one model, `batch` a pipeline call."""
    pictures: list[Pixels] = []
    for first in range(0, IMAGES, batch):
        requests = [
            Txt2ImgRequest(model=model, prompt=one.prompt, seed=one.seed, batchable=True)
            for one in mixed_prompts(min(batch, IMAGES - first), first)
        ]
        parameters = [resolve(request, check(request, pool.catalogue), {}) for request in requests]
        jobs = [Job(f"{model}-{batch}-{one.seed}", one, 0.0) for one in parameters]
        for result in generate(jobs, pool, storage, Nobody()):
            if result.error is not None:
                raise RuntimeError(result.error.message)
            pictures.append(numpy.asarray(result.images[0], numpy.int16))
    return pictures


def main() -> None:
    """Measure and print the table."""
    options(__doc__).parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    catalogue, rows = read_catalogue(BUILT_IN_CATALOGUE), []
    pool = Pool(catalogue, device="cpu")
    with report("equality"), tempfile.TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        for model in catalogue.models:
            alone = paint(pool, storage, model.id, 1)
            rows.append(
                [model.id, *(_difference(alone, paint(pool, storage, model.id, size)) for size in _BATCHES)]
            )
        print_table(["model", "alone again", *(f"batch of {size}" for size in _BATCHES[1:])], rows)
        print(f"\nlargest difference in steps of 1/255, and how many values differ; {IMAGES} images of each model")


def _difference(alone: list[Pixels], again: list[Pixels]) -> str:
    differences = [numpy.abs(one - other) for one, other in zip(alone, again, strict=True)]
    worst = max(int(difference.max()) for difference in differences)
    touched = float(numpy.mean([(difference > 0).mean() for difference in differences]))
    return f"{worst} ({touched:.2%} of values)"


if __name__ == "__main__":
    main()
