"""An edit that was posted gives the bytes of a short script's direct call with the same reference."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from PIL import Image

from app.main import create_app
from app.settings import ApiSettings
from contracts.catalogue.catalogue import Catalogue
from contracts.queue.client import JobQueue
from contracts.requests.any_parameters import require_diffusion
from contracts.settings import SharedSettings
from contracts.storage import open_storage
from tests.support.bare_diffusers import make_pipeline
from tests.support.images import data_url, encode_image
from tests.support.jobs import INPUT_IMAGES, complete_job
from worker.pool.pool import Pool


def test_a_posted_edit_equals_a_direct_call_bit_for_bit(
    settings: SharedSettings, queue: JobQueue, flux_tools: Catalogue, tools_pool: Pool, tmp_path: Path
) -> None:
    source, reference = flux_tools.model("tiny-kontext").source, INPUT_IMAGES["inputs/reference.png"]
    rows = [flux_tools.model(id) for id in ("tiny-kontext", "tiny-qwen-layered")]
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(
        'default_model = "tiny-kontext"\n'
        + "".join(
            f'[[models]]\nid = "{row.id}"\nfamily = "{row.family}"\nsource = "{row.source}"\n' for row in rows
        )
    )
    shared = settings.model_copy(update={"catalogue": catalogue})
    body: dict[str, Any] = {
        "prompt": "make it red", "references": [data_url(encode_image(reference))], "seed": 7, "width": 64,
        "height": 64, "num_inference_steps": 2, "max_sequence_length": 64, "guidance_scale": 2.5,
    }  # fmt: skip
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        job = client.post("/v1/edit", json=body).json()
        layered = _post_layers(client, body["references"])
    storage = open_storage(shared)
    (file,), receipt = complete_job(require_diffusion(queue.fetch(job["id"]).parameters), tools_pool, storage)
    layers, _ = complete_job(require_diffusion(queue.fetch(layered["id"]).parameters), tools_pool, storage)
    images = [Image.open(io.BytesIO(layer)) for layer in layers]
    assert [(image.format, image.mode, image.size) for image in images] == [("WEBP", "RGBA", (96, 64))] * 2

    pipe = make_pipeline(Path(source), "FluxKontextPipeline")
    (image,) = pipe(
        prompt="make it red", image=reference, width=64, height=64, max_area=64 * 64, _auto_resize=False,
        num_inference_steps=2, max_sequence_length=64, guidance_scale=2.5,
        generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), np.asarray(image))
    assert len(receipt.parameters.references) == 1


def _post_layers(client: TestClient, references: list[str]) -> Any:
    """The job of two layers of a picture, after requests like it that are refused by the field that is wrong."""
    body = {"model": "tiny-qwen-layered", "prompt": "a circle", "references": references, "num_inference_steps": 2}
    body |= {"layers": 2, "output_format": "webp"}
    wrong: list[dict[str, Any]] = [
        {"output_format": "jpeg"},
        {"layers": 9},
        {"num_images": 2},
        {"prompt": ""},
        {"layers": 2, "model": "tiny-kontext"},
    ]
    answers = [client.post("/v1/edit", json={**body, **fields}) for fields in wrong]
    named = [(answer.status_code, [one["field"] for one in answer.json()["errors"]]) for answer in answers]
    assert named == [(422, [next(iter(fields))]) for fields in wrong]
    of_one_image = {"inputs": "a circle", "parameters": {"references": references}}
    assert "several layers" in client.post("/hf/models/tiny-qwen-layered", json=of_one_image).text
    model = client.get("/v1/models/tiny-qwen-layered").json()
    assert model["schemas"]["edit"]["properties"]["output_format"]["enum"] == ["png", "webp"]
    assert (model["limits"]["max_images"], model["defaults"]["layers"]) == (1, 4)
    return client.post("/v1/edit", json=body).json()
