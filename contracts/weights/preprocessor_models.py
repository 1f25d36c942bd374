"""A preprocessor from its folder: whether it is a model of its kind, and its memory. Loads nothing.

Classes of transformers: `DPTForDepthEstimation` (Ranftl et al., arXiv 2103.13413),
`DepthAnythingForDepthEstimation` (Yang et al., arXiv 2401.10891), `SegformerForSemanticSegmentation` (Xie et al.,
arXiv 2105.15203), `UperNetForSemanticSegmentation` (Xiao et al., arXiv 1807.10221) and
`VitPoseForPoseEstimation` (Xu et al., arXiv 2204.12484).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.catalogue.rows.networks import MapKind
from contracts.errors import CatalogueError
from contracts.hub.errors import HubRefused
from contracts.hub.repository_files import RepositoryFiles
from contracts.hub.selection import IMAGE_MODEL_CONFIGS, component_weights
from contracts.weights.configs import read_config
from contracts.weights.counts.parameter_counts import count_files

#: Classes of ADE20K, and joints of COCO's people: a control image has a color for each.
ADE20K_CLASSES, COCO_JOINTS = 150, 17
#: Backbones of UperNet that compute with transformers alone, and that published files have.
_BACKBONES = ("convnext", "swin")
_Config = Mapping[str, Any]


@dataclass(frozen=True)
class PreprocessorFacts:
    """A preprocessor, by its configuration and its files' headers.

    Attributes:
        class_name: of transformers.
        values: of its weights.
        pixel_values: an upper bound of the values that it holds at once for each pixel of its input.
    """

    class_name: str
    values: int
    pixel_values: int


def read_preprocessor(folder: Path, kind: MapKind) -> PreprocessorFacts:
    """Read what a folder in transformers' layout holds.

    Raises:
        CatalogueError: it is not a model of a class of this kind, lacks a file, or has no safetensors weights.
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
    if not isinstance(named, str) or named not in _CLASSES[kind]:
        shown = str(named or config.get("model_type") or "folder without a class name")[:80]
        raise CatalogueError(f"it is a {shown}; only {' and '.join(_CLASSES[kind])} can run")
    values = count_files([folder / name for name in weights if name.endswith(".safetensors")]).values
    return PreprocessorFacts(named, values, math.ceil(_CLASSES[kind][named](config)))


def _depth(config: _Config) -> float:
    """The head holds the fused features at 16 × 16 positions of each patch, the backbone all layers' states."""
    backbone = _part(config, "backbone_config") or config
    states, layers = _number(backbone, "hidden_size", 768), _number(backbone, "num_hidden_layers", 12)
    patch, fused = _number(backbone, "patch_size", 16), _number(config, "fusion_hidden_size", 256)
    return (256 * (fused + 96) + states * (layers + 8)) / patch**2


def _segformer(config: _Config) -> float:
    """The head joins four feature maps at a quarter of each side; before, the first stage works at that size."""
    _require_labels(config, ADE20K_CLASSES, "classes of ADE20K")
    first, head = _first(config, "hidden_sizes", 32), _number(config, "decoder_hidden_size", 256)
    wide = _first(config, "mlp_ratios", 4)
    return (first * (3 * wide + 6) + 10 * head + 2 * ADE20K_CLASSES) / 16 + 6


def _upernet(config: _Config) -> float:
    """The head joins four feature maps at a quarter of each side; its classes are scaled to the input's size."""
    _require_labels(config, ADE20K_CLASSES, "classes of ADE20K")
    backbone = _part(config, "backbone_config")
    if backbone.get("model_type") not in _BACKBONES:
        shown = str(backbone.get("model_type"))[:80]
        raise CatalogueError(f"its backbone is {shown}; only {' and '.join(_BACKBONES)} can run")
    first = _first(backbone, "hidden_sizes", 96)
    if backbone["model_type"] == "swin":
        first = _number(backbone, "embed_dim", 96)
    windows = 3 * _first(backbone, "num_heads", 3) * _number(backbone, "window_size", 7) ** 2
    head = max(13 * _number(config, "hidden_size", 512) / 16, 2 * ADE20K_CLASSES)
    return head + (18 * first + windows) / 16 + 6


def _vitpose(config: _Config) -> float:
    """The backbone holds all layers' states, and the head scales the last one up."""
    _require_labels(config, COCO_JOINTS, "joints of COCO")
    backbone = _part(config, "backbone_config")
    states, layers = _number(backbone, "hidden_size", 768), _number(backbone, "num_hidden_layers", 12)
    patch, scale = _first(backbone, "patch_size", 16), _number(config, "scale_factor", 4)
    simple = config.get("use_simple_decoder", True)
    head = scale**2 * (states + 2 * COCO_JOINTS) if simple else 16 * (3 * 256 + COCO_JOINTS)
    return (states * (layers + 16) + head) / patch**2 + 6


_CLASSES: Mapping[MapKind, Mapping[str, Callable[[_Config], float]]] = {
    "depth": {"DPTForDepthEstimation": _depth, "DepthAnythingForDepthEstimation": _depth},
    "segmentation": {
        "SegformerForSemanticSegmentation": _segformer,
        "UperNetForSemanticSegmentation": _upernet,
    },
    "pose": {"VitPoseForPoseEstimation": _vitpose},
}


def _require_labels(config: _Config, count: int, noun: str) -> None:
    """Check that a model tells as many things apart as its control images have colors for."""
    labels = config.get("id2label")
    found = len(labels) if isinstance(labels, Mapping) else 0
    if found != count:
        raise CatalogueError(f"its id2label has {found} labels; control images need the {count} {noun}")


def _part(config: _Config, name: str) -> _Config:
    part = config.get(name) or {}
    if not isinstance(part, Mapping):
        raise CatalogueError(f"its {name} must be a JSON object")
    return part


def _first(config: _Config, name: str, usual: int) -> int:
    """A number of which there may be one for each stage or axis: the first."""
    value = config.get(name, usual)
    return _number({name: value[0]} if isinstance(value, list) and value else config, name, usual)


def _number(config: _Config, name: str, usual: int) -> int:
    """A number; `usual` is transformers' default if the configuration leaves it out."""
    value = config.get(name, usual)
    if not isinstance(value, int) or value < 1:
        raise CatalogueError(f"its {name} must be a positive whole number, got {str(value)[:80]}")
    return value
