"""LoHa, LoKr, full differences, OFT, IA3 and kohya's DoRA, told by their headers at an upload."""

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
from contracts.errors import AdapterRefused
from contracts.settings import BUILT_IN_CATALOGUE
from contracts.weights.adapters.lora_files import read_lora
from contracts.weights.adapters.lora_models import read_facts

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
NAME = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
SDXL, FLUX = f"lora_unet_{NAME.replace('.', '_')}", "lora_unet_double_blocks_0_img_attn_qkv"
ALPHA: Array = np.asarray(2, np.float32)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The built-in models."""
    return read_catalogue(BUILT_IN_CATALOGUE)


def _ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def _save(folder: Path, layer: str, tensors: Tensors, **options: Any) -> Path:
    path = folder / "adapter.safetensors"
    save_file({f"{layer}.{name}": tensor for name, tensor in tensors.items()}, path, **options)
    return path


def _loha(outputs: int = 64, inputs: int = 64) -> Tensors:
    halves = {
        f"hada_w{n}_{half}": shape for n in (1, 2) for half, shape in (("a", (outputs, 4)), ("b", (4, inputs)))
    }
    return {name: _ones(*shape) for name, shape in halves.items()} | {"alpha": ALPHA}


def _lokr(outputs: int = 64, inputs: int = 64) -> Tensors:
    second = {"lokr_w2_a": _ones(outputs // 8, 2), "lokr_w2_b": _ones(2, inputs // 8)}
    return {"lokr_w1": _ones(8, 8), **second, "alpha": ALPHA}


def _lora(**more: Array) -> Tensors:
    return {"lora_down.weight": _ones(4, 64), "lora_up.weight": _ones(64, 4), "alpha": ALPHA, **more}


ONE: Array = np.asarray(1)
KINDS: list[tuple[Tensors, tuple[str, ...], tuple[int, ...]]] = [
    (_loha(), ("loha",), (4,)),
    (_lokr(), ("lokr",), (2,)),
    ({"lokr_w1": _ones(8, 8), "lokr_w2": _ones(8, 8), "alpha": ALPHA}, ("lokr",), ()),
    ({"diff": _ones(64, 64), "diff_b": _ones(64)}, ("full",), ()),
    ({"diff_b": _ones(64)}, ("full",), ()),
    ({"oft_blocks": _ones(8, 8, 8), "alpha": ALPHA}, ("oft",), ()),
    ({"weight": _ones(64), "on_input": ONE}, ("ia3",), ()),
    ({"weight": _ones(64), "on_input": np.asarray(0)}, ("ia3",), ()),
    (_lora(dora_scale=_ones(64, 1)), ("dora",), (4,)),
    (_lora(dora_scale=_ones(1, 64)), ("dora",), (4,)),
    ({**_loha(), "dora_scale": _ones(64, 1)}, ("dora", "loha"), (4,)),
    (_lora(diff_b=_ones(64)), ("lora",), (4,)),
]


@pytest.mark.parametrize(("tensors", "kinds", "ranks"), KINDS)
def test_each_kind_is_told_by_its_tensors(
    tensors: Tensors, kinds: tuple[str, ...], ranks: tuple[int, ...], catalogue: Catalogue, tmp_path: Path
) -> None:
    facts = read_facts(read_lora(_save(tmp_path, SDXL, tensors)), catalogue)
    assert (facts.kinds, facts.ranks, facts.layout) == (kinds, ranks, "kohya")
    assert (facts.family, facts.models) == ("sdxl", ("shapes-sdxl",))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        (NAME, "comfyui"),
        (f"unet.{NAME}", "comfyui"),
        (f"diffusion_model.{NAME}", "comfyui"),
        (SDXL, "kohya"),
        (f"lycoris_{NAME.replace('.', '_')}", "lycoris"),
        ("lora_unet_input_blocks_1_1_proj_in", "kohya"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "kohya"),
    ],
)
def test_layers_are_told_by_every_trainers_names(
    name: str, layout: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    facts = read_facts(read_lora(_save(tmp_path, name, {"diff_b": _ones(64)})), catalogue)
    assert (facts.layout, facts.models, facts.changes_text) == (layout, ("shapes-sdxl",), "te1" in name)


def test_a_layer_that_the_original_joins_is_compared_with_all_of_the_models(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    facts = read_facts(read_lora(_save(tmp_path, FLUX, _lokr(384, 128))), catalogue)
    assert facts.models == ("shapes-flux", "shapes-kontext")
    with pytest.raises(AdapterRefused, match="maps any to 128 channels, the layer of shapes-flux maps 128 to 384"):
        read_facts(read_lora(_save(tmp_path, FLUX, _lokr(128, 128))), catalogue)
    with pytest.raises(AdapterRefused, match="its blocks of 96 rows cross their borders"):
        read_facts(read_lora(_save(tmp_path, FLUX, {"oft_blocks": _ones(4, 96, 96)})), catalogue)


def test_what_a_call_makes_counts_beside_the_files_values(tmp_path: Path) -> None:
    """LoHa's products, and DoRA's lengths in float32: plans hold them."""
    catalogue = read_catalogue(BUILT_IN_CATALOGUE)
    loha, lora = (read_facts(read_lora(_save(tmp_path, SDXL, one)), catalogue) for one in (_loha(), _lora()))
    assert (loha.device_values - loha.values, lora.device_values - lora.values) == (2 * 64 * 64, 0)
    dora = read_facts(read_lora(_save(tmp_path, SDXL, _lora(dora_scale=_ones(64, 1)))), catalogue)
    assert dora.device_values - dora.values == 6 * 64 * 64


REFUSED: list[tuple[Tensors, str]] = [
    ({name: one for name, one in _loha().items() if name != "hada_w2_b"}, "to_q.hada_w2_b is missing"),
    ({**_loha(), "hada_w2_a": _ones(32, 4)}, r"to_q \(loha\) do not fit together: .*hada_w2_a \[32, 4\]"),
    ({**_loha(), "hada_t1": _ones(4, 4, 3, 3)}, "to_q.hada_t2 is missing"),
    ({**_loha(), "alpha": _ones(2)}, r"alpha must be one value, got the shape \[2\]"),
    ({**_loha(), "lokr_w1": _ones(8, 8)}, "weights of two kinds, loha and lokr"),
    ({**_lokr(), "lokr_w2": _ones(8, 8)}, "do not fit together"),
    ({**_lokr(), "lokr_t1": _ones(2, 2)}, "a LoKr with a core of its first half"),
    (_lokr(64, 128), "changes 128 values for each output, the layer of shapes-sdxl has 64"),
    ({"diff": _ones(64)}, "differences of norms are not supported"),
    ({"w_norm": _ones(64)}, "a norm's difference"),
    ({"diff": _ones(64, 64).astype(np.int8)}, "must be floating-point numbers, got I8"),
    ({"oft_blocks": _ones(2, 4, 8, 8)}, "BOFT is not supported"),
    ({"oft_blocks": _ones(4, 8, 8)}, "maps any to 32 channels"),
    ({"oft_diag": _ones(8, 8, 8)}, "an old LyCORIS' OFT"),
    ({"oft_R.weight": _ones(8, 28)}, "PEFT's OFT"),
    ({"ia3_l": _ones(64, 1)}, "PEFT's IA3"),
    ({"weight": _ones(32), "on_input": ONE}, "maps 32 to any channels"),
    ({"on_input": ONE}, "to_q.weight is missing"),
    ({"a1.weight": _ones(4, 64)}, "GLoRA"),
    (_lora(dora_scale=_ones(32, 1)), r"to_q \(lora\) do not fit together"),
    ({**_lora(dora_scale=_ones(64, 1)), "lora_B.bias": _ones(64)}, "lora_B.bias does not fit the kind"),
    ({"oft_blocks": _ones(8, 8, 8), "dora_scale": _ones(64, 1)}, "dora_scale does not belong to the oft"),
]


@pytest.mark.parametrize(("tensors", "reason"), REFUSED)
def test_what_could_only_be_applied_in_part_is_refused_by_name(
    tensors: Tensors, reason: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRefused, match=reason):
        read_facts(read_lora(_save(tmp_path, SDXL, tensors)), catalogue)


def test_two_changes_of_one_layer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    lora = {f"unet.{NAME}.{key}": one for key, one in _lora().items()}
    save_file({**lora, f"{SDXL}.diff": _ones(64, 64)}, path)
    with pytest.raises(AdapterRefused, match="two sets of weights for"):
        read_lora(path)


def test_pefts_settings_beside_another_kind_are_refused(tmp_path: Path) -> None:
    """They scale PEFT's LoKr otherwise than an alpha does."""
    settings = {"lora_adapter_metadata": '{"unet.r": 4, "unet.alpha": 8}'}
    with pytest.raises(AdapterRefused, match="scales PEFT's lokr another way"):
        read_lora(_save(tmp_path, SDXL, _lokr(), metadata=settings))
