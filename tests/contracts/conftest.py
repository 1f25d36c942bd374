"""Workers' sides of the queue, on the test's own Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.leases.claims import Claims
from contracts.queue.client import JobQueue
from contracts.settings import QueueSettings
from contracts.storage import Storage
from contracts.storage.bucket import BucketStorage
from contracts.storage.local import LocalStorage
from tests.support.claims import MakeClaims


@pytest.fixture
def make_claims(queue: JobQueue) -> MakeClaims:
    """Makes the claims of a worker; keywords are queue settings."""

    def make(worker: str = "first", **settings: float) -> Claims:
        return Claims(queue.connection, QueueSettings(**settings), worker, ttl_seconds=3600)  # type: ignore[arg-type]

    return make


@pytest.fixture
def bucket(s3_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketStorage:
    """A bucket, empty below a prefix."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return BucketStorage(f"s3://darkroom/{tmp_path.name}")


@pytest.fixture(params=["local", "bucket"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage, empty."""
    if request.param == "local":
        return LocalStorage(tmp_path / "local")
    storage: BucketStorage = request.getfixturevalue("bucket")
    return storage
