"""LoRA files of every trainer's layout give the bits that diffusers' own loader gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from contracts.catalogue.catalogue import Catalogue, LoraSpec
from contracts.jobs.failures import JobFailed
from contracts.requests.entry_parameters import LoraParameters
from tests.support.adapters import active_loras
from tests.support.combinations import covering
from tests.support.jobs import model_of
from tests.support.trained import TRAINED_FAMILIES
from tests.support.weights import to_kohya, write_adapter
from worker.adapters.cache import LoraCache
from worker.adapters.files import LoraFiles
from worker.pool.pool import Pool

FAMILY_IDS = list(TRAINED_FAMILIES)
Tensors = dict[str, torch.Tensor]
Writer = Callable[[Tensors], Tensors]


def _as_it_is(tensors: Tensors) -> Tensors:
    return tensors


def _mixed_ranks(tensors: Tensors) -> Tensors:
    """Halve the rank of every third layer."""
    halves = sorted(key for key in tensors if ".lora_A." in key)[::3]
    for key in halves:
        tensors[key] = tensors[key][:2].contiguous()
        other = key.replace(".lora_A.", ".lora_B.")
        tensors[other] = tensors[other][:, :2].contiguous()
    return tensors


def _old_layout(tensors: Tensors) -> Tensors:
    return {
        key.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): tensor
        for key, tensor in tensors.items()
        if not key.startswith("text_encoder")
    }


def _half_precision(tensors: Tensors) -> Tensors:
    return {key: tensor.half() for key, tensor in tensors.items()}


def _kohya(alpha: float) -> Writer:
    return lambda tensors: to_kohya(tensors, alpha)


def _with_convolutions(tensors: Tensors) -> Tensors:
    generator = torch.Generator().manual_seed(3)
    for name, inputs, outputs, kernel in (
        ("unet.conv_in", 4, 32, 3),
        ("unet.down_blocks.0.resnets.0.conv1", 32, 32, 3),
    ):
        tensors[f"{name}.lora_A.weight"] = torch.randn(4, inputs, kernel, kernel, generator=generator) * 0.1
        tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, 4, 1, 1, generator=generator) * 0.1
    return tensors


def _write(folder: Path, catalogue: Catalogue, family: str, change: Writer, **options: Any) -> Path:
    tensors = write_adapter(
        folder / "plain.safetensors", family, catalogue.root / f"shapes-{family}", text_encoder=True
    )
    path = folder / "lora.safetensors"
    save_file(change(tensors), path, **options)
    return path


@torch.inference_mode()
def _latents(base: Any) -> torch.Tensor:
    """Latents after a step: decoding would round differences away."""
    base.set_progress_bar_config(disable=True)
    latents: torch.Tensor = base(
        "a red circle", width=64, height=64, num_inference_steps=1, output_type="latent",
        generator=torch.Generator().manual_seed(5),
    ).images  # fmt: skip
    return latents


def _by_diffusers(base: Any, path: Path, scale: float) -> torch.Tensor:
    base.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="one", use_safetensors=True)
    try:
        base.set_adapters(["one"], [scale])
        return _latents(base)
    finally:
        base.unload_lora_weights()


def _by_us(pool: Pool, family: str, path: Path, scale: float) -> torch.Tensor:
    model = pool.model(model_of(pool.catalogue, family))
    rows = pool.catalogue.model_copy(update={"loras": (LoraSpec(id="one", family=family, source=str(path)),)})
    with active_loras(
        LoraCache(model.base, model.family, LoraFiles(rows)), LoraParameters(name="one", scale=scale)
    ):
        return _latents(model.base)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        *covering([*product(FAMILY_IDS, (_as_it_is, _mixed_ranks, _old_layout))]),
        ("sdxl", _half_precision),
        ("sdxl", _kohya(4.0)),
        ("sdxl", _kohya(1.5)),
        ("sdxl", _with_convolutions),
    ],
)
def test_every_layout_gives_bit_for_bit_what_diffusers_gives(
    family: str, change: Writer, catalogue: Catalogue, pool: Pool, tmp_path: Path
) -> None:
    path = _write(tmp_path, catalogue, family, change)
    ours = _by_us(pool, family, path, 0.7)
    base = pool.model(f"shapes-{family}").base
    plain = _latents(base)
    assert not torch.equal(ours, plain)
    assert torch.equal(ours, _by_diffusers(base, path, 0.7))
    assert torch.equal(_latents(base), plain)


def test_dora_gives_what_diffusers_gives(catalogue: Catalogue, pool: Pool, tmp_path: Path) -> None:
    """Bits may differ: peft multiplies the two weights by applying them to a unit matrix."""

    def stretch(tensors: Tensors) -> Tensors:
        denoiser = {key: tensor for key, tensor in tensors.items() if key.startswith("unet.")}
        for key in [key for key in denoiser if ".lora_B." in key]:
            lengths = torch.linspace(0.5, 1.5, denoiser[key].shape[0])
            denoiser[key.replace(".lora_B.weight", ".lora_magnitude_vector")] = lengths
        return denoiser

    path = _write(tmp_path, catalogue, "sdxl", stretch)
    ours = _by_us(pool, "sdxl", path, 0.7)
    theirs = _by_diffusers(pool.model("shapes-sdxl").base, path, 0.7)
    assert not torch.equal(ours, _latents(pool.model("shapes-sdxl").base))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_pefts_settings_in_the_file_scale_the_effect(catalogue: Catalogue, pool: Pool, tmp_path: Path) -> None:
    settings = {
        "unet.r": 4, "unet.lora_alpha": 2, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
        "unet.alpha_pattern": {"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 8},
    }  # fmt: skip

    def denoiser_only(tensors: Tensors) -> Tensors:
        return {key: tensor for key, tensor in tensors.items() if key.startswith("unet.")}

    header = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    plain = _by_us(pool, "sdxl", _write(tmp_path, catalogue, "sdxl", denoiser_only), 1.0)
    path = _write(tmp_path, catalogue, "sdxl", denoiser_only, metadata=header)
    ours = _by_us(pool, "sdxl", path, 1.0)
    assert not torch.equal(ours, plain)
    assert torch.equal(ours, _by_diffusers(pool.model("shapes-sdxl").base, path, 1.0))


def test_a_pattern_in_the_file_is_never_an_expression(catalogue: Catalogue, pool: Pool, tmp_path: Path) -> None:
    """As one, this would be matched for longer than the universe has existed."""
    header = {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {"([a-z0-9._]+)+!": 1}})}
    path = _write(tmp_path, catalogue, "sdxl", _as_it_is, metadata=header)
    with pytest.raises(JobFailed, match="must contain layers' names"):
        _by_us(pool, "sdxl", path, 1.0)


@pytest.mark.parametrize("missing", [".lora_A.", ".lora_B."])
def test_a_layer_with_one_of_its_two_weights_is_refused(
    missing: str, catalogue: Catalogue, pool: Pool, tmp_path: Path
) -> None:
    def lose(tensors: Tensors) -> Tensors:
        tensors.pop(next(key for key in tensors if missing in key))
        return tensors

    path = _write(tmp_path, catalogue, "sdxl", lose)
    with pytest.raises(JobFailed, match="one of the two matrices"):
        _by_us(pool, "sdxl", path, 1.0)


def test_weights_of_different_ranks_are_refused(catalogue: Catalogue, pool: Pool, tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> Tensors:
        key = next(key for key in tensors if ".lora_A." in key)
        return tensors | {key: tensors[key][:2].contiguous()}

    path = _write(tmp_path, catalogue, "flux", shorten)
    with pytest.raises(JobFailed, match=r"do not (match|fit together)"):
        _by_us(pool, "flux", path, 1.0)


def test_a_convolution_of_groups_is_refused(pool: Pool, tmp_path: Path) -> None:
    path, layer = tmp_path / "lora.safetensors", "transformer.transformer_blocks.0.ff.conv_depth"
    denoiser = pool.model(model_of(pool.catalogue, "sana")).denoiser
    channels = denoiser.transformer_blocks[0].ff.conv_depth.out_channels
    halves = {"lora_A": torch.ones(2, 1, 3, 3), "lora_B": torch.ones(channels, 2, 1, 1)}
    save_file({f"{layer}.{half}.weight": tensor for half, tensor in halves.items()}, path)
    with pytest.raises(JobFailed, match="conv_depth is a convolution of groups, which cannot be changed"):
        _by_us(pool, "sana", path, 1.0)
