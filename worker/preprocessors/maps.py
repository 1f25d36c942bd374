"""A control image that a model makes: prepared on the CPU, its memory planned, the model loaded, the image made.

Knows no job and no catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from contracts.catalogue.rows.networks import MapKind
from contracts.memory.sizes.networks import SCRATCH_BYTES, VALUE_BYTES
from contracts.weights.preprocessor_models import PreprocessorFacts, read_preprocessor
from worker.networks.images import Pixels
from worker.preprocessors import depth, pose, segmentation
from worker.preprocessors.loading import Prepared, load_model, load_processor

#: Option of a preprocessor -> its value.
Options = Mapping[str, float]


@dataclass(frozen=True)
class _Way:
    """The way in which one kind of model makes a control image.

    Attributes:
        prepare: makes what the model is given of an image, with the folder's processor.
        make: runs the model on that.
        map_values: the most values that it then holds for each pixel of the control image.
    """

    prepare: Callable[[Any, Image.Image], Any]
    make: Callable[[Prepared], Pixels]
    map_values: int


_WAYS: Mapping[MapKind, _Way] = {
    "depth": _Way(depth.prepare, depth.depth_map, depth.MAP_VALUES),
    "segmentation": _Way(depth.prepare, segmentation.color_map, segmentation.MAP_VALUES),
    "pose": _Way(pose.prepare, pose.pose_map, 0),
}


class ControlMap:
    """One control image, before it is made.

    Attributes:
        plan: the name of its plan.
        planned_bytes: the most device memory that making it takes, its model's weights included.
    """

    def __init__(self, folder: Path, kind: MapKind, image: Image.Image, options: Options) -> None:
        """
        Args:
            folder: of the model.
            image: RGB, in the size of the control image.
            options: all of the kind's.

        Raises:
            CatalogueError: the folder does not hold a model of this kind.
            Exception: whatever transformers raises for damaged files.
        """
        self._folder, self._size, self._options = folder, image.size, options
        self._way, self._facts = _WAYS[kind], read_preprocessor(folder, kind)
        self._processor = load_processor(folder)
        self._given = self._way.prepare(self._processor, image)
        self._model: Any = None
        height, width = self._given["pixel_values"].shape[-2:]
        self.plan = f"at {width} × {height} pixels"
        self.planned_bytes = planned_bytes(self._facts, kind, (width, height), image.size)

    def load(self, device: torch.device) -> None:
        """Load the model; raises as `load_model`."""
        self._model = load_model(self._folder, self._facts, device)

    def make(self) -> Image.Image:
        """Make it, RGB, once the model is loaded.

        Raises:
            JobFailed: the output is not finite.
        """
        prepared = Prepared(self._model, self._processor, self._given, self._size, self._options)
        return Image.fromarray(self._way.make(prepared)).convert("RGB")


def planned_bytes(facts: PreprocessorFacts, kind: MapKind, given: tuple[int, int], made: tuple[int, int]) -> int:
    """The most device memory that a model takes for an input and a control image of these sides, in pixels."""
    values = facts.values + given[0] * given[1] * facts.pixel_values + _WAYS[kind].map_values * made[0] * made[1]
    return values * VALUE_BYTES + SCRATCH_BYTES


def on_white(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image in this size, transparent parts white, as other preprocessors see it."""
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
    return image
