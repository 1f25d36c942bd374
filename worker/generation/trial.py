"""Images that are discarded: a small one tells whether a model works, and one compiles it. Knows no queue."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from PIL import Image

from contracts.catalogue.families import Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.jobs.failures import FailureCode, JobFailed
from contracts.requests.checks.second_models import second_models
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.storage.local import LocalStorage
from worker.engine.job import Job
from worker.generation.alone import generate_alone
from worker.generation.results.outputs import JobResult
from worker.pool.pool import Pool

_STEPS = 2
#: CUDA graphs are warmed up in the first step, recorded in the second and replayed in the third.
_COMPILING_STEPS = 3
#: Longest side in pixels: enough for every family, and little memory.
_SIDE = 256
#: Fields of requests that are images, and the keys of ours.
_IMAGES = {"image": "trial/image.png", "mask_image": "trial/mask.png", "control_image": "trial/image.png"}


def try_model(pool: Pool, model: str) -> None:
    """Load a model and generate one small image, of a task that it has.

    Raises:
        JobFailed: it cannot be loaded, or its image cannot be generated.
        InvalidRequest: the row's own defaults refuse a plain request.
        NotPrepared: its files must be downloaded first.
    """
    result = _generate("trial", pool, model, _STEPS, max_side=_SIDE)
    if result.error is not None:
        message = result.error.message
        named = message if message.startswith(model) else f"{model} makes no image: {message}"
        raise JobFailed(result.error.code, named)


def warm_up(pool: Pool, model: str) -> None:
    """Generate at the model's default size and settings; other sizes are compiled when they are requested.

    Raises:
        JobFailed: the image could not be generated.
        InvalidRequest, NotPrepared: as in `try_model`.
    """
    result = _generate("warm-up", pool, model, _COMPILING_STEPS)
    if result.error is not None:
        raise JobFailed(result.error.code, result.error.message)


def _generate(name: str, pool: Pool, model: str, steps: int, max_side: int | None = None) -> JobResult:
    """Run a job of this name with a task that the model has, and images where that needs some.

    Args:
        max_side: of its images, in pixels; None: those of the model's default size.
    """
    row = _asked_for(pool.catalogue.model(model), pool)
    width, height = (cast("int", row.default(side)) for side in ("width", "height"))
    if max_side is not None and not row.family_spec.fixed_size:
        width, height = min(width, max_side), min(height, max_side)
    with TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        storage.write("trial/image.png", _png(Image.linear_gradient("L").resize((width, height)).convert("RGB")))
        mask = Image.new("L", (width, height))
        mask.paste(255, (width // 4, height // 4, width // 2, height // 2))
        storage.write("trial/mask.png", _png(mask))
        fields: dict[str, Any] = {"width": width, "height": height, "num_inference_steps": steps}
        if model != row.id:
            fields["cascade"] = {"model": model, "steps": steps}
        return generate_alone(Job(name, _parameters(pool, row, fields)), pool, storage)


def _asked_for(row: ModelSpec, pool: Pool) -> ModelSpec:
    """The model of a request that uses this one: itself, or one that it goes on with the images of.

    Raises:
        JobFailed: there is none.
    """
    if row.tasks:
        return row
    others = (other for other in pool.catalogue.models if row in second_models("cascade", other, pool.catalogue))
    found = next(others, None)
    if found is None:
        message = f"{row.id} runs only as the cascade of another model, and no model here can use it"
        raise JobFailed(FailureCode.MODEL_LOAD_FAILED, message)
    return found


def _parameters(pool: Pool, row: ModelSpec, fields: dict[str, Any]) -> JobParameters:
    task = row.tasks[0]
    needed = set(row.family_spec.required_fields) | (set(_IMAGES) & row.family_spec.modes[Mode(task.value)])
    size = fields["width"], fields["height"]
    images = {field: StoredImage(_IMAGES[field], *size) for field in _IMAGES if field in needed}
    given: dict[str, Any] = dict.fromkeys(images, "upload:trial")
    if task is Task.EDIT:
        given["references"] = ["upload:trial"]
        images["references.0"] = StoredImage("trial/image.png", *size)
    subject = row.family_spec.any_subject(row.prompt_hint or "a trial")
    request = REQUESTS[task](model=row.id, seed=0, **subject, **given, **fields)
    return resolve(request, check(request, pool.catalogue), images)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
