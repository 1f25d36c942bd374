"""An image that comes over HTTP equals, bit for bit, the one that diffusers alone makes of the same checkpoint.

A family and a job of two models do here; the other families follow in `make judge`.
`tests/worker/families/test_bare_diffusers.py` has all families without HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.bare_diffusers import paint, paint_both_stages
from tests.support.cascade import CASCADE
from tests.support.combinations import ALL
from tests.support.images import draw_shape, left_half_mask, to_data_url
from tests.support.running_service import RunningService

COMMON: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "num_inference_steps": 3}
EXACT = {"use_resolution_binning": False, "clean_caption": False}


@pytest.mark.parametrize(
    ("family", "pipeline", "scheduler", "call"),
    [
        ("pixart", "PixArtSigmaPipeline", "dpmpp_2m", EXACT),
        ("z-image", "ZImagePipeline", "flow_euler", {}),
        ("sd15", "StableDiffusionPipeline", "pndm", {}),
        ("chroma", "ChromaPipeline", "flow_euler", {}),
        ("flux2", "Flux2Pipeline", "flow_euler", {}),
        ("lumina2", "Lumina2Pipeline", "flow_euler", {}),
        ("sana", "SanaPipeline", "flow_dpmpp_2m", EXACT),
    ][: None if ALL else 1],
)
def test_an_image_over_http_equals_that_of_bare_diffusers(
    family: str, pipeline: str, scheduler: str, call: dict[str, Any], service: RunningService, catalogue_file: Path
) -> None:
    guidance: dict[str, Any] = {"negative_prompt": "a blue square", "guidance_scale": 4.0}
    if family == "flux2":  # guidance is an input of the model
        del guidance["negative_prompt"]
    body = {**COMMON, **guidance, "model": f"tiny-{family}", "scheduler": scheduler, "seed": 7}

    ours = service.generate("txt2img", **body)

    folder = catalogue_file.parent / f"tiny-{family}"
    theirs = paint(folder, pipeline, {**COMMON, **guidance, **call}, scheduler=scheduler, seed=7)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_an_inpaint_by_two_models_over_http_equals_the_two_calls(
    service: RunningService, catalogue_file: Path
) -> None:
    texts = {"prompt": "a red circle", "negative_prompt": "a blue square"}
    image, mask = draw_shape(), left_half_mask()
    both = {"strength": 0.8, "num_inference_steps": 2, "guidance_scale": 4.0}

    ours = service.generate(
        "inpaint", model="tiny-deepfloyd", **texts, **both, seed=7, mask_blur=0, image=to_data_url(image),
        mask_image=to_data_url(mask), cascade={"model": CASCADE, "steps": 2},
    )  # fmt: skip

    large = image.resize((256, 256), Image.Resampling.LANCZOS)
    large_mask = mask.resize((256, 256), Image.Resampling.BILINEAR)
    (theirs,) = paint_both_stages(
        (catalogue_file.parent / "tiny-deepfloyd", catalogue_file.parent / CASCADE), "Inpainting", texts,
        ({**both, "image": image, "mask_image": mask},
         {**both, "original_image": large, "mask_image": large_mask}),
    )  # fmt: skip
    kept = Image.composite(theirs, large, large_mask)  # what the mask leaves black is the input's
    assert np.array_equal(np.asarray(ours), np.asarray(kept))
    described = service.http.get("/v1/models/tiny-deepfloyd").json()
    assert described["cascades"] == [CASCADE]
    assert all("cascade" in described["schemas"][task]["properties"] for task in described["tasks"])


def test_a_models_page_says_what_its_family_can_do(service: RunningService) -> None:
    model = service.http.get("/v1/models/tiny-pixart").json()
    assert (model["family"], model["tasks"]) == ("pixart", ["txt2img"])
    assert "strength" not in str(model["schemas"]["txt2img"]["properties"].keys())
    refused = service.http.post("/v1/img2img", json={"model": "tiny-pixart", "prompt": "a", "image": "upload:x"})
    assert refused.status_code == 422
    assert "does not support img2img" in refused.text
