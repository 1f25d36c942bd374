"""A LoRA from upload to image, through the whole service."""

from __future__ import annotations

import hashlib

import numpy

from contracts.settings import BUILT_IN_CATALOGUE
from models.training.data.drawing import Scene
from models.training.data.effects import measure
from tests.support.running_service import RunningService

LORAS = BUILT_IN_CATALOGUE.parent / "loras"


def test_an_uploaded_lora_changes_the_image_like_the_same_lora_of_the_catalogue(service: RunningService) -> None:
    data = (LORAS / "shapes-sdxl-crescent.safetensors").read_bytes()
    added = service.http.post(
        "/v1/loras", params={"name": "moon"}, content=data, headers={"Content-Type": "application/octet-stream"}
    )
    assert added.status_code == 201, added.text
    body = {"model": "shapes-sdxl", "seed": 5, "num_inference_steps": 3, "prompt": "a red crescent"}

    uploaded = service.run("txt2img", **body, loras=[{"name": "moon", "scale": 0.9}])
    own = service.run("txt2img", **body, loras=[{"name": "shapes-sdxl-crescent", "scale": 0.9}])
    plain = service.run("txt2img", **body)

    pixels = [service.image_of(job).convert("RGB").tobytes() for job in (uploaded, own, plain)]
    assert pixels[0] == pixels[1] != pixels[2]
    (weights,) = uploaded["receipt"]["loras"]
    assert (weights["id"], weights["sha256"]) == ("moon", hashlib.sha256(data).hexdigest())
    (worker,) = service.http.get("/v1/workers").json()["data"]
    assert "shapes-sdxl" in worker["adapters"]

    assert service.http.delete("/v1/loras/moon").status_code == 204
    refused = service.http.post("/v1/txt2img", json={"prompt": "x", "loras": [{"name": "moon"}]})
    assert refused.status_code == 422


def test_of_jobs_with_different_loras_that_are_in_flight_together_each_is_right(
    service: RunningService,
) -> None:
    body = {
        "model": "shapes-sdxl",
        "prompt": "a large blue square on a white background",
        "num_inference_steps": 8,
    }
    stripes, outline = ({"name": f"shapes-sdxl-{effect}", "scale": 1.0} for effect in ("stripes", "outline"))
    sets = [[], [stripes], [outline], [stripes, outline]]
    # Beside it, the others do not end one by one.
    busy = service.submit("txt2img", num_inference_steps=30, seed=1)
    ids = [service.submit("txt2img", **body, seed=8, batchable=True, loras=loras)["id"] for loras in sets]
    together = [service.wait(id) for id in ids]
    assert service.wait(busy["id"])["status"] == "completed"
    named = [[weights["id"] for weights in job["receipt"]["loras"]] for job in together]
    assert named == [[lora["name"] for lora in loras] for loras in sets]

    scene = Scene("square", "blue", "white", size="large")
    images = [service.image_of(job).convert("RGB") for job in together]
    for effect, wanted in (("stripes", (False, True, False, True)), ("outline", (False, False, True, True))):
        assert tuple(measure(effect, image, scene) > 0.4 for image in images) == wanted, effect
    for image, loras in [*zip(images, sets, strict=True)][::3]:  # without and with both
        alone = service.generate("txt2img", **body, seed=8, loras=loras)
        assert numpy.abs(numpy.asarray(image, int) - numpy.asarray(alone, int)).max() <= 1
