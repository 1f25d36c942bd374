"""Images that are discarded: a small one tells whether a model works, and one compiles it. Knows no queue."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from PIL import Image

from contracts.catalogue.families import Mode, Task
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import FailureCode, JobFailed
from contracts.requests.checks.second_models import second_models
from contracts.requests.checks.validation import check
from contracts.requests.defaults import resolve
from contracts.requests.images.stored_image import StoredImage
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS, Txt2ImgRequest
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from worker.engine.job import Job
from worker.generation.alone import generate_alone
from worker.pool.pool import Pool

_STEPS = 2
#: CUDA graphs are warmed up in the first step, recorded in the second and replayed in the third.
_COMPILING_STEPS = 3
#: Longest side in pixels: enough for every family, and little memory.
_SIDE = 256
#: Fields of requests that are images, and the keys of ours.
_IMAGES = {"image": "trial/image.png", "mask_image": "trial/mask.png", "control_image": "trial/image.png"}


def try_model(pool: Pool, model: str) -> None:
    """Load a model and generate one small image, with a task that it has, and images where that needs some.

    Raises:
        JobFailed: it cannot be loaded, or its image cannot be generated.
        InvalidRequest: the row's own defaults refuse a plain request.
        NotPrepared: its files must be downloaded first.
    """
    with TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        row = _asked_for(pool.catalogue.model(model), pool)
        width, height = (cast("int", row.default(name)) for name in ("width", "height"))
        if not row.family_spec.fixed_size:
            width, height = min(width, _SIDE), min(height, _SIDE)
        storage.write("trial/image.png", _png(Image.linear_gradient("L").resize((width, height)).convert("RGB")))
        mask = Image.new("L", (width, height))
        mask.paste(255, (width // 4, height // 4, width // 2, height // 2))
        storage.write("trial/mask.png", _png(mask))
        result = generate_alone(Job("trial", _parameters(pool, row, width, height, model)), pool, storage)
    if result.error is not None:
        message = result.error.message
        named = message if message.startswith(model) else f"{model} makes no image: {message}"
        raise JobFailed(result.error.code, named)


def warm_up(pool: Pool, storage: Storage, model: str) -> None:
    """Generate at the model's default size and settings; other sizes are compiled when they are requested.

    Raises:
        JobFailed: the image could not be generated.
        NotPrepared: the model's files must be downloaded first.
    """
    row = pool.catalogue.model(model)
    subject: dict[str, Any] = row.family_spec.any_subject(row.prompt_hint or "a warm-up")
    request = Txt2ImgRequest(model=model, seed=0, num_inference_steps=_COMPILING_STEPS, **subject)
    result = generate_alone(Job("warm-up", resolve(request, check(request, pool.catalogue), {})), pool, storage)
    if result.error is not None:
        raise JobFailed(result.error.code, result.error.message)


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


def _parameters(pool: Pool, row: ModelSpec, width: int, height: int, tried: str) -> JobParameters:
    task = row.tasks[0]
    needed = set(row.family_spec.required_fields) | (set(_IMAGES) & row.family_spec.modes[Mode(task.value)])
    images = {field: StoredImage(_IMAGES[field], width, height) for field in _IMAGES if field in needed}
    fields: dict[str, Any] = dict.fromkeys(images, "upload:trial")
    if task is Task.EDIT:
        fields["references"] = ["upload:trial"]
        images["references.0"] = StoredImage("trial/image.png", width, height)
    if tried != row.id:
        fields["cascade"] = {"model": tried, "steps": _STEPS}
    request = REQUESTS[task](
        model=row.id,
        seed=0,
        width=width,
        height=height,
        num_inference_steps=_STEPS,
        **row.family_spec.any_subject(row.prompt_hint or "a trial"),
        **fields,
    )
    return resolve(request, check(request, pool.catalogue), images)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
