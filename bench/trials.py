"""Jobs that run in this process exactly as a worker runs them, for benches and the tests of the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.failures import JobFailed
from contracts.jobs.receipt import Receipt
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.storage import Storage
from worker.engine.job import Job
from worker.generation.alone import generate_alone
from worker.pool.pool import Pool
from worker.runtime.device import free_memory

PROMPT = "a lighthouse on a cliff at dawn, oil on canvas"


@dataclass(frozen=True)
class Trial:
    """Model, device and size of the runs.

    Attributes:
        side: of the square images, in pixels.
        steps: None: each family's default.
        runs: of each figure.
    """

    catalogue: Catalogue
    device: str
    side: int
    steps: int | None
    runs: int = 1

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return torch.bfloat16 if self.device == "cuda" else torch.float32


@contextmanager
def opened(trial: Trial, catalogue: Catalogue | None = None, **options: Any) -> Iterator[Pool]:
    """A pool that leaves nothing on the device, neither weights nor recorded graphs."""
    pool = Pool(catalogue or trial.catalogue, device=trial.device, **options)
    try:
        yield pool
    finally:
        for id in pool.warm:
            pool.drop(id)
        torch._dynamo.reset()
        free_memory()


class Generated(NamedTuple):
    """Result of a job."""

    images: Sequence[Image.Image]
    receipt: Receipt


def run_job(pool: Pool, parameters: JobParameters, storage: Storage | None = None) -> Generated:
    """Run a job alone; raises JobFailed. Only jobs with input images need a storage."""
    job = Job("bench", parameters, exact=not parameters.batchable)
    result = generate_alone(job, pool, cast("Storage", storage))
    if result.error is not None:
        raise JobFailed(result.error.code, result.error.message)
    if result.receipt is None:
        raise ValueError("the job was cancelled")
    return Generated(result.images, result.receipt)


def make(
    trial: Trial, pool: Pool, spec: ModelSpec, seed: int, images: int = 1, lora: str | None = None, **fields: Any
) -> Generated:
    """Run one job, `fields` in its request; raises JobFailed. A prompt that is not given differs by seed."""
    own = {"seed": seed, "num_images": images, "prompt": f"{PROMPT}, {seed}", "loras": lora and [{"name": lora}]}
    return run_job(pool, parameters(trial, spec, pool.catalogue, **{**own, **fields}))


def busy_seconds(receipt: Receipt) -> float:
    """From the claimed job to its images, without loading the model."""
    return sum(seconds for stage, seconds in receipt.timings.items() if stage not in ("queue", "load", "write"))


def parameters(trial: Trial, spec: ModelSpec, catalogue: Catalogue | None = None, **fields: Any) -> JobParameters:
    """A job of the trial, with these fields beside what all its jobs have in common."""
    own = {"model": spec.id, "width": trial.side, "height": trial.side, "num_inference_steps": trial.steps}
    given = {"prompt": PROMPT, **own, **fields}
    request = Txt2ImgRequest(**{name: value for name, value in given.items() if value is not None})
    return resolve(request, check(request, catalogue or trial.catalogue), {})
