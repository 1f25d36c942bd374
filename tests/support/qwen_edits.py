"""Checkpoints of Qwen-Image's edits: random ones of its published classes, with the processor that reads images.

References are scaled to 64² pixels instead of a megapixel while `small_references` is active.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import pytest
import transformers
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as edit_plus

from contracts.catalogue.catalogue import Catalogue
from contracts.catalogue.rows.models import ModelSpec
from contracts.weights.checkpoint_limits import with_checkpoint_limits
from tests.support.untrained import qwen_image

#: Id of the row -> class of the checkpoint.
EDITS = MappingProxyType(
    {
        "tiny-qwen-edit": "QwenImageEditPipeline",
        "tiny-qwen-edit-plus": "QwenImageEditPlusPipeline",
        "tiny-qwen-layered": "QwenImageLayeredPipeline",
    }
)
_SMALL = 64 * 64


def with_qwen_edits(catalogue: Catalogue, folder: Path) -> Catalogue:
    """The catalogue with a row of family `qwen-image` for each class, whose checkpoint is written."""
    rows = [_row(id, write_checkpoint(folder / id, pipeline)) for id, pipeline in EDITS.items()]
    return with_checkpoint_limits(catalogue.model_copy(update={"models": (*catalogue.models, *rows)}))


def write_checkpoint(folder: Path, pipeline: str) -> Path:
    """Write a checkpoint in diffusers layout."""
    made = qwen_image.pipeline(getattr(diffusers, pipeline))
    made.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder / "processor")
    sizes = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    transformers.Qwen2VLImageProcessorPil(**sizes).save_pretrained(folder / "processor")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": pipeline, "processor": ["transformers", "Qwen2VLProcessor"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@contextmanager
def small_references() -> Iterator[None]:
    """Inside, diffusers scales references to 64² pixels, which are 4 tokens instead of thousands."""
    published = edit.calculate_dimensions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edit, "calculate_dimensions", lambda _area, ratio: published(_SMALL, ratio))
        patch.setattr(edit_plus, "VAE_IMAGE_SIZE", _SMALL)
        patch.setattr(edit_plus, "CONDITION_IMAGE_SIZE", _SMALL)
        yield


class ImageProcessor(transformers.ProcessorMixin):  # type: ignore[misc]
    """Stands in for `Qwen2VLProcessor`, which needs torchvision: as many tokens in a text as its images have."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.image_processor = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)

    def __call__(self, text: list[str], images: Any, padding: bool, return_tensors: str) -> Any:
        """Token ids, their mask, pixels and grids."""
        seen = self.image_processor(images=images, return_tensors=return_tensors)
        (written,) = text
        for grid in seen["image_grid_thw"]:
            written = written.replace("<|image_pad|>", "<|video_pad|>" * (int(grid.prod()) // 4), 1)
        written = written.replace("<|video_pad|>", "<|image_pad|>")
        words = self.tokenizer([written], padding=padding, return_tensors=return_tensors)
        return transformers.BatchFeature({**words, **seen})


def _row(id: str, folder: Path) -> ModelSpec:
    defaults = {"width": 64, "height": 64, "num_inference_steps": 3}
    return ModelSpec(id=id, family="qwen-image", source=str(folder), defaults=defaults, max_pixels=65_536)
