"""Weights that torchao or bitsandbytes quantized before they were saved, by the headers of their files.

Each of torchao's is stored in parts (`X._weight_qdata`, `X._weight_scale`), and the file's metadata says of which
class it is. diffusers makes objects from what it finds there, so here only what torchao (0.18) itself writes for
the quantizations that a row can name is taken.
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
        shape: of its values; of bitsandbytes' 4 bits the header says only how many there are.
        found_bytes: of what its file has for it; None: as its kind has it.
    """

    dtype: str
    shape: tuple[int, ...]
    found_bytes: int | None = None

    @property
    def values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of its values and scales."""
        if self.found_bytes is not None:
            return self.found_bytes
        return QUANTIZATIONS[self.dtype].stored_bytes(self.values, self.shape[0])

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
        return bitsandbytes_tensors(header.tensors)
    found: dict[str, Tensor | QuantizedTensor] = dict(header.tensors)
    for name in names:
        parts, found[f"{name}.weight"] = _parts_of(header, name)
        for part in parts:
            del found[part]
    _check_entries(header, found)
    return found


#: What bitsandbytes (0.50) stores beside a weight of 4 bits -> its dtypes. With `nested_…` the scales have scales.
_NF4_STATE = ".quant_state.bitsandbytes__nf4"
_NF4_PARTS: Mapping[str, tuple[str, ...]] = {
    ".absmax": ("F32", "U8"), ".quant_map": ("F32",), ".nested_absmax": ("F32",), ".nested_quant_map": ("F32",),
}  # fmt: skip
#: Beside one of 8 bits: scales of its rows, and the order of its values.
_SCALES, _ORDER = ".SCB", ".weight_format"
#: The mean of scales that have scales, which the state says.
_OFFSET_BYTES = 4


def bitsandbytes_tensors(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor | QuantizedTensor]:
    """Return tensors with bitsandbytes' weights as one each; the same where there are none.

    Raises:
        NotSafetensors: the parts of a weight do not fit each other.
    """
    four = [key.removesuffix(_NF4_STATE) for key in tensors if key.endswith(_NF4_STATE)]
    eight = [key.removesuffix(_SCALES) for key in tensors if key.endswith(_SCALES)]
    if not four and not eight:
        return tensors
    found: dict[str, Tensor | QuantizedTensor] = dict(tensors)
    for weight in four:
        parts = {part: tensors[weight + part] for part in _NF4_PARTS if weight + part in tensors}
        values = tensors.get(weight)
        whole = {".absmax", ".quant_map"} <= parts.keys() and len(parts) in (2, 4)
        if values is None or values.dtype != "U8" or not whole or not _are_of(parts, _NF4_PARTS):
            raise NotSafetensors(f"has {weight[:80]} in 4 bits without all of its parts, or is damaged")
        size = sum(part.end - part.begin for part in (values, *parts.values())) + _OFFSET_BYTES * (len(parts) == 4)
        found[weight] = QuantizedTensor("bitsandbytes_nf4", (2 * values.values,), size)
        for part in (*parts, _NF4_STATE):
            del found[weight + part]
    for layer in eight:
        values, scales = tensors.get(f"{layer}.weight"), tensors[layer + _SCALES]
        if values is None or values.dtype != "I8" or (scales.dtype, scales.shape) != ("F32", values.shape[:1]):
            raise NotSafetensors(f"has {layer[:80]}.weight in 8 bits without its rows' scales, or is damaged")
        found[f"{layer}.weight"] = QuantizedTensor("bitsandbytes_int8", values.shape)
        del found[layer + _SCALES]
        found.pop(layer + _ORDER, None)
    return found


def _are_of(parts: Mapping[str, Tensor], dtypes: Mapping[str, tuple[str, ...]]) -> bool:
    return all(part.dtype in dtypes[name] for name, part in parts.items())


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
