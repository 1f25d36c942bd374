"""Adapters known by their headers, and what is refused by name before a worker sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue, ModelSpec, read_catalogue
from contracts.catalogue.families import FAMILIES
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.lora_files import AdapterRefused, read_facts, read_tensors

Array = npt.NDArray[Any]
SDXL = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
LORAS = BUILT_IN_CATALOGUE.parent / "loras"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The built-in models."""
    return read_catalogue(BUILT_IN_CATALOGUE)


def _halves(inputs: int, outputs: int, rank: int = 4) -> tuple[Array, Array]:
    return np.ones((rank, inputs), np.float32), np.ones((outputs, rank), np.float32)


def _peft(layers: Mapping[str, tuple[int, int]]) -> dict[str, Array]:
    tensors = {}
    for name, (inputs, outputs) in layers.items():
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = _halves(inputs, outputs)
    return tensors


def _save(folder: Path, tensors: Mapping[str, Array]) -> Path:
    path = folder / "lora.safetensors"
    save_file(dict(tensors), path)
    return path


@pytest.mark.parametrize(
    ("name", "layout", "ranks", "changes_text"),
    [
        ("tint", "peft", (2,), False),
        ("stripes", "kohya", (8,), False),
        ("crescent", "peft", (16,), True),
        ("outline", "peft", (32,), False),
    ],
)
def test_the_shipped_adapters_are_known(
    catalogue: Catalogue, name: str, layout: str, ranks: tuple[int, ...], changes_text: bool
) -> None:
    facts = read_facts(LORAS / f"shapes-sdxl-{name}.safetensors", catalogue)
    assert (facts.family, facts.layout, facts.ranks, facts.changes_text) == ("sdxl", layout, ranks, changes_text)
    assert (facts.dtype, facts.models) == ("F16", ("shapes-sdxl",))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong-family", "320 → 320 channels, and the layer of shapes-sdxl has 64 → 64"),
        ("truncated", "cut off"),
        ("no-adapter", "no part of a LoRA"),
    ],
)
def test_the_misfits_are_refused_by_name(catalogue: Catalogue, name: str, reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(LORAS / "bad" / f"{name}.safetensors", catalogue)


@pytest.mark.parametrize(
    ("layers", "family"),
    [
        ({f"unet.{SDXL}": (64, 64)}, "sdxl"),
        ({"transformer.transformer_blocks.0.attn.to_q": (128, 128)}, "sd3"),
        (
            {
                "transformer.transformer_blocks.0.attn.to_q": (128, 128),
                "transformer.single_transformer_blocks.0.attn.to_q": (128, 128),
            },
            "flux",
        ),
    ],
)
def test_the_family_is_told_by_the_layers(
    catalogue: Catalogue, tmp_path: Path, layers: dict[str, tuple[int, int]], family: str
) -> None:
    facts = read_facts(_save(tmp_path, _peft(layers)), catalogue)
    assert (facts.family, facts.models) == (family, (f"shapes-{family}",))


def test_kohyas_names_of_flux_are_flux(catalogue: Catalogue, tmp_path: Path) -> None:
    down, up = _halves(128, 384)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.ones(())}
    facts = read_facts(_save(tmp_path, tensors), catalogue)
    assert (facts.family, facts.layout) == ("flux", "kohya")


def test_kohyas_names_of_another_width_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    down, up = _halves(3072, 9216)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    with pytest.raises(AdapterRefused, match="3072 channels; no layer of shapes-flux has so many"):
        read_facts(_save(tmp_path, {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}), catalogue)


def test_a_family_whose_checkpoints_are_not_here_is_told_by_names_alone(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    far = ModelSpec(id="far", family="sdxl", source="somebody/sdxl")
    elsewhere = catalogue.model_copy(update={"models": (far,)})
    facts = read_facts(_save(tmp_path, _peft({f"unet.{SDXL}": (640, 640)})), elsewhere)
    assert (facts.family, facts.models) == ("sdxl", ())


def test_a_family_that_the_service_does_not_have_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    only_flux = catalogue.model_copy(update={"models": (catalogue.model("shapes-flux"),)})
    with pytest.raises(AdapterRefused, match="made for sdxl, and there is no such model here"):
        read_facts(_save(tmp_path, _peft({f"unet.{SDXL}": (64, 64)})), only_flux)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({f"unet.{SDXL}.lora_A.weight": np.ones((4, 64))}, "only one of its two halves"),
        (
            {f"unet.{SDXL}.lora_A.weight": np.ones((4, 64)), f"unet.{SDXL}.lora_B.weight": np.ones((64, 8))},
            "do not fit together",
        ),
        ({"unet.conv_in.hada_w1_a": np.ones((4, 8))}, "not supported"),
        ({f"lora_unet_{SDXL}.dora_scale": np.ones(4)}, "not supported"),
        (_peft({"unet.no.layer": (64, 64)}), "no layer of a family"),
        (_peft({"unet.mid_block.no.layer": (64, 64)}), "shapes-sdxl has no layer"),
        (_peft({"text_encoder_3.encoder.block.0.layer.0.SelfAttention.q": (64, 64)}), "no layer of a family"),
        ({}, "no LoRA weights"),
    ],
)
def test_what_is_no_adapter_is_refused(
    catalogue: Catalogue, tmp_path: Path, tensors: dict[str, Array], reason: str
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(_save(tmp_path, tensors), catalogue)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_of_a_denoiser_has_a_name_of_its_family(
    catalogue: Catalogue, family: str, tmp_path: Path
) -> None:
    """So no adapter of it is taken for another family's because of one layer."""
    folder = catalogue.root / f"shapes-{family}"
    part = "unet" if (folder / "unet").is_dir() else "transformer"
    tensors = read_tensors(folder / part / "diffusion_pytorch_model.safetensors")
    layers = {
        f"{part}.{key.removesuffix('.weight')}": (tensor.shape[1], tensor.shape[0])
        for key, tensor in tensors.items()
        if key.endswith(".weight") and len(tensor.shape) == 2
    }
    facts = read_facts(_save(tmp_path, _peft(layers)), catalogue)
    assert facts.family == family
