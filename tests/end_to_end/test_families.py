"""An image that comes over HTTP equals, bit for bit, the one that diffusers alone makes of the same checkpoint.

Two families do here, which differ in their encoders and schedulers; the others follow in `make judge`.
`tests/worker/families/test_bare_diffusers.py` has all families without HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bare_diffusers import paint
from tests.support.combinations import ALL
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
    ][: None if ALL else 2],
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


def test_a_models_page_says_what_its_family_can_do(service: RunningService) -> None:
    model = service.http.get("/v1/models/tiny-pixart").json()
    assert (model["family"], model["tasks"]) == ("pixart", ["txt2img"])
    assert "strength" not in str(model["schemas"]["txt2img"]["properties"].keys())
    refused = service.http.post("/v1/img2img", json={"model": "tiny-pixart", "prompt": "a", "image": "upload:x"})
    assert refused.status_code == 422
    assert "does not support img2img" in refused.text
