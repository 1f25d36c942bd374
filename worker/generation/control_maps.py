"""Control images that a job makes itself, before its own model is placed: a preprocessor runs on each photo.

Knows no pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from contracts.catalogue.rows.preprocessors import RESOLUTION
from contracts.jobs.receipt import ControlMap as ControlMapUse
from contracts.jobs.receipt import Weights
from contracts.provenance.pixels import hash_pixels
from contracts.requests.images.preprocessing import map_size
from contracts.storage import Storage
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.generation.inputs import open_stored, read_stored
from worker.pool.loading.fetcher import load_errors_as_job_failed
from worker.pool.pool import Pool
from worker.preprocessors.maps import ControlMap, on_white


def make_control_maps(
    job: JobInFlight, engine: Engine, pool: Pool, storage: Storage
) -> tuple[dict[int, Image.Image], list[ControlMapUse]]:
    """Make what a job's controls say that models make, in turns of its coroutine; no model stays on the device.

    Returns:
        Index of a control -> its control image, as large as its preprocessor makes it; and what receipts say.

    Raises:
        JobFailed: OUT_OF_MEMORY: a model has too little memory beside the jobs in flight; MODEL_LOAD_FAILED: it
            cannot be loaded; INTERNAL: it makes values that are not finite; INPUT_MISSING: a photo is not stored.
        NotPrepared: its files must be downloaded first.
        Unavailable: the storage does not answer.
    """
    made, uses = {}, []
    for index, control in enumerate(job.stage.controls):
        if control.preprocess is None or control.image is None or not control.is_made_in_job:
            continue
        photo = open_stored(read_stored(control.image, storage))
        preprocessor = _Preprocessor(job, engine, pool, control.preprocess)
        made[index], weights = preprocessor.run(photo, control.preprocess_options or {})
        uses.append(ControlMapUse(control=index, preprocessor=weights, pixels_sha256=hash_pixels(made[index])))
    return made, uses


class _Preprocessor:
    """A model that makes one control image of a job."""

    def __init__(self, job: JobInFlight, engine: Engine, pool: Pool, id: str) -> None:
        self._job, self._engine, self._pool, self._id = job, engine, pool, id

    def run(self, photo: Image.Image, options: Mapping[str, float]) -> tuple[Image.Image, Weights]:
        job, residency, device = self._job, self._engine.residency, self._pool.device
        image = on_white(photo, map_size(photo.size, int(options[RESOLUTION.id])))
        control, weights = load_errors_as_job_failed(self._id, lambda: self._prepare(image, options))
        job.coroutine.take_turn("load")
        residency.memory.reserve(job, {control.plan: control.planned_bytes})
        try:
            load_errors_as_job_failed(self._id, lambda: control.load(device))
            job.coroutine.take_turn("preprocess")
            return control.make(), weights
        finally:
            residency.memory.keep(job, 0)

    def _prepare(self, image: Image.Image, options: Mapping[str, float]) -> tuple[ControlMap, Weights]:
        kind, folder, weights = self._pool.fetcher.preprocessor(self._id)
        return ControlMap(folder, kind, image, options), weights
