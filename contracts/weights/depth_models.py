"""What the folder of a depth model tells: that it is one, and what memory it takes. Loads nothing.

Classes: transformers' `DPTForDepthEstimation` (Ranftl et al., arXiv 2103.13413) and
`DepthAnythingForDepthEstimation` (Yang et al., arXiv 2401.10891).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.selection import IMAGE_MODEL_CONFIGS, RepositoryFiles, component_weights
from contracts.weights.parameter_counts import count_files, read_config

CLASSES = ("DPTForDepthEstimation", "DepthAnythingForDepthEstimation")
#: transformers' defaults of what a configuration may leave out.
_FUSION, _STATES, _LAYERS, _PATCH = 256, 768, 12, 16


@dataclass(frozen=True)
class DepthFacts:
    """A depth model, by its configuration and its files' headers.

    Attributes:
        values: of its weights.
        pixel_values: an upper bound of the values that it holds at once for each pixel of its input.
    """

    values: int
    pixel_values: int


def read_depth_model(folder: Path) -> DepthFacts:
    """Read what a folder in transformers' layout holds.

    Raises:
        CatalogueError: it is not a depth model of a known class, lacks a file, or its weights are not safetensors.
    """
    if not folder.is_dir():
        raise CatalogueError("it must be a folder with config.json, preprocessor_config.json and weights")
    try:
        files = RepositoryFiles.in_folder(folder)
        weights = component_weights(files, "", None)
    except HubRefused as error:
        raise CatalogueError(str(error)) from None
    missing = [name for name in IMAGE_MODEL_CONFIGS if name not in files.names]
    if missing or not weights:
        raise CatalogueError(f"the folder has no {missing[0] if missing else 'model.safetensors'}")
    config = read_config(folder)
    named = next(iter(config.get("architectures") or []), None)
    if named not in CLASSES:
        shown = str(named or config.get("model_type") or "folder without a class name")[:80]
        raise CatalogueError(f"it is a {shown}; only {' and '.join(CLASSES)} can run")
    values = count_files([folder / name for name in weights if name.endswith(".safetensors")]).values
    return DepthFacts(values, _pixel_values(config))


def _pixel_values(config: Mapping[str, Any]) -> int:
    """The head holds the fused features at 16 × 16 positions of each patch, the backbone all layers' states."""
    backbone = config.get("backbone_config") or config
    states, layers = _number(backbone, "hidden_size", _STATES), _number(backbone, "num_hidden_layers", _LAYERS)
    patch, fused = _number(backbone, "patch_size", _PATCH), _number(config, "fusion_hidden_size", _FUSION)
    return math.ceil((256 * (fused + 96) + states * (layers + 8)) / patch**2)


def _number(config: Mapping[str, Any], name: str, usual: int) -> int:
    value = config.get(name, usual)
    if not isinstance(value, int) or value < 1:
        raise CatalogueError(f"its {name} must be a positive whole number, got {str(value)[:80]}")
    return value
