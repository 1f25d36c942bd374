"""Denoisers whose linear layers torchao quantizes while they are loaded, through diffusers' own quantizer.

The package `torchao` is optional, and needed only for rows that name a quantization.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from diffusers import TorchAoConfig

from contracts.catalogue.quantizations import QUANTIZATIONS
from contracts.errors import CatalogueError

_PACKAGE, _EXTRA = "torchao", "quantization-torchao"


def require_package(quantization: str | None) -> None:
    """Refuse a row's quantization where the package that does it is not installed; raises CatalogueError."""
    if quantization in QUANTIZATIONS and find_spec(_PACKAGE) is None:
        raise CatalogueError(
            f"its quantization {quantization} needs the package {_PACKAGE}: pip install 'darkroom[{_EXTRA}]'"
        )


def quantizer(quantization: str | None) -> TorchAoConfig | None:
    """Return the configuration with which diffusers quantizes a denoiser; None where the row names none.

    Raises:
        CatalogueError: the package `torchao` is not installed.
    """
    if quantization is None or quantization not in QUANTIZATIONS:
        return None
    require_package(quantization)
    import torchao.quantization as kinds

    kind: Any = getattr(kinds, QUANTIZATIONS[quantization].config)
    # Settings for torch.compile are the whole process's, and denoisers that are quantized are not compiled.
    return TorchAoConfig(kind(set_inductor_config=False))
