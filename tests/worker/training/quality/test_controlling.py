"""A ControlNet that is trained from 500 pairs draws shapes where its control image has them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode, Task
from contracts.requests.defaults import resolve
from contracts.requests.entry_parameters import ControlParameters
from contracts.requests.parameters import JobParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.training.parameters import TrainingParameters
from contracts.storage import Storage
from models.judge import judge, measure_overlap
from models.training.data.drawing import render, render_silhouette
from models.training.judging.trials import draw_trial_scenes
from models.training.stages.controlnet import describe, draw_scenes
from tests.support.images import encode_image
from tests.support.jobs import complete_job
from tests.worker.training.quality.lessons import train
from worker.adapters.files import LoraFiles
from worker.pool.pool import Pool

PAIRS, ASKED, LEAST_OVERLAP = 500, 20, 0.7
SETTINGS = {
    "kind": "controlnet", "rank": 1, "alpha": 1, "resolution": 64, "seed": 7, "batch_size": 16,
    "learning_rate": 0.001, "warmup_steps": 20,
}  # fmt: skip
STEPS = {"sdxl": 200, "sd3": 200}


def pairs(storage: Storage) -> list[dict[str, str]]:
    """Drawings of one shape anywhere, their silhouettes, and captions that name no place."""
    rng, images = random.Random(1), []
    for index, scene in enumerate(draw_scenes("pairs", PAIRS)):
        image, control = f"inputs/{index}.png", f"inputs/{index}-control.png"
        storage.write(image, encode_image(render(scene, rng)))
        storage.write(control, encode_image(render_silhouette(scene)))
        images.append({"image": image, "conditioning_image": control, "caption": describe(scene, rng)})
    return images


def overlap(pool: Pool, storage: Storage, sample: JobParameters, control: ControlParameters | None) -> float:
    """Mean overlap of the shapes that are drawn with those of unseen control images."""
    found = []
    for seed, scene in enumerate(draw_trial_scenes("control")[:ASKED]):
        prompt = f"a {scene.colour} shape on a {scene.background} background"
        job = sample.model_copy(update={"prompt": prompt, "seed": seed})
        silhouette = render_silhouette(scene)
        if control is not None:
            storage.write("inputs/asked.png", encode_image(silhouette))
            controls = (control.model_copy(update={"image": "inputs/asked.png"}),)
            job = job.model_copy(update={"task": Task.CONTROLNET, "mode": Mode.CONTROLNET, "controls": controls})
        (file,), _ = complete_job(job, pool, storage)
        mask = judge(Image.open(io.BytesIO(file)).convert("RGB")).mask
        found.append(measure_overlap(mask, np.asarray(silhouette.convert("L")) > 127))
    return float(np.mean(found))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", STEPS)
def test_a_silhouette_controlnet_from_500_pairs_decides_where_the_shape_is(
    family: str, shipped: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    model = shipped.model(f"shapes-{family}")
    sample = resolve(Txt2ImgRequest(prompt="a shape", model=model.id, seed=0), model, {})
    sample = sample.model_copy(update={"batchable": False})
    pool = Pool(shipped, device="cpu", lora_files=LoraFiles(shipped, storage, tmp_path / "uploads"))
    training = TrainingParameters.model_validate(
        {
            "task": "training", "model": model.id, "name": "outline", "images": pairs(storage),
            "settings": {**SETTINGS, "steps": STEPS[family]}, "snapshot_every_steps": 1000,
            "checkpoint_every_steps": 1000, "sample": sample.model_dump(),
        }
    )  # fmt: skip
    key, sha256 = train(pool, storage, training)
    trained = ControlParameters(controlnet="outline", key=key, sha256=sha256, values=1)
    without, controlled = (overlap(pool, storage, sample, control) for control in (None, trained))
    print(
        f"{family}: overlap without a ControlNet {without:.2f}, with the one from {PAIRS} pairs {controlled:.2f}"
    )
    assert controlled >= LEAST_OVERLAP
    assert controlled > without + 0.15
