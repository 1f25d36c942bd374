"""What it costs to give each image of a batch other LoRAs: `python -m bench.mixed`.

Four jobs of one prompt and step count, painted by the worker's own code in this process, without queue or files:
as one call with different adapters (none, one, another, both), as one call with the same adapter for all, as one
without any, and one after the other. The four ways follow each other in every round and ratios are taken within a
round; CPU time of one thread. Beside them the largest difference of a mixed image from the same one alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from bench.nobody import Nobody
from bench.report import keep_arithmetic, options, report
from bench.table import print_table, spread
from contracts.catalogue.catalogue import Catalogue, read_catalogue
from contracts.catalogue.families import Task
from contracts.requests.parameters import JobParameters, LoraParameters
from contracts.requests.resolution import resolve
from contracts.requests.schema import REQUESTS
from contracts.requests.validation import check
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from worker.generation import generate as jobs
from worker.pool.pool import Pool
from worker.runtime.warnings import silence_known_warnings

_STORAGE = LocalStorage(BUILT_IN_CATALOGUE.parent)  # nothing is read from it


def orders(catalogue: Catalogue, model: str, sets: Sequence[Sequence[LoraParameters]]) -> list[JobParameters]:
    """One job for each set of adapters."""
    request = REQUESTS[Task.TXT2IMG](model=model, prompt="a large blue square on a white background", seed=8)
    plain = resolve(request, check(request, catalogue), {}).model_copy(update={"batchable": True})
    return [plain.model_copy(update={"loras": tuple(loras), "seed": seed}) for seed, loras in enumerate(sets)]


def paint(batch: Sequence[JobParameters], pool: Pool, storage: Storage) -> tuple[float, list[np.ndarray]]:
    """CPU seconds of one call, and its images."""
    work = [jobs.Job(str(number), job, 0.0) for number, job in enumerate(batch)]
    started = time.process_time()
    results = jobs.generate(work, pool, storage, Nobody())
    seconds = time.process_time() - started
    pictures = [image for result in results for image in result.images]
    return seconds, [np.asarray(picture, dtype=np.int16) for picture in pictures]


def row(model: str, pool: Pool, runs: int) -> Sequence[object]:
    """One line of the table."""
    family = pool.catalogue.model(model).family
    first, second = [LoraParameters(name=row.id) for row in pool.catalogue.loras if row.family == family][:2]
    mixed = orders(pool.catalogue, model, [[], [first], [second], [first, second]])
    alike = orders(pool.catalogue, model, [[first]] * 4)
    bare = orders(pool.catalogue, model, [[]] * 4)
    ratios: list[list[float]] = [[], [], []]
    worst = 0
    for turn in range(runs + 1):
        seconds, together = paint(mixed, pool, _STORAGE)
        others = [paint(alike, pool, _STORAGE)[0], paint(bare, pool, _STORAGE)[0]]
        singles = [paint([job], pool, _STORAGE) for job in mixed]
        alone = [image for _, images in singles for image in images]
        worst = max(worst, *(int(np.abs(one - two).max()) for one, two in zip(together, alone, strict=True)))
        if turn:  # the first round reads files and encodes prompts
            for ratio, other in zip(ratios, (sum(one for one, _ in singles), *others), strict=True):
                ratio.append(seconds / other)
    return [model, *(spread(ratio, 2) for ratio in ratios), worst]


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__, runs=3)
    parser.add_argument("--models", nargs="+", help="default: all of the built-in catalogue")
    arguments = parser.parse_args()
    keep_arithmetic()
    silence_known_warnings()
    torch.set_num_threads(1)
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    models = arguments.models or [model.id for model in catalogue.models]
    with report("mixed"):
        table = [row(model, Pool(catalogue, device="cpu"), arguments.runs) for model in models]
        print_table(["model", "÷ four singles", "÷ four alike", "÷ four without", "levels from single"], table)
        print(f"\nmedian (range) of {arguments.runs} rounds, CPU time of one thread; levels of 255")


if __name__ == "__main__":
    main()
