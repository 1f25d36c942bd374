"""GGUF files: a transformer whose weights stay packed on the device, through diffusers' own quantizer.

The package `gguf` is optional, and needed only for weights that are packed. Its reader is not used: the tensors
are those of the header that was checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import torch
from diffusers import GGUFQuantizationConfig

from contracts.errors import CatalogueError
from contracts.weights.checkpoint_files import AnyTensor, quantization_of
from contracts.weights.formats.gguf import KINDS, PackedTensor, read_gguf

_PACKAGE, _EXTRA = "gguf", "quantization-gguf"
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NUMBERS = {kind: number for number, (kind, *_) in KINDS.items()}


def require_package(tensors: Mapping[str, AnyTensor]) -> None:
    """Refuse packed weights where the package that unpacks them is not installed; raises CatalogueError."""
    if quantization_of(tensors) is not None and find_spec(_PACKAGE) is None:
        raise CatalogueError(
            f"its weights are packed, which needs the package {_PACKAGE}: pip install 'darkroom[{_EXTRA}]'"
        )


def read_packed(file: Path) -> dict[str, torch.Tensor]:
    """Return a file's tensors by name: packed ones as diffusers' parameters, others as they are.

    Raises:
        CatalogueError: it has packed weights, and the package `gguf` is not installed.
        NotGguf, OSError: as `read_gguf`.
    """
    tensors = read_gguf(file)
    require_package(tensors)
    with file.open("rb") as stream:
        return {name: _read(stream, tensor) for name, tensor in tensors.items()}


def _read(stream: BinaryIO, tensor: PackedTensor) -> torch.Tensor:
    buffer = bytearray(tensor.stored_bytes)
    stream.seek(tensor.begin)
    stream.readinto(buffer)  # type: ignore[attr-defined]
    stored = torch.frombuffer(buffer, dtype=torch.uint8)
    if not tensor.is_packed:
        return stored.view(_PLAIN[tensor.dtype]).reshape(tensor.shape)
    from diffusers.quantizers.gguf.utils import GGUFParameter
    from gguf import GGMLQuantizationType

    kind = GGMLQuantizationType(_NUMBERS[tensor.dtype])
    parameter: torch.Tensor = GGUFParameter(stored.reshape(*tensor.shape[:-1], -1), quant_type=kind)
    return parameter


def quantizer(tensors: Iterable[torch.Tensor], dtype: torch.dtype) -> GGUFQuantizationConfig | None:
    """Return the configuration with which diffusers loads these tensors; None where none is packed."""
    return GGUFQuantizationConfig(compute_dtype=dtype) if any(map(is_packed, tensors)) else None


def is_packed(tensor: Any) -> bool:
    """Whether a tensor or parameter is packed."""
    return getattr(tensor, "quant_shape", None) is not None


def describe(tensor: Any) -> PackedTensor:
    """Describe a packed parameter as the header of its file does, but for the place there."""
    return PackedTensor(tensor.quant_type.name, tuple(tensor.quant_shape), 0, tensor.nbytes)


def check_packed_layers(name: str, component: torch.nn.Module) -> None:
    """Refuse a component in which anything but the weights of linear layers is packed.

    diffusers (0.42) would compute with the packed bytes of others as if they were values.

    Raises:
        CatalogueError: it names the layer.
    """
    for prefix, module in component.named_modules():
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        for key, tensor in own.items():
            if is_packed(tensor) and not (key == "weight" and isinstance(module, torch.nn.Linear)):
                raise CatalogueError(
                    f"its {name} has {prefix}.{key} packed as {describe(tensor).dtype}, which only the weights of "
                    "linear layers can be"
                )
