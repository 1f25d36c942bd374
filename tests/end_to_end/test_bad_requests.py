"""Bad requests: status, code and field of each response; nothing is queued or stored."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.images import draw_shape, encode_image, left_half_mask, to_data_url
from tests.support.running_service import RunningService

IMAGE = to_data_url(draw_shape())
MASK = to_data_url(left_half_mask())
CONTROL = {"controlnet": "shapes-sdxl-silhouette", "image": IMAGE}


def bomb() -> bytes:
    """A PNG of a few bytes whose header promises 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    )


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


INVALID = (422, "invalid_request")
#: task, fields beside the prompt, status and code, field
BAD: list[tuple[str, dict[str, Any], tuple[int, str], str]] = [
    # shapes and ranges
    ("txt2img", {"prompt": None}, INVALID, "prompt"),
    ("txt2img", {"prompt": ""}, INVALID, "prompt"),
    ("txt2img", {"prompt": "x" * 10_001}, INVALID, "prompt"),
    ("txt2img", {"steps": 20}, INVALID, "steps"),
    ("txt2img", {"width": "64"}, INVALID, "width"),
    ("txt2img", {"width": 32}, INVALID, "width"),
    ("txt2img", {"height": 4096}, INVALID, "height"),
    ("txt2img", {"num_images": 0}, INVALID, "num_images"),
    ("txt2img", {"num_images": 9}, INVALID, "num_images"),
    ("txt2img", {"num_inference_steps": 0}, INVALID, "num_inference_steps"),
    ("txt2img", {"num_inference_steps": 201}, INVALID, "num_inference_steps"),
    ("txt2img", {"guidance_scale": -0.5}, INVALID, "guidance_scale"),
    ("txt2img", {"seed": -2}, INVALID, "seed"),
    ("txt2img", {"seed": 2**32 + 7}, INVALID, "seed"),
    ("txt2img", {"seed": 1.5}, INVALID, "seed"),
    ("txt2img", {"output_format": "gif"}, INVALID, "output_format"),
    ("txt2img", {"output_quality": 101}, INVALID, "output_quality"),
    ("txt2img", {"response_format": "file"}, INVALID, "response_format"),
    ("txt2img", {"priority": "urgent"}, INVALID, "priority"),
    ("txt2img", {"deadline_seconds": 0}, INVALID, "deadline_seconds"),
    ("txt2img", {"metadata": {"big": "x" * 3000}}, INVALID, "metadata"),
    ("txt2img", {"batchable": "yes"}, INVALID, "batchable"),
    # what model, family and task allow
    ("txt2img", {"model": "nothing"}, INVALID, "model"),
    ("txt2img", {"width": 68}, INVALID, "width"),
    ("txt2img", {"model": "shapes-flux", "width": 72}, INVALID, "width"),
    ("txt2img", {"model": "shapes-sd3", "height": 72}, INVALID, "height"),
    ("txt2img", {"width": 512, "height": 512}, INVALID, "width"),
    ("txt2img", {"image": IMAGE}, INVALID, "image"),
    ("txt2img", {"strength": 0.5}, INVALID, "strength"),
    ("txt2img", {"prompt_3": "x"}, INVALID, "prompt_3"),
    ("txt2img", {"true_cfg_scale": 2.0}, INVALID, "true_cfg_scale"),
    ("txt2img", {"model": "shapes-flux", "clip_skip": 1}, INVALID, "clip_skip"),
    ("txt2img", {"model": "shapes-flux", "negative_prompt": "blue"}, INVALID, "negative_prompt"),
    ("txt2img", {"model": "shapes-sd3", "guidance_rescale": 0.1}, INVALID, "guidance_rescale"),
    ("txt2img", {"scheduler": "nothing"}, INVALID, "scheduler"),
    ("txt2img", {"scheduler": "flow_euler"}, INVALID, "scheduler"),
    ("txt2img", {"model": "shapes-flux", "scheduler": "ddim"}, INVALID, "scheduler"),
    ("txt2img", {"loras": [{"name": "nothing"}]}, INVALID, "loras.0.name"),
    ("txt2img", {"loras": [{"name": "nothing", "scale": 9}]}, INVALID, "loras.0.scale"),
    ("txt2img", {"model": "shapes-flux", "loras": [{"name": "shapes-sdxl-tint"}]}, INVALID, "loras.0.name"),
    ("txt2img", {"loras": [{"name": "shapes-sdxl-tint"}] * 2}, INVALID, "loras.1.name"),
    ("img2img", {}, INVALID, "image"),
    ("img2img", {"image": IMAGE, "strength": 0}, INVALID, "strength"),
    ("img2img", {"image": IMAGE, "strength": 0.01}, INVALID, "strength"),
    ("img2img", {"image": IMAGE, "mask_image": MASK}, INVALID, "mask_image"),
    ("inpaint", {"image": IMAGE}, INVALID, "mask_image"),
    ("inpaint", {"image": IMAGE, "mask_image": to_data_url(left_half_mask(72))}, INVALID, "mask_image"),
    ("inpaint", {"image": IMAGE, "mask_image": MASK, "mask_blur": 65}, INVALID, "mask_blur"),
    ("controlnet", {"controls": []}, INVALID, "controls"),
    ("controlnet", {"controls": [CONTROL] * 5}, INVALID, "controls"),
    ("controlnet", {"controls": [{"controlnet": "nothing", "image": IMAGE}]}, INVALID, "controls.0.controlnet"),
    ("controlnet", {"controls": [{"controlnet": "shapes-sdxl-silhouette"}]}, INVALID, "controls.0.image"),
    ("controlnet", {"controls": [CONTROL | {"conditioning_scale": 3}]}, INVALID, "controls.0.conditioning_scale"),
    ("controlnet", {"controls": [CONTROL], "model": "shapes-flux"}, INVALID, "controls.0.controlnet"),
    ("controlnet", {"controls": [CONTROL], "mask_image": MASK}, INVALID, "image"),
    # images
    ("img2img", {"image": "upload:" + "0" * 64}, INVALID, "image"),
    ("img2img", {"image": "job:00/0"}, INVALID, "image"),
    ("img2img", {"image": "https://example.com/a.png"}, INVALID, "image"),
    ("img2img", {"image": "not base64!"}, INVALID, "image"),
    ("img2img", {"image": as_base64(b"plain text, not an image")}, (415, "not_a_picture"), "image"),
    ("img2img", {"image": as_base64(encode_image(draw_shape())[:200])}, (415, "not_a_picture"), "image"),
    ("img2img", {"image": as_base64(bomb())}, (413, "picture_too_large"), "image"),
    ("inpaint", {"image": IMAGE, "mask_image": to_data_url(Image.new("L", (64, 64), 0))}, INVALID, "mask_image"),
    ("inpaint", {"image": IMAGE, "mask_image": as_base64(b"nothing")}, (415, "not_a_picture"), "mask_image"),
    (
        "controlnet",
        {"controls": [CONTROL, CONTROL | {"image": as_base64(bomb())}]},
        (413, "picture_too_large"),
        "controls.1.image",
    ),
]


