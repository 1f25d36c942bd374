"""Generates one image of a compiled model and discards it: compilation happens during the first call.

Knows no queue.
"""

from __future__ import annotations

from contracts.errors import JobFailed
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.storage import Storage
from worker.engine.job import Job
from worker.generation.alone import generate_alone
from worker.pool.pool import Pool

#: CUDA graphs are warmed up in the first step, recorded in the second and replayed in the third.
_STEPS = 3


def warm_up(pool: Pool, storage: Storage, model: str) -> None:
    """Generate at the model's default size and settings; other sizes are compiled when they are requested.

    Raises:
        JobFailed: the image could not be generated.
        NotPrepared: the model's files must be downloaded first.
    """
    prompt = pool.catalogue.model(model).prompt_hint or "a warm-up"
    request = Txt2ImgRequest(model=model, prompt=prompt, seed=0, num_inference_steps=_STEPS)
    job = Job("warm-up", resolve(request, check(request, pool.catalogue), {}))
    result = generate_alone(job, pool, storage)
    if result.error is not None:
        raise JobFailed(result.error.code, result.error.message)
