"""Teaches a finished checkpoint with the worker's own code, as `POST /v1/trainings` does.

Knows neither effects nor controls: these are drawings with captions. The checkpoint is the exported one. What the
worker itself trains is named by the settings; the kinds of `trainees/` learn in the same loop.
"""

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from contracts.catalogue.reader import read_catalogue
from contracts.requests.defaults import resolve
from contracts.requests.schema import Txt2ImgRequest
from contracts.requests.task_parameters import JobTask
from contracts.requests.training.parameters import TrainingImage, TrainingParameters
from contracts.requests.training.settings import TrainingSettings
from contracts.storage import Storage
from contracts.storage.local import LocalStorage
from models.training.data.drawing import EDGE_PIXELS
from models.training.loop import RUNS
from models.training.networks.export import MODELS, checkpoint_folder
from models.training.recipes import load_recipe
from worker.pool.pool import Pool
from worker.training.preparation import Preparation
from worker.training.trainees.trainee import Trainee

#: Makes what is to learn, given the denoiser.
MakeTrainee = Callable[[Any], Trainee]
#: Of the settings, which must have them, where they mean nothing.
NOT_A_LORA = {"rank": 1, "alpha": 1}
_SAVE_EVERY_STEPS = 250


@dataclass(frozen=True)
class Drawing:
    """What one example consists of; `control` is a ControlNet's, or a reference image, of the image's size."""

    image: Image.Image
    caption: str
    control: Image.Image | None = None


def teach(
    family: str,
    name: str,
    settings: Mapping[str, Any],
    drawings: Sequence[Drawing],
    resume: bool,
    trainee: MakeTrainee | None = None,
) -> bytes:
    """Trains to the end; returns the safetensors file.

    Args:
        name: of the run, whose folder keeps its checkpoint.
        settings: fields of `TrainingSettings` that are not the same in all stages.
        trainee: makes what is to learn; None: what the settings name.

    Raises:
        CheckpointUnusable: there is nothing to resume but the checkpoint of another training.
    """
    checkpoint = RUNS / name / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    catalogue = read_catalogue(MODELS / "catalogue.toml")
    model = catalogue.model(checkpoint_folder(family).name)
    loaded = Pool(catalogue).model(model.id)
    load_recipe(family).hasten(loaded.denoiser)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        storage = LocalStorage(Path(folder))
        training = TrainingParameters(
            task=JobTask.TRAINING,
            model=model.id,
            name=name,
            settings=TrainingSettings(resolution=EDGE_PIXELS, seed=0, **settings),
            images=tuple(_store(storage, number, drawing) for number, drawing in enumerate(drawings)),
            snapshot_every_steps=settings["steps"],
            checkpoint_every_steps=_SAVE_EVERY_STEPS,
            sample=resolve(Txt2ImgRequest(prompt="a shape", model=model.id, seed=0), model, {}),
        )
        preparation = Preparation(loaded, training, owner="")
        read = None if trainee is None or training.settings.kind == "controlnet" else _as_it_is
        examples = preparation.read_examples(storage, (), read)
        with torch.inference_mode(mode=False):
            own = None if trainee is None else trainee(loaded.denoiser)
        run = preparation.begin(examples, own)
        if resume and checkpoint.exists():
            run.restore(checkpoint.read_bytes())
        bar = tqdm(range(run.step, training.settings.steps), desc=name, mininterval=5.0)
        for _ in bar:
            bar.set_postfix(loss=f"{run.learn():.4f}", refresh=False)
            if run.step % _SAVE_EVERY_STEPS == 0:
                checkpoint.write_bytes(run.checkpoint())
        return run.result(_facts(training))


def _as_it_is(control: torch.Tensor) -> torch.Tensor:
    """A control or reference image of bytes as values from 0 to 1."""
    return control.float() / 255


def _facts(training: TrainingParameters) -> dict[str, str]:
    """What a file's metadata say of how it was made."""
    learned = training.settings.model_dump(include={"steps", "batch_size", "learning_rate"})
    facts = {"base_model": training.model, "images": len(training.images), **learned}
    return {"darkroom_training": json.dumps(facts, sort_keys=True)}


def _store(storage: Storage, number: int, drawing: Drawing) -> TrainingImage:
    image, control = f"inputs/{number}.png", None
    storage.write(image, _png(drawing.image))
    if drawing.control is not None:
        control = f"inputs/{number}-control.png"
        storage.write(control, _png(drawing.control))
    return TrainingImage(image=image, conditioning_image=control, caption=drawing.caption)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