@pytest.mark.parametrize(
    ("task", "fields", "answer", "field"), BAD, ids=lambda value: None if isinstance(value, dict) else str(value)
)
def test_a_bad_request_names_its_field_and_stores_nothing(
    service: RunningService, task: str, fields: dict[str, Any], answer: tuple[int, str], field: str
) -> None:
    before = stored_files(service)
    body = {name: value for name, value in ({"prompt": "a red circle"} | fields).items() if value is not None}
    response = service.http.post(f"/v1/{task}", json=body)
    problem = response.json()
    assert (response.status_code, problem["code"]) == answer, problem
    assert response.headers["content-type"].startswith("application/problem+json")
    assert field in [entry["field"] for entry in problem["errors"]], problem
    assert all(entry["message"] for entry in problem["errors"])
    assert problem["request_id"] == response.headers["x-request-id"]
    assert stored_files(service) == before


def stored_files(service: RunningService) -> set[str]:
    """Paths of stored inputs and images. A job that was queued would end as an image."""
    root: Path = service.data / "storage"
    return {str(path) for path in root.rglob("*") if path.is_file() and "probe" not in path.parts}


@pytest.mark.parametrize(
    ("method", "path", "content", "answer"),
    [
        ("POST", "/v1/txt2img", b"{not json", (400, "unreadable_body")),
        ("POST", "/v1/txt2img", b"", (400, "unreadable_body")),
        ("POST", "/v1/txt2img", b"[]", INVALID),
        ("POST", "/v1/txt2img", b'{"prompt": "' + b"x" * (65 * 2**20) + b'"}', (413, "body_too_large")),
        ("GET", "/v1/txt2img", None, (405, "method_not_allowed")),
        ("GET", "/v1/jobs/nothing", None, (404, "not_found")),
        ("POST", "/v1/jobs/nothing/cancel", None, (404, "not_found")),
        ("GET", "/v1/jobs/nothing/images/0", None, (404, "not_found")),
        ("GET", "/v1/models/nothing", None, (404, "not_found")),
        ("GET", "/v1/nothing", None, (404, "not_found")),
        ("POST", "/v1/uploads", b"plain text", (415, "not_a_picture")),
        ("POST", "/v1/uploads", bomb(), (413, "picture_too_large")),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_a_bad_call_gets_a_problem_with_a_stable_code(
    service: RunningService, method: str, path: str, content: bytes | None, answer: tuple[int, str]
) -> None:
    headers = {"content-type": "application/octet-stream" if path == "/v1/uploads" else "application/json"}
    response = service.http.request(method, path, content=content, headers=headers)
    problem = response.json()
    assert (response.status_code, problem["code"]) == answer, problem
    assert problem["title"]
    assert problem["request_id"]


def test_all_problems_of_a_request_are_reported_at_once(service: RunningService) -> None:
    body = {"prompt": "x", "width": 68, "scheduler": "flow_euler", "true_cfg_scale": 2.0}
    problem = service.http.post("/v1/txt2img", json=body).json()
    assert {entry["field"] for entry in problem["errors"]} == {"width", "scheduler", "true_cfg_scale"}
    by_field = {entry["field"]: entry for entry in problem["errors"]}
    assert by_field["width"]["allowed"] == [64, 72]
    assert "euler" in by_field["scheduler"]["allowed"]
