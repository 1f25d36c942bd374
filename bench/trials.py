"""Jobs as a worker paints them, on a device at hand, for the bench and the tests of the GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image

from bench.nobody import Nobody
from contracts.catalogue.catalogue import Catalogue, ModelSpec
from contracts.queue.records import Receipt
from contracts.requests.fields import Speed
from contracts.requests.parameters import JobParameters
from contracts.requests.resolution import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from worker.generation.generate import Job, generate
from worker.pool.pool import Pool
from worker.runtime.device import free_memory
from worker.runtime.kernel_options import KernelOptions

PROMPT = "a lighthouse on a cliff at dawn, oil on canvas"


@dataclass(frozen=True)
class Trial:
    """What is run.

    Attributes:
        budgets: bytes that a worker may use, as if the device had no more.
        kernels: ways to compute that run here.
        side: of the square images, in pixels.
        steps: None: as many as each family's rows have by default.
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
        """In which images are painted."""
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
    """What a job made."""

    images: Sequence[Image.Image]
    receipt: Receipt


class NotPainted(Exception):
    """A job failed; the message is the client's."""


def make(
    trial: Trial,
    pool: Pool,
    spec: ModelSpec,
    seed: int,
    images: int = 1,
    prompt: str | None = None,
    speed: Speed = "exact",
    lora: str | None = None,
) -> Generated:
    """One job's images, as a worker makes them; raises NotPainted.

    Args:
        prompt: none named: one for each seed, which is read as any new one.
    """
    prompt = f"{PROMPT}, {seed}" if prompt is None else prompt
    loras = None if lora is None else [{"name": lora}]
    request = _request(trial, spec, seed=seed, num_images=images, prompt=prompt, speed=speed, loras=loras)
    job = Job("bench", resolve(request, check(request, pool.catalogue), {}), 0.0)
    (result,) = generate([job], pool, _NO_STORAGE, Nobody())
    if result.receipt is None:
        raise NotPainted("" if result.error is None else result.error.message)
    return Generated(result.images, result.receipt)


#: A txt2img job reads nothing.
_NO_STORAGE: Any = None


def busy_seconds(receipt: Receipt) -> float:
    """From the claimed job to its images, without the load of the model."""
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
