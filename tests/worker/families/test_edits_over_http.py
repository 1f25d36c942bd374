"""An edit that was posted gives the bytes of a short script's direct call with the same reference."""

from __future__ import annotations

import io
from pathlib import Path

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
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(
        f'default_model = "tiny-kontext"\n[[models]]\nid = "tiny-kontext"\nfamily = "flux"\nsource = "{source}"\n'
    )
    shared = settings.model_copy(update={"catalogue": catalogue})
    body = {
        "prompt": "make it red", "references": [data_url(encode_image(reference))], "seed": 7, "width": 64,
        "height": 64, "num_inference_steps": 2, "max_sequence_length": 64, "guidance_scale": 2.5,
    }  # fmt: skip
    with TestClient(create_app(ApiSettings(shared=shared))) as client:
        job = client.post("/v1/edit", json=body).json()
    (file,), receipt = complete_job(
        require_diffusion(queue.fetch(job["id"]).parameters), tools_pool, open_storage(shared)
    )

    pipe = make_pipeline(Path(source), "FluxKontextPipeline")
    (image,) = pipe(
        prompt="make it red", image=reference, width=64, height=64, max_area=64 * 64, _auto_resize=False,
        num_inference_steps=2, max_sequence_length=64, guidance_scale=2.5,
        generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), np.asarray(image))
    assert len(receipt.parameters.references) == 1
