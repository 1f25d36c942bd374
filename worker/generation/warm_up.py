"""One image that nobody asked for: a compiled model is ready only after it has painted.

Knows no queue; what it paints is thrown away.
"""

from __future__ import annotations

from contracts.errors import JobFailed
from contracts.queue.events import Preview
from contracts.requests.resolution import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.validation import check
from contracts.storage import Storage
from worker.generation.generate import Job, generate
from worker.pool.pool import Pool

#: CUDA graphs are warmed in the first, recorded in the second and replayed in the third.
_STEPS = 3


class _Nobody:
    def step(self, step: int, steps: int) -> None:
        """Nothing to do."""

    def preview(self, job_id: str, preview: Preview) -> None:
        """Nothing to do."""


def warm_up(pool: Pool, storage: Storage, model: str) -> None:
    """Paint at the model's own size, with its own settings; other sizes and numbers are compiled when they come.

    Raises:
        JobFailed: it could not be painted.
    """
    prompt = pool.catalogue.model(model).prompt_hint or "a rehearsal"
    request = Txt2ImgRequest(model=model, prompt=prompt, seed=0, num_inference_steps=_STEPS)
    job = Job("rehearsal", resolve(request, check(request, pool.catalogue), {}), 0.0)
    (result,) = generate([job], pool, storage, _Nobody())
    if result.error is not None:
        raise JobFailed(result.error.code, result.error.message)
