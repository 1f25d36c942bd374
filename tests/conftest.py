"""Which process runs which tests, and fixtures: an empty Redis, settings that point at it, a queue, a worker."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from redis import Redis
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from cli.supervisor.redis_server import RedisServer
from contracts.queue.client import JobQueue
from contracts.redis.connection import connect
from contracts.settings import SharedSettings
from contracts.storage import Storage, open_storage
from tests.support.combinations import ALL
from tests.support.forked_programs import copy_process
from tests.support.forked_workers import end_server, start_server
from tests.support.object_store import serve_bucket
from tests.support.scripted_worker import ScriptedWorker

# Two runs of one matrix product may differ in the last bit otherwise; the worker's start sets it too.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whether there is a GPU is asked while modules are imported: CUDA itself could not be used in a fork afterwards.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
# How starlette's TestClient addresses the service, which without API keys serves known hosts only.
os.environ.setdefault("DARKROOM_API_ALLOWED_HOSTS", '["testserver"]')


TESTS = Path(__file__).parent
#: What `make gpu-check` and `bench.gpu` do without a card: seconds each, in `make judge`.
collect_ignore = [] if ALL else ["test_gpu_check.py", "bench/test_gpu.py"]
#: Folders whose tests mostly wait for other processes, and those whose tests mostly compute; the longest first.
WAITING = (
    "tests/chaos/",
    "tests/end_to_end/",
    "tests/dispatcher/",
    "tests/cli/",
    "tests/app/",
    "tests/contracts/queue/",
)
COMPUTING = (
    "tests/test_gpu_check.py",
    "tests/bench/",
    "tests/contracts/memory/",
    "tests/worker/",
    "tests/models/",
    "tests/contracts/",
    "tests/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for pytest-xdist, which hands them out in turn; tests keep their order within a file.

    Files that wait and files that compute alternate, so that two processes rarely wait at the same time.
    """
    found = dict.fromkeys(map(_file_of, items))
    order: dict[str, tuple[float, int]] = {}
    for group in (WAITING, COMPUTING):
        files = dict.fromkeys(
            file for folder in group for file in found if file.startswith(folder) and file not in order
        )
        order |= {file: (number / len(files), len(order)) for number, file in enumerate(files)}
    items.sort(key=lambda item: order[_file_of(item)])


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before pytest-xdist starts its processes: have them forked from one that has imported the tests."""
    config = session.config
    if config.getoption("tx", None):
        server, process = start_server(config.args)
        config.option.tx = [process] * len(config.option.tx)
        config.add_cleanup(lambda: end_server(server))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without collecting garbage: nothing that is imported is any."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Leave the imported modules out of garbage collections, as a worker does: each would walk through them.

    Then copy this process, for programs that are forked from it; these collect as often as Python does. The tests
    need not: of those of an API it took a twentieth of the processor time.
    """
    gc.collect()
    gc.freeze()
    copy_process()
    gc.set_threshold(10_000)


#: Files of end-to-end tests that do not use the shared service.
OWN_SERVICE = tuple(f"tests/end_to_end/test_{name}.py" for name in ("bucket", "fuzzing"))


class OneService(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out whole files, and those that share a service to the same process, so that it is started once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "service" if file.startswith("tests/end_to_end/") and file not in OWN_SERVICE else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneService | None:
    """The scheduler for `--dist loadfile`; None leaves the others to pytest-xdist."""
    return OneService(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One redis-server for each process of the run."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def small_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of the test's own, with room for a few jobs."""
    server = RedisServer(tmp_path / "redis", memory_bytes=4 * 2**20)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_of_all_tests(redis_server: RedisServer) -> Iterator[Redis]:
    """One connection for what each test does before it: a new one takes longer than that."""
    with connect(redis_server.url, timeout_seconds=60, retries=1) as connection:
        yield connection


@pytest.fixture
def redis_url(redis_server: RedisServer, redis_of_all_tests: Redis) -> str:
    """The URL of an empty Redis."""
    redis_of_all_tests.flushall()
    return redis_server.url


@pytest.fixture
def protected_redis_url(redis_url: str) -> Iterator[str]:
    """The URL, without the password, of an empty Redis that demands one."""
    with Redis.from_url(redis_url) as connection:
        connection.config_set("requirepass", "the-right-password")
        yield redis_url
        connection.config_set("requirepass", "")


@pytest.fixture(scope="session")
def default_settings() -> SharedSettings:
    """Shared settings, read once."""
    return SharedSettings()


@pytest.fixture
def settings(default_settings: SharedSettings, redis_url: str, tmp_path: Path) -> SharedSettings:
    """Shared settings with an empty Redis and an empty storage."""
    return default_settings.model_copy(update={"redis_url": redis_url, "data": tmp_path})


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One S3 server for each process of the run; returns its clients' environment variables."""
    with serve_bucket(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def queue(settings: SharedSettings) -> Iterator[JobQueue]:
    """The clients' side of the queue."""
    queue = JobQueue(settings)
    yield queue
    queue.close()


@pytest.fixture
def rq_connection(redis_url: str) -> Redis:
    """A connection as RQ expects it: responses are bytes."""
    return connect(redis_url, timeout_seconds=5, retries=1, decode=False)


@pytest.fixture
def storage(settings: SharedSettings) -> Storage:
    """An empty storage."""
    return open_storage(settings)


@pytest.fixture
def worker(queue: JobQueue, storage: Storage) -> ScriptedWorker:
    """A worker that completes jobs without generating an image."""
    return ScriptedWorker(queue, storage)
