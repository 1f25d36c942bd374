"""The log of a running service: it shows a request to the end of its job, but no prompts, keys or images."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import Any

from tests.support.images import draw_shape, to_base64
from tests.support.running_service import RunningService

Line = dict[str, Any]


def lines_of(service: RunningService) -> list[Line]:
    """Parse the log of all processes; every line must be JSON."""
    return [json.loads(line) for line in service.log.read_text(encoding="utf-8").splitlines()]


def lines_about(service: RunningService, request_id: str, last: str) -> list[Line]:
    """The lines of a request, once the last one is written."""
    deadline = time.monotonic() + 60
    while True:
        found = [line for line in lines_of(service) if line.get("request_id") == request_id]
        if any(line["message"] == last for line in found) and any(
            line["logger"] == "app.middleware.access_log" for line in found
        ):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_request_is_followed_from_its_route_to_the_end_of_its_job(service: RunningService) -> None:
    request_id = f"test-{secrets.token_hex(8)}"
    body = {"prompt": "a red circle", "num_inference_steps": 2}
    job = service.http.post("/v1/txt2img", json=body, headers={"X-Request-ID": request_id}).json()
    service.wait(job["id"])

    found = {line["message"]: line for line in lines_about(service, request_id, "job completed")}

    assert found.keys() == {"job accepted", "POST /v1/txt2img 202", "job started", "job completed"}
    for message in ("job accepted", "job started", "job completed"):
        assert found[message]["job_id"] == job["id"]
    assert found["job accepted"]["logger"].startswith("app.")
    assert found["job completed"]["logger"].startswith("worker.")
    assert found["job completed"]["timings"]["denoise"] > 0
    assert {"time", "level", "seconds", "status", "route"} <= found["POST /v1/txt2img 202"].keys()


def test_neither_prompts_nor_keys_nor_images_are_in_the_log(service: RunningService) -> None:
    word, secret = f"zebra{secrets.token_hex(8)}", secrets.token_urlsafe(32)
    # More tokens than the text encoders take: the libraries would log the part that they cut off.
    prompt = f"{word} a red circle on a blue background, " * 12
    request_id = f"test-{secrets.token_hex(8)}"
    image = to_base64(draw_shape())
    fields = {"prompt": prompt, "negative_prompt": f"no {word}", "num_inference_steps": 2}
    job = service.http.post(
        "/v1/img2img",
        json={**fields, "image": f"data:image/png;base64,{image}"},
        headers={"X-Request-ID": request_id},
    ).json()
    service.wait(job["id"])
    for model in ("shapes-sd3", "shapes-flux"):  # with T5, which has a limit and a message of its own
        long = {"prompt": f"a red circle {word} " * 40, "num_inference_steps": 1, "model": model}
        service.wait(service.http.post("/v1/txt2img", json=long).json()["id"])
    for headers in ({"Authorization": f"Bearer dk_0123456789ab_{secret}"}, {"Authorization": f"Basic {secret}"}):
        service.http.get("/v1/jobs", headers=headers)
    service.http.post("/v1/img2img", json={**fields, "image": image[:-40], "steps": word})
    service.http.get("/v1/jobs", params={"metadata.word": word, "signature": secret})
    service.bytes_of(service.fetch(job["id"]))
    lines_about(service, request_id, "job completed")

    log = service.log.read_text(encoding="utf-8")

    assert job["id"] in log
    assert word not in log
    assert secret not in log
    assert image[:64] not in log
    assert base64.b64encode(service.bytes_of(service.fetch(job["id"])))[:64].decode() not in log
