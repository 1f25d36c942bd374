"""Work on batches goes on after a crash: no line is lost, and none is run twice."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import ApiSettings
from contracts.leases.criteria import ClaimCriteria
from contracts.queue.client import JobQueue
from contracts.redis import keys
from contracts.settings import SharedSettings
from tests.support.api_process import api_process
from tests.support.scripted_worker import ScriptedWorker
from tests.support.waiting import wait_until

LINES = 36


def requests() -> bytes:
    body = {"prompt": "a star", "response_format": "url"}
    lines = (
        {"custom_id": str(number), "method": "POST", "url": "/v1/images/generations", "body": body}
        for number in range(LINES)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def count_jobs(queue: JobQueue) -> int:
    return int(str(queue.connection.zcard(keys.ALL_JOBS)))


def test_a_batch_goes_on_in_another_process_after_a_kill(
    settings: SharedSettings, tmp_path: Path, queue: JobQueue, worker: ScriptedWorker
) -> None:
    lease = {"DARKROOM_API_IDEMPOTENCY_LEASE_SECONDS": "1"}
    with api_process(settings.redis_url, settings.data, **lease) as (http, process):
        form = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("r.jsonl", requests())})
        file = form.json()["id"]
        body = {"input_file_id": file, "endpoint": "/v1/images/generations", "completion_window": "24h"}
        batch = http.post("/v1/batches", json=body).json()["id"]
        wait_until(lambda: count_jobs(queue) >= 3)
        process.kill()
        process.communicate()
    queue.connection.zadd(keys.BATCHES, {batch: 0})  # its lease ends

    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            claim = worker.claims.claim(ClaimCriteria())
            if claim is None:
                time.sleep(0.05)
            else:
                worker.complete(claim)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        with TestClient(create_app(ApiSettings(shared=settings))) as client:
            wait_until(lambda: queue.connection.hget(keys.BATCH + batch, "status") == "completed", 200)
            view = client.get(f"/v1/batches/{batch}").json()
            text = client.get(f"/v1/files/{view['output_file_id']}/content").text
    finally:
        is_over.set()
        thread.join(60)

    assert view["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    found = [json.loads(line)["custom_id"] for line in text.splitlines()]
    assert sorted(found) == sorted(map(str, range(LINES)))
    assert count_jobs(queue) == LINES
    left = [keys.BATCH_LINES + batch, keys.BATCH_PARTS + batch, keys.BATCHES]
    assert [key for key in left if queue.connection.exists(key)] == []
