"""Finds out whether a model works: loads it and generates one small image in two steps, which is discarded.

With a task that the model can run, and pictures where that needs some. Knows no queue.
"""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from PIL import Image

from contracts.catalogue.families import Mode, Task
from contracts.catalogue.models import ModelSpec
from contracts.errors import JobFailed
from contracts.requests.checks.validation import check
from contracts.requests.defaults import StoredImage, resolve
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.storage.local import LocalStorage
from worker.engine.job import Job
from worker.generation.alone import generate_alone
from worker.pool.pool import Pool

_STEPS = 2
#: Longest side in pixels: enough for every family, and little memory.
_SIDE = 256
#: Fields of requests that are pictures, and the keys of ours.
_PICTURES = {"image": "trial/image.png", "mask_image": "trial/mask.png", "control_image": "trial/image.png"}


def try_model(pool: Pool, model: str) -> None:
    """Load a model and generate with it.

    Raises:
        JobFailed: it cannot be loaded, or its image cannot be generated.
        InvalidRequest: the row's own defaults refuse a plain request.
        NotPrepared: its files must be downloaded first.
    """
    with TemporaryDirectory() as folder:
        storage = LocalStorage(Path(folder))
        row = pool.catalogue.model(model)
        width, height = (min(cast("int", row.default(name)), _SIDE) for name in ("width", "height"))
        storage.write("trial/image.png", _png(Image.linear_gradient("L").resize((width, height)).convert("RGB")))
        mask = Image.new("L", (width, height))
        mask.paste(255, (width // 4, height // 4, width // 2, height // 2))
        storage.write("trial/mask.png", _png(mask))
        result = generate_alone(Job("trial", _parameters(pool, row, width, height)), pool, storage)
    if result.error is not None:
        message = result.error.message
        named = message if message.startswith(model) else f"{model} makes no image: {message}"
        raise JobFailed(result.error.code, named)


def _parameters(pool: Pool, row: ModelSpec, width: int, height: int) -> JobParameters:
    task = row.tasks[0]
    needed = set(row.family_spec.required_fields) | (set(_PICTURES) & row.family_spec.modes[Mode(task.value)])
    images = {field: StoredImage(_PICTURES[field], width, height) for field in _PICTURES if field in needed}
    fields: dict[str, Any] = dict.fromkeys(images, "upload:trial")
    if task is Task.EDIT:
        fields["references"] = ["upload:trial"]
        images["references.0"] = StoredImage("trial/image.png", width, height)
    request = REQUESTS[task](
        model=row.id,
        prompt=row.prompt_hint or "a trial",
        seed=0,
        width=width,
        height=height,
        num_inference_steps=_STEPS,
        **fields,
    )
    return resolve(request, check(request, pool.catalogue), images)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
