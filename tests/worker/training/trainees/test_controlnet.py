"""A ControlNet in training: it learns from pairs, and the denoiser that it copies stays what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from contracts.requests.training.settings import TrainingSettings
from contracts.weights.controls.controlnet_files import read_controlnet
from worker.checkpoints.controls.controlnets import load_controlnet
from worker.families import get_family
from worker.training.examples import Examples, read_pixels
from worker.training.objectives import OBJECTIVES
from worker.training.run import TrainingRun
from worker.training.trainees.controlnet import UNetControlNet

SETTINGS = TrainingSettings(
    kind="controlnet", rank=1, alpha=1, steps=2, batch_size=2, learning_rate=1e-2, resolution=64, seed=7
)


@pytest.fixture(scope="module")
def pairs(examples: Examples) -> Examples:
    """The examples, each with a control image of its size."""
    rows = [
        replace(row, control=torch.full((1, 3, *row.size), 60 * index, dtype=torch.uint8))
        for index, row in enumerate(examples.subject)
    ]
    return Examples(rows)


def training(checkpoint: Any, examples: Examples) -> TrainingRun:
    net = UNetControlNet.begin("sd15", checkpoint.unet, checkpoint.vae, examples.subject, SETTINGS.seed)
    objective = OBJECTIVES["sd15"](checkpoint.scheduler.config, None)
    return TrainingRun(checkpoint.unet, net, objective, examples, SETTINGS)


def learned(run: TrainingRun, steps: int) -> TrainingRun:
    for _ in range(steps):
        run.learn()
    return run


def inverted(pairs: Examples) -> Examples:
    """The same with other control images."""
    rows = [replace(row, control=None if row.control is None else 255 - row.control) for row in pairs.subject]
    return Examples(rows)


@pytest.fixture(scope="module")
def whole(checkpoint: Any, pairs: Examples) -> TrainingRun:
    """All steps in a row."""
    return learned(training(checkpoint, pairs), 2)


def test_it_goes_on_from_a_checkpoint_bit_for_bit_and_the_unet_is_untouched(
    checkpoint: Any, pairs: Examples, whole: TrainingRun
) -> None:
    before = {name: tensor.clone() for name, tensor in checkpoint.unet.state_dict().items()}
    drawn = torch.random.get_rng_state()
    rest = training(checkpoint, pairs)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    start = rest.result({})
    rest.restore(learned(training(checkpoint, pairs), 1).checkpoint())
    assert learned(rest, 1).checkpoint() == whole.checkpoint()
    assert whole.result({}) != start
    assert all(torch.equal(tensor, before[name]) for name, tensor in checkpoint.unet.state_dict().items())
    assert all(parameter.grad is None for parameter in checkpoint.unet.parameters())
    assert not checkpoint.unet.is_gradient_checkpointing


def test_what_it_learns_depends_on_the_control_images(
    checkpoint: Any, pairs: Examples, whole: TrainingRun
) -> None:
    assert learned(training(checkpoint, inverted(pairs)), 2).result({}) != whole.result({})


def test_its_file_is_the_controlnet_that_was_trained(checkpoint: Any, whole: TrainingRun, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(whole.result({"darkroom_training": "{}"}))
    assert read_controlnet(path)
    net = load_controlnet(get_family("sd15"), path, torch.float32, checkpoint.unet)
    trained = dict(whole._trainee.parameters)
    assert net.state_dict().keys() == trained.keys()
    assert all(torch.equal(net.state_dict()[name], tensor.half().float()) for name, tensor in trained.items())


def test_a_control_image_is_cut_as_its_image_is() -> None:
    image = Image.new("RGB", (150, 64))
    image.paste("white", (75, 0, 150, 64))
    pixels = read_pixels(image, 64, image.convert("L"))
    assert pixels.hint is not None
    assert torch.equal(pixels.hint.float() / 127.5 - 1, pixels.values)
