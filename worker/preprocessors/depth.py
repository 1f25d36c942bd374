"""Depths of an image, as transformers' pipeline (5.23) shows them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from worker.networks.images import Pixels, require_finite
from worker.preprocessors.loading import Prepared

#: The most values that are held for each pixel of a map.
MAP_VALUES = 3


def prepare(processor: Any, image: Image.Image) -> Any:
    """What the model is given: the image in a size that the folder says."""
    return processor(images=image, return_tensors="pt")


def depth_map(image: Prepared) -> Pixels:
    """The depths of an image (height, width) of 0…255.

    Raises:
        JobFailed: the output is not finite.
    """
    with torch.inference_mode():
        output = image.model(**image.given.to(image.model.device))
        (made,) = image.processor.post_process_depth_estimation(output, [image.size[::-1]])
    depth = made["predicted_depth"]
    require_finite(depth, "preprocessor")
    values = depth.cpu().numpy()
    span = values.max() - values.min()
    if span == 0:  # an image without depth: the pipeline would divide by zero
        return np.zeros(values.shape, np.uint8)
    pixels: Pixels = ((values - values.min()) / span * 255).astype(np.uint8)
    return pixels
