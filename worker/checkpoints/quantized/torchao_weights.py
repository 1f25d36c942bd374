"""Denoisers that torchao quantizes while they are loaded, or has before, through diffusers' own quantizer.

The package `torchao` is optional, and needed only for these.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import TorchAoConfig
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.errors import CatalogueError
from contracts.weights.quantized import read_folder_quantization

_PACKAGE, _EXTRA = "torchao", "quantization-torchao"


def require_package(quantization: str | None) -> None:
    """Refuse a row's quantization where the package that does it is not installed; raises CatalogueError."""
    if quantization in QUANTIZATIONS and find_spec(_PACKAGE) is None:
        raise CatalogueError(
            f"its quantization {quantization} needs the package {_PACKAGE}: pip install 'darkroom[{_EXTRA}]'"
        )


def check_quantization(quantization: str | None, stored: str | None) -> None:
    """Check that a denoiser can be quantized as its row says.

    Args:
        quantization: as the row names it.
        stored: how it is quantized already.

    Raises:
        CatalogueError: it is quantized already in another way; or the package `torchao` is not installed.
    """
    if stored is not None and quantization not in (None, stored):
        raise CatalogueError(f"it is quantized already, as {stored}: leave `quantization` out of its row")
    require_package(stored or quantization)


def refuse_quantized(config: Path) -> None:
    """Refuse a folder whose denoiser is quantized as the `config` of a single file; raises CatalogueError."""
    stored = read_folder_quantization(config)
    if stored is not None:
        raise CatalogueError(
            f"the denoiser of its `config` is quantized, as {stored}: name a checkpoint that is not"
        )


def quantizer(quantization: str | None, stored: str | None = None) -> TorchAoConfig | None:
    """Return the configuration with which diffusers quantizes a denoiser; None: it does not, or knows it itself.

    Raises:
        CatalogueError: as `check_quantization`.
    """
    check_quantization(quantization, stored)
    if stored is not None or quantization is None or quantization not in QUANTIZATIONS:
        return None
    import torchao.quantization as kinds

    kind: Any = getattr(kinds, QUANTIZATIONS[quantization].config)
    # Settings for torch.compile are the whole process's, and denoisers that are quantized are not compiled.
    return TorchAoConfig(kind(set_inductor_config=False))


def quantize(denoiser: torch.nn.Module, quantization: str | None) -> None:
    """Quantize a denoiser that was loaded from one file; None: leave it as it is.

    diffusers (0.42) takes the weights of a single file for quantized ones: `from_single_file` changes none.
    """
    packing = quantizer(quantization)
    if packing is not None:
        from torchao.quantization import quantize_

        quantize_(denoiser, packing.quant_type)


def compute_in(denoiser: torch.nn.Module, dtype: torch.dtype) -> None:
    """Have weights that were quantized before they were saved stand for values of this dtype, not of another."""
    for layer in denoiser.modules():
        weight: Any = getattr(layer, "weight", None)
        if not is_traceable_wrapper_subclass(weight):
            continue
        settings: Any
        names, settings = weight.__tensor_flatten__()
        if settings["dtype"] != dtype:
            inside = {name: getattr(weight, name) for name in names}
            settings = {**settings, "dtype": dtype}
            made = type(weight).__tensor_unflatten__(inside, settings, weight.shape, weight.stride())
            layer.weight = torch.nn.Parameter(made, requires_grad=False)
