"""The events of a job on a real worker, read while it runs."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

from PIL import Image

from tests.support.running_service import RunningService


def read_events(service: RunningService, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Kind and data of each event, until the stream ends."""
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        text = stream.read().decode()
    events = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if "id: " in block
    ]
    return [(event["event"], json.loads(event["data"])) for event in events]


def test_a_job_reports_its_steps_and_small_jpeg_previews(service: RunningService) -> None:
    job = service.submit("txt2img", num_inference_steps=6, previews=2)

    events = read_events(service, job["id"])

    kinds = [kind for kind, _ in events]
    assert kinds[:2] == ["queued", "started"]
    assert kinds[-1] == "completed"
    assert set(kinds[2:-1]) == {"progress", "preview"}
    steps = [data["step"] for kind, data in events if kind == "progress"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 6
    previews = [data for kind, data in events if kind == "preview"]
    assert len(previews) == 2
    for preview in previews:
        head, _, encoded = preview["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        assert len(encoded) < 16_384
        shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert shown.format == "JPEG"
        assert shown.size == (preview["width"], preview["height"])
