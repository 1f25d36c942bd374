"""Events over real connections: replayed, live, once each; clients that reconnect or stall, and many of them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Generator, Iterator
from datetime import datetime
from typing import Any

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.jobs.events import stream_key
from contracts.jobs.failures import FailureCode
from contracts.jobs.records import JobError, Progress
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.settings import SharedSettings
from tests.support.api_process import api_process, has_logged
from tests.support.claims import reports
from tests.support.requests import submit
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until
from tests.support.worker_reports import report_worker

Event = tuple[str, str, dict[str, Any]]


def parse(lines: Iterator[str]) -> Generator[Event, None, None]:
    """Yield id, kind and data of each event."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and "event" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


def follow(client: httpx.Client, id: str, after: str | None = None) -> Generator[Event, None, None]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with client.stream("GET", f"/v1/jobs/{id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from parse(response.iter_lines())


def advance(worker: ScriptedWorker, claim: Any, step: int) -> None:
    worker.claims.advance(reports(claim, progress=Progress(step=step, steps=4, fraction=step / 4)))


def test_events_arrive_live_with_the_jobs_own_estimate_and_the_stream_ends_with_the_job(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    report_worker(queue, "scripted-worker", None)
    with api_process(settings.redis_url, settings.data) as (client, _):
        job = client.post("/v1/txt2img", json={"prompt": "x", "num_inference_steps": 4}).json()
        queue.connection.hset(keys.IMAGE_PACE, queue.fetch(job["id"]).parameters.pace_key, 100.0)
        events = follow(client, job["id"])
        assert f"/v1/jobs/{job['id']}/events?expires=" in job["links"]["events"]

        kinds = [next(events)[1]]
        claim = worker.claim()
        kinds.append(next(events)[1])
        for step in (1, 2):
            advance(worker, claim, step)
            _, kind, data = next(events)
            assert (kind, data["step"]) == ("progress", step)
            shown = client.get(job["links"]["self"]).json()["progress"]
            # What the worker says of its pace does not count, and a forecast may be a second old.
            assert data["eta_seconds"] == pytest.approx(shown["eta_seconds"], abs=130)
            assert (data["eta_seconds"] > 50, len(data["eta_range_seconds"])) == (True, 2)
        worker.complete(claim)

        assert kinds == ["queued", "started"]
        assert [kind for _, kind, _ in events] == ["completed"]


def test_a_client_that_reconnects_gets_every_event_once(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with (
        api_process(settings.redis_url, settings.data) as (api, _),
        api_process(settings.redis_url, settings.data) as (other_api, _),
    ):
        id = api.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        claim = worker.claim()
        seen: list[Event] = []
        for step in range(1, 90):
            advance(worker, claim, step)
            if step % 10 == 0:  # at the other process each time, reading only some of the events
                after = seen[-1][0] if seen else None
                events = follow((api, other_api)[step // 10 % 2], id, after)
                seen += [next(events) for _ in range(7)]
                events.close()
        worker.complete(claim)
        seen += follow(other_api, id, seen[-1][0])

        assert [found[0] for found in seen] == [event.id for event in queue.events(id, "0", 1000)]
        assert seen[-1][1] == "completed"
        assert api.get(f"/v1/jobs/{id}/events", headers={"Last-Event-ID": seen[-1][0]}).status_code == 204


def test_the_events_of_a_finished_job_are_replayed_from_the_first(
    client: TestClient, worker: ScriptedWorker
) -> None:
    id = submit(client)["id"]
    worker.complete(worker.claim())

    response = client.get(f"/v1/jobs/{id}/events")

    assert [kind for _, kind, _ in parse(iter(response.text.splitlines()))] == ["queued", "started", "completed"]
    assert response.headers["Cache-Control"] == "no-store"


def test_events_speak_as_jobs_do_and_the_last_one_holds_the_job(
    client: TestClient, worker: ScriptedWorker
) -> None:
    job = submit(client)
    claim = worker.claim()
    worker.claims.advance(reports(claim, progress=Progress(step=1, steps=4, fraction=0.25, eta_seconds=9.0)))
    worker.complete(claim)

    events = list(parse(iter(client.get(f"/v1/jobs/{job['id']}/events").text.splitlines())))

    shown = [(kind, data["status"]) for _, kind, data in events]
    assert shown == [
        ("queued", "queued"), ("started", "running"), ("progress", "running"), ("completed", "completed")
    ]  # fmt: skip
    times = [datetime.fromisoformat(data["at"]) for _, _, data in events]
    assert times == sorted(times)
    assert abs(times[0] - datetime.fromisoformat(job["created_at"])).total_seconds() < 1
    assert events[1][2]["attempts"] == 1
    assert events[2][2]["eta_seconds"] is None  # nothing is expected of what is over, whatever its worker had said
    assert "state" not in events[-1][2]
    ended = client.get(f"/v1/jobs/{job['id']}").json()
    assert events[-1][2]["job"] == ended
    assert [data.get("job") for _, _, data in events[:-1]] == [None] * 3


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
def test_the_last_event_of_a_job_without_images_holds_it_too(
    client: TestClient, worker: ScriptedWorker, kind: str
) -> None:
    id = submit(client)["id"]
    if kind == "cancelled":
        client.post(f"/v1/jobs/{id}/cancel")
    else:
        worker.claims.fail(worker.claim(), JobError.of(FailureCode.INTERNAL, "broken"))

    _, name, data = list(parse(iter(client.get(f"/v1/jobs/{id}/events").text.splitlines())))[-1]

    assert (name, data["status"], data["job"]) == (kind, kind, client.get(f"/v1/jobs/{id}").json())


def test_the_link_to_events_needs_no_key_and_gives_access_to_nothing_else(
    client: TestClient, worker: ScriptedWorker, api_settings: ApiSettings
) -> None:
    first, second = submit(client), submit(client)
    for _ in range(2):
        worker.complete(worker.claim())
    locked = create_app(api_settings.model_copy(update={"require_keys": True}))
    with TestClient(locked, raise_server_exceptions=False) as stranger:
        path, _, query = first["links"]["events"].partition("?")
        opened = stranger.get(f"{path}?{query}")
        others = [
            stranger.get(path),
            stranger.get(f"/v1/jobs/{second['id']}/events?{query}"),
            stranger.get(f"/v1/jobs/{first['id']}?{query}"),
            stranger.get(f"/v1/jobs/{first['id']}/images/0?{query}"),
            stranger.get(f"{path}?{query}&x=1"),
            stranger.get(f"{path}?{query[:-2]}"),
        ]

    assert (opened.status_code, opened.text.count("event: completed")) == (200, 1)
    assert [other.status_code for other in others] == [401, 403, 401, 403, 403, 403]


def test_an_invalid_last_event_id_is_refused(client: TestClient, subtests: pytest.Subtests) -> None:
    for position in ["x", "1-x", "-1", "1-1-1", "99999999999999999999"]:
        with subtests.test(position=position):
            response = client.get(f"/v1/jobs/{submit(client)['id']}/events", headers={"Last-Event-ID": position})

            assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_an_unknown_jobs_events_are_not_found(client: TestClient) -> None:
    assert client.get("/v1/jobs/unknown/events").status_code == 404


def test_a_stream_without_events_sends_heartbeats(settings: SharedSettings, worker: ScriptedWorker) -> None:
    with api_process(settings.redis_url, settings.data, DARKROOM_API_HEARTBEAT_SECONDS="0.05") as (client, _):
        id = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        with client.stream("GET", f"/v1/jobs/{id}/events") as response:
            lines = response.iter_lines()
            assert [line for _, line in zip(range(40), lines, strict=False)].count(": heartbeat") > 5
            worker.complete(worker.claim())
            assert [kind for _, kind, _ in parse(lines)] == ["started", "completed"]


def test_a_stream_ends_when_its_job_is_deleted_or_the_process_shuts_down(
    settings: SharedSettings, worker: ScriptedWorker
) -> None:
    with api_process(settings.redis_url, settings.data) as (client, process):
        gone, waiting = (client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"] for _ in range(2))
        first, second = follow(client, gone), follow(client, waiting)
        assert [next(first)[1], next(second)[1]] == ["queued", "queued"]
        worker.complete(worker.claim())
        assert client.delete(f"/v1/jobs/{gone}").status_code == 204
        assert {kind for _, kind, _ in first} <= {"started", "completed"}

        process.send_signal(signal.SIGTERM)

        assert list(second) == []
        process.wait(60)


def test_events_continue_after_redis_closes_every_connection(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    with api_process(settings.redis_url, settings.data) as (client, _):
        id = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        events = follow(client, id)
        next(events)
        claim = worker.claim()
        for kind in ("pubsub", "normal"):
            queue.connection.client_kill_filter(_type=kind, skipme=True)
        for step in range(1, 5):
            advance(worker, claim, step)
        worker.complete(claim)

        assert [kind for _, kind, _ in events] == ["started", *["progress"] * 4, "completed"]


def test_a_stalled_client_is_disconnected_and_uses_little_memory(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    environment = {"DARKROOM_API_STALL_SECONDS": "0.5", "DARKROOM_LOG_LEVEL": "info"}
    with api_process(settings.redis_url, settings.data, **environment) as (client, process):

        def resident() -> int:
            return int(psutil.Process(process.pid).memory_info().rss)

        id = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        at_first, claim = resident(), worker.claim()
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=60) as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.sendall(f"GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            for _ in range(900):  # 45 MB in all
                queue.connection.xadd(
                    stream_key(id), {"event": "preview", "data": json.dumps({"url": "x" * 50_000})}
                )
            queue.connection.publish("darkroom:bells", f"{id} preview")
            wait_until(lambda: has_logged(process, b"bytes of its answer"))
            assert resident() - at_first < 256 * 2**20
            worker.complete(claim)
            assert [kind for _, kind, _ in follow(client, id)][-1] == "completed"


def test_a_hundred_streams_share_one_subscription(
    settings: SharedSettings, queue: JobQueue, worker: ScriptedWorker
) -> None:
    count = 100
    with api_process(settings.redis_url, settings.data) as (client, process):
        id = client.post("/v1/txt2img", json={"prompt": "x"}).json()["id"]
        received = asyncio.run(_follow_all(str(client.base_url), id, queue, worker, count))
        assert psutil.Process(process.pid).num_threads() < 60

    assert received == [["queued", "started", "progress", "progress", "completed"]] * count


async def _follow_all(url: str, id: str, queue: JobQueue, worker: ScriptedWorker, count: int) -> list[list[str]]:
    ready = asyncio.Semaphore(0)

    async def read(client: httpx.AsyncClient) -> list[str]:
        kinds: list[str] = []
        async with client.stream("GET", f"/v1/jobs/{id}/events") as response:
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    kinds.append(line.removeprefix("event: "))
                    if len(kinds) == 1:
                        ready.release()
        return kinds

    def work() -> None:
        claim = worker.claim()
        for step in (1, 2):
            advance(worker, claim, step)
        assert len(queue.connection.client_list(_type="pubsub")) == 1
        assert len(queue.connection.client_list()) < 60
        worker.complete(claim)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=90, trust_env=False, limits=limits) as client:
        readers = [asyncio.create_task(read(client)) for _ in range(count)]
        for _ in range(count):
            await ready.acquire()
        await asyncio.to_thread(work)
        return list(await asyncio.gather(*readers))
