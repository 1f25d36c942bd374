"""A preprocessor's model and what prepares images for it, from a folder in transformers' layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from contracts.weights.preprocessor_models import PreprocessorFacts
from worker.checkpoints.components import check_loaded

#: The first layer of DPT's fusion has no earlier one to add: these exist unused, and files leave them out.
_UNUSED = "neck.fusion_stage.layers.0.residual_layer1."


@dataclass(frozen=True)
class Prepared:
    """A model, and an image that is ready for it.

    Attributes:
        processor: of the model's folder.
        given: what it made of the image.
        size: width and height of the control image.
        options: all of the preprocessor's, by their names.
    """

    model: Any
    processor: Any
    given: Any
    size: tuple[int, int]
    options: Mapping[str, float]


def load_processor(folder: Path) -> Any:
    """What scales and normalizes images for the model, through Pillow whether torchvision is installed or not."""
    return transformers.AutoImageProcessor.from_pretrained(
        folder, backend="pil", local_files_only=True, trust_remote_code=False
    )


def load_model(folder: Path, facts: PreprocessorFacts, device: torch.device) -> Any:
    """Load a model in float32, for inference.

    Raises:
        CatalogueError: weights are missing, of another shape, or belong to no layer.
        Exception: whatever transformers raises for damaged files.
    """
    model, found = getattr(transformers, facts.class_name).from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
    )
    missing = [name for name in found["missing_keys"] if not name.startswith(_UNUSED)]
    check_loaded("the preprocessor", {**found, "missing_keys": missing})
    return model.to(device).eval()
