"""Weights that torchao quantized before they were saved, by the headers of their files.

Each weight is stored in parts (`X._weight_qdata`, `X._weight_scale`), and the file's metadata says of which class
it is. diffusers makes objects from what it finds there, so here only what torchao (0.18) itself writes for the
quantizations that a row can name is taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.weights.formats.header_text import NotSafetensors
from contracts.weights.formats.safetensors import Header, Tensor

#: Kind -> dtype of each part of a stored weight, what its entry says beside block size and dtype.
_STORED: Mapping[str, tuple[Mapping[str, str], Mapping[str, object]]] = {
    "int8_weight_only": (
        {"qdata": "I8", "scale": "F32", "zero_point": "I8"},
        {"act_quant_kwargs": None, "reduce_range": False},
    ),
    "float8_weight_only": (
        {"qdata": "F8_E4M3", "scale": "F32"},
        {
            "act_quant_kwargs": None,
            "mm_config": None,
            "kernel_preference": {"_type": "KernelPreference", "_data": "AUTO"},
        },
    ),
}
_DTYPES = [{"_type": "torch.dtype", "_data": name} for name in ("float32", "bfloat16", "float16")]
_VALUES, _NAMES = "._weight_qdata", "tensor_names"


@dataclass(frozen=True)
class QuantizedTensor:
    """One weight as it is stored once it is quantized, to be counted like a packed one of a file.

    Attributes:
        dtype: name of its kind.
        shape: of its values.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of its values and scales."""
        return self.values + self.shape[0] * QUANTIZATIONS[self.dtype].row_bytes

    @property
    def unpacking_bytes(self) -> int:
        """Bytes that its layer takes for a moment, beside its values in the model's dtype."""
        return self.values * QUANTIZATIONS[self.dtype].unpacking_bytes

    @property
    def copy_bytes(self) -> int:
        """Bytes of each value in another dtype than the model's."""
        return 0

    @property
    def copies_output(self) -> bool:
        """Whether its layer makes its result twice: without scales or bias, and with them."""
        return True


def tensors_of(header: Header) -> Mapping[str, Tensor | QuantizedTensor]:
    """Return a file's tensors by name, with weights that are stored in parts as one.

    Raises:
        NotSafetensors: the parts of a weight do not fit each other, or are of a class that cannot be used.
    """
    names = [key.removesuffix(_VALUES) for key in header.tensors if key.endswith(_VALUES)]
    if not names:
        return header.tensors
    found: dict[str, Tensor | QuantizedTensor] = dict(header.tensors)
    for name in names:
        parts, found[f"{name}.weight"] = _parts_of(header, name)
        for part in parts:
            del found[part]
    _check_entries(header, found)
    return found


def _parts_of(header: Header, name: str) -> tuple[list[str], QuantizedTensor]:
    """The names of a weight's parts, and the weight."""
    entry, values = _entry(header, f"{name}.weight"), header.tensors[f"{name}{_VALUES}"]
    rows, columns = values.shape if len(values.shape) == 2 else (0, 0)
    for kind, (dtypes, said) in _STORED.items():
        parts = {f"{name}._weight_{part}": (dtype, (rows, 1)) for part, dtype in dtypes.items()}
        parts[f"{name}{_VALUES}"] = (dtypes["qdata"], (rows, columns))
        tensors = {key: header.tensors[key] for key in parts if key in header.tensors}
        found = {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
        expected = {
            "_type": QUANTIZATIONS[kind].tensor,
            "_data": {**said, "block_size": [1, columns]},
            "_tensor_data_names": sorted(dtypes),
        }
        if found == parts and _without_dtype(entry) == expected:
            return list(parts), QuantizedTensor(kind, (rows, columns))
    raise NotSafetensors(f"has {name[:80]}.weight quantized in a way that is not supported, or is damaged")


def _without_dtype(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A weight's entry without the dtype of its values, if that is a usual one, and with its parts in order."""
    data, parts = entry.get("_data"), entry.get("_tensor_data_names")
    if isinstance(data, dict) and data.get("dtype") in _DTYPES:
        data = {key: value for key, value in data.items() if key != "dtype"}
    names = sorted(map(str, parts)) if isinstance(parts, list) else parts
    return {**entry, "_data": data, "_tensor_data_names": names}


def _check_entries(header: Header, found: Mapping[str, object]) -> None:
    """Refuse metadata of other weights, from which a library would make something."""
    try:
        names = json.loads(header.metadata.get(_NAMES, ""))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NotSafetensors(f"is damaged: its metadata has no list {_NAMES}")
    for name in names:
        if not isinstance(found.get(name), QuantizedTensor) and _entry(header, name) != {"_type": "Tensor"}:
            raise NotSafetensors(f"is damaged: its metadata describes {name[:80]} otherwise than the file has it")


def _entry(header: Header, name: str) -> dict[str, Any]:
    try:
        entry = json.loads(header.metadata.get(name, ""))
    except (ValueError, RecursionError):
        entry = None
    return entry if isinstance(entry, dict) else {}
