"""Each family and kind of training on a small checkpoint, from stored images to a job that uses the result."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.families import Mode, Task
from contracts.requests.defaults import resolve
from contracts.requests.entry_parameters import ControlParameters, LoraParameters
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.training.parameters import TrainingImage, TrainingParameters
from contracts.requests.training.request import TRAINABLE_FAMILIES
from contracts.requests.training.settings import Kind
from contracts.storage import Storage
from tests.support.combinations import usual_or_all
from tests.support.images import encode_image
from tests.support.jobs import INPUT_IMAGES, complete_job
from worker.adapters.files import LoraFiles
from worker.pool.pool import Pool
from worker.training.preparation import Preparation

PAIR = TrainingImage(image="inputs/a.png", conditioning_image="inputs/b.png", caption="a red thing")
CASES: list[tuple[str, Kind]] = [
    (family, kind) for kind in ("lora", "controlnet") for family in TRAINABLE_FAMILIES[kind]
]


@pytest.mark.parametrize(("family", "kind"), usual_or_all(("qwen-image", "controlnet"), CASES))
def test_what_a_family_learns_changes_the_image_of_the_next_job(
    family: str, kind: Kind, catalogue: Catalogue, storage: Storage, tmp_path: Path
) -> None:
    pool = Pool(catalogue, device="cpu", lora_files=LoraFiles(catalogue, storage, tmp_path / "uploads"))
    model = next(row for row in catalogue.models if row.family == family)
    for key, image in zip(PAIR.keys, INPUT_IMAGES.values(), strict=False):
        storage.write(key, encode_image(image.convert("RGB").resize((64, 64))))
    request = Txt2ImgRequest(prompt="a red thing", model=model.id, seed=0, num_inference_steps=2)
    sample = resolve(request, model, {}).model_copy(update={"batchable": False})
    training = TrainingParameters.model_validate(
        {
            "task": "training", "model": model.id, "name": "mine", "images": [PAIR], "snapshot_every_steps": 9,
            "checkpoint_every_steps": 9, "sample": sample,
            "settings": {
                "kind": kind, "rank": 2, "alpha": 2, "steps": 3, "learning_rate": 0.05, "resolution": 64,
                "seed": 1,
            },
        }
    )  # fmt: skip
    preparation = Preparation(pool.model(model.id), training, "ann")
    with torch.inference_mode():
        run = preparation.begin(preparation.read_examples(storage, prior=()))
        while not run.is_done:
            run.learn()
    data = run.result(training.facts("", 3))
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"inputs/{sha256}.safetensors"
    storage.write(key, data)

    used: dict[str, Any] = {"loras": (LoraParameters(name="mine", key=key, sha256=sha256, values=9),)}
    if kind == "controlnet":
        control = ControlParameters(
            controlnet="mine", key=key, sha256=sha256, values=9, image="inputs/b.png", conditioning_scale=1.0
        )
        used = {"controls": (control,), "task": Task.CONTROLNET, "mode": Mode.CONTROLNET, "fit": "cover"}
    without, _ = complete_job(sample, pool, storage)
    with_it, receipt = complete_job(sample.model_copy(update=used), pool, storage)
    assert with_it != without
    weights = receipt.loras if kind == "lora" else receipt.controlnets
    assert [(one.id, one.sha256) for one in weights] == [("mine", sha256)]
