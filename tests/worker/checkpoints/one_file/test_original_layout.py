"""One file in an original layout: scales, settings of training, and each tensor accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.original_layout import write_sdxl_file
from worker.checkpoints.loader import load_model
from worker.checkpoints.quantized.scaled import unscaled
from worker.checkpoints.sources import weights_beside
from worker.families import get_family
from worker.sampling.schedulers import make_scheduler

Tensors = dict[str, torch.Tensor]
UNET = "model.diffusion_model."
LAYER = f"{UNET}middle_block.1.proj_in"
FLOAT8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def original(two_widths: Path, tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    """The tensors of a whole SDXL in one file."""
    file = tmp_path_factory.mktemp("original") / "sdxl.safetensors"
    write_sdxl_file(two_widths, file)
    tensors: Tensors = load_file(file)
    return tensors


@pytest.fixture(scope="module")
def load(
    two_widths: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Tensors], diffusers.DiffusionPipeline]:
    """Loads tensors as a file whose configuration is the folder that they come from."""

    def load(tensors: Tensors) -> diffusers.DiffusionPipeline:
        file = tmp_path_factory.mktemp("load") / "file.safetensors"
        save_file(tensors, file)
        row = ModelSpec(id="one", family="sdxl", source=str(file), config=str(two_widths))
        return load_model(catalogue, row, get_family("sdxl"), file, torch.float32)

    return load


@pytest.fixture(scope="module")
def plain(
    original: Tensors, load: Callable[[Tensors], diffusers.DiffusionPipeline]
) -> diffusers.DiffusionPipeline:
    """What the whole file makes."""
    return load(original)


def _quantized(tensors: Tensors, scale_name: str, per_row: bool = False) -> tuple[Tensors, Tensors]:
    """The matrices of the UNet in 8 bits, with scales; and what they stand for."""
    stored, meant = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        if name.startswith(UNET) and tensor.dim() == 2:
            peak = tensor.abs().amax(dim=1, keepdim=True) if per_row else tensor.abs().max()
            scale = (peak / 448).float()
            stored[name] = (tensor / scale).to(FLOAT8)
            stored[f"{name.removesuffix('weight')}{scale_name}"] = scale
            meant[name] = stored[name].float() * scale
    return stored, meant


def _assert_same_unet(one: diffusers.DiffusionPipeline, other: diffusers.DiffusionPipeline) -> None:
    first, second = one.unet.state_dict(), other.unet.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("scale_name", "per_row"), [("scale_weight", False), ("weight_scale", True)])
def test_weights_in_8_bits_are_multiplied_by_their_scales(
    scale_name: str, per_row: bool, original: Tensors, load: Callable[[Tensors], diffusers.DiffusionPipeline]
) -> None:
    """diffusers ignores the scales, which made noise."""
    stored, meant = _quantized(original, scale_name, per_row)
    if scale_name == "scale_weight":
        extra = {"scaled_fp8": torch.zeros(2).to(FLOAT8), f"{LAYER}.scale_input": torch.ones(1)}
    else:
        description = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
        extra = {f"{LAYER}.comfy_quant": description, f"{LAYER}.input_scale": torch.ones(())}
    _assert_same_unet(load({**stored, **extra}), load(meant))


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({f"{UNET}no.such.scale_weight": torch.ones(1)}, "no.such.scale_weight .* not there"),
        ({f"{LAYER}.scale_weight": torch.ones(3, 3)}, r"proj_in.scale_weight .* shape \[3, 3\]"),
        ({f"{LAYER}.comfy_quant": torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)}, "says nvfp4"),
        ({f"{LAYER}.bare.weight": torch.ones(8, 4, dtype=torch.int8)}, "bare.weight .* torch.int8, whose scales"),
    ],
)
def test_scales_of_another_kind_are_refused_by_name(extra: Tensors, reason: str) -> None:
    with pytest.raises(CatalogueError, match=reason):
        unscaled({f"{LAYER}.weight": torch.ones(8, 4), **extra}, torch.float32)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({f"{LAYER}.weight_scale_inv": torch.ones(1)}, "no layer takes .*proj_in.weight_scale_inv"),
        (
            {f"{UNET}control.extra.weight": torch.ones(4), f"{LAYER}.lora_down.weight": torch.ones(4, 64)},
            "no layer takes .*control.extra.weight, .*proj_in.lora_down.weight",
        ),
        (
            {"edm_vpred.sigma_max": torch.ones(1), "conditioner.embedders.7.weight": torch.ones(1)},
            "no layer takes conditioner.embedders.7.weight, edm_vpred.sigma_max",
        ),
    ],
)
def test_a_tensor_that_no_layer_takes_is_named(
    extra: Tensors, reason: str, original: Tensors, load: Callable[[Tensors], diffusers.DiffusionPipeline]
) -> None:
    with pytest.raises(CatalogueError, match=reason):
        load({**original, **extra})


def test_tensors_that_change_no_image_are_accepted(
    original: Tensors,
    load: Callable[[Tensors], diffusers.DiffusionPipeline],
    plain: diffusers.DiffusionPipeline,
) -> None:
    harmless = {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "conditioner.embedders.1.model.logit_scale": torch.ones(()),
        "first_stage_model.loss.logvar": torch.ones(()),
        "model_ema.decay": torch.ones(()),
        "betas": torch.ones(1000),
    }
    _assert_same_unet(load({**original, **harmless}), plain)


def test_a_noise_schedule_in_the_file_that_is_not_its_configurations_is_refused(
    original: Tensors, load: Callable[[Tensors], diffusers.DiffusionPipeline]
) -> None:
    with pytest.raises(CatalogueError, match=r"\(alphas_cumprod\) is not the one that the scheduler"):
        load({**original, "alphas_cumprod": torch.linspace(1, 0, 1000)})


@pytest.mark.parametrize(
    ("keys", "changes"),
    [
        ((), {}),
        (("v_pred",), {"prediction_type": "v_prediction"}),
        (("v_pred", "ztsnr"), {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    ],
)
def test_a_file_says_by_empty_tensors_how_it_was_trained(
    keys: tuple[str, ...],
    changes: dict[str, object],
    original: Tensors,
    two_widths: Path,
    catalogue: Catalogue,
    tmp_path: Path,
) -> None:
    """The worker follows it, with the numbers that diffusers gives when it is told; the API offers what can."""
    config = tmp_path / "config"
    config.symlink_to(two_widths)
    file = tmp_path / "vpred.safetensors"
    save_file({**original, **{key: torch.tensor([]) for key in keys}}, file)
    row = catalogue.model("shapes-sdxl").model_copy(update={"source": str(file), "config": str(config)})
    rows = with_checkpoint_limits(catalogue.model_copy(update={"models": (row,), "default_model": row.id}))
    assert ("heun" in rows.model(row.id).schedulers) == ("ztsnr" not in keys)
    pipeline = load_model(catalogue, row, get_family("sdxl"), file, torch.float32)
    ours = make_scheduler("euler", pipeline.scheduler.config)
    own = diffusers.EulerDiscreteScheduler.from_pretrained(config, subfolder="scheduler")
    theirs = diffusers.EulerDiscreteScheduler.from_config(own.config, **changes)
    for scheduler in (ours, theirs):
        scheduler.set_timesteps(5)
    assert torch.equal(ours.sigmas, theirs.sigmas)
    assert ours.config.prediction_type == theirs.config.prediction_type


def test_what_a_file_lacks_comes_from_its_configurations_folder_and_is_in_the_hash(
    original: Tensors, two_widths: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    file = tmp_path / "file.safetensors"
    save_file({name: one for name, one in original.items() if not name.startswith("first_stage_model.")}, file)
    row = ModelSpec(id="one", family="sdxl", source=str(file), config=str(two_widths))
    pipeline = load_model(catalogue, row, get_family("sdxl"), file, torch.float32)
    vae = diffusers.AutoencoderKL.from_pretrained(two_widths / "vae")
    assert all(torch.equal(one, vae.state_dict()[name]) for name, one in pipeline.vae.state_dict().items())
    beside = weights_beside(catalogue, row, get_family("sdxl"), file)
    assert beside == [two_widths / "vae" / "diffusion_pytorch_model.safetensors"]


def test_a_bare_unet_needs_no_prefix(
    original: Tensors,
    load: Callable[[Tensors], diffusers.DiffusionPipeline],
    plain: diffusers.DiffusionPipeline,
) -> None:
    bare = {name.removeprefix(UNET): tensor for name, tensor in original.items() if name.startswith(UNET)}
    _assert_same_unet(load(bare), plain)


@pytest.mark.parametrize(
    ("stored", "missing"),
    [
        ("first_stage_model.decoder.conv_in.bias", "vae: decoder.conv_in.bias"),
        (f"{UNET}middle_block.1.proj_in.bias", "unet: mid_block.attentions.0.proj_in.bias"),
        (
            "conditioner.embedders.1.model.transformer.resblocks.0.ln_1.bias",
            "text_encoder_2: text_model.encoder.layers.0.layer_norm1.bias",
        ),
    ],
)
def test_a_layer_that_a_file_lacks_is_named(
    stored: str, missing: str, load: Callable[[Tensors], diffusers.DiffusionPipeline], original: Tensors
) -> None:
    """diffusers says "Cannot copy out of meta tensor"."""
    with pytest.raises(CatalogueError, match=f"file.safetensors lacks weights of its {missing}"):
        load({name: tensor for name, tensor in original.items() if name != stored})


def test_a_file_of_another_architecture_is_refused_in_words(
    original: Tensors, load: Callable[[Tensors], diffusers.DiffusionPipeline]
) -> None:
    other = {name: tensor for name, tensor in original.items() if "label_emb" not in name}
    with pytest.raises(CatalogueError, match="its unet is not in the layout of an original sdxl release"):
        load(other)
