"""Without tracing, a client's trace is still followed: in the log, in the job's answer, and in its record."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from contracts.logs import JsonLines
from contracts.queue.client import JobQueue

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged meanwhile, as JSON."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    handler.setFormatter(JsonLines(prompts=False))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


def test_the_clients_trace_is_in_the_log_the_answer_and_the_record(
    client: TestClient, queue: JobQueue, log: io.StringIO
) -> None:
    headers = {"traceparent": SENT, "tracestate": "vendor=1"}
    job = client.post("/v1/txt2img", json={"prompt": "a red circle"}, headers=headers).json()
    assert job["trace_id"] == TRACE
    record = queue.fetch(job["id"])
    assert (record.traceparent, record.tracestate) == (SENT, "vendor=1")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {line["trace_id"] for line in lines if line.get("request_id")} == {TRACE}

    other = client.post("/v1/txt2img", json={"prompt": "a red circle"}).json()
    assert "trace_id" not in other
    assert queue.fetch(other["id"]).trace_context is None
