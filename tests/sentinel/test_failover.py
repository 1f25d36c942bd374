"""The primary dies, or is cut off for a while, under load: no accepted job is lost or doubled, and all goes on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.supervisor.redis_server import find_server
from contracts.redis import keys
from contracts.redis.connection import connect
from tests.sentinel.load import Clients
from tests.support.redis_group import Certificates, RedisGroup, wait_until
from tests.support.running_service import RunningService

ENDS = {"completed", "failed", "cancelled"}
BINARIES = [Path(path) for path in os.environ.get("DARKROOM_SENTINEL_SERVERS", "").split(os.pathsep) if path]


@pytest.fixture(scope="module", params=BINARIES or [find_server()], ids=lambda path: path.parent.name)
def group(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisGroup]:
    """One primary, two replicas and three Sentinels; over TLS, where the binary can."""
    folder = tmp_path_factory.mktemp("group")
    certificates = Certificates(folder / "certificates") if _speaks_tls(request.param) else None
    # A primary that is cut off takes no writes which would be lost; scripts obey from Redis 7 on.
    settings = ("min-replicas-to-write 1", "min-replicas-max-lag 2")
    group = RedisGroup(
        folder, binary=request.param, replicas=2, sentinels=3, certificates=certificates, settings=settings
    )
    try:
        group.start()
        yield group
    finally:
        group.close()


@pytest.fixture(scope="module")
def service(group: RedisGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    environment = {
        "DARKROOM_REDIS_URL": group.url,
        "DARKROOM_REDIS_WAIT_REPLICAS": "1",
        "DARKROOM_QUEUE_LEASE_SECONDS": "5",
    }
    running = RunningService(tmp_path_factory.mktemp("service") / "data", environment=environment)
    yield running
    assert running.stop() == 0, running.log.read_text(errors="replace")[-3000:]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "cut off"])
def test_a_primary_that_fails_loses_and_doubles_no_accepted_job(
    fault: signal.Signals, group: RedisGroup, service: RunningService
) -> None:
    failing, earlier = group.primary(), ends_of_jobs(group)
    with Clients(service.url, threads=3) as clients:
        clients.wait_for_more(20)
        failing.signal(fault)
        wait_until(lambda: group.primary() is not failing, "the Sentinels promote a replica")
        clients.wait_for_more(20)
        if fault == signal.SIGKILL:
            failing.start()
        else:
            failing.signal(signal.SIGCONT)
        wait_until(lambda: group.replica_count(group.primary()) == 2, "the old primary comes back as a replica")
        clients.wait_for_more(20)
    assert clients.failures == []
    print(f"\n{len(clients.accepted)} jobs accepted; sent again: {dict(clients.refusals)}")
    jobs = [service.wait(id) for id in clients.accepted.values()]
    failures = [job["error"] for job in jobs if job["status"] != "completed"]
    assert failures == []
    later = {id: ends for id, ends in ends_of_jobs(group).items() if id not in earlier}
    assert later == {job["id"]: ["completed"] for job in jobs}
    waited = service.http.post("/v1/txt2img", json={"prompt": "a red circle"}, headers={"prefer": "wait=30"})
    assert waited.status_code == 200, "nobody tells the API that a job has ended"


def ends_of_jobs(group: RedisGroup) -> dict[str, list[str]]:
    """Every job that Redis knows, and the events by which it ended."""
    with connect(group.url, timeout_seconds=5, retries=1) as redis:
        ids = [key.removeprefix(keys.JOB) for key in redis.scan_iter(keys.JOB + "*")]
        kinds = {id: [fields["event"] for _, fields in redis.xrange(keys.EVENTS + id)] for id in ids}
    return {id: [kind for kind in found if kind in ENDS] for id, found in kinds.items()}


def _speaks_tls(binary: Path) -> bool:
    """Whether the binary was built with TLS: then it looks for the certificate that it is told to use."""
    command = [str(binary), "--port", "0", "--tls-port", "1", "--tls-cert-file", "/missing"]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return "Failed to configure TLS" in tried.stdout + tried.stderr
