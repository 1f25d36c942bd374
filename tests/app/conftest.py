"""The API on a real Redis and real files, and a worker's hands to finish its jobs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.queue.client import JobQueue
from contracts.queue.leases import Claim, ClaimCriteria, Claims
from contracts.queue.records import ImageRecord, Receipt, Weights
from contracts.settings import QueueSettings, SharedSettings
from contracts.storage import Storage
from contracts.uploads.retention import Retention
from tests.support.drawings import encode


@pytest.fixture
def api_settings(settings: SharedSettings) -> ApiSettings:
    """The API's settings on the test's own Redis and folder."""
    return ApiSettings(shared=settings)


@pytest.fixture
def client(api_settings: ApiSettings) -> Iterator[TestClient]:
    """A client of a running API; an unhandled error is an answer, not an exception."""
    with TestClient(create_app(api_settings), raise_server_exceptions=False) as client:
        yield client


class Hands:
    """What a worker does to a job, through the real scripts, without making an image of its own."""

    def __init__(self, queue: JobQueue, storage: Storage) -> None:
        self.claims = Claims(queue.connection, QueueSettings(), "worker-of-the-test", ttl_seconds=3600)
        self._storage = storage

    def claim(self) -> Claim:
        """Take the next job."""
        (claim,) = self.claims.claim(ClaimCriteria())
        return claim

    def claim_next(self) -> Claim:
        """Wait for a job, and take it."""
        while not (claims := self.claims.claim(ClaimCriteria())):
            time.sleep(0.01)
        return claims[0]

    def complete(self, claim: Claim, denoise_seconds: float = 1.0) -> bytes:
        """End the job with one picture for each that was asked for; returns its bytes."""
        parameters = claim.job.parameters
        data = encode("RGB", (parameters.width, parameters.height), "red")
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
        assert self.claims.complete(claim, images, receipt)
        return data


@pytest.fixture
def retention(queue: JobQueue, storage: Storage, settings: SharedSettings) -> Retention:
    """What holds inputs and sweeps."""
    return Retention(queue.connection, storage, settings.gone_seconds)


@pytest.fixture
def hands(queue: JobQueue, storage: Storage) -> Hands:
    """A worker's hands."""
    return Hands(queue, storage)
