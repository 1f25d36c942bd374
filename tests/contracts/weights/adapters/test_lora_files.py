"""What a LoRA file's header says of it, and which files are refused before a worker sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.reader import read_catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts
from contracts.weights.formats.safetensors import read_header
from tests.support.trained import TRAINED_FAMILIES

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
def test_the_shipped_adapters_are_recognized(
    catalogue: Catalogue, name: str, layout: str, ranks: tuple[int, ...], changes_text: bool
) -> None:
    facts = read_facts(read_lora(LORAS / f"shapes-sdxl-{name}.safetensors"), catalogue)
    assert (facts.family, facts.layout, facts.ranks, facts.changes_text) == ("sdxl", layout, ranks, changes_text)
    assert (facts.dtype, facts.models) == ("F16", ("shapes-sdxl",))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong-family", "maps 320 to 320 channels, the layer of shapes-sdxl maps 64 to 64"),
        ("truncated", "truncated"),
        ("no-adapter", "is not part of a LoRA"),
    ],
)
def test_broken_and_mismatching_files_are_refused(catalogue: Catalogue, name: str, reason: str) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(read_lora(LORAS / "bad" / f"{name}.safetensors"), catalogue)


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
def test_the_family_follows_from_the_layers(
    catalogue: Catalogue, tmp_path: Path, layers: dict[str, tuple[int, int]], family: str
) -> None:
    facts = read_facts(read_lora(_save(tmp_path, _peft(layers))), catalogue)
    assert (facts.family, facts.models) == (family, tuple(r.id for r in catalogue.models if r.family == family))


def test_kohyas_names_of_flux_are_recognized(catalogue: Catalogue, tmp_path: Path) -> None:
    down, up = _halves(128, 384)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.ones(())}
    facts = read_facts(read_lora(_save(tmp_path, tensors)), catalogue)
    assert (facts.family, facts.layout) == ("flux", "kohya")


def test_kohyas_names_of_another_width_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    down, up = _halves(3072, 9216)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    with pytest.raises(
        AdapterRefused, match="maps 3072 to 9216 channels, the layer of shapes-flux maps 128 to 384"
    ):
        read_facts(
            read_lora(_save(tmp_path, {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})), catalogue
        )


def test_without_a_checkpoint_on_this_machine_the_family_follows_from_names_alone(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    far = ModelSpec(id="far", family="sdxl", source="somebody/sdxl")
    elsewhere = catalogue.model_copy(update={"models": (far,)})
    facts = read_facts(read_lora(_save(tmp_path, _peft({f"unet.{SDXL}": (640, 640)}))), elsewhere)
    assert (facts.family, facts.models) == ("sdxl", ())


def test_a_family_without_a_model_in_the_catalogue_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    only_flux = catalogue.model_copy(update={"models": (catalogue.model("shapes-flux"),)})
    with pytest.raises(AdapterRefused, match="made for sdxl, and the catalogue has no model of this family"):
        read_facts(read_lora(_save(tmp_path, _peft({f"unet.{SDXL}": (64, 64)}))), only_flux)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({f"unet.{SDXL}.lora_A.weight": np.ones((4, 64))}, "one of the two matrices of .* is missing"),
        (
            {f"unet.{SDXL}.lora_A.weight": np.ones((4, 64)), f"unet.{SDXL}.lora_B.weight": np.ones((64, 8))},
            "do not match",
        ),
        ({"unet.conv_in.hada_w1_a": np.ones((4, 8))}, "unet.conv_in.hada_w1_b is missing"),
        ({f"lora_unet_{SDXL}.dora_scale": np.ones(4)}, "dora_scale does not belong to the full"),
        (_peft({"unet.no.layer": (64, 64)}), "not a layer of any known family"),
        (_peft({"unet.mid_block.no.layer": (64, 64)}), "shapes-sdxl has no layer"),
        (
            _peft({"text_encoder_3.encoder.block.0.layer.0.SelfAttention.q": (64, 64)}),
            "not a layer of any known family",
        ),
        ({}, "contains no LoRA weights"),
        (
            _peft({"transformer.x_embedder": (128, 128)}),
            "a FLUX Control LoRA.* as control_lora in the row of a FLUX.1 model",
        ),
        (
            _peft({"img_in": (128, 3072)}) | {"double_blocks.0.img_attn.norm.key_norm.scale": np.ones(128)},
            "a FLUX Control LoRA.* as control_lora in the row .*key_norm",
        ),
    ],
)
def test_a_file_that_is_not_a_lora_is_refused(
    catalogue: Catalogue, tmp_path: Path, tensors: dict[str, Array], reason: str
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(read_lora(_save(tmp_path, tensors)), catalogue)


@pytest.mark.parametrize("family", TRAINED_FAMILIES)
def test_every_layer_of_a_denoiser_has_a_name_of_its_family(
    catalogue: Catalogue, family: str, tmp_path: Path
) -> None:
    """Else one layer could make a LoRA count as another family's."""
    folder = catalogue.root / f"shapes-{family}"
    part = "unet" if (folder / "unet").is_dir() else "transformer"
    tensors = read_header(folder / part / "diffusion_pytorch_model.safetensors").tensors
    layers = {
        f"{part}.{key.removesuffix('.weight')}": (tensor.shape[1], tensor.shape[0])
        for key, tensor in tensors.items()
        if key.endswith(".weight") and len(tensor.shape) == 2
    }
    facts = read_facts(read_lora(_save(tmp_path, _peft(layers))), catalogue)
    assert facts.family == family


@pytest.mark.parametrize(("width", "family"), [(768, "sd15"), (1024, "sd15"), (2048, "sdxl")])
def test_a_lora_for_checkpoints_that_are_elsewhere_belongs_to_the_family_with_prompts_of_its_width(
    width: int, family: str, tmp_path: Path
) -> None:
    """The UNets of both families have the same layers."""
    rows = tuple(ModelSpec(id=name, family=name, source=f"org/{name}") for name in ("sdxl", "sd15"))
    elsewhere = Catalogue(root=tmp_path, default_model="sdxl", models=rows)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    facts = read_facts(read_lora(_save(tmp_path, _peft({layer: (width, 1280)}))), elsewhere)
    assert (facts.family, facts.models) == (family, ())
