"""Jobs that run in this process exactly as a worker runs them, for benches and the tests of the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from PIL import Image

from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.jobs.receipt import Receipt
from contracts.requests.defaults import resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from contracts.storage import Storage
from worker.engine.engine import Engine
from worker.engine.job import Job, JobInFlight
from worker.generation.alone import Unwatched
from worker.generation.generate import JobGeneration
from worker.generation.outputs import JobResult
from worker.pool.pool import Pool
from worker.runtime.device import free_memory
from worker.runtime.kernel_options import KernelOptions

PROMPT = "a lighthouse on a cliff at dawn, oil on canvas"


@dataclass(frozen=True)
class Trial:
    """What is run.

    Attributes:
        budgets: bytes that a worker may use, as if the device had no more.
        kernels: kernel options that run on this device.
        side: of the square images, in pixels.
        steps: None: each family's default.
    """

    catalogue: Catalogue
    device: str
    budgets: Sequence[int]
    kernels: Sequence[KernelOptions]
    side: int
    steps: int | None
    batches: Sequence[int]
    runs: int

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
    """What a job made.

    Attributes:
        denoise_seconds: worker time of its denoising; its share, where jobs ran together.
    """

    images: Sequence[Image.Image]
    receipt: Receipt
    denoise_seconds: float


class JobFailed(Exception):
    """A job failed; the message is the client's."""


def run_jobs(pool: Pool, parameters: Sequence[JobParameters], storage: Storage | None = None) -> list[Generated]:
    """Run jobs together on one engine; raises JobFailed. Only jobs with input images need a storage."""
    engine, where = Engine(pool), cast("Storage", storage)

    def work(flight: JobInFlight) -> JobResult:
        return JobGeneration(flight, engine, pool, where, Unwatched()).run()

    try:
        jobs = [Job(f"bench-{index}", one, exact=not one.batchable) for index, one in enumerate(parameters)]
        flights = [engine.start(job, work) for job in jobs]
        while engine.jobs:
            engine.tick()
    finally:
        engine.close()
    return [_generated(flight) for flight in flights]


def _generated(flight: JobInFlight) -> Generated:
    if flight.coroutine.error is not None:
        raise flight.coroutine.error
    result: JobResult = flight.result
    if result.receipt is None:
        raise JobFailed("" if result.error is None else result.error.message)
    return Generated(result.images, result.receipt, result.denoise_seconds or 0.0)


def make(
    trial: Trial, pool: Pool, spec: ModelSpec, seed: int, images: int = 1, lora: str | None = None, **fields: Any
) -> Generated:
    """Run one job, `fields` in its request; raises JobFailed. A prompt that is not given differs by seed."""
    own = {"seed": seed, "num_images": images, "prompt": f"{PROMPT}, {seed}", "loras": lora and [{"name": lora}]}
    request = _request(trial, spec, **{**own, **fields})
    return run_jobs(pool, [resolve(request, check(request, pool.catalogue), {})])[0]


def busy_seconds(receipt: Receipt) -> float:
    """From the claimed job to its images, without loading the model."""
    return sum(seconds for stage, seconds in receipt.timings.items() if stage not in ("queue", "load", "write"))


def step_seconds(receipt: Receipt) -> float:
    """Of one denoising step."""
    return receipt.timings["denoise"] / receipt.parameters.num_inference_steps


def parameters(trial: Trial, spec: ModelSpec) -> JobParameters:
    """What all jobs of the trial have in common."""
    request = _request(trial, spec, prompt=PROMPT)
    return resolve(request, check(request, trial.catalogue), {})


def _request(trial: Trial, spec: ModelSpec, **fields: Any) -> Txt2ImgRequest:
    own = {"model": spec.id, "width": trial.side, "height": trial.side, "num_inference_steps": trial.steps}
    return Txt2ImgRequest(**{name: value for name, value in {**own, **fields}.items() if value is not None})
