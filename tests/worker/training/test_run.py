"""A training's steps: the same each time, also where it was interrupted, and without a trace in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.requests.training.settings import TrainingSettings
from contracts.weights.adapters.lora_files import describe, read_lora
from worker.training.examples import Examples
from worker.training.objectives import OBJECTIVES
from worker.training.run import CheckpointUnusable, TrainingRun
from worker.training.trainees.adapter import LoraAdapter

SETTINGS = TrainingSettings(
    rank=4, alpha=8, steps=2, batch_size=1, learning_rate=1e-2, schedule="cosine", warmup_steps=1,
    snr_gamma=5.0, resolution=64, seed=7,
)  # fmt: skip


def training(checkpoint: Any, examples: Examples, **changes: Any) -> TrainingRun:
    settings = SETTINGS.model_copy(update=changes)
    objective = OBJECTIVES["sd15"](checkpoint.scheduler.config, settings.snr_gamma)
    adapter = LoraAdapter(checkpoint.unet, "unet", settings)
    return TrainingRun(checkpoint.unet, adapter, objective, examples, settings, "of these images")


def learned(run: TrainingRun, steps: int) -> TrainingRun:
    for _ in range(steps):
        run.learn()
    return run


@pytest.fixture(scope="module")
def whole(checkpoint: Any, examples: Examples) -> TrainingRun:
    """All steps in a row."""
    return learned(training(checkpoint, examples), 2)


def test_the_same_training_gives_the_same_file(checkpoint: Any, examples: Examples, whole: TrainingRun) -> None:
    again = learned(training(checkpoint, examples), 2)
    assert again.is_done
    assert again.result({"a": "1", "b": "2"}) == whole.result({"b": "2", "a": "1"})


def test_a_training_goes_on_from_a_checkpoint_bit_for_bit(
    checkpoint: Any, examples: Examples, whole: TrainingRun
) -> None:
    saved = learned(training(checkpoint, examples), 1).checkpoint("notes")
    rest = training(checkpoint, examples)
    with torch.inference_mode():  # as in the engine
        assert rest.restore(saved) == "notes"
        assert rest.step == 1
        assert learned(rest, 1).checkpoint() == whole.checkpoint()


def test_another_seed_gives_another_file(checkpoint: Any, examples: Examples, whole: TrainingRun) -> None:
    other = learned(training(checkpoint, examples, seed=8), 2)
    assert other.result({}) != whole.result({})


def test_class_images_change_what_is_learnt(checkpoint: Any, examples: Examples, whole: TrainingRun) -> None:
    without = learned(training(checkpoint, Examples(examples.subject)), 2)
    assert without.result({}) != whole.result({})


def test_the_model_is_untouched_between_steps(checkpoint: Any, examples: Examples) -> None:
    latents, words = torch.ones(1, 4, 8, 8), examples.subject[0].embeddings["prompt_embeds"]
    names = [name for name, _ in checkpoint.unet.named_modules()]
    with torch.no_grad():
        before = checkpoint.unet(latents, 5, words).sample
        learned(training(checkpoint, examples), 1)
        after = checkpoint.unet(latents, 5, words).sample
    assert torch.equal(before, after)
    assert [name for name, _ in checkpoint.unet.named_modules()] == names
    assert not checkpoint.unet.is_gradient_checkpointing


def test_the_file_is_a_lora_for_darkroom_and_for_diffusers(
    checkpoint: Any, examples: Examples, whole: TrainingRun, tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_bytes(whole.result({}))
    lora = read_lora(path)
    assert describe(lora, "sd15").layout == "peft"
    assert describe(lora, "sd15").ranks == (4,)
    assert lora.settings["unet"].alpha == 4  # the strength is in the weights
    checkpoint.load_lora_weights(path)
    try:
        assert checkpoint.unet.peft_config["default_0"].r == 4
    finally:
        checkpoint.unload_lora_weights()


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100])
def test_a_damaged_checkpoint_is_refused(checkpoint: Any, examples: Examples, damage: bytes) -> None:
    run = training(checkpoint, examples)
    with pytest.raises(CheckpointUnusable, match="damaged"):
        run.restore(damage)
    assert run.step == 0


def test_a_checkpoint_of_another_training_is_refused(checkpoint: Any, examples: Examples) -> None:
    run = training(checkpoint, examples)
    saved = run.checkpoint().replace(b"of these images", b"of those images")
    with pytest.raises(CheckpointUnusable, match="another training"):
        run.restore(saved)


def test_a_loss_without_a_value_ends_the_training(checkpoint: Any, examples: Examples) -> None:
    run = training(checkpoint, examples, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        learned(run, 2)
