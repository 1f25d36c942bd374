"""Whether keys are required, with a storage that fails."""

from __future__ import annotations

import shutil

import pytest

from contracts.auth.api_keys import ApiKeyStore
from contracts.auth.key_requirement import MARK, KeyRequirement
from contracts.errors import Unavailable
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage


@pytest.fixture
def keys(queue: JobQueue) -> ApiKeyStore:
    """The keys of an empty Redis."""
    return ApiKeyStore(queue.connection)


def _break(settings: SharedSettings) -> None:
    """Put a file where the storage has its folder."""
    folder = settings.data / "storage"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("")


def test_a_storage_that_cannot_be_read_at_the_start_leaves_a_service_closed(
    settings: SharedSettings, storage: Storage, keys: ApiKeyStore
) -> None:
    _break(settings)
    with pytest.raises(Unavailable):
        KeyRequirement(keys, storage).read()


def test_an_open_service_stays_open_while_its_storage_fails(
    settings: SharedSettings, storage: Storage, keys: ApiKeyStore
) -> None:
    requirement = KeyRequirement(keys, storage)
    assert not requirement.read()
    _break(settings)
    assert not requirement.read()


def test_a_mark_that_cannot_be_written_is_written_later(
    settings: SharedSettings, storage: Storage, keys: ApiKeyStore, queue: JobQueue
) -> None:
    requirement = KeyRequirement(keys, storage)
    keys.create("a")
    _break(settings)
    assert requirement.read()
    (settings.data / "storage").unlink()
    requirement.refresh()
    assert storage.exists(MARK)
    queue.connection.flushall()
    assert requirement.read()
    assert KeyRequirement(keys, storage).read()
