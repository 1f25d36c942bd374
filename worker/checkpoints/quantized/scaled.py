"""Weights that a file stores in 8 bits with a scale beside them, as ComfyUI writes them: multiplied out.

Layouts: `X.scale_weight` (with `X.scale_input`, which only a matrix product in 8 bits would use, and the marker
`scaled_fp8`) and `X.weight_scale` (with `X.input_scale` and a description in `X.comfy_quant`).
"""

from __future__ import annotations

import json

import torch

from contracts.errors import CatalogueError

Tensors = dict[str, torch.Tensor]

_SCALES = (".scale_weight", ".weight_scale")
_FOR_INPUTS = (".scale_input", ".input_scale")
_DESCRIPTION = ".comfy_quant"
_MARKER = "scaled_fp8"
_FLOAT8 = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}


def unscaled(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Return the tensors with each scale multiplied into its weight, rounded once, to `dtype`.

    Raises:
        CatalogueError: a scale has no weight or does not fit it, or the weights are in another format.
    """
    result = dict(tensors)
    for name in tensors:
        if name.endswith(_DESCRIPTION):
            _check_format(name, result.pop(name))
        elif name.endswith(_FOR_INPUTS) or name.rpartition(".")[2] == _MARKER:
            del result[name]
    for name in [name for name in result if name.endswith(_SCALES)]:
        weight = f"{name.rpartition('.')[0]}.weight"
        scale = result.pop(name)
        if weight not in result:
            raise CatalogueError(f"{name[:120]} in the file scales {weight[:120]}, which is not there")
        result[weight] = _multiply(name, result[weight], scale, dtype)
    for name, tensor in result.items():
        if name.endswith(".weight") and not tensor.dtype.is_floating_point:
            raise CatalogueError(f"{name[:120]} in the file is in {tensor.dtype}, whose scales are missing")
    return result


def _multiply(name: str, weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rows = weight.shape[0] if weight.dim() else 1
    if scale.numel() not in (1, rows) or scale.numel() != max(scale.shape, default=1) or weight.itemsize > 4:
        raise CatalogueError(
            f"{name[:120]} in the file has the shape {list(scale.shape)}; one scale, or one a row of the weight "
            f"({rows}), can be used"
        )
    if not scale.dtype.is_floating_point or weight.dtype in (torch.uint8, torch.int8):
        raise CatalogueError(
            f"{name[:120]} in the file belongs to a weight in {weight.dtype}, which is not supported"
        )
    factors = (
        scale.to(torch.float32).reshape(-1, *[1] * (weight.dim() - 1)) if scale.numel() > 1 else scale.float()
    )
    return (weight.to(torch.float32) * factors.reshape(-1, *[1] * (weight.dim() - 1))).to(dtype)


def _check_format(name: str, description: torch.Tensor) -> None:
    try:
        stored = json.loads(bytes(description.flatten().tolist()))["format"]
    except (ValueError, KeyError, TypeError):
        stored = "unknown"
    if stored not in _FLOAT8:
        raise CatalogueError(
            f"{name[:120]} in the file says {str(stored)[:40]}; supported are {', '.join(_FLOAT8)}"
        )
