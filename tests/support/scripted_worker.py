"""A worker for tests that need finished jobs and no images worth looking at. It knows nothing of models."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.jobs.receipt import Receipt, Weights
from contracts.jobs.records import ImageRecord, JobRecord, Measured
from contracts.leases.claim import Claim
from contracts.leases.claims import Claims
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.settings import QueueSettings
from contracts.storage import Storage
from tests.support.claims import take
from tests.support.images import encode_solid


class ScriptedWorker:
    """A worker that claims and completes jobs through the real scripts, with images of one colour.

    Attributes:
        claims: the worker's side of the queue.
    """

    def __init__(self, queue: JobQueue, storage: Storage) -> None:
        self.claims = Claims(queue.connection, QueueSettings(), "scripted-worker", ttl_seconds=3600)
        self._storage = storage

    def claim(self) -> Claim:
        """Claim the next job, which must be waiting."""
        return take(self.claims)

    def claim_next(self) -> Claim:
        """Wait for a job and claim it."""
        while (claim := self.claims.claim(ClaimCriteria())) is None:
            time.sleep(0.01)
        return claim

    @contextmanager
    def completing_next(self) -> Iterator[list[JobRecord]]:
        """Complete the next job as soon as it is queued; the job is in the list when the block ends."""
        found: list[JobRecord] = []

        def work() -> None:
            claim = self.claim_next()
            self.complete(claim)
            found.append(claim.job)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield found
        thread.join(60)

    def complete(self, claim: Claim, denoise_seconds: float = 1.0) -> bytes:
        """Complete the job with one red image a seed; returns the file's bytes."""
        parameters = claim.job.parameters
        data = encode_solid("RGB", (parameters.width, parameters.height), "red")
        images = []
        for number, seed in enumerate(parameters.seeds):
            key = f"images/{claim.job.id}/{claim.execution}/{number}.png"
            self._storage.write(key, data)
            image = ImageRecord(
                key=key,
                width=parameters.width,
                height=parameters.height,
                seed=seed,
                format=parameters.output_format,
                sha256=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
            )
            images.append(image)
        receipt = Receipt(
            parameters=parameters,
            seeds=parameters.seeds,
            model=Weights(id=parameters.model, sha256="0" * 64),
            timings={"denoise": denoise_seconds},
        )
        assert self.claims.complete(claim, images, receipt, measured=Measured(denoise_seconds))
        return data
