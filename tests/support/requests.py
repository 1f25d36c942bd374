"""A valid body for each task, and submitting one to the API."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient

from tests.support.images import data_url, encode_solid

IMAGE = data_url(encode_solid("RGB", (64, 64), "red"))
MASK = data_url(encode_solid("L", (64, 64), 255))
CONTROL = {"controlnet": "shapes-sdxl-silhouette", "image": IMAGE}

BODIES: dict[str, dict[str, Any]] = {
    "txt2img": {"prompt": "a red circle"},
    "img2img": {"prompt": "a red circle", "image": IMAGE},
    "inpaint": {"prompt": "a red circle", "image": IMAGE, "mask_image": MASK},
    "controlnet": {"prompt": "a red circle", "controls": [CONTROL]},
}


def submit(client: TestClient, task: str = "txt2img", **changes: Any) -> dict[str, Any]:
    """Submit a job of the task; fields replace those of its body. Returns the accepted job."""
    response = client.post(f"/v1/{task}", json=BODIES[task] | changes)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    return job
