"""A LoRA that changes a text encoder too: Darkroom and diffusers apply what it learns; the model forgets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.requests.entry_parameters import LoraParameters
from contracts.requests.training.settings import TrainingSettings
from contracts.weights.adapters.lora_files import describe, read_lora
from tests.support.adapters import active_loras
from worker.adapters.cache import LoraCache
from worker.adapters.files import LoraFiles
from worker.families.sd15 import FAMILY
from worker.training.examples import Embeddings, Examples
from worker.training.objectives import OBJECTIVES
from worker.training.run import TrainingRun
from worker.training.trainees.adapter import LoraAdapter

SETTINGS = TrainingSettings(
    rank=4, alpha=8, steps=2, learning_rate=1e-2, resolution=64, seed=7, train_text_encoder=True
)
TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight"


def training(checkpoint: Any, examples: Examples) -> tuple[TrainingRun, LoraAdapter]:
    def encode(caption: str) -> Embeddings:
        return {"prompt_embeds": encoded(checkpoint, caption)}

    encoders = {"text_encoder": checkpoint.text_encoder}
    adapter = LoraAdapter(checkpoint.unet, "unet", SETTINGS, encoders, encode)
    objective = OBJECTIVES["sd15"](checkpoint.scheduler.config, None)
    return TrainingRun(checkpoint.unet, adapter, objective, examples, SETTINGS), adapter


def encoded(checkpoint: Any, caption: str) -> torch.Tensor:
    embeddings: torch.Tensor = checkpoint.encode_prompt([caption], "cpu", 1, False)[0]
    return embeddings


def learned(run: TrainingRun, steps: int) -> TrainingRun:
    for _ in range(steps):
        run.learn()
    return run


@pytest.fixture(scope="module")
def trained(checkpoint: Any, examples: Examples) -> tuple[TrainingRun, LoraAdapter]:
    run, adapter = training(checkpoint, examples)
    return learned(run, 2), adapter


def test_darkroom_and_diffusers_apply_what_the_text_encoder_has_learnt(
    checkpoint: Any, trained: tuple[TrainingRun, LoraAdapter], catalogue: Catalogue, tmp_path: Path
) -> None:
    run, adapter = trained
    path = tmp_path / "lora.safetensors"
    path.write_bytes(run.result({}))
    assert describe(read_lora(path), "sd15").changes_text
    with torch.no_grad():
        plain = encoded(checkpoint, "a caption")
        with adapter.in_place():
            wanted = encoded(checkpoint, "a caption")
        row = LoraSpec(id="one", family="sd15", source=str(path))
        files = LoraFiles(catalogue.model_copy(update={"loras": (row,)}))
        with active_loras(LoraCache(checkpoint, FAMILY, files), LoraParameters(name="one")):
            ours = encoded(checkpoint, "a caption")
        checkpoint.load_lora_weights(path)
        theirs = encoded(checkpoint, "a caption")
        checkpoint.unload_lora_weights()
        assert torch.equal(ours, theirs)
        assert torch.allclose(ours, wanted, atol=1e-3)  # the file is in half precision
        assert (wanted - plain).abs().max() > 0.01
        assert torch.equal(encoded(checkpoint, "a caption"), plain)


def test_it_goes_on_from_a_checkpoint_bit_for_bit(
    checkpoint: Any, examples: Examples, trained: tuple[TrainingRun, LoraAdapter]
) -> None:
    saved = learned(training(checkpoint, examples)[0], 1).checkpoint()
    rest, adapter = training(checkpoint, examples)
    rest.restore(saved)
    assert learned(rest, 1).checkpoint() == trained[0].checkpoint()
    assert adapter.parameters[TEXT].abs().max() > 0
