"""Denoisers and text encoders that torchao quantizes while they are loaded, or has before.

Through the quantizers of diffusers and transformers. The package `torchao` is optional, and needed only for these.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.catalogue.rows.models import ModelSpec
from contracts.errors import CatalogueError
from contracts.weights.quantized import check_stored, read_folder_quantization
from worker.checkpoints.quantized import bitsandbytes_weights
from worker.families import DiffusersFamily

_PACKAGE, _EXTRA = "torchao", "quantization-torchao"


def require_package(quantization: str | None) -> None:
    """Refuse a row's quantization where the package that does it, or a card that it needs, is not there.

    Raises:
        CatalogueError: what is missing, and what to do.
    """
    if quantization is not None and bitsandbytes_weights.makes(quantization):
        bitsandbytes_weights.require_card(quantization)
    elif quantization in QUANTIZATIONS and find_spec(_PACKAGE) is None:
        raise CatalogueError(
            f"its quantization {quantization} needs the package {_PACKAGE}: pip install 'darkroom[{_EXTRA}]'"
        )


def check_quantization(name: str, quantization: str | None, stored: str | None) -> None:
    """Check that a component can be quantized as its row says.

    Args:
        name: of the component.
        quantization: as the row names it.
        stored: how it is quantized already.

    Raises:
        CatalogueError: it is quantized already in another way; or the package `torchao` is not installed.
    """
    check_stored(name, quantization, stored)
    require_package(stored or quantization)


def quantizations_of(spec: ModelSpec, family: DiffusersFamily) -> dict[str, str | None]:
    """Component -> how a model's row says that it is quantized."""
    return {family.denoiser: spec.quantization, **spec.text_encoder_quantization}


def refuse_quantized(config: Path) -> None:
    """Refuse a folder whose denoiser is quantized as the `config` of a single file; raises CatalogueError."""
    stored = read_folder_quantization(config)
    if stored is not None:
        raise CatalogueError(
            f"the denoiser of its `config` is quantized, as {stored}: name a checkpoint that is not"
        )


def quantizer(quantization: str | None, model_class: Any, dtype: torch.dtype) -> Any:
    """Return the configuration with which the library of a class quantizes its models; None: it does not.

    Args:
        dtype: in which the model computes.

    Raises:
        CatalogueError: as `require_package`.
    """
    require_package(quantization)
    if quantization is None or quantization not in QUANTIZATIONS:
        return None
    if bitsandbytes_weights.makes(quantization):
        return bitsandbytes_weights.quantizer(quantization, dtype)
    import torchao.quantization as kinds

    kind: Any = getattr(kinds, QUANTIZATIONS[quantization].config)
    library = transformers if issubclass(model_class, transformers.PreTrainedModel) else diffusers
    # Settings for torch.compile are the whole process's, and denoisers that are quantized are not compiled.
    return library.TorchAoConfig(kind(set_inductor_config=False))


def quantize(model: torch.nn.Module, quantization: str | None) -> None:
    """Quantize a denoiser or text encoder that was loaded from one file; None: leave it as it is.

    diffusers (0.42) takes the weights of a single file for quantized ones: `from_single_file` changes none.
    """
    packing = quantizer(quantization, type(model), next(model.parameters()).dtype)
    if packing is not None:
        from torchao.quantization import quantize_

        quantize_(model, packing.quant_type, _filter_of(model))


def _filter_of(model: torch.nn.Module) -> Callable[[torch.nn.Module, str], bool] | None:
    """Which layers the quantizer of transformers takes, by the rule that it has; None: all linear ones."""
    if not isinstance(model, transformers.PreTrainedModel):
        return None
    left: list[str] = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return lambda layer, name: isinstance(layer, torch.nn.Linear) and should_convert_module(f"{name}.weight", left)
