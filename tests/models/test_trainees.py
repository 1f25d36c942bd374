"""What learns in the worker's loop: a step changes it and not the denoiser, and its file is one that jobs read."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from contracts.requests.training.settings import TrainingSettings
from contracts.weights.adapters.hypernetwork_files import KIND
from contracts.weights.adapters.ip_adapter_files import read_ip_adapter
from contracts.weights.adapters.lora_files import describe, read_lora
from contracts.weights.controls.t2i_adapter_files import features_of, t2i_config
from models.training.networks import architectures
from models.training.trainees.controls import TrainedT2IAdapter
from models.training.trainees.differences import TrainedKronecker
from models.training.trainees.image_prompts import TrainedIpAdapter
from models.training.trainees.networks import TrainedHypernetwork
from models.training.trainees.prompts import without_prompts
from models.training.trainees.tokens import TrainedRedux
from worker.training.examples import Example, Examples
from worker.training.objectives import OBJECTIVES
from worker.training.run import TrainingRun

_SIZE = (64, 64)


def example(channels: int, embeddings: dict[str, torch.Tensor]) -> Example:
    latents = torch.randn(1, channels, 8, 8)
    return Example(latents, torch.zeros(1), embeddings, _SIZE, _SIZE, (0, 0), "a shape", torch.rand(1, 3, 64, 64))


def train(family: str, make: Callable[[Any], Any]) -> bytes:
    """The file after one step, on a denoiser with random weights."""
    torch.manual_seed(0)
    width = architectures.CLIP_WIDTH
    embeddings = {"prompt_embeds": torch.randn(1, 8, 2 * width), "pooled_prompt_embeds": torch.randn(1, width)}
    denoiser: Any = architectures.build_unet() if family == "sdxl" else architectures.build_flux()
    scheduler = architectures.build_euler() if family == "sdxl" else architectures.build_flow_euler(True)
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    settings = TrainingSettings(rank=1, alpha=1, steps=1, learning_rate=0.1, resolution=64, seed=0)
    examples = Examples([example(denoiser.config.in_channels if family == "sdxl" else 16, embeddings)])
    trainee = make(denoiser)
    start = {name: value.detach().clone() for name, value in trainee.parameters.items()}
    run = TrainingRun(denoiser, trainee, OBJECTIVES[family](scheduler.config, None), examples, settings)
    run.learn()
    assert any(not torch.equal(start[name], value) for name, value in trainee.parameters.items())
    after = denoiser.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser.modules())
    return run.result({})


def test_an_ip_adapter_is_of_the_original_layout(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(train("sdxl", lambda unet: TrainedIpAdapter(unet, architectures.build_image_encoder())))
    facts = read_ip_adapter(file)
    assert (facts.kind, facts.tokens, facts.image_width, facts.width, facts.layers) == ("plain", 4, 32, 128, 7)


def test_redux_is_read_as_redux(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(train("flux", lambda transformer: TrainedRedux(transformer, architectures.build_siglip())))
    facts = read_ip_adapter(file)
    assert (facts.kind, facts.image_width, facts.width) == ("redux", 64, 128)


@pytest.mark.parametrize(
    ("make", "kind"), [(lambda unet: TrainedKronecker(unet, 4), "lokr"), (TrainedHypernetwork, KIND)]
)
def test_other_kinds_are_read_where_loras_are(make: Callable[[Any], Any], kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(train("sdxl", make))
    facts = describe(read_lora(file), "sdxl")
    assert facts.kinds == (kind,)


def test_a_t2i_adapter_has_a_feature_for_each_block() -> None:
    tensors = load(train("sdxl", TrainedT2IAdapter))
    config = t2i_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    assert features_of(config) == [(64, 8), (96, 16)]


def test_an_example_without_a_caption_is_what_guidance_compares_with() -> None:
    told = example(4, {"prompt_embeds": torch.ones(1, 8, 4), "pooled_prompt_embeds": torch.ones(1, 4)})
    kept, bare = without_prompts([told, replace(told, caption="")])
    assert kept is told
    assert bare.embeddings.keys() == told.embeddings.keys()
    assert not any(values.any() for values in bare.embeddings.values())
