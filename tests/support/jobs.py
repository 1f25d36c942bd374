"""Jobs for the worker's tests: every one passes the real validation before it is run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode, Task
from contracts.queue.events import Preview
from contracts.queue.records import Receipt
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import REQUESTS
from contracts.requests.validation import StoredImage, check, resolve
from contracts.storage import Storage
from worker.generation import generate as jobs
from worker.generation.callback import Watch
from worker.generation.outputs import Stored
from worker.pool.pool import Pool

Pixels = npt.NDArray[np.int16]

SIDE = 64


def _circle(ground: str, colour: str) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=colour)
    return picture


def _square() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).rectangle((20, 20, 43, 43), fill=255)
    return mask


#: Storage key -> picture.
PICTURES = {
    "inputs/image.png": _circle("blue", "red"),
    "inputs/mask.png": _square(),
    "inputs/control.png": _circle("black", "white"),
}


def to_png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def model_of(catalogue: Catalogue, family: str) -> str:
    """The family's small model."""
    return next(row.id for row in catalogue.models if row.family == family)


def order(
    catalogue: Catalogue, family: str, mode: Mode = Mode.TXT2IMG, controls: int = 1, **fields: Any
) -> JobParameters:
    """Parameters of a job that passed validation: the mode's pictures are filled in, the rest is as given."""
    task = Task.CONTROLNET if mode.value.startswith("controlnet") else Task(mode.value)
    model = catalogue.model(model_of(catalogue, family))
    fields = {"prompt": "a red circle", "num_inference_steps": 3, "seed": 7, "model": model.id, **fields}
    pictures: dict[str, StoredImage] = {}
    granted = model.family_spec.modes[mode]
    for field, key in (("image", "inputs/image.png"), ("mask_image", "inputs/mask.png")):
        if field in granted:
            fields.setdefault(field, "upload:x")
            pictures[field] = StoredImage(key, SIDE, SIDE)
    if task is Task.CONTROLNET and "controls" not in fields:
        fields["controls"] = [_control(family, mode)] * controls
    for index, control in enumerate(fields.get("controls", ())):
        if "image" in control:
            pictures[f"controls.{index}.image"] = StoredImage("inputs/control.png", SIDE, SIDE)
    request = REQUESTS[task](**fields)
    check(request, catalogue)
    return resolve(request, model, pictures)


def _control(family: str, mode: Mode) -> dict[str, Any]:
    if family == "sd3" and mode is Mode.CONTROLNET_INPAINT:
        return {"controlnet": "sd3-mask"}
    return {"controlnet": f"{family}-hint", "image": "upload:x"}


class Onlooker:
    """A watch that notes the steps, and raises `error` after step `stop_after`."""

    def __init__(self, stop_after: int | None = None, error: BaseException | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.previews: list[tuple[str, Preview]] = []
        self._stop_after, self._error = stop_after, error

    def step(self, step: int, steps: int) -> None:
        self.seen.append((step, steps))
        if step == self._stop_after and self._error is not None:
            raise self._error

    def preview(self, job_id: str, preview: Preview) -> None:
        self.previews.append((job_id, preview))


def run(
    parameters: JobParameters | Sequence[JobParameters],
    pool: Pool,
    storage: Storage,
    watch: Watch | None = None,
) -> list[Any]:
    """Run one batch; returns its outcomes."""
    batch = [parameters] if isinstance(parameters, JobParameters) else parameters
    work = [jobs.Job(f"job{index}", 0, item, 0.5) for index, item in enumerate(batch)]
    return list(jobs.run(work, pool, storage, watch or Onlooker(), worker_name="tester"))


def done(parameters: JobParameters, pool: Pool, storage: Storage) -> tuple[list[bytes], Receipt]:
    """Run one job that must succeed; returns its files and its receipt."""
    (outcome,) = run(parameters, pool, storage)
    assert isinstance(outcome, Stored), outcome
    return [storage.read(image.key) for image in outcome.images], outcome.receipt


def pixels(parameters: JobParameters, pool: Pool, storage: Storage) -> Pixels:
    """Run one job that must succeed; returns its first image."""
    return to_pixels(done(parameters, pool, storage)[0][0])


def to_pixels(file: bytes) -> Pixels:
    """Decode a file."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=np.int16)
