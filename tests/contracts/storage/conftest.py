"""Storages to test: a local folder, and a prefix of a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.storage import Storage
from contracts.storage.bucket import BucketStorage
from contracts.storage.local import LocalStorage


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
