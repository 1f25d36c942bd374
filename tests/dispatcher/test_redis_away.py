"""A Redis that is killed and restarted: the dispatcher waits and loses no message."""

from __future__ import annotations

import time
from pathlib import Path

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from cli.supervisor.redis_server import RedisServer
from contracts.settings import OutboundSettings, SharedSettings
from tests.support.dispatcher_process import dispatcher_process
from tests.support.receiver import Receiver, Reply
from tests.support.waiting import wait_until


def test_a_dispatcher_survives_a_restart_of_redis(tmp_path: Path, receiver: Receiver) -> None:
    server = RedisServer(tmp_path / "redis", fsync="always")
    server.start()
    shared = SharedSettings(redis_url=server.url, data=tmp_path)
    outbound = OutboundSettings.model_validate({"networks": ["127.0.0.0/8"]})
    receiver.plans["/hook"] = [Reply(waits=True), Reply()]
    body = {"prompt": "x", "webhook": {"url": f"{receiver.url}/hook", "events": ["queued"]}}
    try:
        with (
            TestClient(create_app(ApiSettings(shared=shared, outbound=outbound))) as client,
            dispatcher_process(server.url) as process,
        ):
            first = client.post("/v1/txt2img", json=body).json()["id"]
            receiver.wait_for("/hook")
            assert server.process is not None
            server.process.kill()
            server.process.wait()
            receiver.released.set()  # the receiver answers while the result cannot be stored
            time.sleep(1)
            server.start()
            second = client.post("/v1/txt2img", json=body).json()["id"]

            def are_delivered() -> bool:
                jobs = (client.get(f"/v1/jobs/{id}").json() for id in (first, second))
                return all(job["webhook"]["deliveries"][0]["status"] == "delivered" for job in jobs)

            wait_until(are_delivered)
            assert process.poll() is None
            assert len(receiver.received) == 2
    finally:
        server.stop()
