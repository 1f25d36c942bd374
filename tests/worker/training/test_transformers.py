"""Flow-matching transformers in training are called as their pipelines call them, with and without a ControlNet.

Compared is the denoiser's answer in a step of a pipeline: with the same latents, time, embeddings and control
image, an objective gets the same. So directions, scales and packings agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from contracts.catalogue.families import Mode
from contracts.requests.training.settings import TrainingSettings
from contracts.weights.adapters.lora_files import describe, read_lora
from tests.support.untrained import qwen_image, z_image
from tests.support.untrained_parts import SIDE, vae
from worker.checkpoints.controls.controlnets import check_controlnet_fits, load_controlnet
from worker.families import get_family
from worker.families.deterministic_vae import DeterministicVae
from worker.pool.pool import Pool
from worker.training.examples import Example, Examples, read_pixels
from worker.training.objectives import OBJECTIVES, Noised
from worker.training.packing import pack, unpack
from worker.training.run import TrainingRun
from worker.training.trainees.adapter import LoraAdapter
from worker.training.trainees.controlnet import CONTROLNETS

SETTINGS = TrainingSettings(
    rank=2, alpha=2, steps=2, learning_rate=1e-2, resolution=SIDE, seed=1, targets="attention_and_feed_forward"
)
LATENTS = torch.randn(1, 16, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(5))
CONTROL = Image.linear_gradient("L").resize((SIDE, SIDE))
PACKED = ("flux", "qwen-image")
#: No guidance, so that an answer is that of one call.
UNGUIDED = {
    "sd3": {"guidance_scale": 1.0},
    "flux": {"guidance_scale": 1.0},
    "qwen-image": {"true_cfg_scale": 1.0},
    "z-image": {"guidance_scale": 0.0},
}
UNTRAINED: Mapping[str, Callable[[], Any]] = {
    "qwen-image": cache(qwen_image.pipeline),
    "z-image": cache(z_image.pipeline),
}


class MeanVae(DeterministicVae):
    """Control images have the latents that a training reads, from pipelines that would draw them, too."""

    def encode(self, pixels: Any) -> Any:
        mean = self._vae.encode(pixels).latent_dist.mode()
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda *_: mean))


def base_of(family: str, pool: Pool) -> Any:
    """A pipeline of the family."""
    return UNTRAINED[family]() if family in UNTRAINED else pool.model(f"shapes-{family}").base


def example_of(family: str, base: Any) -> Example:
    """A latent of ones with a caption, and a control image."""
    config = base.transformer.config
    width = config.cap_feat_dim if family == "z-image" else config.joint_attention_dim
    embeddings = {"prompt_embeds": torch.linspace(-1, 1, 5 * width).view(1, 5, width)}
    if family in ("sd3", "flux"):
        embeddings["pooled_prompt_embeds"] = torch.ones(1, config.pooled_projection_dim)
    control, hint = None, read_pixels(CONTROL, SIDE, CONTROL).hint
    if family in CONTROLNETS and hint is not None:
        with torch.no_grad():
            control = CONTROLNETS[family].read_control(base.vae, hint)
    ones = torch.ones_like(LATENTS)
    return Example(ones, ones, embeddings, (SIDE, SIDE), (SIDE, SIDE), (0, 0), control=control)


def step_of(family: str, pipeline: Any, example: Example, **more: Any) -> tuple[torch.Tensor, Noised]:
    """The denoiser's answer in the second step of a pipeline, and what it was asked."""
    embeddings: dict[str, Any] = dict(example.embeddings)
    if family == "z-image":
        embeddings = {name: list(value) for name, value in embeddings.items()}
    seen, step = [], pipeline.scheduler.step

    def record(answer: Any, time: Any, sample: Any, **named: Any) -> Any:
        seen.append((answer, time, sample))
        return step(answer, time, sample, **named)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(pipeline.scheduler, "step", record)
        latents = pack(LATENTS) if family in PACKED else LATENTS
        pipeline(
            latents=latents, num_inference_steps=3, height=SIDE, width=SIDE, output_type="latent",
            **embeddings, **UNGUIDED[family], **more,
        )  # fmt: skip
    answer, time, sample = seen[1]
    if family in PACKED:
        answer, sample = (unpack(value, SIDE // 8, SIDE // 8) for value in (answer, sample))
    return answer, Noised(sample, sample, time.view(1), torch.ones(1))


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen-image", "z-image"])
def test_a_transformer_is_asked_as_in_its_pipeline_and_learns_a_lora(
    family: str, pool: Pool, tmp_path: Path
) -> None:
    base = base_of(family, pool)
    example, objective = example_of(family, base), OBJECTIVES[family](base.scheduler.config, None)
    pipeline = getattr(diffusers, get_family(family).pipelines[Mode.TXT2IMG])(**base.components)
    answer, asked = step_of(family, pipeline, example)
    with torch.no_grad():
        assert torch.allclose(objective.predict(base.transformer, asked, [example]), answer, atol=1e-4)

    lora = LoraAdapter(base.transformer, "transformer", SETTINGS)
    run = TrainingRun(base.transformer, lora, objective, Examples([example]), SETTINGS)
    start = run.result({})
    assert run.learn() > 0
    assert run.result({}) != start
    path = tmp_path / "lora.safetensors"
    path.write_bytes(run.result({}))
    assert describe(read_lora(path), family).ranks == (2,)
    assert any(".attn" in name or ".attention" in name for name in lora.parameters)
    assert any(".attn" not in name and ".attention" not in name for name in lora.parameters)


@pytest.mark.parametrize("family", ["sd3", "flux", "qwen-image"])
def test_a_controlnet_of_a_transformer_is_asked_as_in_its_pipeline_and_its_file_is_read_alone(
    family: str, pool: Pool, tmp_path: Path
) -> None:
    base, row = base_of(family, pool), get_family(family)
    denoiser, example = base.transformer, example_of(family, base)
    before, config = (
        {name: tensor.clone() for name, tensor in denoiser.state_dict().items()},
        dict(denoiser.config),
    )
    objective = OBJECTIVES[family](base.scheduler.config, None)
    trained: Any = CONTROLNETS[family].begin(family, denoiser, base.vae, [example], SETTINGS.seed)
    run = TrainingRun(denoiser, trained, objective, Examples([example]), SETTINGS)
    for _ in range(2):  # in the first step only its last layers learn, which are zeros
        run.learn()
    assert dict(denoiser.config) == config
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())

    path = tmp_path / "net.safetensors"
    path.write_bytes(run.result({"darkroom_training": "{}"}))
    net = load_controlnet(row, path, torch.float32, denoiser)
    check_controlnet_fits(net, denoiser)
    own = trained._net.state_dict()
    assert net.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[name].half().float()) for name, value in net.state_dict().items())

    pipeline = getattr(diffusers, row.pipelines[Mode.CONTROLNET])(**base.components, controlnet=net)
    pipeline.vae = MeanVae(pipeline.vae)
    answer, asked = step_of(family, pipeline, example, control_image=CONTROL.convert("RGB"))
    trained._net.load_state_dict(net.state_dict())  # rounded as in the file
    with torch.no_grad():
        plain = objective.predict(denoiser, asked, [example])
        found = objective.predict(trained.steered(denoiser, [example]), asked, [example])
    assert torch.allclose(found, answer, atol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_a_controlnet_of_a_transformer_changes_nothing_before_it_has_learnt(family: str, pool: Pool) -> None:
    base = base_of(family, pool)
    example, objective = example_of(family, base), OBJECTIVES[family](base.scheduler.config, None)
    net: Any = CONTROLNETS[family].begin(family, base.transformer, base.vae, [example], 0)
    asked = objective.add_noise(LATENTS, torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = objective.predict(base.transformer, asked, [example])
        assert torch.equal(objective.predict(net.steered(base.transformer, [example]), asked, [example]), plain)


def test_zeros_have_the_effect_of_the_mean_caption_in_a_controlnet_of_sd3(pool: Pool) -> None:
    base = base_of("sd3", pool)
    example = example_of("sd3", base)
    pooled = example.embeddings["pooled_prompt_embeds"]
    other = replace(example, embeddings={**example.embeddings, "pooled_prompt_embeds": 0 * pooled})
    net: Any = CONTROLNETS["sd3"].begin("sd3", base.transformer, base.vae, [example, other], 0)
    with torch.no_grad():
        told_the_mean = base.transformer.time_text_embed.text_embedder(0.5 * pooled)
        told_zeros = net._net.time_text_embed.text_embedder(0 * pooled)
    assert torch.allclose(told_the_mean, told_zeros, atol=1e-5)


def test_latents_of_control_images_are_shifted_but_for_sd3() -> None:
    autoencoder = vae(shift_factor=0.3)
    pixels = torch.full((1, 3, SIDE, SIDE), 90, dtype=torch.uint8)
    with torch.no_grad():
        latents = autoencoder.encode(pixels.float() / 127.5 - 1).latent_dist.mode()
        read = {family: CONTROLNETS[family].read_control(autoencoder, pixels) for family in ("sd3", "flux")}
    scale = autoencoder.config.scaling_factor
    assert torch.allclose(read["sd3"], latents * scale, atol=1e-5)
    assert torch.allclose(read["flux"], (latents - 0.3) * scale, atol=1e-5)
