"""Fixtures: the API on a real Redis and real files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import main
from app.inputs.decoder import ImageDecoder
from app.main import create_app
from app.services import open_decoder
from app.settings import ApiSettings
from contracts.catalogue.catalogue import Catalogue
from contracts.queue.client import JobQueue
from contracts.requests.model_defaults import read_checked_catalogue
from contracts.settings import BUILT_IN_CATALOGUE, SharedSettings
from contracts.storage import Storage
from contracts.uploads.retention import Retention


@pytest.fixture(scope="session", autouse=True)
def built_in_catalogue_checked_once() -> Iterator[None]:
    """Each of the thousand applications that tests start would read all rows, and files of checkpoints, again."""
    built_in = cache(lambda: read_checked_catalogue(BUILT_IN_CATALOGUE))

    def read(path: Path) -> Catalogue:
        return built_in() if path == BUILT_IN_CATALOGUE else read_checked_catalogue(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "read_checked_catalogue", read)
        yield


@pytest.fixture(scope="session")
def usual_settings() -> ApiSettings:
    """The API's settings; calls are not counted, which would leave a key in Redis."""
    return ApiSettings(anonymous_calls_per_minute=0)


@pytest.fixture
def api_settings(usual_settings: ApiSettings, settings: SharedSettings) -> ApiSettings:
    """The API's settings on the test's own Redis and folder."""
    return usual_settings.model_copy(update={"shared": settings})


def _of_decoder(settings: ApiSettings) -> dict[str, object]:
    """The settings of the decoder of images."""
    return {name: value for name, value in settings if name.startswith(("max_image", "max_decoded", "decoder_"))}


@pytest.fixture(scope="session")
def usual_decoder(usual_settings: ApiSettings) -> Iterator[ImageDecoder]:
    """One decoder for all tests of a process: each of its processes takes a quarter of a second to start."""
    decoder = open_decoder(usual_settings)
    yield decoder
    decoder.close()


@pytest.fixture
def shared_decoder(
    api_settings: ApiSettings, usual_settings: ApiSettings, usual_decoder: ImageDecoder
) -> ImageDecoder | None:
    """The decoder that tests share; None where this test's API has other limits on images."""
    return usual_decoder if _of_decoder(api_settings) == _of_decoder(usual_settings) else None


@pytest.fixture
def client(api_settings: ApiSettings, shared_decoder: ImageDecoder | None) -> Iterator[TestClient]:
    """A client of a running API; an unhandled error is a response, not an exception."""
    app = create_app(api_settings, decoder=shared_decoder)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def retention(queue: JobQueue, storage: Storage, settings: SharedSettings) -> Retention:
    """Retention of inputs and images; a test calls `sweep` itself."""
    return Retention(queue.connection, storage, settings.gone_seconds)
