"""What every test may ask for: a real Redis of its own, settings that point at it, a queue, a storage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cli.supervisor.redis_server import RedisServer
from contracts.queue.client import JobQueue
from contracts.settings import SharedSettings
from contracts.storage import Storage, open_storage
from tests.support.object_store import serve_bucket
from tests.support.scripted_worker import ScriptedWorker

# Two runs of one matrix product may differ in the last bit otherwise; the worker's start sets it too.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One redis-server for the whole run."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis."""
    with Redis.from_url(redis_server.url) as connection:
        connection.flushall()
    return redis_server.url


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> SharedSettings:
    """Shared settings with an empty Redis and an empty storage."""
    return SharedSettings(redis_url=redis_url, data=tmp_path)


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One S3 server for the whole run: what its clients have in their environment."""
    with serve_bucket(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def queue(settings: SharedSettings) -> Iterator[JobQueue]:
    """The clients' side of the queue."""
    queue = JobQueue(settings)
    yield queue
    queue.close()


@pytest.fixture
def storage(settings: SharedSettings) -> Storage:
    """An empty storage."""
    return open_storage(settings)


@pytest.fixture
def worker(queue: JobQueue, storage: Storage) -> ScriptedWorker:
    """A worker that completes jobs without generating an image."""
    return ScriptedWorker(queue, storage)
