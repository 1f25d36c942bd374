"""Denoisers that bitsandbytes quantizes while they are loaded, or has before: LLM.int8() and nf4.

Through diffusers' quantizers, which need a CUDA card; the weights come into host memory first, like any others.
The package `bitsandbytes` is optional, needed only for these, and imported with the first of them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch

from contracts.catalogue.quantizations import QUANTIZATIONS, kinds_of
from contracts.errors import CatalogueError
from contracts.weights.configs import read_config
from contracts.weights.quantized_files import QuantizedTensor

_PACKAGE, _EXTRA = "bitsandbytes", "quantization-bitsandbytes"
_CONFIG, _SETTINGS = "config.json", "quantization_config"
#: What diffusers' quantizers need to be told before they leave weights in host memory.
_ON_HOST = {"llm_int8_enable_fp32_cpu_offload": True}
#: Where from_pretrained is to put the weights.
HOST = {"": "cpu"}
#: Class of a weight -> the quantization that makes it.
_KINDS = {QUANTIZATIONS[kind].tensor: kind for kind in kinds_of(_PACKAGE)}
#: Of LLM.int8(): the largest of a row's values.
_LARGEST = 127


def makes(quantization: str | None) -> bool:
    """Whether a quantization is one of bitsandbytes'."""
    return quantization in _KINDS.values()


def require_card(quantization: str) -> None:
    """Refuse it unless the package is installed and torch finds a CUDA card; raises CatalogueError."""
    if find_spec(_PACKAGE) is None:
        raise CatalogueError(
            f"its quantization {quantization} needs the package {_PACKAGE}: pip install 'darkroom[{_EXTRA}]'"
        )
    if not torch.cuda.is_available():
        raise CatalogueError(
            f"its quantization {quantization} needs a CUDA card, and this worker has none: name "
            f"{' or '.join(kinds_of('torchao'))} as quantization, or a checkpoint that is not quantized"
        )


def quantizer(quantization: str, dtype: torch.dtype) -> Any:
    """Return the configuration with which diffusers quantizes a denoiser that computes in this dtype."""
    options: dict[str, Any] = {QUANTIZATIONS[quantization].config: True, **_ON_HOST}
    if quantization == "bitsandbytes_nf4":
        options |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return diffusers.BitsAndBytesConfig(**options)


@contextmanager
def readable(part: Path, quantization: str, dtype: torch.dtype) -> Iterator[Path]:
    """Yield the folder of a component that was quantized before, as diffusers loads it into host memory.

    Missing entries of its configuration are added in a copy, beside links to the files.
    """
    config = dict(read_config(part))
    settings: Mapping[str, Any] = config[_SETTINGS]
    computing = {"bnb_4bit_compute_dtype": str(dtype).removeprefix("torch.")}
    config[_SETTINGS] = {**settings, **_ON_HOST, **(computing if quantization == "bitsandbytes_nf4" else {})}
    with TemporaryDirectory() as folder:
        for file in part.iterdir():
            if file.name != _CONFIG:
                (Path(folder) / file.name).symlink_to(file.resolve())
        (Path(folder) / _CONFIG).write_text(json.dumps(config), encoding="utf-8")
        yield Path(folder)


def keep_scales(model: torch.nn.Module) -> None:
    """Make the scales of packed weights move with the weights: as buffers, which are not saved."""
    layers: list[Any] = [layer for layer in model.modules() if is_packed(getattr(layer, "weight", None))]
    for layer in layers:
        weight = layer.weight
        if type(weight).__name__ == "Params4bit":
            state = weight.quant_state
            parts = {"absmax": state.absmax, "code": state.code}
            if state.nested:
                parts |= {"offset": state.offset, "scales": state.state2.absmax, "scales_code": state.state2.code}
            # On a CPU it would pack them once more, for kernels of its own.
            layer.support_avx512bf16_for_cpu = False
        else:
            layer.init_8bit_state()
            parts = {"scales": layer.state.SCB}
            layer.state.CB = None
            layer.register_forward_pre_hook(_note_weight)
            layer.register_forward_hook(_forget_weight, always_call=True)
        for name, tensor in parts.items():
            layer.register_buffer(f"packed_{name}", tensor, persistent=False)


def _note_weight(layer: Any, _: object) -> None:
    """bitsandbytes computes with what it has noted of a weight, which may be elsewhere by now."""
    layer.state.CB = layer.weight.data


def _forget_weight(layer: Any, *_: object) -> None:
    """What it has noted would stay on the device once the weight has left."""
    layer.state.CB = None


def is_packed(tensor: Any) -> bool:
    """Whether a tensor or parameter is one of bitsandbytes'."""
    return type(tensor).__name__ in _KINDS and not tensor.dtype.is_floating_point


def describe(tensor: Any) -> QuantizedTensor:
    """Describe a packed parameter as the planner counts it."""
    kind = _KINDS[type(tensor).__name__]
    if kind != "bitsandbytes_nf4":
        return QuantizedTensor(kind, tuple(tensor.shape))
    state = tensor.quant_state
    parts = [tensor, state.absmax, state.code]
    if state.nested:
        parts += [state.offset, state.state2.absmax, state.state2.code]
    return QuantizedTensor(kind, tuple(state.shape), sum(part.nbytes for part in parts))


def unpack(layer: Any) -> torch.Tensor:
    """Make the values of a layer's packed weight."""
    weight = layer.weight
    if type(weight).__name__ == "Params4bit":
        kernels = importlib.import_module(f"{_PACKAGE}.functional")
        values: torch.Tensor = kernels.dequantize_4bit(weight.data, weight.quant_state)
    else:
        values = weight.data.float() * (layer.state.SCB.float() / _LARGEST)[:, None]
    return values
