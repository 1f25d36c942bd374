"""The images that the model generates for a training: class images beforehand, and samples of its progress."""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image

from contracts.errors import NotFound
from contracts.jobs.failures import JobFailed
from contracts.requests.parameters import JobParameters
from contracts.requests.training.parameters import TrainingParameters
from contracts.storage import Storage
from worker.adapters.cache import AdapterSet
from worker.engine.engine import Engine
from worker.engine.job import JobInFlight
from worker.generation.alone import Unwatched
from worker.generation.generate import JobGeneration
from worker.generation.inputs import decode_whole
from worker.pool.pool import Pool


class TrainingImages:
    """The images of one training, made in its coroutine and tier."""

    def __init__(
        self, flight: JobInFlight, training: TrainingParameters, engine: Engine, pool: Pool, storage: Storage
    ) -> None:
        """Nothing is made yet."""
        self._flight, self._training, self._engine = flight, training, engine
        self._pool, self._storage = pool, storage

    def find_class_image(self, number: int) -> Image.Image | None:
        """The image of the class with this number, if an earlier attempt has made it.

        Raises:
            Unavailable: the storage does not answer.
        """
        try:
            return decode_whole(self._storage.read(self._class_key(number)))
        except NotFound:
            return None

    def make_class_image(self, number: int) -> Image.Image:
        """Have the model as it is make an image of the class, and keep it for later attempts.

        Raises:
            JobFailed, Unavailable: as `make`; or the storage does not answer.
        """
        image = self.make(self._training.class_parameters(number))
        file = io.BytesIO()
        image.save(file, "PNG")
        self._storage.write(self._class_key(number), file.getvalue())
        return image

    def make(self, parameters: JobParameters) -> Image.Image:
        """Make an image as any job would.

        Raises:
            JobFailed: it cannot be made.
            BaseException: what is thrown into the coroutine.
        """
        flight = self._flight
        job, steps, done, kept = flight.job, flight.steps, flight.steps_done, flight.kept_bytes
        flight.job, flight.stage = replace(job, parameters=parameters), parameters
        try:
            result = JobGeneration(flight, self._engine, self._pool, self._storage, Unwatched()).run()
        finally:
            flight.job, flight.stage, flight.adapters = job, self._training.sample, AdapterSet()
            flight.steps, flight.steps_done = steps, done
            self._engine.residency.memory.keep(flight, kept)
        if result.error is not None:
            raise JobFailed(result.error.code, f"an image could not be made: {result.error.message}")
        return result.images[0]

    def _class_key(self, number: int) -> str:
        return f"images/{self._flight.job.id}/class/{number}.png"
