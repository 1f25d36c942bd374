"""Names of the original releases are the layers that diffusers' converters make of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from safetensors import safe_open
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts
from contracts.weights.adapters.original_names import layers_named
from tests.support.original_layout import original_unet_names

_PREFIX = "lora_unet_"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return read_catalogue(BUILT_IN_CATALOGUE)


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        every = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {
        name.removesuffix(".weight").replace(".", "_"): shape
        for name, shape in every.items()
        if name.endswith(".weight") and len(shape) in (2, 4)
    }


def test_each_layer_of_a_unet_is_found_under_its_original_name(catalogue: Catalogue) -> None:
    folder = catalogue.root / "shapes-sdxl" / "unet"
    shapes = _shapes(folder)
    names = {
        original.removesuffix(".weight").replace(".", "_"): own.removesuffix(".weight").replace(".", "_")
        for own, original in original_unet_names(folder).items()
    }
    found = {original: layers_named(original, shapes) for original, own in names.items() if own in shapes}
    assert found == {original: [own] for original, own in names.items() if own in shapes}


def test_each_name_of_flux_is_what_diffusers_converter_makes_of_it() -> None:
    single = ("linear2", "modulation_lin")  # diffusers splits linear1 at the real width only
    double = (
        "img_attn_qkv", "txt_attn_qkv", "img_attn_proj", "txt_attn_proj", "img_mlp_0", "img_mlp_2", "txt_mlp_0",
        "txt_mlp_2", "img_mod_lin", "txt_mod_lin",
    )  # fmt: skip
    names = [f"double_blocks_0_{layer}" for layer in double] + [f"single_blocks_1_{layer}" for layer in single]
    for name in names:
        stored = {
            f"{_PREFIX}{name}.lora_down.weight": torch.zeros(3, 4),
            f"{_PREFIX}{name}.lora_up.weight": torch.zeros(12, 3),
            f"{_PREFIX}{name}.alpha": torch.tensor(3.0),
        }
        made = {
            re.sub(r"\.lora_[AB]\.weight$", "", key).removeprefix("transformer.").replace(".", "_")
            for key in _convert_kohya_flux_lora_to_diffusers(stored)
        }
        assert set(layers_named(name, {}) or ()) == made, name


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "reason"),
    [
        (
            "input_blocks_9_1_transformer_blocks_0_attn1_to_q",
            64,
            64,
            "shapes-sdxl has no layer lora_unet_input_blocks_9",
        ),
        ("input_blocks_1_1_transformer_blocks_0_attn1_to_q", 96, 64, "maps 96 to 64 channels, the layer of"),
        ("middle_block_1_transformer_blocks_0_attn1_to_q", 64, 96, "maps 64 to 96 channels, the layer of"),
    ],
)
def test_a_layer_that_the_model_lacks_is_refused_at_upload(
    name: str, inputs: int, outputs: int, reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    """Such files were accepted, and every job with them failed."""
    down, up = torch.ones(2, inputs).numpy(), torch.ones(outputs, 2).numpy()
    file = tmp_path / "a.safetensors"
    save_file({f"{_PREFIX}{name}.lora_down.weight": down, f"{_PREFIX}{name}.lora_up.weight": up}, file)
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(read_lora(file), catalogue)


def test_other_names_are_left_to_the_other_rules() -> None:
    assert layers_named("down_blocks_0_attentions_0_proj_in", {}) is None
    assert layers_named("input_blocks_4_1_proj_in", {}) is None
