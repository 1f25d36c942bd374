"""Weights that torchao or bitsandbytes saved in parts: read as one each, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from contracts.errors import CatalogueError
from contracts.weights.counts.parameter_counts import count_tensors
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Header, Tensor
from contracts.weights.quantized import read_quantization
from contracts.weights.quantized_files import QuantizedTensor, tensors_of

_FLOAT8 = {
    "_type": "Float8Tensor",
    "_data": {
        "block_size": [1, 8],
        "mm_config": None,
        "act_quant_kwargs": None,
        "kernel_preference": {"_type": "KernelPreference", "_data": "AUTO"},
        "dtype": {"_type": "torch.dtype", "_data": "bfloat16"},
    },
    "_tensor_data_names": ["qdata", "scale"],
}


def _parts() -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = {
        "blocks.0.to_q._weight_qdata": Tensor("F8_E4M3", (4, 8), 0, 32),
        "blocks.0.to_q._weight_scale": Tensor("F32", (4, 1), 32, 48),
        "blocks.0.to_q.bias": Tensor("BF16", (4,), 48, 56),
    }
    entries = {"blocks.0.to_q.weight": json.loads(json.dumps(_FLOAT8)), "blocks.0.to_q.bias": {"_type": "Tensor"}}
    return tensors, entries


def _read(tensors: dict[str, Tensor], entries: dict[str, Any]) -> Any:
    metadata = {name: json.dumps(entry) for name, entry in entries.items()}
    return tensors_of(Header(tensors, {**metadata, "tensor_names": json.dumps(list(entries)), "format": "pt"}))


def test_parts_are_one_weight_and_count_as_they_are_stored() -> None:
    found = _read(*_parts())
    weight = QuantizedTensor("float8_weight_only", (4, 8))
    assert found == {"blocks.0.to_q.weight": weight, "blocks.0.to_q.bias": Tensor("BF16", (4,), 48, 56)}
    count = count_tensors(found.items())
    assert (count.values, count.packed.bytes, count.packed.block_bytes) == (4, 48, 48)
    assert tensors_of(Header({"a.weight": Tensor("F32", (2, 2), 0, 16)})).keys() == {"a.weight"}


def _entry(**changes: Any) -> Callable[[Any, Any], None]:
    return lambda tensors, entries: entries["blocks.0.to_q.weight"].update(changes)


def _data(**changes: Any) -> Callable[[Any, Any], None]:
    return lambda tensors, entries: entries["blocks.0.to_q.weight"]["_data"].update(changes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_entry(_type="NVFP4Tensor"), "blocks.0.to_q.weight quantized in a way"),
        (_entry(_tensor_data_names=["qdata"]), "blocks.0.to_q.weight quantized in a way"),
        (_entry(_tensor_data_names=7), "blocks.0.to_q.weight quantized in a way"),
        (_entry(_data=[]), "blocks.0.to_q.weight quantized in a way"),
        (_data(block_size=[8, 8]), "blocks.0.to_q.weight quantized in a way"),
        (_data(act_quant_kwargs={"_type": "QuantizeTensorToFloat8Kwargs"}), "blocks.0.to_q.weight quantized"),
        (_data(dtype={"_type": "torch.dtype", "_data": "int8"}), "blocks.0.to_q.weight quantized in a way"),
        (_data(more=1), "blocks.0.to_q.weight quantized in a way"),
        (lambda tensors, _: tensors.pop("blocks.0.to_q._weight_scale"), "blocks.0.to_q.weight quantized in a way"),
        (
            lambda tensors, _: tensors.update({"blocks.0.to_q._weight_scale": Tensor("F32", (1, 4), 32, 48)}),
            "blocks.0.to_q.weight quantized in a way",
        ),
        (
            lambda tensors, _: tensors.update({"blocks.0.to_q._weight_qdata": Tensor("F8_E4M3", (32,), 0, 32)}),
            "blocks.0.to_q.weight quantized in a way",
        ),
        (
            lambda _, entries: entries.update({"a.weight": _FLOAT8}),
            "describes a.weight otherwise than the file has it",
        ),
        (lambda _, entries: entries.update({"a.bias": "[]"}), "describes a.bias otherwise than the file has it"),
    ],
)
def test_what_torchao_would_not_have_written_is_refused_by_name(
    change: Callable[[Any, Any], None], reason: str
) -> None:
    tensors, entries = _parts()
    change(tensors, entries)
    with pytest.raises(NotSafetensors, match=reason):
        _read(tensors, entries)


def _config(**changes: Any) -> dict[str, Any]:
    granularity = {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}}
    data = {"granularity": granularity, "group_size": None, "set_inductor_config": True, **changes}
    default = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": data}
    return {"quant_method": "torchao", "modules_to_not_convert": None, "quant_type": {"default": default}}


def test_a_configuration_names_the_quantization_or_is_refused_by_its_method() -> None:
    assert read_quantization({}, "transformer") is None
    assert read_quantization({"quantization_config": _config()}, "transformer") == "int8_weight_only"
    of_transformers = {**_config(), "include_input_output_embeddings": False, "untie_embedding_weights": False}
    assert read_quantization({"quantization_config": of_transformers}, "text_encoder_2") == "int8_weight_only"
    for settings, component, method in (
        (_config(), "vae", " by torchao"),
        ({**of_transformers, "include_input_output_embeddings": True}, "text_encoder", " by torchao"),
        ({"quant_method": "gguf"}, "text_encoder", " by gguf"),
        (_config(group_size=32), "transformer", " by torchao"),
        ({**_config(), "quant_type": {"default": "int8"}}, "transformer", " by torchao"),
        ({**_config(), "modules_to_not_convert": [1]}, "transformer", " by torchao"),
        ({"quant_method": "bitsandbytes"}, "unet", " by bitsandbytes"),
        ([1], "unet", ""),
    ):
        with pytest.raises(CatalogueError, match=f"its {component} is quantized{method} \\(quantization_config"):
            read_quantization({"quantization_config": settings}, component)


#: As bitsandbytes (0.50) writes them through diffusers: a weight of 64 × 32 values in 4 bits, one in 8 bits.
_FOUR: dict[str, Tensor] = {
    "blocks.0.to_q.weight": Tensor("U8", (1024, 1), 0, 1024),
    "blocks.0.to_q.weight.absmax": Tensor("F32", (32,), 1024, 1152),
    "blocks.0.to_q.weight.quant_map": Tensor("F32", (16,), 1152, 1216),
    "blocks.0.to_q.weight.quant_state.bitsandbytes__nf4": Tensor("U8", (80,), 1216, 1296),
    "blocks.0.to_q.bias": Tensor("BF16", (64,), 1296, 1424),
}
#: The same with scales in 8 bits, which have scales.
_NESTED = {
    **_FOUR,
    "blocks.0.to_q.weight.absmax": Tensor("U8", (32,), 1024, 1056),
    "blocks.0.to_q.weight.nested_absmax": Tensor("F32", (1,), 1056, 1060),
    "blocks.0.to_q.weight.nested_quant_map": Tensor("F32", (256,), 1060, 2084),
}
_EIGHT: dict[str, Tensor] = {
    "blocks.0.to_q.weight": Tensor("I8", (64, 32), 0, 2048),
    "blocks.0.to_q.SCB": Tensor("F32", (64,), 2048, 2304),
    "blocks.0.to_q.weight_format": Tensor("U8", (), 2304, 2305),
}


@pytest.mark.parametrize(
    ("tensors", "kind", "size", "plain"),
    [
        (_FOUR, "bitsandbytes_nf4", 1024 + 128 + 64, 64),
        (_NESTED, "bitsandbytes_nf4", 1024 + 32 + 64 + 4 + 1024 + 4, 64),
        (_EIGHT, "bitsandbytes_int8", 2048 + 256, 0),
    ],
)
def test_a_weight_of_bitsandbytes_counts_with_its_scales_as_it_is_on_the_device(
    tensors: dict[str, Tensor], kind: str, size: int, plain: int
) -> None:
    found = tensors_of(Header(tensors))
    assert found.keys() == {"blocks.0.to_q.weight", *(["blocks.0.to_q.bias"] if plain else [])}
    weight = found["blocks.0.to_q.weight"]
    assert (weight.dtype, weight.values) == (kind, 64 * 32)
    count = count_tensors(found.items())
    assert (count.values, count.packed.bytes, count.packed.layer_values) == (plain, size, 64 * 32)


@pytest.mark.parametrize(
    ("tensors", "changes", "reason"),
    [
        (_FOUR, {"blocks.0.to_q.weight.absmax": None}, "in 4 bits without all of its parts"),
        (_FOUR, {"blocks.0.to_q.weight": None}, "in 4 bits without all of its parts"),
        (_FOUR, {"blocks.0.to_q.weight": Tensor("F32", (256,), 0, 1024)}, "in 4 bits without all of its parts"),
        (_NESTED, {"blocks.0.to_q.weight.nested_absmax": None}, "in 4 bits without all of its parts"),
        (_EIGHT, {"blocks.0.to_q.weight": Tensor("F32", (64, 8), 0, 2048)}, "in 8 bits without its rows' scales"),
        (_EIGHT, {"blocks.0.to_q.SCB": Tensor("F32", (32,), 2048, 2176)}, "in 8 bits without its rows' scales"),
    ],
)
def test_parts_of_bitsandbytes_that_do_not_fit_are_refused_by_name(
    tensors: dict[str, Tensor], changes: dict[str, Tensor | None], reason: str
) -> None:
    changed = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
    with pytest.raises(NotSafetensors, match=f"blocks.0.to_q.*{reason}"):
        tensors_of(Header(changed))


def _bitsandbytes(**changes: Any) -> dict[str, Any]:
    """As diffusers (0.42) writes it."""
    return {
        "_load_in_4bit": True, "_load_in_8bit": False, "load_in_4bit": True, "load_in_8bit": False,
        "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": False, "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0,
        "quant_method": "bitsandbytes", **changes,
    }  # fmt: skip


def test_a_configuration_of_bitsandbytes_is_taken_of_denoisers_if_it_is_one_of_the_two() -> None:
    eight = {"load_in_4bit": False, "load_in_8bit": True, "_load_in_4bit": False, "_load_in_8bit": True}
    taken: list[tuple[dict[str, Any], str]] = [
        ({}, "bitsandbytes_nf4"),
        ({"bnb_4bit_use_double_quant": True, "llm_int8_skip_modules": ["proj_out"]}, "bitsandbytes_nf4"),
        ({**eight, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes_int8"),
    ]
    for changes, expected in taken:
        assert read_quantization({"quantization_config": _bitsandbytes(**changes)}, "transformer") == expected
    refused: list[tuple[str, dict[str, Any]]] = [
        ("text_encoder_2", {}),
        ("vae", {}),
        ("transformer", {"bnb_4bit_quant_type": "fp4"}),
        ("transformer", {"bnb_4bit_quant_storage": "bfloat16"}),
        ("transformer", {"load_in_8bit": True}),
        ("transformer", {"llm_int8_has_fp16_weight": True}),
        ("transformer", {"llm_int8_skip_modules": [1]}),
        ("transformer", {"llm_int8_threshold": "6"}),
        ("transformer", {"more": 1}),
    ]
    for component, changes in refused:
        with pytest.raises(CatalogueError, match=r"by bitsandbytes .* of denoisers also bitsandbytes_int8 and"):
            read_quantization({"quantization_config": _bitsandbytes(**changes)}, component)
