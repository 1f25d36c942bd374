"""What each family learns, on its own small checkpoint: a step that the denoiser takes, and learns from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from contracts.requests.training.settings import TrainingSettings
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts
from tests.support.combinations import usual_or_all
from worker.families import get_family
from worker.pool.pool import Pool
from worker.training.examples import Example, Examples
from worker.training.objectives import OBJECTIVES
from worker.training.run import TrainingRun
from worker.training.trainees.adapter import LoraAdapter


def example(model: Any, family: str) -> Example:
    config = model.denoiser.config
    channels = model.base.vae.config.latent_channels
    mean = torch.zeros(1, channels, 8, 8)
    wide = {"sdxl": "cross_attention_dim", "sd3": "joint_attention_dim", "flux": "joint_attention_dim"}[family]
    pooled = 32 if family == "sdxl" else config.pooled_projection_dim
    if family == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    embeddings: Mapping[str, torch.Tensor] = {
        "prompt_embeds": torch.ones(1, 5, getattr(config, wide)),
        "pooled_prompt_embeds": torch.ones(1, pooled),
    }
    return Example(mean, torch.ones_like(mean), embeddings, (64, 64), (64, 64), (0, 0))


@pytest.mark.parametrize("family", usual_or_all("sdxl", ["sdxl", "sd3", "flux"]))
def test_a_step_learns_and_its_file_is_a_lora_for_the_model(pool: Pool, family: str, tmp_path: Path) -> None:
    model = pool.model(f"shapes-{family}")
    settings = TrainingSettings(rank=2, alpha=2, steps=2, learning_rate=1e-3, resolution=64, seed=1)
    objective = OBJECTIVES[family](model.base.scheduler.config, None)
    adapter = LoraAdapter(model.denoiser, get_family(family).denoiser, settings)
    run = TrainingRun(model.denoiser, adapter, objective, Examples([example(model, family)]), settings)
    before = run.result({})
    assert run.learn() > 0
    after = run.result({})
    assert after != before
    path = tmp_path / "lora.safetensors"
    path.write_bytes(after)
    assert model.spec.id in read_facts(read_lora(path), pool.catalogue).models
