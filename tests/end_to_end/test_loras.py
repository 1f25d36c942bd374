"""A LoRA from upload to image, through the whole service."""

from __future__ import annotations

import hashlib

from contracts.settings import BUILT_IN_CATALOGUE
from tests.end_to_end.service import RunningService

LORAS = BUILT_IN_CATALOGUE.parent / "loras"


def test_an_uploaded_lora_shapes_the_image_like_the_operators_own(service: RunningService) -> None:
    data = (LORAS / "shapes-sdxl-crescent.safetensors").read_bytes()
    added = service.http.post("/v1/loras", params={"name": "moon"}, content=data)
    assert added.status_code == 201, added.text
    asked = {"model": "shapes-sdxl", "seed": 5, "num_inference_steps": 3, "prompt": "a red crescent"}

    uploaded = service.run("txt2img", **asked, loras=[{"name": "moon", "scale": 0.9}])
    own = service.run("txt2img", **asked, loras=[{"name": "shapes-sdxl-crescent", "scale": 0.9}])
    plain = service.run("txt2img", **asked)

    pixels = [service.image_of(job).convert("RGB").tobytes() for job in (uploaded, own, plain)]
    assert pixels[0] == pixels[1] != pixels[2]
    (weights,) = uploaded["receipt"]["loras"]
    assert (weights["id"], weights["sha256"]) == ("moon", hashlib.sha256(data).hexdigest())
    (worker,) = service.http.get("/v1/workers").json()["data"]
    assert "shapes-sdxl" in worker["adapters"]

    assert service.http.delete("/v1/loras/moon").status_code == 204
    refused = service.http.post("/v1/txt2img", json={"prompt": "x", "loras": [{"name": "moon"}]})
    assert refused.status_code == 422
